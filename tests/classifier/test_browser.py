"""The classifier's page in a real Chromium: served by Voilà, and in JupyterLab.

One server and one page each; the network is a small matrix (`fake_classifier`), all
else is real. Set NEBULA_SCREENSHOTS to a folder to look at the page.
"""

import base64
import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from odd_pictures import make_bad, make_good

from nebula_utils import config
from nebula_utils.classifier.serving import TEMPLATE, make_environment

pytestmark = pytest.mark.browser

TESTS = Path(__file__).parents[1]
FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --no-first-run"
PATIENCE = 60_000  # ms
START = 180  # s, for a server or a kernel to start on a machine that is busy
CODE = f"""
import sys
sys.path[:0] = [{str(config.REPOSITORY)!r}, {str(TESTS)!r}]
from fake_classifier import make_classifier
from nebula_utils.classifier.widget import build_app
build_app(make_classifier(), card="# A card")
"""
# What could lie over the page: JupyterLab asks about news and updates at its start.
QUIET = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
SETTINGS = Path("settings/@jupyterlab/apputils-extension")
LOCAL = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "about:")
CLEAR = """() => {
  document.querySelector('.nebula-status').textContent = '';
  document.querySelector('.nebula-drop .nebula-problems').replaceChildren();
}"""
SETTLED = """() => {
  const status = document.querySelector('.nebula-status');
  const isBusy = !document.querySelector('.nebula-progress').hidden;
  const isRefused = document.querySelector('.nebula-drop .nebula-problems li');
  const isAnswered = status.textContent && !status.textContent.endsWith('…');
  return !isBusy && (isAnswered || isRefused);
}"""

# All texts of the app whose contrast with what is behind them is below WCAG's 4.5.
FAINT = """() => {
  const parse = (colour) => (colour.match(/[0-9.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const isSeen = ([, , , alpha = 1]) => alpha > 0.5;
  const linear = (c) => (c <= 10 ? c / 3295 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) =>
    0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (e) => {
    const back = e ? parse(getComputedStyle(e).backgroundColor) : [255, 255, 255];
    return isSeen(back) ? back : behind(e.parentElement);
  };
  const hasText = (e) =>
    e.checkVisibility() && (e.value || [...e.childNodes].some(
      (node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
  return [...document.querySelectorAll('.nebula-app *')].filter(hasText).map((e) => {
    const pair = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    return [ratio, `${e.tagName} ${e.className}: ${e.value || e.innerText}`];
  }).filter(([ratio]) => ratio < 4.5);
}"""


def find_chromium() -> str:
    """Return Chromium's path; without one skip, but fail where CI is true."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    message = "no Chromium here: run scripts/install_chromium.sh as root"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def isolate(folder: Path) -> dict[str, str]:
    """Return the variables that keep the user's own Jupyter out of a test."""
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "spaces",
        "IPYTHONDIR": "ipython",
    }
    return {name: str(folder / part) for name, part in folders.items()}


def write_notebook(path: Path) -> None:
    """Write the page's notebook: a cell with the app, and one that must not run."""
    nb = nbformat.v4.new_notebook()
    nb.metadata.kernelspec = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    cell = nbformat.v4.new_code_cell
    hidden = cell("raise ValueError", metadata={"tags": ["notebook-only"]})
    nb.cells = [cell(CODE.strip()), hidden]
    nbformat.write(nb, path)


class Server:
    """A server process with the page's notebook."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.log = folder / f"{kind}.log"
        self.notebook = folder / "page.ipynb"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.environment = {**os.environ, **isolate(folder)}
        self.command = [sys.executable, "-m"]
        if kind == "voila":
            self.command += ["voila", str(self.notebook), f"--port={self.port}"]
            self.command += [f"--template={TEMPLATE}"]
            self.environment |= make_environment()
        else:
            self.command += ["jupyterlab", "--allow-root", "--no-browser"]
            self.command += [
                f"--ServerApp.port={self.port}",
                "--ServerApp.port_retries=0",
            ]
            self.command += ["--ServerApp.ip=127.0.0.1", "--IdentityProvider.token="]
            self.command += [f"--ServerApp.root_dir={folder}"]
            self.command += ["--LabApp.news_url=None"]
            never = "jupyterlab.NeverCheckForUpdate"
            self.command += [f"--LabApp.check_for_updates_class={never}"]
            self.command += ["--LabApp.extension_manager=readonly"]
            self.url += "lab/tree/page.ipynb"

    def __enter__(self) -> "Server":
        """Write the notebook, start, and wait until the port answers."""
        write_notebook(self.notebook)
        settings = self.notebook.parent / SETTINGS
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text(json.dumps(QUIET))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=config.REPOSITORY,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                time.sleep(0.2)
        self.__exit__()
        raise RuntimeError(self.log.read_text()[-2000:])

    def __exit__(self, *_: object) -> None:
        """End the server, and with it its kernels."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def list_kernels(self) -> list[dict]:
        """Return what JupyterLab's server says of its kernels."""
        url = f"http://127.0.0.1:{self.port}/api/kernels"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)

    def is_ready(self) -> bool:
        """Say whether JupyterLab's page is connected to a kernel that listens."""
        return any(
            kernel["connections"] and kernel["execution_state"] == "idle"
            for kernel in self.list_kernels()
        )


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Start one Chromium for all tests."""
    executable = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable, args=FLAGS.split()
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module", params=["voila", "lab"])
def server(request: pytest.FixtureRequest, tmp_path_factory, browser) -> Iterator:
    """Serve the page."""
    with Server(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Server, browser) -> Iterator:
    """Open the page once; what it asks of the internet is kept in ``outside``."""
    context = browser.new_context(viewport={"width": 1100, "height": 1500})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    opened.outside = []
    context.on(
        "request",
        lambda r: None if r.url.startswith(LOCAL) else opened.outside.append(r.url),
    )
    opened.errors = []
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    # Playwright holds the file dialog back only while someone listens, and a moment
    # after the first one did: without this a dialog sometimes opens and closes unseen.
    opened.on("filechooser", lambda chooser: None)
    from playwright.sync_api import Error

    try:
        opened.goto(server.url)
        if server.kind == "lab":
            run_first_cell(opened, server)
        opened.wait_for_selector(".nebula-drop", timeout=START * 1000)
    except (Error, OSError) as error:
        take_screenshot(opened, f"{server.kind}_failed")
        pytest.fail(f"{error}\n{describe(opened, server)}")
    yield opened
    context.close()


def run_first_cell(page, server: Server) -> None:
    """Run the first cell with the toolbar's button, and see that it was taken.

    JupyterLab shows "idle" before it has a kernel, and then forgets without a word what
    it is told to run. So ask the server for the kernel, and look at the prompt.
    """
    prompt = page.locator(".jp-CodeCell .jp-InputArea-prompt").first
    deadline = time.monotonic() + START
    while prompt.inner_text().strip() in ("", "[ ]:"):
        if time.monotonic() > deadline:
            raise TimeoutError("JupyterLab did not run the cell")
        if server.is_ready():
            page.click(".jp-CodeCell .jp-InputArea-editor >> nth=0")
            page.click("[data-jp-item-name=run] >> nth=0")
        page.wait_for_timeout(1000)


def describe(page, server: Server) -> str:
    """Say what a page that did not start shows, for who can only read the report."""
    shown = {
        "dialogs": ".jp-Dialog, .Toastify__toast",
        "kernel": ".jp-KernelName",
        "prompts": ".jp-InputArea-prompt",
        "outputs": ".jp-OutputArea-output",
    }
    lines = [
        f"{what}: {page.locator(css).all_inner_texts()}" for what, css in shown.items()
    ]
    active = "document.activeElement?.outerHTML.slice(0, 200)"
    lines += [f"focus: {page.evaluate(active)}", f"page's errors: {page.errors}"]
    if server.kind == "lab" and server.process.poll() is None:
        lines.append(f"kernels: {server.list_kernels()}")
    return "\n".join([*lines, "server's log:", server.log.read_text()[-3000:]])


def upload(page, files: dict[str, bytes] | Path) -> str:
    """Choose files; return the status line once all are answered."""
    payload = (
        files
        if isinstance(files, Path)
        else [
            {"name": name, "mimeType": "image/jpeg", "buffer": content}
            for name, content in files.items()
        ]
    )
    page.evaluate(CLEAR)
    page.set_input_files(".nebula-drop-input", payload)
    page.wait_for_function(SETTLED)
    return page.inner_text(".nebula-status")


def take_screenshot(page, name: str) -> None:
    """Keep a picture of the page for people to look at, if they want one."""
    if folder := os.environ.get("NEBULA_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_every_good_file_is_answered(page, server: Server) -> None:
    """All formats at once give a table without a failure."""
    files = make_good()
    assert upload(page, files) == f"{len(files)} pictures done."
    rows = page.locator(".nebula-table tbody tr")
    assert rows.count() == len(files)
    take_screenshot(page, f"{server.kind}_table")


def test_csv_download(page) -> None:
    """The link gives a file with a line for each picture."""
    files = make_good()
    upload(page, files)
    with page.expect_download() as waiting:
        page.click("a.nebula-button")
    assert waiting.value.suggested_filename == "nebula_answers.csv"
    with open(waiting.value.path(), encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == list(files)
    assert sum(float(rows[0][key]) for key in rows[0] if key[:2] == "p_") > 0.99


def test_every_bad_file_is_refused_and_nothing_runs(page, server: Server) -> None:
    """Each bad file gets a reason; no script of a name or a file is executed."""
    files = make_bad()
    n = len(files)
    assert upload(page, files) == f"{n} pictures done, {n} of them can't be used."
    text = page.inner_text(".nebula-table")
    for reason in ("not an image", "too small", "too large", "cut off", "empty"):
        assert reason in text
    assert "Traceback" not in text and "../" not in text
    assert "<img src=x onerror=window.pwned=1>.png" in text
    assert page.evaluate("window.pwned === undefined")
    take_screenshot(page, f"{server.kind}_bad")
    assert upload(page, {"m.png": make_good()["plain.png"]}).startswith("m.png: ")


def test_too_large_is_refused_beside_the_button(page, tmp_path: Path) -> None:
    """61 MB are not sent, and the connection lives on; 12 MB in pieces get through."""
    big = tmp_path / "big.tif"
    with big.open("wb") as stream:
        stream.truncate(61_000_000)
    page.set_input_files(".nebula-drop-input", big)
    page.wait_for_selector(".nebula-drop .nebula-problems li")
    assert "big.tif: not sent, 61 MB is above 60 MB" in page.inner_text(".nebula-drop")
    padded = tmp_path / "padded.jpg"
    padded.write_bytes(make_good()["plain.jpg"] + bytes(12_000_000))
    assert upload(page, padded).startswith("padded.jpg: ")


def test_drop(page) -> None:
    """A file that is dropped is taken as a chosen one."""
    content = base64.b64encode(make_good()["plain.png"]).decode()
    page.evaluate(
        """(content) => {
          document.querySelector('.nebula-status').textContent = '';
          const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
          const data = new DataTransfer();
          data.items.add(new File([bytes], 'dropped.png'));
          document.querySelector('.nebula-drop').dispatchEvent(
            new DragEvent('drop', {dataTransfer: data, bubbles: true}));
        }""",
        content,
    )
    page.wait_for_function(SETTLED)
    assert page.inner_text(".nebula-status").startswith("dropped.png: ")


def test_keyboard_only(page, tmp_path: Path) -> None:
    """Enter on the focused button opens the file dialog; Enter unfolds the types."""
    path = tmp_path / "by_key.png"
    path.write_bytes(make_good()["plain.png"])
    page.focus(".nebula-drop-input")
    with page.expect_file_chooser() as waiting:
        page.keyboard.press("Enter")
    page.evaluate(CLEAR)
    waiting.value.set_files(path)
    page.wait_for_function(SETTLED)
    assert page.inner_text(".nebula-status").startswith("by_key.png: ")
    page.keyboard.press("Tab")
    reached = page.evaluate("document.activeElement.tagName")
    assert reached in ("INPUT", "BUTTON")
    page.focus(".nebula-about summary >> nth=0")
    page.keyboard.press("Enter")
    assert "hides the stars behind it" in page.inner_text(".nebula-about")
    page.keyboard.press("Enter")


def test_types_stand_one_below_the_other(page) -> None:
    """JupyterLab's own style for such a list, parts that float, does not hold here."""
    page.click(".nebula-about summary >> nth=0")
    parts = page.locator(".nebula-types > *").all()
    edges = [part.bounding_box() for part in parts]
    assert len({round(edge["x"]) for edge in edges}) == 1
    assert all(a["y"] < b["y"] for a, b in zip(edges, edges[1:], strict=False))
    page.click(".nebula-about summary >> nth=0")


def test_keys_stay_in_the_app(page) -> None:
    """No key that is meant for the app is a command of JupyterLab's notebook."""
    n = page.locator(".jp-Cell").count()
    app, keys = page.locator(".nebula-app"), "abmxxdd"
    for button in ("input.nebula-drop-input", "button.widget-button", "summary"):
        app.locator(button).first.focus()
        page.keyboard.type(keys)
        assert page.evaluate("document.activeElement.closest('.nebula-app') !== null")
    for field in app.locator(".widget-text input").all():
        field.focus()
        page.keyboard.type(keys)
        assert field.input_value() == keys
        field.fill("")
    assert page.locator(".jp-Cell").count() == n
    assert page.locator(".jp-MarkdownCell").count() == 0


def test_name_look_up(page) -> None:
    """The catalogue's word on the object stands with the answer."""
    upload(page, {"m.png": make_good()["plain.png"]})
    field = page.locator(".nebula-app .widget-text input").last
    field.fill("Thor's Helmet")
    field.press("Enter")
    page.wait_for_selector("text=is an emission nebula in the catalogue")
    assert "The classifier" in page.inner_text(".nebula-words")
    field.fill("<b>Nebbish 7</b>")
    field.press("Enter")
    page.wait_for_selector("text=The catalogue does not know it")
    field.fill("")
    field.press("Enter")


def test_example(page) -> None:
    """A built-in picture is answered, with its credit."""
    page.click("text=LDN 1622")
    page.wait_for_selector("text=Jane Doe, CC BY 4.0")
    assert page.locator(".nebula-answer img").count() == 4


def test_screen_reader_hooks(page) -> None:
    """Pictures have texts, the status and the problems are live regions."""
    assert page.locator(".nebula-answer img:not([alt])").count() == 0
    assert page.get_attribute(".nebula-status", "role") == "status"
    assert page.get_attribute(".nebula-drop .nebula-problems", "role") == "alert"
    assert page.get_by_label("Choose pictures").count() >= 1
    assert page.get_by_label("Object's name").count() == 1


@pytest.mark.parametrize("width", [1100, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_sizes_and_themes(page, server: Server, width: int, scheme: str) -> None:
    """A served page fits a phone, and is dark where the system is."""
    if server.kind == "lab":
        pytest.skip("JupyterLab has its own layout and theme")
    page.set_viewport_size({"width": width, "height": 2400})
    page.emulate_media(color_scheme=scheme)
    upload(page, {"m.png": make_good()["plain.png"]})
    take_screenshot(page, f"page_{scheme}_{width}")
    overflow = "e => e.scrollWidth - e.clientWidth"
    assert page.locator("#rendered_cells").evaluate(overflow) <= 0
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    levels = [int(part) for part in back.strip("rgb()").split(",")[:3]]
    assert max(levels) < 60 if scheme == "dark" else min(levels) > 200
    assert page.evaluate(FAINT) == []


def test_themes_of_jupyterlab(page, server: Server) -> None:
    """All is readable in JupyterLab's light theme and in its dark one."""
    if server.kind == "voila":
        pytest.skip("a served page has no themes to choose from")
    upload(page, {"m.png": make_good()["plain.png"]})
    for theme in ("Light", "Dark"):
        page.click(".lm-MenuBar-itemLabel >> text=Settings")
        page.hover(".lm-Menu-itemLabel >> text=/^Theme$/")
        page.click(f".lm-Menu-itemLabel >> text=/^JupyterLab {theme}$/")
        is_light = str(theme == "Light").lower()
        page.wait_for_selector(
            f"body[data-jp-theme-light={is_light}]", state="attached"
        )
        page.wait_for_selector("#jupyterlab-splash", state="detached")
        take_screenshot(page, f"lab_{theme.lower()}")
        assert page.evaluate(FAINT) == []


def test_the_served_page_gives_nothing_away(server: Server) -> None:
    """No source and no file is served; cells for the notebook alone are left out."""
    if server.kind == "lab":
        pytest.skip("JupyterLab is for one's own machine")
    html = urllib.request.urlopen(server.url, timeout=60).read().decode()
    assert "make_classifier" not in html and "ValueError" not in html
    for path in ("voila/files/page.ipynb", "voila/files/voila.log", "api/contents"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(server.url + path, timeout=20)


def test_code_that_is_sent_is_not_run(server: Server, tmp_path: Path) -> None:
    """A visitor who speaks to the kernel directly can't make it run anything."""
    if server.kind == "lab":
        pytest.skip("in JupyterLab a kernel is the user's own")
    import websocket

    html = urllib.request.urlopen(server.url, timeout=60).read().decode()
    (kernel,) = re.findall(r'"kernelId": "([-0-9a-f]+)"', html)
    channel = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel}/channels"
    connection = websocket.create_connection(channel, timeout=20)
    made = tmp_path / "made"
    for kind in ("execute_request", "kernel_info_request"):
        code = {"code": f"open({str(made)!r}, 'w')", "silent": False}
        header = {"msg_id": kind, "msg_type": kind, "session": "s", "username": ""}
        message = {"header": header | {"version": "5.3"}, "content": code}
        message |= {"parent_header": {}, "metadata": {}, "channel": "shell"}
        connection.send(json.dumps(message))
    while "kernel_info_reply" not in str(connection.recv()):
        pass  # the request after the forbidden one was answered
    connection.close()
    assert not made.exists()


def test_leaving_ends_the_process(server: Server, browser) -> None:
    """Who leaves the page frees its memory; nothing of a picture stays."""
    if server.kind == "lab":
        pytest.skip("in JupyterLab a kernel is the user's own")
    guest = browser.new_page()
    guest.goto(server.url)
    guest.wait_for_selector(".nebula-drop", timeout=PATIENCE)
    guest.goto("about:blank")
    deadline = time.monotonic() + 20
    while "Kernel shutdown" not in server.log.read_text():
        assert time.monotonic() < deadline, "the kernel was not shut down"
        time.sleep(0.2)
    guest.close()


def test_nothing_came_from_the_internet(page) -> None:
    """No request left this machine, from the first to here."""
    assert page.outside == []


@pytest.mark.slow
def test_nebula_app_serves_notebook_06(browser) -> None:
    """`nebula app` with the real model: upload a picture, read the answer."""
    if not (config.MODEL / "model.json").is_file():
        pytest.skip("needs the classifier that `make reproduce` exports")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "nebula_utils", "app", "--port", str(port)]
    process = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, cwd=config.REPOSITORY
    )
    page = browser.new_page()
    try:
        for _ in range(150):
            try:
                page.goto(f"http://127.0.0.1:{port}/")
                break
            except Exception:
                time.sleep(0.4)
        page.wait_for_selector(".nebula-drop", timeout=PATIENCE)
        assert upload(page, {"m.png": make_good()["plain.png"]}).startswith("m.png: ")
        about = json.loads((config.MODEL / "model.json").read_text())
        assert page.locator(".nebula-bars tr").count() == len(about["classes"])
        assert page.get_by_label("Path").count() == 0
    finally:
        page.close()
        process.terminate()
        process.wait(20)

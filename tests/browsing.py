"""What the browser tests share: a server with the page, and ways to use it."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from nebula_utils import config
from nebula_utils.classifier.serving import list_options, make_environment
from nebula_utils.classifier.upload import STATIC

TESTS = Path(__file__).parent
FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --no-first-run"
PATIENCE = 60_000  # ms
SIZE = {"width": 1100, "height": 1500}  # px
START = 180  # s, for a server or a kernel to start on a machine that is busy
CODE = f"""
import sys
sys.path[:0] = [{str(config.REPOSITORY)!r}, {str(TESTS)!r}]
from fake_classifier import make_classifier
from nebula_utils.classifier.widget import build_app
build_app(make_classifier(), card="# A card")
"""
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
    e.checkVisibility() && ((e.type !== 'range' && e.value) || [...e.childNodes].some(
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

    def __init__(self, kind: str, folder: Path, *options: str) -> None:
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
            self.command += list_options()
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
            # As `make lab` does: without it JupyterLab asks about news at its start.
            self.command += [f"--LabApp.app_settings_dir={STATIC / 'lab'}"]
            self.url += "lab/tree/page.ipynb"
        self.command += options

    def __enter__(self) -> "Server":
        """Write the notebook, start, and wait until the port answers."""
        write_notebook(self.notebook)
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


def give_files(page, kind: str, files: dict[str, bytes], target: str) -> None:
    """Drop or paste files onto an element."""
    page.evaluate(CLEAR)
    content = {name: base64.b64encode(data).decode() for name, data in files.items()}
    page.evaluate(
        """([kind, files, target]) => {
          const data = new DataTransfer();
          for (const [name, content] of Object.entries(files)) {
            const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
            data.items.add(new File([bytes], name, {type: 'image/png'}));
          }
          const options = {bubbles: true, cancelable: true};
          const event = kind === 'paste'
            ? new ClipboardEvent('paste', {...options, clipboardData: data})
            : new DragEvent('drop', {...options, dataTransfer: data});
          document.querySelector(target).dispatchEvent(event);
        }""",
        [kind, content, target],
    )


def take_screenshot(page, name: str) -> None:
    """Keep a picture of the page for people to look at, if they want one."""
    if folder := os.environ.get("NEBULA_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def open_page(server: Server, browser, **settings: object):
    """Open the page; what it asks of the internet is kept in ``outside``."""
    context = browser.new_context(**{"viewport": SIZE, **settings})
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
    return opened

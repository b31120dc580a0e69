"""What only a served page has: its limits, its sleep, its looks on a phone."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import FAINT, PATIENCE, START, Server, open_page, take_screenshot, upload
from odd_pictures import make_good

from nebula_utils import config

pytestmark = pytest.mark.browser

MOST = 6  # visitors; those who only fetch the page hold their place a while

# What can be touched and is smaller than 44 px.
SMALL = """() => [...document.querySelectorAll(
  '.nebula-app :is(button, input:not([type=file]), select, summary, .nebula-button)')]
  .filter((e) => e.checkVisibility() && !e.closest('.nebula-check, .widget-readout'))
  .map((e) => [e.getBoundingClientRect(), e])
  .filter(([box]) => box.width && Math.min(box.width, box.height) < 43.5)
  .map(([box, e]) => `${e.className} ${box.width}x${box.height}`)"""
# What reaches beyond the right edge of the screen.
BEYOND = """() => [...document.querySelectorAll('.nebula-app *')]
  .filter((e) => e.checkVisibility() && e.getBoundingClientRect().width > 1)
  .filter((e) => !e.closest('.nebula-card, .nebula-unseen'))
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => `${e.tagName} ${e.className}`)"""


@pytest.fixture(scope="module")
def server(tmp_path_factory, browser) -> Iterator:
    """Serve the page to a few visitors."""
    folder = tmp_path_factory.mktemp("served")
    few = (
        f"--LimitedKernelManager.max_kernels={MOST}",
        "--MappingKernelManager.cull_idle_timeout=60",  # two signs of life
        "--MappingKernelManager.cull_interval=5",
    )
    with Server("voila", folder, *few) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Server, browser) -> Iterator:
    """Open the page once."""
    opened = open_page(server, browser)
    yield opened
    opened.context.close()


def wait_for_log(server: Server, text: str, n: int = 1, patience: float = 30) -> None:
    """Wait until the server has said something n times."""
    deadline = time.monotonic() + patience
    while server.log.read_text().count(text) < n:
        assert time.monotonic() < deadline, f"the server never said {text!r}"
        time.sleep(0.2)


@pytest.mark.parametrize("width", [1100, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_sizes_and_themes(page, server: Server, width: int, scheme: str) -> None:
    """A served page fits a phone, and is dark where the system is."""
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


def test_the_served_page_gives_nothing_away(server: Server) -> None:
    """No source and no file is served; cells for the notebook alone are left out."""
    html = urllib.request.urlopen(server.url, timeout=60).read().decode()
    assert "make_classifier" not in html and "ValueError" not in html
    for path in ("voila/files/page.ipynb", "voila/files/voila.log", "api/contents"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(server.url + path, timeout=20)


def test_code_that_is_sent_is_not_run(server: Server, tmp_path: Path) -> None:
    """A visitor who speaks to the kernel directly can't make it run anything."""
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
    before = server.log.read_text().count("Kernel shutdown")
    guest = browser.new_page()
    guest.goto(server.url)
    guest.wait_for_selector(".nebula-drop", timeout=START * 1000)
    guest.goto("about:blank")
    wait_for_log(server, "Kernel shutdown", before + 1)
    guest.close()


def test_a_phone_shows_all_that_matters(server: Server, browser) -> None:
    """At 390 px nothing is beyond the edge, and all is large enough to touch."""
    phone = open_page(
        server,
        browser,
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
    )
    upload(phone, {name: make_good()["plain.png"] for name in ("a.png", "b.png")})
    take_screenshot(phone, "phone")
    assert phone.evaluate(BEYOND) == [] and phone.evaluate(SMALL) == []
    assert phone.locator(".nebula-numbers b").count() == 2
    cells = phone.locator(".nebula-table tbody tr >> nth=0 >> td").all_inner_texts()
    assert "%" in "".join(cells)
    phone.goto("about:blank")
    phone.context.close()


def test_one_visitor_too_many_is_asked_to_wait(server: Server) -> None:
    """The page that says so loads nothing from elsewhere and tries again by itself."""
    with pytest.raises(urllib.error.HTTPError) as found:
        for _ in range(MOST):
            urllib.request.urlopen(server.url, timeout=120).read()
    html = found.value.read().decode()
    assert found.value.code == 503 and "All places are taken" in html
    assert 'http-equiv="refresh"' in html and "://" not in html


def test_a_crashed_tab_frees_its_place(page, server: Server, browser) -> None:
    """Who goes without a word is gone after a while; who stays is not."""
    before = server.log.read_text().count("Kernel shutdown")
    guest = open_page(server, browser)
    guest.context.close()  # says no word to the server
    wait_for_log(server, "Kernel shutdown", before + 1, patience=150)
    assert upload(page, {"m.png": make_good()["plain.png"]}).startswith("m.png: ")
    assert page.locator(".nebula-asleep").count() == 0


def test_an_untouched_page_goes_to_sleep(server: Server, browser) -> None:
    """After half an hour without a key or a touch it says so, and how to wake it."""
    guest = browser.new_page()
    guest.clock.install()
    guest.goto(server.url)
    guest.wait_for_selector(".nebula-drop", timeout=START * 1000)
    guest.clock.fast_forward(29 * 60 * 1000)
    time.sleep(3)  # for the answer to its sign of life
    assert guest.locator(".nebula-asleep").count() == 0
    guest.clock.fast_forward(2 * 60 * 1000)
    guest.wait_for_selector(".nebula-asleep")
    guest.goto("about:blank")
    guest.close()


def test_addresses_that_are_not_there(server: Server) -> None:
    """No address makes the server fail; none gives a file."""
    for path in ("logout", "login", "../../etc/passwd", "x.ipynb", "tree", "%2e%2e/"):
        with pytest.raises(urllib.error.HTTPError) as found:
            urllib.request.urlopen(server.url + path, timeout=20)
        assert found.value.code in (403, 404)
    assert "Traceback" not in server.log.read_text()


def test_a_page_whose_server_is_gone_says_so_at_once(page, server: Server) -> None:
    """After the server ended the page says that it sleeps, and how to wake it."""
    server.process.kill()
    page.wait_for_selector(".nebula-asleep", timeout=30_000)
    assert "gone to sleep" in page.inner_text(".nebula-asleep")
    assert page.locator(".nebula-asleep button").count() == 1


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

"""The classifier's page in a real Chromium: served by Voilà, and in JupyterLab.

One server and one page each; the network is a small matrix (`fake_classifier`), all
else is real. Set NEBULA_SCREENSHOTS to a folder to look at the page.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import (
    CLEAR,
    FAINT,
    SETTLED,
    Server,
    give_files,
    open_page,
    take_screenshot,
    upload,
)
from odd_pictures import make_bad, make_good

from nebula_utils import config

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", params=["voila", "lab"])
def server(request: pytest.FixtureRequest, tmp_path_factory, browser) -> Iterator:
    """Serve the page."""
    with Server(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Server, browser) -> Iterator:
    """Open the page once."""
    opened = open_page(server, browser)
    yield opened
    opened.context.close()


def make_plain() -> bytes:
    """Return a good picture as a file."""
    return make_good()["plain.png"]


def test_every_good_file_is_answered(page, server: Server) -> None:
    """All formats at once give a table without a failure."""
    files = make_good()
    assert upload(page, files) == f"{len(files)} pictures done."
    rows = page.locator(".nebula-table tbody tr")
    assert rows.count() == len(files)
    take_screenshot(page, f"{server.kind}_table")


def test_csv_download(page) -> None:
    """The button gives a file with a line for each picture."""
    files = make_good()
    upload(page, files)
    with page.expect_download() as waiting:
        page.click("text=Save as CSV")
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
    assert upload(page, {"m.png": make_plain()}).startswith("m.png: ")


def test_keyboard_only(page, tmp_path: Path) -> None:
    """Enter on the focused button opens the file dialog; Enter unfolds the types."""
    path = tmp_path / "by_key.png"
    path.write_bytes(make_plain())
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
    for button in ("input.nebula-drop-input", "button.nebula-plain", "summary"):
        app.locator(button).first.focus()
        page.keyboard.type(keys)
        assert page.evaluate("document.activeElement.closest('.nebula-app') !== null")
    upload(page, {"m.png": make_plain()})
    for field in app.locator("input[type=text]").all():
        field.focus()
        page.keyboard.type(keys)
        assert field.input_value() == keys
        field.fill("")
    assert page.locator(".jp-Cell").count() == n
    assert page.locator(".jp-MarkdownCell").count() == 0


def test_name_look_up(page) -> None:
    """The catalogue's word on the object stands with the answer."""
    upload(page, {"m.png": make_plain()})
    field = page.locator(".nebula-app .widget-text input").last
    field.fill("Thor's Helmet")
    field.press("Enter")
    page.wait_for_selector("text=is an emission nebula in the catalogue")
    assert "The classifier" in page.inner_text(".nebula-words >> nth=0")
    field.fill("<b>Nebbish 7</b>")
    field.press("Enter")
    page.wait_for_selector("text=does not know")
    field.fill("")
    field.press("Enter")


def test_example(page) -> None:
    """A built-in picture is answered, with its credit."""
    page.click("text=LDN 1622")
    page.wait_for_selector("text=Jane Doe, CC BY 4.0")
    assert page.locator(".nebula-answer img").count() == 8


def test_screen_reader_hooks(page) -> None:
    """Pictures have texts, the status and the problems are live regions."""
    assert page.locator(".nebula-answer img:not([alt])").count() == 0
    assert page.get_attribute(".nebula-status", "role") == "status"
    assert page.get_attribute(".nebula-drop .nebula-problems", "role") == "alert"
    assert page.get_by_label("Choose pictures").count() >= 1
    assert page.get_by_label("Object's name").count() == 1


def test_themes_of_jupyterlab(page, server: Server) -> None:
    """All is readable in JupyterLab's light theme and in its dark one."""
    if server.kind == "voila":
        pytest.skip("a served page has no themes to choose from")
    upload(page, {"m.png": make_plain()})
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


def test_too_large_is_refused_and_leaves_no_old_answer(page, tmp_path: Path) -> None:
    """A file above the limit is not sent; 12 MB in pieces get through."""
    upload(page, {"m.png": make_plain()})
    big = tmp_path / "big.tif"
    with big.open("wb") as stream:
        stream.truncate(501_000_000)
    page.evaluate(CLEAR)
    page.set_input_files(".nebula-drop-input", big)
    page.wait_for_function(SETTLED)
    assert page.inner_text(".nebula-status") == "big.tif can't be used."
    assert "not taken, 501 MB is above 500 MB" in page.inner_text(".nebula-app")
    assert page.locator(".nebula-answer").count() == 0
    padded = tmp_path / "padded.jpg"
    padded.write_bytes(make_good()["plain.jpg"] + bytes(12_000_000))
    assert upload(page, padded).startswith("padded.jpg: ")


@pytest.mark.parametrize(
    ("kind", "target"),
    [("drop", ".nebula-drop"), ("drop", ".nebula-about"), ("paste", ".nebula-about")],
)
def test_drop_and_paste_anywhere(page, kind: str, target: str) -> None:
    """A file that is dropped or pasted beside the box is taken as a chosen one."""
    give_files(page, kind, {"given.png": make_plain()}, target)
    page.wait_for_function(SETTLED)
    assert page.inner_text(".nebula-status").startswith("given.png: ")


def test_a_dropped_folder_is_read(page, tmp_path: Path) -> None:
    """Its pictures are taken, those of folders in it too; other files are not."""
    (tmp_path / "inner").mkdir()
    for name in ("a.png", "inner/b.png", "notes.txt"):
        (tmp_path / name).write_bytes(make_plain())
    page.evaluate(CLEAR)
    box = page.locator(".nebula-drop").bounding_box()
    data = {"items": [], "files": [str(tmp_path)], "dragOperationsMask": 1}
    place = {"x": box["x"] + 20, "y": box["y"] + 20, "data": data}
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, **place})
    page.wait_for_function(SETTLED)
    assert page.inner_text(".nebula-status") == "2 pictures done."
    names = page.locator(".nebula-table tbody th").all_inner_texts()
    assert sorted(names) == ["a.png", "b.png"]


def test_what_comes_while_busy_is_queued(page) -> None:
    """A second upload joins the first; an example that is clicked meanwhile, too."""
    page.evaluate(CLEAR)
    files = {f"{i}.png": make_plain() for i in range(6)}
    give_files(page, "drop", files, ".nebula-drop")
    give_files(page, "drop", {"late.png": make_plain()}, ".nebula-drop")
    page.click("text=LDN 1622")
    page.wait_for_function(SETTLED)
    assert page.inner_text(".nebula-status") == "8 pictures done."
    names = page.locator(".nebula-open").all_inner_texts()
    assert names == [*files, "late.png", "LDN 1622"]


def test_cancel_keeps_what_is_done(page) -> None:
    """After Cancel the rest of the queue is dropped, and the page says so."""
    files = {f"{i}.png": make_plain() for i in range(60)}
    give_files(page, "drop", files, ".nebula-drop")
    page.click(".nebula-cancel")
    page.wait_for_function(SETTLED)
    assert page.inner_text(".nebula-status").endswith("pictures cancelled.")
    assert page.locator(".nebula-answer").count() == 1
    assert upload(page, {"m.png": make_plain()}).startswith("m.png: ")


def test_the_table_sorts_filters_and_opens(page, server: Server) -> None:
    """Heads sort both ways, the box hides what is sure, a row shows its answer."""
    files = {name: make_plain() for name in ("b.png", "c.png", "a.png")}
    upload(page, {**files, "d.fits": make_good()["plain.fits"]})  # which is not sure
    names = page.locator(".nebula-open")
    page.click(".nebula-sort >> text=name")
    assert names.all_inner_texts() == ["a.png", "b.png", "c.png", "d.fits"]
    page.click(".nebula-sort >> text=name")
    assert names.all_inner_texts() == ["d.fits", "c.png", "b.png", "a.png"]
    page.click(".nebula-open >> text=a.png")
    page.wait_for_selector("section[aria-label='Answer for a.png']")
    page.check(".nebula-filter")
    assert [name.inner_text() for name in names.all() if name.is_visible()] == [
        "d.fits"
    ]
    take_screenshot(page, f"{server.kind}_sorted")


def test_the_map_can_be_faded(page) -> None:
    """The slider below a map fades from the picture to the map."""
    upload(page, {"m.png": make_plain()})
    page.locator(".nebula-blend").first.fill("25")
    assert page.locator(".nebula-over").first.evaluate("e => e.style.opacity") == "0.25"
    assert page.locator(".nebula-map").count() == 2


def test_sliders_are_followed_by_the_answer(page, server: Server) -> None:
    """Turning the hue by keyboard shows an answer for those colours."""
    upload(page, {"m.png": make_plain()})
    page.focus(".nebula-colours [role=slider] >> nth=0")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.wait_for_selector(".nebula-preview img")
    page.click("text=Find the smallest change")
    page.wait_for_selector(".nebula-flips li, .nebula-colours p")
    take_screenshot(page, f"{server.kind}_sliders")


def test_report_and_card_are_saved(page) -> None:
    """Both are files of their own; the report names the picture."""
    upload(page, {"m.png": make_plain()})
    for label, start in (("report", b"<!DOCTYPE"), ("answer as PNG", b"\x89PNG")):
        with page.expect_download() as waiting:
            page.click(f"text=/Save .*{label}/")
        content = Path(waiting.value.path()).read_bytes()
        assert content.startswith(start)
        assert label != "report" or b"m.png" in content


def test_path_by_enter(page, server: Server, tmp_path: Path) -> None:
    """In JupyterLab Enter classifies the path that stands there, each time anew."""
    if server.kind == "voila":
        assert page.get_by_label("Path").count() == 0
        return
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(make_plain())
        page.evaluate(CLEAR)
        page.get_by_label("Path", exact=True).fill(str(tmp_path / name))
        page.get_by_label("Path", exact=True).press("Enter")
        page.wait_for_function(SETTLED)
        assert page.inner_text(".nebula-status").startswith(f"{name}: ")


def test_nobody_is_asked_about_news(page, server: Server) -> None:
    """JupyterLab's question stays away with the settings that `make lab` gives it."""
    told = page.locator(".Toastify__toast").all_inner_texts()
    assert not [text for text in told if "news" in text.lower()]
    recipe = (config.REPOSITORY / "Makefile").read_text("utf-8")
    assert "--LabApp.news_url=None" in recipe and "static/lab" in recipe


def test_nothing_came_from_the_internet(page) -> None:
    """No request left this machine, from the first to here."""
    assert page.outside == []

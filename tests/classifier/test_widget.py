"""The page: what it says, what it escapes, what it keeps."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fake_classifier import SURE
from PIL import Image

from nebula_utils.classifier import rendering, widget
from nebula_utils.classifier.classifier import Neighbour, Result
from nebula_utils.classifier.rendering import Row, overlay_evidence
from nebula_utils.config import CLASS_NAMES
from nebula_utils.errors import ImageError
from nebula_utils.images.scientific import Decoded

EVIL = "<script>alert('x')</script>\"'&.jpg"
GREY = np.full((32, 48, 3), 90, np.uint8)


def make_result(label: str = "dark", share: float = 0.9, **changes: object) -> Result:
    """Answer ``label`` with probability ``share``."""
    rest = (1 - share) / (len(CLASS_NAMES) - 1)
    probabilities = dict.fromkeys(CLASS_NAMES, rest) | {label: share}
    result = Result(
        path="m42.jpg",
        label=label,
        probabilities=probabilities,
        confident=True,
        nebula=1 - probabilities["other"],
        grey_label=label,
        stability=1.0,
        candidates=(label,),
        counterfactuals={"grey": probabilities, "red": probabilities},
        neighbours=(
            Neighbour("B 72", "dark", "Jane & Joe", "CC BY 4.0", 0.9, GREY[:32, :32]),
            Neighbour(EVIL, "dark", EVIL, EVIL, 0.8, None),
        ),
        picture=GREY,
    )
    return replace(result, **changes)


class FakeClassifier:
    """Answer by the first byte: 'b' is no image, 'u' unsure, else a dark nebula."""

    class_names = CLASS_NAMES
    certainty = SURE
    examples: dict[str, np.ndarray] = {}

    def classify(
        self, source: bytes | Path, name: str | None = None, nebula: str = ""
    ) -> Result:
        """Answer."""
        if isinstance(source, bytes) and source.startswith(b"b"):
            raise ImageError("not an image: <b>text</b>")
        unsure = isinstance(source, bytes) and source.startswith(b"u")
        return make_result(path=name or "", confident=not unsure)

    def make_predictor(self, image: np.ndarray) -> Callable:
        """Say emission where hues are turned by 90° or more, else dark."""

        def predict(changes: list) -> np.ndarray:
            rows = np.full((len(changes), len(CLASS_NAMES)), 0.05)
            for row, change in zip(rows, changes, strict=True):
                row[int(abs(change.hue) >= 90)] = 0.7
            return rows

        return predict

    def make_strip(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return three views."""
        return dict.fromkeys(("as_is", "grey", "red"), image[:8, :8])

    def map_evidence(self, image: np.ndarray) -> np.ndarray:
        """Return evidence in one corner."""
        found = np.zeros((9, 14, len(CLASS_NAMES)), np.float32)
        found[0, 0] = 1
        return found


class Page(HTMLParser):
    """Collect the tags and the text of a piece of HTML."""

    def __init__(self, *pieces: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed("".join(pieces))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        """Keep the tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text += data

    def find(self, name: str) -> list[dict]:
        """Return the attributes of all tags of a name."""
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture
def app() -> widget.ClassifierApp:
    """Give the page with a fake classifier; what it saves is kept in ``saved``."""
    made = widget.build_app(FakeClassifier(), card="# Card\n\n<script>no</script>")
    made.saved = {}
    made.ways.save = lambda name, mime, content: made.saved.update({name: content})
    return made


def give(app: widget.ClassifierApp, *files: tuple[str, bytes]) -> Page:
    """Upload files; return what the page shows."""
    app.begin()
    for file in files:
        app.take(*file)
    app.end()
    return Page(app.table.value, app.answer.value)


def press(app: widget.ClassifierApp, label: str) -> None:
    """Click the button of this label below the answer."""
    (found,) = (b for b in app.tools.children if b.description == label)
    found.click()


def test_one_picture(app: widget.ClassifierApp) -> None:
    """A picture gives words, a bar a class, the strip, the maps and the neighbours."""
    page = give(app, ("m42.jpg", b"x"))
    assert app.ways.status == "m42.jpg: This looks like a dark nebula."
    assert "Without its colour the answer stays the same." in page.text
    widths = [a["style"] for a in page.find("span") if a.get("class") == "nebula-bar"]
    assert len(widths) == 7 and widths[0] == "width:90.0%;background:#000000"
    assert "Jane & Joe, CC BY 4.0" in page.text and "90 %" in page.text
    assert app.name.value == "NGC 1976" and "does not agree" in page.text


def test_every_picture_is_inline_and_described(app: widget.ClassifierApp) -> None:
    """No image is loaded from anywhere, and each has an alternative text."""
    pictures = give(app, ("m42.jpg", b"x")).find("img")
    # The picture, two maps over it, three colours, one neighbour that may be shown.
    assert len(pictures) == 9
    assert all(p["src"].startswith("data:image/jpeg;base64,") for p in pictures)
    # Beneath each map lies the picture once more, with nothing to say of its own.
    assert sum(not p["alt"] for p in pictures) == 2


def test_nothing_of_a_name_is_executed(app: widget.ClassifierApp) -> None:
    """Tags and quotes in names, credits, errors and the model card stay text."""
    page = give(app, (EVIL, b"x"), (EVIL, b"bad"), ("m42.jpg", b"x"))
    app.name.value = EVIL
    press(app, "Save a report")
    page.feed(app.table.value + app.answer.value)
    report = Page(app.saved["nebula_report.html"].decode())
    about = Page(app.children[-1].value)
    known = set("section div figure img figcaption h3 h4 p table caption tbody".split())
    known |= set("tr th td span b br small thead button label input".split())
    assert {tag for tag, _ in page.tags} <= known
    whole = set("html head meta title style body main h2".split())
    assert {tag for tag, _ in report.tags} <= known | whole
    assert not about.find("script") and "<script>no</script>" in about.text
    assert EVIL in page.text and EVIL in report.text and "<b>text</b>" in page.text
    for one in (page, report):
        assert not any(key.startswith("on") for _, a in one.tags for key in a)


def test_several_pictures_give_a_table(app: widget.ClassifierApp) -> None:
    """Good and bad files stand in one table; details can be chosen among the good."""
    page = give(app, ("a.jpg", b"x"), ("b.txt", b"bad"), ("c.jpg", b"u"))
    assert app.ways.status == "3 pictures done, 1 of them can't be used."
    opened = [b["data-row"] for b in page.find("button") if "data-row" in b]
    assert opened == ["0", "2"] and page.text.count("not an image") == 1
    assert [row.get("data-sure") for row in page.find("tr")[:4]] == [
        None,
        "1",
        "0",
        "0",
    ]
    assert "only the 2 without a sure answer" in page.text
    app.open_row(2)
    assert "Not sure: perhaps a dark nebula" in app.answer.value
    app.open_row(1)  # has no answer to open
    app.open_row(99)
    assert app.chosen == 2


def test_csv_holds_no_formula(app: widget.ClassifierApp) -> None:
    """What is saved reads back as CSV; no cell can start a formula."""
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", 'a,"b"\n.jpg']
    give(app, *((name, b"x") for name in names), ("t", b"bad"))
    press(app, "Save as CSV")
    content = app.saved["nebula_answers.csv"].decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(content)))
    assert [row["name"] for row in rows[:5]] == ["'" + name for name in names[:5]]
    assert rows[5]["name"] == names[5] and rows[0]["p_dark"] == "0.9"
    assert rows[0]["candidates"] == "dark" and rows[0]["nebula"]
    assert rows[6]["error"].startswith("not an image")


def test_a_report_stands_alone(app: widget.ClassifierApp) -> None:
    """One page holds the table and every answer, and loads nothing."""
    give(app, ("a.jpg", b"x"), ("b.txt", b"bad"), ("c.jpg", b"u"))
    press(app, "Save a report")
    report = Page(app.saved["nebula_report.html"].decode())
    labels = [a.get("aria-label") for a in report.find("section")]
    assert labels == ["Answer for a.jpg", "Answer for c.jpg"]
    assert not report.find("link") and not report.find("script")


def test_a_card_is_a_picture(app: widget.ClassifierApp) -> None:
    """One answer can be saved as a PNG that is not empty."""
    give(app, ("m42.jpg", b"x"))
    press(app, "Save this answer as PNG")
    card = Image.open(io.BytesIO(app.saved["nebula_answer.png"]))
    assert card.format == "PNG" and card.size == rendering.CARD
    assert len(set(card.get_flattened_data())) > 20


def test_a_bad_file_alone_leaves_no_older_answer(app: widget.ClassifierApp) -> None:
    """The reason is shown as an alert, and nothing of what stood there before."""
    give(app, ("m42.jpg", b"x"))
    page = give(app, ("b.txt", b"bad"))
    assert app.ways.status == "b.txt can't be used." and app.answer.value == ""
    assert page.find("ul")[0]["role"] == "alert" and app.name.value == ""
    give(app, ("m42.jpg", b"x"))
    app.begin()
    app.refuse("big.tif", "not taken, 600 MB is above 500 MB")
    app.end()
    assert "600 MB" in app.table.value and app.answer.value == ""


def test_each_picture_has_its_own_name(app: widget.ClassifierApp) -> None:
    """A name is guessed from the file, can be changed, and stays with its picture."""
    give(app, ("M78_stack.fits", b"x"), ("b33.png", b"x"), ("IMG_1.jpg", b"x"))
    assert [row.nebula for row in app.rows] == ["NGC 2068", "B 33", ""]
    assert app.name.value == "NGC 2068"
    app.name.value = "Thor's Helmet"
    app.open_row(1)
    assert app.name.value == "B 33" and "B 33" in app.answer.value
    app.open_row(0)
    assert app.name.value == "Thor's Helmet" and "NGC 2359" in app.answer.value
    app.open_row(2)
    assert app.name.value == "" and "catalogue" not in app.answer.value


def test_forget_keeps_nothing(app: widget.ClassifierApp) -> None:
    """After the button nothing of a picture is left in the page or in memory."""
    give(app, ("m42.jpg", b"x"))
    press(app, "Forget these pictures")
    assert app.rows == [] and app.answer.value == app.table.value == ""
    assert app.name.value == "" and app.colours.result is None


def test_sliders_answer_and_find_the_smallest_change(
    app: widget.ClassifierApp,
) -> None:
    """The answer follows the hue; the search stops where the fake one flips, at 90°."""
    give(app, ("m42.jpg", b"x"))
    app.colours.hue.value = 30
    assert "dark 70 %" in app.colours.shown.value
    app.colours.hue.value = 120
    assert "emission 70 %</b> – another answer" in app.colours.shown.value
    app.colours.search()
    assert "hues turned by +90°: <b>emission" in app.colours.found.value
    app.colours.reset()
    assert app.colours.hue.value == 0 and app.colours.shown.value == ""


def test_paths_only_in_ones_own_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path field is not in a served page; a folder stands for its pictures."""
    mine = widget.build_app(FakeClassifier(), card="")
    for name in ("m42.jpg", "b33.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    mine.take_path(f'"{tmp_path}/m42.jpg"')
    mine.take_path(str(tmp_path))
    assert mine.ways.allow_paths
    assert [row.name for row in mine.rows] == ["m42.jpg", "b33.png", "m42.jpg"]
    monkeypatch.setenv("VOILA_APP_PORT", "8866")
    assert not widget.build_app(FakeClassifier(), card="").ways.allow_paths


def test_examples_name_their_credit() -> None:
    """A built-in picture is answered, with its truth and whose it is."""
    fake = FakeClassifier()
    fake.examples = {
        "pictures": GREY[None],
        "trained": np.array([False]),
        "nebula": np.array(["LDN 1622"]),
        "label": np.array(["dark"]),
        "credit": np.array(["Jane Doe"]),
        "licence": np.array(["CC BY 4.0"]),
    }
    app = widget.build_app(fake, card="")
    app.begin()
    app.take_example(0)
    app.end()
    text = Page(app.answer.value).text
    assert "In truth: dark. This picture was kept out of the training" in text
    assert "Jane Doe, CC BY 4.0" in text and app.name.value == "LDN 1622"


def test_a_known_picture_is_called_one() -> None:
    """Who gives a training picture is told that its answer proves nothing."""
    row = Row("a.jpg", make_result(was_trained_on=True))
    app = widget.build_app(FakeClassifier(), card="")
    app.begin()
    app._keep(row)
    app.end()
    assert "is a training picture" in app.answer.value


def test_the_overlay_glows_where_the_evidence_is() -> None:
    """One hot corner of the map lights up that corner of the whole picture alone."""
    evidence = np.zeros((6, 9), np.float32)
    evidence[0, 0], evidence[-1, -1] = 1, -1
    over = overlay_evidence(GREY, evidence, 1.0).astype(int)
    assert over.shape == GREY.shape
    assert over[0, 0, 0] > over[31, 47, 0] + 50 and over[31, 47].max() <= 72


def test_a_picture_with_coordinates_tells_what_is_in_its_frame() -> None:
    """A FITS header with WCS around M 42 names it, and the OBJECT that it states."""
    header = {"OBJECT": "Orion", "NAXIS1": 200, "NAXIS2": 200}
    header |= {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 100.0}
    header |= {"CRPIX2": 100.0, "CRVAL1": 83.82, "CRVAL2": -5.39}
    header |= {"CDELT1": -0.01, "CDELT2": 0.01, "CUNIT1": "deg", "CUNIT2": "deg"}
    decoded = Decoded(
        np.zeros((200, 200, 3), np.uint8),
        (),
        header,
        np.array([[1.0, 0, 0], [0, 1, 0]]),
    )
    assert widget.list_in_frame(decoded)[0] == "NGC 1976"
    assert widget.list_in_frame(decoded._replace(header={"CTYPE1": "what"})) == ()
    fake = FakeClassifier()
    fake.classify = lambda *given: make_result(path="x.fits", decoded=decoded)
    app = widget.build_app(fake, card="")
    page = give(app, ("x.fits", b"x"))
    assert app.name.value == "Orion" and app.rows[0].answer.decoded is None
    assert "In the frame, by its coordinates: NGC 1976" in page.text

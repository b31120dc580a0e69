"""The page: what it says, what it escapes, what it keeps."""

import base64
import csv
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from nebula_utils.classifier import answer_html, widget
from nebula_utils.classifier.classifier import Neighbour, Result
from nebula_utils.classifier.texts import describe_result, look_up
from nebula_utils.config import CLASS_NAMES
from nebula_utils.errors import ImageError

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
        activation=np.eye(7, dtype=np.float32),
        neighbours=(
            Neighbour("B 72", "dark", "Jane & Joe", "CC BY 4.0", 0.9, GREY[:32, :32]),
            Neighbour(EVIL, "dark", EVIL, EVIL, 0.8, None),
        ),
        picture=GREY,
    )
    return replace(result, **changes)


class FakeClassifier:
    """Answer by the first byte: 'b' is no image, anything else a dark nebula."""

    class_names = CLASS_NAMES
    examples: dict[str, np.ndarray] = {}

    def classify(self, source: bytes | Path, name: str | None = None) -> Result:
        """Answer."""
        if isinstance(source, bytes) and source.startswith(b"b"):
            raise ImageError("not an image: <b>text</b>")
        return make_result(path=name or "")

    def make_strip(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return two views."""
        return {"grey": image[:8, :8], "red": image[:8, :8]}


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
def app(monkeypatch: pytest.MonkeyPatch) -> widget.ClassifierApp:
    """Give the page with a fake classifier."""
    return widget.build_app(FakeClassifier(), card="# Card\n\n<script>no</script>")


def give(app: widget.ClassifierApp, *files: tuple[str, bytes]) -> Page:
    """Upload files; return what the page shows."""
    app.begin(len(files))
    for file in files:
        app.take(*file)
    app.show()
    return Page(app.table.value, app.answer.value)


def test_one_picture(app: widget.ClassifierApp) -> None:
    """A picture gives words, a bar a class, the strip, the map and the neighbours."""
    page = give(app, ("m42.jpg", b"x"))
    assert app.drop.status == "m42.jpg: Probably a dark nebula."
    assert "Without its colour the answer stays the same." in page.text
    widths = [a["style"] for a in page.find("span") if a.get("class") == "nebula-bar"]
    assert len(widths) == 7 and widths[0] == "width:90.0%;background:#000000"
    assert "Jane & Joe, CC BY 4.0" in page.text and "90 %" in page.text
    assert app.chooser.layout.display == "none"


def test_every_picture_is_inline_and_described(app: widget.ClassifierApp) -> None:
    """No image is loaded from anywhere, and each has an alternative text."""
    pictures = give(app, ("m42.jpg", b"x")).find("img")
    assert len(pictures) == 5  # picture, map, two colours, one free neighbour
    assert all(p["src"].startswith("data:image/jpeg;base64,") for p in pictures)
    assert all(p["alt"] for p in pictures)


def test_nothing_of_a_name_is_executed(app: widget.ClassifierApp) -> None:
    """Tags and quotes in names, credits, errors and the model card stay text."""
    app.name.value = EVIL
    page = give(app, (EVIL, b"x"), (EVIL, b"bad"), ("m42.jpg", b"x"))
    about = Page(app.children[-1].value)
    known = set("section div figure img figcaption h3 h4 p table caption tbody".split())
    known |= set("tr th td span b br small thead a".split())
    assert {tag for tag, _ in page.tags} <= known
    assert not about.find("script") and "<script>no</script>" in about.text
    assert EVIL in page.text and "<b>text</b>" in page.text
    assert not any(key.startswith("on") for _, a in page.tags for key in a)


def test_several_pictures_give_a_table(app: widget.ClassifierApp) -> None:
    """Good and bad files stand in one table; details can be chosen among the good."""
    page = give(app, ("a.jpg", b"x"), ("b.txt", b"bad"), ("a.jpg", b"x"))
    assert app.drop.status == "3 pictures done, 1 of them can't be used."
    assert [label for label, _ in app.chooser.options] == ["1. a.jpg", "3. a.jpg"]
    assert page.text.count("not an image") == 1
    app.chooser.value = 2
    assert "Probably a dark nebula" in app.answer.value


def test_csv_can_be_downloaded_and_holds_no_formula(app: widget.ClassifierApp) -> None:
    """The link's content reads back as CSV; no cell can start a formula."""
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", 'a,"b"\n.jpg']
    link = give(app, *((name, b"x") for name in names), ("t", b"bad")).find("a")[0]
    assert link["download"] == "nebula_answers.csv"
    content = base64.b64decode(link["href"].split(",")[1]).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(content)))
    assert [row["name"] for row in rows[:5]] == ["'" + name for name in names[:5]]
    assert rows[5]["name"] == names[5] and rows[0]["p_dark"] == "0.9"
    assert rows[6]["error"].startswith("not an image")


def test_a_bad_file_alone(app: widget.ClassifierApp) -> None:
    """The reason is shown as an alert, and no answer."""
    page = give(app, ("b.txt", b"bad"))
    assert app.drop.status == "b.txt can't be used." and app.answer.value == ""
    assert page.find("ul")[0]["role"] == "alert"


def test_forget_keeps_nothing(app: widget.ClassifierApp) -> None:
    """After the button nothing of a picture is left in the page or in memory."""
    give(app, ("m42.jpg", b"x"))
    app.clear.click()
    assert app.answers == [] and app.answer.value == app.table.value == ""


def test_paths_only_in_ones_own_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path field is not in a served page."""
    mine = widget.build_app(FakeClassifier(), card="")
    mine.path.value = f'"{tmp_path}/m42.jpg"'
    mine.go.click()
    assert mine.answers[0][0] == "m42.jpg"
    monkeypatch.setenv("VOILA_APP_PORT", "8866")
    served = widget.build_app(FakeClassifier(), card="")
    assert len(served.children) == len(mine.children) - 1


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
    app.take_example(0)
    text = Page(app.answer.value).text
    assert "In truth: dark. This picture was kept out of the training" in text
    assert "Jane Doe, CC BY 4.0" in text


@pytest.mark.parametrize(
    ("changes", "headline", "word"),
    [
        ({"label": "other"}, "This does not look like a nebula", "galaxy"),
        ({"confident": False, "candidates": ("dark", "emission")}, "Not sure", "or an"),
        ({"confident": False, "candidates": ()}, "Not sure", "It may be"),
        ({"grey_label": "emission"}, "Probably a dark nebula", "colour decides"),
        ({"stability": 0.5}, "Probably a dark nebula", "50 %"),
    ],
)
def test_words(changes: dict, headline: str, word: str) -> None:
    """Doubt, no nebula, and colour that decides are each said."""
    words = describe_result(make_result(**changes))
    assert words.headline == headline and word in words.sentence


def test_look_up_says_whether_they_agree() -> None:
    """The catalogue's type is compared with the classifier's."""
    assert look_up("  ", None) == ""
    assert look_up("M 42", make_result("emission")).endswith("The classifier agrees.")
    assert "does not agree: it says a dark nebula" in look_up("M 42", make_result())
    assert "does not know" in look_up("Nebbish 7", None)


def test_the_overlay_glows_where_the_evidence_is() -> None:
    """One hot corner of the map lights up that corner of the square alone."""
    activation = np.zeros((4, 4), np.float32)
    activation[0, 0] = 1
    over = answer_html.overlay_activation(GREY, activation).astype(int)
    assert over.shape == (32, 32, 3)
    assert over[0, 0, 0] > over[31, 31, 0] + 50 and over[31, 31].max() <= 72

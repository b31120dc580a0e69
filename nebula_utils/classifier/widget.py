"""The interactive classifier: a thin layer over ``Classifier.classify``.

One code base serves notebook 06 in JupyterLab and the page of `make app`. What is said
is in `wording`, how it is drawn in `answer_html`, how files come in, in `upload`.
"""

import io
import os
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, Protocol

import ipywidgets as widgets
import numpy as np
from PIL import Image

from nebula_utils.classifier import answer_html
from nebula_utils.classifier.classifier import Result
from nebula_utils.classifier.texts import describe_result, look_up
from nebula_utils.classifier.upload import PhotoDrop, clean_name
from nebula_utils.config import MODEL
from nebula_utils.errors import ImageError
from nebula_utils.report.style import CLASS_LABELS


class Answerer(Protocol):
    """What the widget needs of a classifier."""

    class_names: Any
    examples: dict[str, np.ndarray]

    def classify(self, source: Path | bytes, name: str | None = None) -> Result:
        """Classify one picture; see `classifier.Classifier.classify`."""

    def make_strip(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return the picture under each counterfactual."""


def build_app(
    classifier: Answerer, allow_paths: bool | None = None, card: str | None = None
) -> "ClassifierApp":
    """Build the classifier's page.

    Parameters
    ----------
    classifier : Classifier
        As `classifier.load_classifier` gives it.
    allow_paths : bool, optional
        Whether a path of this machine may be typed. Default: yes, but never in a page
        that is served to others.
    card : str, optional
        The model card, as Markdown; default: the one of ``reports/model``.

    Returns
    -------
    ClassifierApp
        A widget; show it as a cell's last value.
    """
    if allow_paths is None:
        allow_paths = not is_served()
    return ClassifierApp(classifier, allow_paths, read_card() if card is None else card)


def is_served() -> bool:
    """Say whether this process answers a served page, not somebody's own notebook."""
    return any(name.startswith(("VOILA_", "NEBULA_SERVED")) for name in os.environ)


def read_card(folder: Path = MODEL) -> str:
    """Return a model's card, "" if there is none."""
    try:
        return (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    except OSError:
        return ""


class ClassifierApp(widgets.VBox):
    """Ways in, answers, and what there is to read about them.

    Parameters
    ----------
    classifier : Classifier
        What answers.
    allow_paths : bool
        Whether there is a field for a path.
    card : str
        The model card, as Markdown.

    Notes
    -----
    Only the answers to the last pictures are kept, and those in memory alone: at most
    `upload.MAX_FILES` results with a picture of 512 px each.
    """

    def __init__(self, classifier: Answerer, allow_paths: bool, card: str) -> None:
        self.classifier = classifier
        self.answers: list[tuple[str, Result | str]] = []
        self.credit = ""
        self.expected = 0
        self.drop = PhotoDrop(self.take, self.begin, self.show)
        self.name = build_text("Object's name", "optional, e.g. Thor's Helmet")
        self.name.observe(self._on_choice, "value")
        self.path = build_text("Path", "of a picture on this computer")
        self.go = build_button("Classify this path", self.take_path)
        self.clear = build_button("Forget these pictures", self.forget)
        self.table, self.answer = widgets.HTML(), widgets.HTML()
        self.chooser = widgets.Dropdown(description="Details of")
        self.chooser.observe(self._on_choice, "value")
        paths = [widgets.HBox([self.path, self.go])] if allow_paths else []
        about = answer_html.render_about(classifier.class_names, card)
        super().__init__(
            [
                self.drop,
                *paths,
                build_examples(classifier.examples, self.take_example),
                self.name,
                self.table,
                self.chooser,
                self.answer,
                self.clear,
                widgets.HTML(about),
            ]
        )
        self.add_class("nebula-app")
        self.forget()

    def begin(self, n: int) -> None:
        """Get ready for ``n`` pictures; the earlier answers go."""
        self.answers, self.expected, self.credit = [], n, ""
        self.drop.status = f"Working on {_count(n)} …"

    def take(self, name: str, source: bytes | Path) -> None:
        """Classify one picture and keep its answer, or why there is none."""
        try:
            answer: Result | str = self.classifier.classify(source, name)
        except ImageError as error:
            answer = str(error)
        self.answers.append((name, answer))
        if self.expected > 1:
            self.drop.status = f"{len(self.answers)} of {self.expected} pictures done …"

    def take_path(self) -> None:
        """Classify the file that the path field names."""
        path = self.path.value.strip().strip("\"'")
        if path:
            self.begin(1)
            self.take(clean_name(path), Path(path).expanduser())
            self.show()

    def take_example(self, index: int) -> None:
        """Classify a built-in picture."""
        examples = self.classifier.examples
        self.begin(1)
        self.take(str(examples["nebula"][index]), encode(examples["pictures"][index]))
        self.credit = describe_example(examples, index)
        self.show()

    def show(self) -> None:
        """Draw the answers: a table if there are several, and one in full."""
        found = [i for i, (_, answer) in enumerate(self.answers) if _is_result(answer)]
        several = len(self.answers) > 1
        self.table.value = (
            answer_html.render_table(self.answers)
            if several
            else answer_html.render_problems(self.answers)
        )
        # Numbered, as two files may have one name.
        options = [(f"{i + 1}. {self.answers[i][0]}", i) for i in found]
        self.chooser.unobserve(self._on_choice, "value")  # drawn once, below
        self.chooser.options = options
        self.chooser.value = found[0] if found else None
        self.chooser.observe(self._on_choice, "value")
        _set_visible(self.chooser, several and bool(found))
        _set_visible(self.clear, bool(self.answers))
        self.drop.status = summarise(self.answers)
        self.show_chosen()

    def show_chosen(self) -> None:
        """Draw the chosen answer in full."""
        result = self._get_chosen()
        if result is None:
            self.answer.value = _paragraph(look_up(self.name.value, None))
            return
        picture = result.picture
        strip = {} if picture is None else self.classifier.make_strip(picture)
        notes = [look_up(self.name.value, result), self.credit]
        self.answer.value = answer_html.render_answer(result, strip, notes)

    def forget(self) -> None:
        """Drop all pictures and answers."""
        self.begin(0)
        self.show()

    def _on_choice(self, change: Any) -> None:
        self.show_chosen()

    def _get_chosen(self) -> Result | None:
        index = self.chooser.value
        if index is None or index >= len(self.answers):
            return None
        answer = self.answers[index][1]
        return answer if isinstance(answer, Result) else None


def build_text(label: str, hint: str) -> widgets.Text:
    """Build a field that answers when it is left or Enter is pressed."""
    return widgets.Text(description=label, placeholder=hint, continuous_update=False)


def build_button(label: str, act: Callable[[], None]) -> widgets.Button:
    """Build a button that calls ``act``."""
    button = widgets.Button(description=label)
    button.on_click(lambda sender: act())
    return button


def build_examples(
    examples: dict[str, np.ndarray], take: Callable[[int], None]
) -> widgets.Widget:
    """Build one button a built-in picture.

    Parameters
    ----------
    examples : dict of str to ndarray
        As `export` writes them; may be empty.
    take : callable
        Called with the index of the chosen one.
    """
    if not examples:
        return widgets.HTML()
    label = widgets.HTML("<span class='nebula-hint'>No picture at hand? Try:</span>")
    buttons = [
        build_button(str(nebula), partial(take, index))
        for index, nebula in enumerate(examples["nebula"])
    ]
    row = widgets.HBox([label, *buttons])
    row.add_class("nebula-examples")
    return row


def describe_example(examples: dict[str, np.ndarray], index: int) -> str:
    """Say what a built-in picture shows, whose it is, and if it was trained on."""
    label = CLASS_LABELS[str(examples["label"][index])]
    known = "is one of" if examples["trained"][index] else "was kept out of"
    credit = f"{examples['credit'][index]}, {examples['licence'][index]}"
    return f"In truth: {label}. This picture {known} the training pictures. {credit}."


def summarise(answers: Sequence[tuple[str, Result | str]]) -> str:
    """Say in a line, for the status and for screen readers, what was found."""
    if not answers:
        return ""
    failed = sum(not _is_result(answer) for _, answer in answers)
    if len(answers) > 1:
        bad = f", {failed} of them can't be used" if failed else ""
        return f"{_count(len(answers))} done{bad}."
    name, answer = answers[0]
    if isinstance(answer, str):
        return f"{name} can't be used."
    return f"{name}: {describe_result(answer).headline}."


def encode(image: np.ndarray) -> bytes:
    """Return uint8 RGB (h, w, 3) as a PNG file's content."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _is_result(answer: Result | str) -> bool:
    return not isinstance(answer, str)


def _count(n: int) -> str:
    return "1 picture" if n == 1 else f"{n} pictures"


def _paragraph(text: str) -> str:
    return f"<p class='nebula-note'>{escape(text)}</p>" if text else ""


def _set_visible(widget: widgets.Widget, visible: bool) -> None:
    widget.layout.display = None if visible else "none"

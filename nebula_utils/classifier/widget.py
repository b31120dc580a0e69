"""The interactive classifier: a thin layer over ``Classifier.classify``.

One code base serves notebook 06 in JupyterLab and the page of `make app`. What is said
is in `texts`, how it is drawn in `rendering`, how files come in, in `upload`.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np

from nebula_utils.classifier import rendering, texts, upload
from nebula_utils.classifier.classifier import Certainty, Classifier, Result
from nebula_utils.classifier.rendering import Row
from nebula_utils.classifier.texts import format_share
from nebula_utils.config import MODEL
from nebula_utils.counterfactuals.colour import (
    SHIFT_PALETTES,
    Predict,
    Shift,
    find_flips,
)
from nebula_utils.errors import ImageError, NebulaError
from nebula_utils.images import reading
from nebula_utils.images.scientific import Decoded
from nebula_utils.report.drawing import CLASS_LABELS

log = logging.getLogger(__name__)

KEPT_SIDE = 512  # px, shorter side of the pictures that are kept
PREVIEW_SIDE = 224  # px, shorter side of the picture beside the sliders


def build_app(
    classifier: Classifier, allow_paths: bool | None = None, card: str | None = None
) -> "ClassifierApp":
    """Build the classifier's page, a widget: show it as a cell's last value.

    Paths of this machine may be typed by default, but never in a page that is served to
    others. The model card is Markdown, by default the one of ``reports/model``, if any.
    """
    if allow_paths is None:
        allow_paths = not upload.is_served()
    file = MODEL / "MODEL_CARD.md"
    if card is None:
        card = file.read_text(encoding="utf-8") if file.is_file() else ""
    return ClassifierApp(classifier, allow_paths, card)


class ClassifierApp(widgets.VBox):
    """Ways in, answers, and what there is to read about them; see `build_app`.

    Only the answers to the last pictures are kept, and those in memory alone.
    """

    def __init__(self, classifier: Classifier, allow_paths: bool, card: str) -> None:
        self.classifier = classifier
        self.rows: list[Row] = []
        self.credits: dict[int, str] = {}
        self.chosen: int | None = None
        names = [str(name) for name in classifier.examples.get("nebula", ())]
        self.ways = upload.WaysIn(self, names, allow_paths, upload.get_max_bytes())
        hint = "optional, e.g. Thor's Helmet"
        self.name = widgets.Text(
            description="Object's name", placeholder=hint, continuous_update=False
        )
        self.name.observe(self._on_name, "value")
        self.table, self.answer = widgets.HTML(), widgets.HTML()
        self.colours = ColourSliders(classifier)
        acts = {
            "Save a report": self.save_report,
            "Save as CSV": self.save_csv,
            "Save this answer as PNG": self.save_card,
            "Forget these pictures": self.forget,
        }
        self.tools = widgets.HBox([_build_button(*item) for item in acts.items()])
        about = widgets.HTML(rendering.render_about(classifier.class_names, card))
        shown = [self.ways, self.table, self.name, self.answer, self.colours]
        super().__init__([*shown, self.tools, about])
        self.add_class("nebula-app")
        self.forget()

    def begin(self) -> None:
        """Get ready for pictures; the earlier answers go."""
        self.rows, self.credits, self.chosen = [], {}, None
        self._show_chosen()
        self.table.value = ""
        self.ways.status = "Working …"

    def take(self, name: str, source: bytes | Path, nebula: str = "") -> None:
        """Classify one picture and keep its answer, or why there is none."""
        try:
            answer: Result | str = self.classifier.classify(source, name, nebula)
        except ImageError as error:
            answer = str(error)
        in_frame: tuple[str, ...] = ()
        if isinstance(answer, Result) and answer.decoded is not None:
            in_frame = list_in_frame(answer.decoded)
            nebula = nebula or str(answer.decoded.header.get("OBJECT", "")).strip()
            answer = replace(answer, decoded=None)
        nebula = nebula or texts.guess_name(name) or next(iter(in_frame), "")
        self._keep(Row(name, answer, nebula, in_frame))

    def refuse(self, name: str, reason: str) -> None:
        """Keep why a file was not taken."""
        self._keep(Row(name, reason))

    def take_path(self, path: str) -> None:
        """Classify a file of this machine, or the pictures in a folder."""
        from nebula_utils.features.survey import list_pictures

        given = Path(path.strip().strip("\"'")).expanduser()
        try:
            found = list_pictures(given) if given.is_dir() else [given]
        except (NebulaError, OSError) as error:
            self.refuse(upload.clean_name(path), str(error))
            return
        for one in found:
            self.take(upload.clean_name(str(one)), Path(one))

    def take_example(self, index: int) -> None:
        """Classify a built-in picture."""
        examples = self.classifier.examples
        nebula = str(examples["nebula"][index])
        self.credits[len(self.rows)] = describe_example(examples, index)
        self.take(nebula, rendering.to_png(examples["pictures"][index]), nebula)

    def end(self, n_left: int = 0) -> None:
        """Show the answers: a table if there are several, and one in full."""
        self._show_table()
        usable = (i for i, row in enumerate(self.rows) if self._get_result(i))
        self.chosen = next(usable, None)
        self.ways.status = summarise(self.rows, self.classifier.certainty, n_left)
        self._show_chosen()

    def open_row(self, index: int) -> None:
        """Show one of several answers in full."""
        if 0 <= index < len(self.rows) and self._get_result(index):
            self.chosen = index
            self._show_chosen()

    def forget(self) -> None:
        """Drop all pictures and answers."""
        self.begin()
        self.ways.status = ""

    def save_csv(self) -> None:
        """Give the browser the answers as a CSV file."""
        content = rendering.write_csv(self.rows).encode("utf-8-sig")
        self.ways.save("nebula_answers.csv", "text/csv", content)

    def save_report(self) -> None:
        """Give the browser one page with all answers."""
        sections = [self._render(i) for i in range(len(self.rows))]
        page = rendering.render_report(self.rows, sections)
        self.ways.save("nebula_report.html", "text/html", page.encode())

    def save_card(self) -> None:
        """Give the browser a picture of the shown answer."""
        if self.chosen is not None and (result := self._get_result(self.chosen)):
            nebula = self.rows[self.chosen].nebula
            card = rendering.draw_card(result, self.classifier.certainty, nebula)
            self.ways.save("nebula_answer.png", "image/png", card)

    def _get_result(self, index: int) -> Result | None:
        answer = self.rows[index].answer
        return None if isinstance(answer, str) else answer

    def _keep(self, row: Row) -> None:
        answer = row.answer
        if isinstance(answer, Result) and answer.picture is not None:
            if min(answer.picture.shape[:2]) > KEPT_SIDE:
                small = reading.resize_short_side(answer.picture, KEPT_SIDE)
                row = row._replace(answer=replace(answer, picture=small))
        self.rows.append(row)
        self.ways.status = f"{_count(len(self.rows))} done …"

    def _show_table(self) -> None:
        several = len(self.rows) > 1
        draw = rendering.render_table if several else rendering.render_problems
        self.table.value = draw(self.rows)

    def _show_chosen(self) -> None:
        """Draw the chosen answer, and what can be done with it."""
        index = self.chosen
        self.name.unobserve(self._on_name, "value")
        self.name.value = "" if index is None else self.rows[index].nebula
        self.name.observe(self._on_name, "value")
        self.answer.value = "" if index is None else self._render(index)
        self.colours.show(None if index is None else self._get_result(index))
        _set_visible(self.name, index is not None)
        _set_visible(self.tools, bool(self.rows))

    def _render(self, index: int) -> str:
        row, result = self.rows[index], self._get_result(index)
        if result is None:
            return ""
        strip, found = {}, None
        if result.picture is not None:
            strip = self.classifier.make_strip(result.picture)
            found = self.classifier.map_evidence(result.picture)
        notes = [texts.look_up(row.nebula, result), self.credits.get(index, "")]
        if row.in_frame:
            names = ", ".join(row.in_frame)
            notes.append(f"In the frame, by its coordinates: {names}.")
        certainty = self.classifier.certainty
        return rendering.render_answer(result, certainty, strip, found, notes)

    def _on_name(self, change: Any) -> None:
        if self.chosen is not None:
            row = self.rows[self.chosen]._replace(nebula=change["new"].strip())
            self.rows[self.chosen] = row
            self._show_table()
            self._show_chosen()


class ColourSliders(widgets.VBox):
    """How much colour does it take: sliders, with the answer that follows."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.result: Result | None = None
        self.predict: Predict | None = None
        self.hue = widgets.IntSlider(0, -180, 180, 5, description="Turn hues (°)")
        self.saturation = widgets.IntSlider(
            100, 0, 300, 5, description="Saturation (%)"
        )
        self.palette = widgets.ToggleButtons(
            options=SHIFT_PALETTES,
            description="Palette",
            tooltips=SHIFT_PALETTES,
        )
        for slider in (self.hue, self.saturation):
            slider.style.description_width = "8rem"
        self.shown, self.found = widgets.HTML(), widgets.HTML()
        buttons = [
            _build_button("Find the smallest change that flips it", self.search),
            _build_button("Reset colours", self.reset),
        ]
        title = widgets.HTML("<h4>How much colour does it take?</h4>")
        self.controls = (self.hue, self.saturation, self.palette)
        super().__init__(
            [title, *self.controls, widgets.HBox(buttons), self.found, self.shown]
        )
        self.add_class("nebula-colours")
        for control in self.controls:
            control.observe(self._on_change, "value")

    def show(self, result: Result | None) -> None:
        """Start from a result's picture; None hides everything."""
        self.result = result if result and result.picture is not None else None
        self.predict = None
        _set_visible(self, self.result is not None)
        self.found.value = ""
        self.reset()

    def reset(self) -> None:
        """Put the colours back."""
        neutral = (0, 100, SHIFT_PALETTES[0])
        for control, value in zip(self.controls, neutral, strict=True):
            control.value = value
        self.shown.value = ""

    def search(self) -> None:
        """Say which smallest changes give another answer."""
        if self.result is None:
            return
        names = self.classifier.class_names
        items = [
            f"<li>{escape(texts.describe_shift(flip.shift))}: "
            f"<b>{escape(CLASS_LABELS[names[flip.label]])}</b></li>"
            for flip in find_flips(self._get_predict())
        ]
        none = (
            "<p>No turn of the hues, no saturation up to three times as strong "
            "and no palette changes the answer.</p>"
        )
        self.found.value = (
            f"<ul class='nebula-flips'>{''.join(items)}</ul>" if items else none
        )

    def _get_predict(self) -> Predict:
        if self.predict is None:
            assert self.result is not None and self.result.picture is not None
            self.predict = self.classifier.make_predictor(self.result.picture)
        return self.predict

    def _on_change(self, change: Any) -> None:
        if self.result is None or self.result.picture is None:
            return
        shift = Shift(
            float(self.hue.value), self.saturation.value / 100, self.palette.value
        )
        (proba,) = self._get_predict()([shift])
        picture = self.result.picture
        side = min(PREVIEW_SIDE, *picture.shape[:2])
        small = reading.to_float(reading.resize_short_side(picture, side))
        source = rendering.to_data_uri(reading.to_uint8(shift(small)))
        label = self.classifier.class_names[int(proba.argmax())]
        words = f"{CLASS_LABELS[label]} {format_share(float(proba.max()))}"
        kind, note = "nebula-small nebula-preview", ""
        if label != self.result.label:
            kind, note = f"{kind} nebula-changed", " – another answer"
        answer = dict(zip(self.classifier.class_names, proba.tolist(), strict=True))
        self.shown.value = (
            f"<div class='nebula-main'><figure class='{kind}'>"
            f"<img src='{source}' alt='In these colours'>"
            f"<figcaption role='status'><b>{escape(words)}</b>{note}</figcaption>"
            "</figure><div class='nebula-words'>"
            f"{rendering.render_bars(answer)}</div></div>"
        )


def list_in_frame(decoded: Decoded, most: int = 8) -> tuple[str, ...]:
    """Return the names of the nebulae in a FITS picture with WCS, nearest middle first.

    A place in a file beside it, or in its AVM, is not looked for: `nebula frame` does.
    """
    if "CTYPE1" not in decoded.header:
        return ()
    from nebula_utils.catalogue.frame import list_nebulae
    from nebula_utils.catalogue.place import find_place

    try:
        place = find_place(Path(os.devnull), decoded)
        found = list_nebulae(place)
    except Exception as error:  # a header may hold anything
        log.debug("no place: %s", error)
        return ()
    height, width = place.shape
    found.sort(key=lambda one: np.hypot(one.x - width / 2, one.y - height / 2))
    return tuple(one.name for one in found[:most])


def describe_example(examples: dict[str, np.ndarray], index: int) -> str:
    """Say what a built-in picture shows, whose it is, and if it was trained on."""
    label = CLASS_LABELS[str(examples["label"][index])]
    known = "is one of" if examples["trained"][index] else "was kept out of"
    credit = f"{examples['credit'][index]}, {examples['licence'][index]}"
    return f"In truth: {label}. This picture {known} the training pictures. {credit}."


def summarise(rows: Sequence[Row], certainty: Certainty, n_left: int = 0) -> str:
    """Say in a line, for the status and for screen readers, what was found."""
    cancelled = f" {_count(n_left)} cancelled." if n_left else ""
    if not rows:
        return cancelled.strip()
    failed = sum(isinstance(row.answer, str) for row in rows)
    if len(rows) > 1:
        bad = f", {failed} of them can't be used" if failed else ""
        return f"{_count(len(rows))} done{bad}.{cancelled}"
    (row,) = rows
    if isinstance(row.answer, str):
        return f"{row.name} can't be used.{cancelled}"
    headline = texts.describe_result(row.answer, certainty).headline
    return f"{row.name}: {headline}.{cancelled}"


def _build_button(label: str, act: Callable[[], None]) -> widgets.Button:
    button = widgets.Button(description=label)
    button.on_click(lambda sender: act())
    return button


def _count(n: int) -> str:
    return "1 picture" if n == 1 else f"{n} pictures"


def _set_visible(widget: widgets.Widget, visible: bool) -> None:
    widget.layout.display = None if visible else "none"

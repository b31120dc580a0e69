"""Draw answers as HTML: every text that comes from outside is escaped here.

Pictures are inline JPEGs, so that the page asks nobody for anything.
"""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from nebula_utils.classifier.classifier import Neighbour, Result
from nebula_utils.classifier.texts import (
    TYPES,
    describe_counterfactual,
    describe_result,
)
from nebula_utils.config import OTHER
from nebula_utils.images import reading
from nebula_utils.report.style import CLASS_LABELS, CLASS_STYLE

SHOWN_SIDE = 360  # px, shorter side of the picture in an answer
SMALL_SIDE = 64  # px, in the table of several pictures
GLOW = np.array([240, 228, 66], np.float32)  # Okabe-Ito yellow: no class has it
# A spreadsheet takes a cell that begins so for a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def render_answer(
    result: Result, strip: Mapping[str, np.ndarray], notes: Sequence[str] = ()
) -> str:
    """Draw everything there is to say about one picture.

    Parameters
    ----------
    result : Result
        The classifier's.
    strip : mapping of str to ndarray of shape (side, side, 3), uint8
        The picture under each counterfactual.
    notes : sequence of str
        What the catalogue says of the object, and whose picture it is.

    Returns
    -------
    str
        HTML.
    """
    wording = describe_result(result)
    lines = [f"<p class='nebula-note'>{escape(note)}</p>" for note in notes if note]
    return f"""
<section class="nebula-answer" aria-label="Answer for {escape(result.path)}">
<div class="nebula-main">
{_render_picture(result)}
<div class="nebula-words">
<h3>{escape(wording.headline)}</h3>
<p>{escape(wording.sentence)}</p>
{"".join(lines)}
{render_bars(result.probabilities)}
{_render_activation(result)}
</div>
</div>
{_render_strip(result, strip)}
{_render_neighbours(result.neighbours)}
</section>"""


def render_bars(probabilities: Mapping[str, float]) -> str:
    """Draw calibrated probabilities as bars in the colours of the classes."""
    rows = []
    for name, share in probabilities.items():
        colour = CLASS_STYLE[name]["color"]
        rows.append(
            f"<tr><th scope='row'>{escape(CLASS_LABELS[name])}</th>"
            "<td class='nebula-track' aria-hidden='true'><span class='nebula-bar' "
            f"style='width:{100 * share:.1f}%;background:{colour}'></span></td>"
            f"<td class='nebula-share'>{_percent(share)}</td></tr>"
        )
    return (
        "<table class='nebula-bars'><caption>How probable each type is</caption>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def render_table(answers: Sequence[tuple[str, Result | str]]) -> str:
    """Draw the answers to several pictures as a table, with a CSV to download.

    Parameters
    ----------
    answers : sequence of (str, Result or str)
        Name and answer; a str is the reason why there is none.
    """
    rows = "".join(_render_row(name, answer) for name, answer in answers)
    content = base64.b64encode(write_csv(answers).encode("utf-8-sig")).decode()
    return (
        "<div class='nebula-wide'><table class='nebula-table'>"
        "<caption>All answers</caption><thead><tr><th scope='col'>picture</th>"
        "<th scope='col'>name</th><th scope='col'>answer</th>"
        "<th scope='col'>probability</th><th scope='col'>without colour</th></tr>"
        f"</thead><tbody>{rows}</tbody></table></div>"
        "<p><a class='nebula-button' download='nebula_answers.csv' "
        f"href='data:text/csv;base64,{content}'>Download as CSV</a></p>"
    )


def render_problems(answers: Sequence[tuple[str, Result | str]]) -> str:
    """List the files that could not be used, and why."""
    items = "".join(
        f"<li><b>{escape(name)}</b>: {escape(answer)}</li>"
        for name, answer in answers
        if isinstance(answer, str)
    )
    return f"<ul class='nebula-problems' role='alert'>{items}</ul>" if items else ""


def render_about(class_names: Sequence[str], card: str) -> str:
    """Draw what the types are and the model card, folded.

    Parameters
    ----------
    class_names : sequence of str
        The classes that the classifier knows.
    card : str
        The model card, as Markdown; may be "".
    """
    types = "".join(
        f"<dt><span class='nebula-key' style='background:{CLASS_STYLE[name]['color']}'>"
        f"</span>{escape(CLASS_LABELS[name])}</dt><dd>{escape(TYPES[name])}</dd>"
        for name in TYPES
        if name in class_names
    )
    n = sum(name != OTHER for name in class_names)
    number = "six" if n == 6 else str(n)
    folded = f"<details><summary>What the {number} types are</summary>"
    folded += f"<dl class='nebula-types'>{types}</dl></details>"
    if card:
        folded += "<details><summary>Model card: how good it is, and where it "
        folded += f"fails</summary><div class='nebula-card'>{_render_card(card)}</div>"
        folded += "</details>"
    return f"<div class='nebula-about'>{folded}</div>"


def write_csv(answers: Sequence[tuple[str, Result | str]]) -> str:
    """Return the answers as CSV; no cell can be taken for a formula.

    Parameters
    ----------
    answers : sequence of (str, Result or str)
        Name and answer; a str is the reason why there is none.
    """
    records = [_make_record(name, answer) for name, answer in answers]
    columns = list(dict.fromkeys(key for record in records for key in record))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="")
    writer.writeheader()
    for record in records:
        writer.writerow({key: _defuse(value) for key, value in record.items()})
    return stream.getvalue()


def overlay_activation(image: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """Lay an activation map over the largest centred square of a picture.

    Parameters
    ----------
    image : ndarray of shape (h, w, 3), uint8
        A result's picture.
    activation : ndarray of shape (rows, columns), float32
        In [0, 1].

    Returns
    -------
    ndarray of shape (side, side, 3), uint8
        The picture in dim grey; where the evidence lies it glows yellow.
    """
    square = reading.centre_crop(image)
    side = len(square)
    small = Image.fromarray((activation * 255).astype(np.uint8))
    smooth = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))
    weight = 0.6 * smooth[..., None].astype(np.float32) / 255
    grey = square.astype(np.float32).mean(2, keepdims=True) * 0.8
    return (grey * (1 - weight) + GLOW * weight).astype(np.uint8)


def to_data_uri(image: np.ndarray, side: int | None = None) -> str:
    """Return a picture as an inline JPEG, its shorter side at most ``side`` px."""
    if side and min(image.shape[:2]) > side:
        image = reading.resize_short_side(image, side)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _render_picture(result: Result) -> str:
    if result.picture is None:
        return ""
    source = to_data_uri(result.picture, SHOWN_SIDE)
    name = escape(result.path)
    return (
        f"<figure class='nebula-picture'><img src='{source}' alt='The picture {name}'>"
        f"<figcaption>{name}</figcaption></figure>"
    )


def _render_activation(result: Result) -> str:
    if result.picture is None or result.activation is None:
        return ""
    over = overlay_activation(
        reading.resize_short_side(result.picture, 224), result.activation
    )
    label = CLASS_LABELS[result.label]
    return (
        "<h4>Where it looked</h4><figure class='nebula-small nebula-activation'>"
        f"<img src='{to_data_uri(over)}' alt='The picture in grey; yellow where the "
        f"evidence for {escape(label)} lies'><figcaption>Yellow: what speaks for "
        f"“{escape(label)}”, in the picture's middle square. Coarse: a hint, no "
        "proof.</figcaption></figure>"
    )


def _render_strip(result: Result, strip: Mapping[str, np.ndarray]) -> str:
    if not strip:
        return ""
    figures = []
    for name, view in strip.items():
        answer = result.counterfactuals[name]
        label = max(answer, key=answer.__getitem__)
        changed = label != result.label
        share = _percent(answer[label])
        what = describe_counterfactual(name)
        words = f"{CLASS_LABELS[label]} {share}"
        figures.append(
            f"<figure class='nebula-small{' nebula-changed' if changed else ''}'>"
            f"<img src='{to_data_uri(view)}' alt='The picture {escape(what)}'>"
            f"<figcaption>{escape(what)}<br><b>{escape(words)}</b>"
            f"{'<br>another answer' if changed else ''}</figcaption></figure>"
        )
    return (
        "<h4>What if its colours were others?</h4>"
        f"<div class='nebula-row'>{''.join(figures)}</div>"
    )


def _render_neighbours(neighbours: Sequence[Neighbour]) -> str:
    if not neighbours:
        return ""
    return (
        "<h4>The most similar training pictures</h4><div class='nebula-row'>"
        f"{''.join(_render_neighbour(neighbour) for neighbour in neighbours)}</div>"
    )


def _render_neighbour(neighbour: Neighbour) -> str:
    name, label = escape(neighbour.nebula), CLASS_LABELS[neighbour.label]
    if neighbour.thumbnail is None:
        shown = "<div class='nebula-hidden'>not shown: its licence is not free</div>"
    else:
        alt = f"Training picture of {name}"
        shown = f"<img src='{to_data_uri(neighbour.thumbnail)}' alt='{alt}'>"
    credit = ", ".join(filter(None, (neighbour.credit, neighbour.licence)))
    return (
        f"<figure class='nebula-small'>{shown}<figcaption><b>{name}</b><br>"
        f"{escape(label)}<br><small>{escape(credit)}</small></figcaption></figure>"
    )


def _render_row(name: str, answer: Result | str) -> str:
    head = f"<th scope='row'>{escape(name)}</th>"
    if isinstance(answer, str):
        return f"<tr><td></td>{head}<td colspan='3'>{escape(answer)}</td></tr>"
    picture = answer.picture
    thumb = "" if picture is None else _render_thumbnail(picture)
    label = CLASS_LABELS[answer.label]
    shown = label if answer.confident else f"not sure ({label}?)"
    return (
        f"<tr><td>{thumb}</td>{head}"
        f"<td>{escape(shown)}</td><td>{_percent(answer.probabilities[answer.label])}"
        f"</td><td>{escape(CLASS_LABELS[answer.grey_label])}</td></tr>"
    )


def _render_thumbnail(picture: np.ndarray) -> str:
    square = to_data_uri(reading.centre_crop(picture), SMALL_SIDE)
    return f"<img src='{square}' alt='' width='{SMALL_SIDE}' height='{SMALL_SIDE}'>"


def _make_record(name: str, answer: Result | str) -> dict[str, Any]:
    if isinstance(answer, str):
        return {"name": name, "error": answer}
    return {
        "name": name,
        "label": answer.label,
        "confident": answer.confident,
        "nebula": answer.nebula,
        "grey_label": answer.grey_label,
        "stability": answer.stability,
        **{f"p_{key}": share for key, share in answer.probabilities.items()},
    }


def _defuse(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _render_card(card: str) -> str:
    import mistune

    class Offline(mistune.HTMLRenderer):
        def image(self, text: str, url: str, title: str | None = None) -> str:
            return f"<i>{escape(text)}</i>"

    made = mistune.create_markdown(
        renderer=Offline(escape=True), plugins=["table", "strikethrough"]
    )
    return str(made(card))

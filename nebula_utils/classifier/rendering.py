"""Draw answers: as HTML, and several as a table, a CSV file, a report; one as a PNG.

Every text that comes from outside is escaped here. Pictures are inline JPEGs, so that
the page asks nobody for anything; what is drawn has no scripts and no styles: `page.js`
brings the sliders and tables to life.
"""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nebula_utils.classifier.classifier import Certainty, Neighbour, Result
from nebula_utils.classifier.texts import (
    COUNTERFACTUAL_LABELS,
    TYPES,
    describe_result,
    format_share,
)
from nebula_utils.classifier.upload import STATIC
from nebula_utils.features.evidence import enlarge
from nebula_utils.images import reading
from nebula_utils.report.drawing import CLASS_LABELS, CLASS_STYLE

SHOWN_SIDE = 360  # px, shorter side of the picture in an answer
SMALL_SIDE = 64  # px, in the table
CARD = (1080, 620)  # px
GLOW = np.array([240, 228, 66], np.float32)  # Okabe-Ito yellow: no class has it
# A spreadsheet takes a cell that begins so for a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
COLUMNS = ("picture", "name", "answer", "probability", "without colour", "object")


class Row(NamedTuple):
    """A file: its name, its result (or a str that says why not), what it shows.

    That is by its header, its name or its user; ``in_frame`` by its place on the sky.
    """

    name: str
    answer: Result | str
    nebula: str = ""
    in_frame: tuple[str, ...] = ()


def render_answer(
    result: Result,
    certainty: Certainty,
    strip: Mapping[str, np.ndarray],
    evidence: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Draw everything there is to say about one picture, as HTML.

    ``strip`` and ``evidence`` are from `Classifier.make_strip` and `map_evidence`;
    notes are what the catalogue says of the object, and whose picture it is.
    """
    wording = describe_result(result, certainty)
    said = [f"<p>{escape(sentence)}</p>" for sentence in wording.sentences]
    trained = (
        "This picture, or one nearly like it, is a training picture: the answer says "
        "nothing about how good the classifier is."
    )
    notes = [*result.notes, trained if result.was_trained_on else "", *notes]
    said += [f"<p class='nebula-note'>{escape(note)}</p>" for note in notes if note]
    share = format_share(result.probabilities[result.label])
    held = f"<b>{format_share(result.stability)}</b> of it left when the colours change"
    return f"""
<section class="nebula-answer" aria-label="Answer for {escape(result.path)}">
<div class="nebula-main">
{_render_picture(result)}
<div class="nebula-words">
<h3>{escape(wording.headline)}</h3>
<p class='nebula-numbers'><span><b>{share}</b> probability</span>
<span>{held}</span></p>
{"".join(said)}
{render_bars(result.probabilities)}
</div>
</div>
{_render_evidence(result, evidence)}
{_render_strip(result, strip)}
{_render_neighbours(result.neighbours)}
</section>"""


def render_bars(probabilities: Mapping[str, float]) -> str:
    """Draw calibrated probabilities as bars in the colours of the classes."""
    rows = [
        f"<tr><th scope='row'>{escape(CLASS_LABELS[name])}</th>"
        "<td class='nebula-track' aria-hidden='true'><span class='nebula-bar' "
        f"style='width:{100 * share:.1f}%;background:{CLASS_STYLE[name]['color']}'>"
        f"</span></td><td class='nebula-share'>{format_share(share)}</td></tr>"
        for name, share in probabilities.items()
    ]
    return (
        "<table class='nebula-bars'><caption>How probable each type is</caption>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def render_about(class_names: Sequence[str], card: str) -> str:
    """Draw what the known types are and the model card (Markdown or ""), folded."""
    types = "".join(
        f"<dt><span class='nebula-key' style='background:{CLASS_STYLE[name]['color']}'>"
        f"</span>{escape(CLASS_LABELS[name])}</dt><dd>{escape(TYPES[name])}</dd>"
        for name in TYPES
        if name in class_names
    )
    folded = {"What the answers mean": f"<dl class='nebula-types'>{types}</dl>"}
    if card:
        title = "Model card: how good it is, and where it fails"
        folded[title] = f"<div class='nebula-card'>{_render_card(card)}</div>"
    details = [
        f"<details><summary>{title}</summary>{content}</details>"
        for title, content in folded.items()
    ]
    return f"<div class='nebula-about'>{''.join(details)}</div>"


def render_table(rows: Sequence[Row]) -> str:
    """Draw the answers as a table; `page.js` sorts, filters and opens its rows."""
    heads = "".join(
        f"<th scope='col'><button class='nebula-sort'>{name}</button></th>"
        if name != "picture"
        else "<th scope='col'><span class='nebula-unseen'>picture</span></th>"
        for name in COLUMNS
    )
    body = "".join(_render_row(i, row) for i, row in enumerate(rows))
    unsure = sum(not _is_sure(row) for row in rows)
    check = (
        "<label class='nebula-check'><input type='checkbox' class='nebula-filter'> "
        f"only the {unsure} without a sure answer</label>"
    )
    return (
        f"{check if unsure else ''}"
        "<div class='nebula-wide'><table class='nebula-table'>"
        f"<caption>All answers</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def render_problems(rows: Sequence[Row]) -> str:
    """List the files that could not be used, and why."""
    items = "".join(
        f"<li><b>{escape(row.name)}</b>: {escape(row.answer)}</li>"
        for row in rows
        if isinstance(row.answer, str)
    )
    return f"<ul class='nebula-problems' role='alert'>{items}</ul>" if items else ""


def render_report(rows: Sequence[Row], sections: Sequence[str]) -> str:
    """Write one page that can be kept and shared, with all pictures inside.

    The sections are each answer's HTML. The document loads nothing, runs no script.
    """
    style = (STATIC / "app.css").read_text(encoding="utf-8")
    table = render_table(rows) if len(rows) > 1 else render_problems(rows)
    return (
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Which nebula? {len(rows)} answers</title><style>{style}</style></head>"
        "<body class='nebula-report'><main class='nebula-app'>"
        f"<h2>What the nebula classifier says</h2>{table}{''.join(sections)}"
        "</main></body></html>"
    )


def write_csv(rows: Sequence[Row]) -> str:
    """Return the answers as CSV; no cell can be taken for a formula."""
    records = [_make_record(row) for row in rows]
    columns = list(dict.fromkeys(key for record in records for key in record))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="")
    writer.writeheader()
    for record in records:
        writer.writerow({key: _defuse(value) for key, value in record.items()})
    return stream.getvalue()


def draw_card(result: Result, certainty: Certainty, nebula: str = "") -> bytes:
    """Draw one answer as a PNG picture to share; ``nebula`` is what it shows."""
    card = Image.new("RGB", CARD, "#16181c")
    draw = ImageDraw.Draw(card)
    if result.picture is not None:
        shown = Image.fromarray(result.picture)
        shown.thumbnail((500, 540))
        card.paste(shown, (30, 30))
    wording = describe_result(result, certainty)
    lines = [(wording.headline, 30), (nebula or result.path, 20)]
    lines += [(sentence, 18) for sentence in wording.sentences]
    top = 30
    for text, size in lines:
        font = ImageFont.load_default(size)
        for line in _wrap(text, font, 480):
            draw.text((560, top), line, "#eeeeee", font)
            top += size + 8
        top += 8
    font = ImageFont.load_default(16)
    for name, share in result.probabilities.items():
        width = max(2, round(200 * share))
        draw.text((560, top), CLASS_LABELS[name], "#bbbbbb", font)
        draw.rectangle((740, top, 940, top + 18), "#2a2e35")
        bar = (740, top, 740 + width, top + 18)
        draw.rectangle(bar, CLASS_STYLE[name]["color"], "#999999")
        draw.text((955, top), format_share(share), "#eeeeee", font)
        top += 28
    return _encode(card, "PNG")


def overlay_evidence(
    image: np.ndarray, evidence: np.ndarray, largest: float
) -> np.ndarray:
    """Lay a map of evidence, (rows, columns) float32, over a whole picture.

    The picture, (h, w, 3) uint8, becomes dim grey; where the evidence lies it glows
    yellow, most where it is the ``largest``.
    """
    fine = enlarge(evidence[..., None], *image.shape[:2])
    weight = 0.7 * np.clip(fine / max(largest, 1e-9), 0, 1)
    grey = image.astype(np.float32).mean(2, keepdims=True) * 0.8
    return (grey * (1 - weight) + GLOW * weight).astype(np.uint8)


def to_data_uri(image: np.ndarray, side: int | None = None) -> str:
    """Return a picture as an inline JPEG, its shorter side at most ``side`` px."""
    if side and min(image.shape[:2]) > side:
        image = reading.resize_short_side(image, side)
    content = _encode(Image.fromarray(image), "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def to_png(image: np.ndarray) -> bytes:
    """Return uint8 RGB (h, w, 3) as a PNG file's content, quickly."""
    return _encode(Image.fromarray(image), "PNG", compress_level=1)


def _encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def _render_picture(result: Result) -> str:
    if result.picture is None:
        return ""
    source = to_data_uri(result.picture, SHOWN_SIDE)
    name = escape(result.path)
    return (
        f"<figure class='nebula-picture'><img src='{source}' alt='The picture {name}'>"
        f"<figcaption>{name}</figcaption></figure>"
    )


def _render_evidence(result: Result, evidence: np.ndarray | None) -> str:
    if result.picture is None or evidence is None:
        return ""
    names = list(result.probabilities)
    ranked = sorted(names, key=lambda name: -result.probabilities[name])[:2]
    picture = reading.resize_short_side(
        result.picture, min(SHOWN_SIDE, *result.picture.shape[:2])
    )
    largest = float(evidence[..., names.index(result.label)].max())
    figures = []
    for name in ranked:
        over = overlay_evidence(picture, evidence[..., names.index(name)], largest)
        label = escape(CLASS_LABELS[name])
        figures.append(
            "<figure class='nebula-map'><div class='nebula-stack'>"
            f"<img src='{to_data_uri(picture)}' alt=''>"
            f"<img class='nebula-over' src='{to_data_uri(over)}' alt='The picture in "
            f"grey; yellow where the evidence for {label} lies'></div>"
            f"<label>picture <input type='range' class='nebula-blend' min='0' max='100'"
            f" value='100' aria-label='From picture to map of {label}'> map</label>"
            f"<figcaption>Yellow: what speaks for “{label}”</figcaption></figure>"
        )
    hint = (
        "<p class='nebula-hint'>The most probable type and the runner-up, on one "
        "scale. Coarse: a hint, not proof.</p>"
    )
    return _render_figures("Where the evidence lies", figures) + hint


def _render_strip(result: Result, strip: Mapping[str, np.ndarray]) -> str:
    answers = {"as_is": result.probabilities, **result.counterfactuals}
    figures = []
    for name, view in strip.items():
        answer = answers[name]
        label = max(answer, key=answer.__getitem__)
        # Painting a grey picture adds colour; it takes none away that had decided.
        changed = label != result.label and not result.is_grey
        what = escape(COUNTERFACTUAL_LABELS[name])
        words = f"{CLASS_LABELS[label]} {format_share(answer[label])}"
        figures.append(
            f"<figure class='nebula-small{' nebula-changed' if changed else ''}'>"
            f"<img src='{to_data_uri(view)}' alt='The picture {what}'>"
            f"<figcaption>{what}<br><b>{escape(words).replace(' %', '&nbsp;%')}</b>"
            f"{'<br>another answer' if changed else ''}</figcaption></figure>"
        )
    asked = "it had colour" if result.is_grey else "its colours were different"
    return _render_figures(f"What if {asked}?", figures)


def _render_neighbours(neighbours: Sequence[Neighbour]) -> str:
    figures = []
    for neighbour in neighbours:
        name, label = escape(neighbour.nebula), CLASS_LABELS[neighbour.label]
        shown = "<div class='nebula-hidden'>not shown here</div>"
        if neighbour.thumbnail is not None:
            alt = f"Training picture of {name}"
            shown = f"<img src='{to_data_uri(neighbour.thumbnail)}' alt='{alt}'>"
        credit = ", ".join(filter(None, (neighbour.credit, neighbour.licence)))
        figures.append(
            f"<figure class='nebula-small'>{shown}<figcaption><b>{name}</b><br>"
            f"{escape(label)}<br><small>{escape(credit)}</small></figcaption></figure>"
        )
    return _render_figures("The most similar training pictures", figures)


def _render_figures(title: str, figures: Sequence[str]) -> str:
    if not figures:
        return ""
    return f"<h4>{title}</h4><div class='nebula-row'>{''.join(figures)}</div>"


def _render_card(card: str) -> str:
    import mistune

    class Offline(mistune.HTMLRenderer):
        def image(self, text: str, url: str, title: str | None = None) -> str:
            return f"<i>{escape(text)}</i>"

    made = mistune.create_markdown(
        renderer=Offline(escape=True), plugins=["table", "strikethrough"]
    )
    return str(made(card))


def _is_sure(row: Row) -> bool:
    return not isinstance(row.answer, str) and row.answer.confident


def _render_row(index: int, row: Row) -> str:
    answer, name = row.answer, escape(row.name)
    start = f"<tr data-sure='{int(_is_sure(row))}'><td>"
    if isinstance(answer, str):
        head = f"</td><th scope='row'>{name}</th>"
        return f"{start}{head}<td colspan='4'>{escape(answer)}</td></tr>"
    thumb = "" if answer.picture is None else _render_thumbnail(answer.picture)
    label = CLASS_LABELS[answer.label]
    share = answer.probabilities[answer.label]
    cells = (
        ("answer", label if answer.confident else f"not sure ({label}?)", label),
        ("probability", format_share(share), f"{share:.6f}"),
        ("without colour", CLASS_LABELS[answer.grey_label], ""),
        ("object", row.nebula, ""),
    )
    button = f"<button class='nebula-open' data-row='{index}'>{name}</button>"
    drawn = [
        f"<td data-label='{column}' data-key='{escape(key or text)}'>"
        f"{escape(text)}</td>"
        for column, text, key in cells
    ]
    return f"{start}{thumb}</td><th scope='row'>{button}</th>{''.join(drawn)}</tr>"


def _render_thumbnail(picture: np.ndarray) -> str:
    square = to_data_uri(reading.centre_crop(picture), SMALL_SIDE)
    return f"<img src='{square}' alt='' width='{SMALL_SIDE}' height='{SMALL_SIDE}'>"


def _make_record(row: Row) -> dict[str, Any]:
    if isinstance(row.answer, str):
        return {"name": row.name, "error": row.answer}
    answer = row.answer.as_dict()
    probabilities = answer.pop("probabilities")
    return {
        "name": row.name,
        "object": row.nebula,
        **{key: value for key, value in answer.items() if key != "path"},
        "candidates": " ".join(answer["candidates"]),
        **{f"p_{key}": share for key, share in probabilities.items()},
    }


def _defuse(value: Any) -> Any:
    is_formula = isinstance(value, str) and value.startswith(FORMULA_STARTS)
    return f"'{value}" if is_formula else value


def _wrap(text: str, font: Any, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines

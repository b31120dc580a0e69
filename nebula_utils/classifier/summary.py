"""Sum up the answers to several pictures: a table, a CSV, a report, a card."""

import csv
import io
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nebula_utils.classifier.answer_html import to_data_uri
from nebula_utils.classifier.result import Certainty, Result
from nebula_utils.classifier.texts import describe_result, format_share
from nebula_utils.classifier.upload import STATIC
from nebula_utils.images import reading
from nebula_utils.report.style import CLASS_LABELS, CLASS_STYLE

SMALL_SIDE = 64  # px, in the table
CARD = (1080, 620)  # px
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

    The sections are each answer's HTML (`answer_html.render_answer`). The document
    loads nothing and runs no script.
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
    for name, share in result.probabilities.items():
        draw.text((560, top), CLASS_LABELS[name], "#bbbbbb", ImageFont.load_default(16))
        draw.rectangle((740, top, 940, top + 18), "#2a2e35")
        width = max(2, round(200 * share))
        draw.rectangle((740, top, 740 + width, top + 18), CLASS_STYLE[name]["color"])
        draw.rectangle((740, top, 740 + width, top + 18), outline="#999999")
        text, font = format_share(share), ImageFont.load_default(16)
        draw.text((955, top), text, "#eeeeee", font)
        top += 28
    stream = io.BytesIO()
    card.save(stream, "PNG")
    return stream.getvalue()


def _is_sure(row: Row) -> bool:
    return not isinstance(row.answer, str) and row.answer.confident


def _render_row(index: int, row: Row) -> str:
    button = (
        f"<button class='nebula-open' data-row='{index}'>{escape(row.name)}</button>"
        if not isinstance(row.answer, str)
        else escape(row.name)
    )
    head = f"<th scope='row'>{button}</th>"
    sure = f"data-sure='{int(_is_sure(row))}'"
    if isinstance(row.answer, str):
        reason = escape(row.answer)
        return f"<tr {sure}><td></td>{head}<td colspan='4'>{reason}</td></tr>"
    answer = row.answer
    thumb = "" if answer.picture is None else _render_thumbnail(answer.picture)
    label = CLASS_LABELS[answer.label]
    shown = label if answer.confident else f"not sure ({label}?)"
    share = answer.probabilities[answer.label]
    cells = (
        ("answer", shown, label),
        ("probability", format_share(share), f"{share:.6f}"),
        ("without colour", CLASS_LABELS[answer.grey_label], ""),
        ("object", row.nebula, ""),
    )
    return f"<tr {sure}><td>{thumb}</td>{head}" + (
        "".join(
            f"<td data-label='{name}' data-key='{escape(key or text)}'>"
            f"{escape(text)}</td>"
            for name, text, key in cells
        )
        + "</tr>"
    )


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
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value


def _wrap(text: str, font: Any, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines

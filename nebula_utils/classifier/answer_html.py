"""Draw an answer as HTML: every text that comes from outside is escaped here.

Pictures are inline JPEGs, so that the page asks nobody for anything. There are no
scripts and no styles in what is drawn: `page.js` brings the sliders and tables to life.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from nebula_utils.bias.evidence import enlarge
from nebula_utils.classifier.result import Certainty, Neighbour, Result
from nebula_utils.classifier.texts import (
    TYPES,
    describe_counterfactual,
    describe_result,
    format_share,
)
from nebula_utils.images import reading
from nebula_utils.report.style import CLASS_LABELS, CLASS_STYLE

SHOWN_SIDE = 360  # px, shorter side of the picture in an answer
GLOW = np.array([240, 228, 66], np.float32)  # Okabe-Ito yellow: no class has it


def render_answer(
    result: Result,
    certainty: Certainty,
    strip: Mapping[str, np.ndarray],
    evidence: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Draw everything there is to say about one picture, as HTML.

    Parameters
    ----------
    strip : mapping of str to ndarray of shape (side, side, 3), uint8
        From `Classifier.make_strip`.
    evidence : ndarray of shape (rows, columns, n_classes), float32, optional
        From `Classifier.map_evidence`.
    notes : sequence of str
        What the catalogue says of the object, and whose picture it is.
    """
    wording = describe_result(result, certainty)
    said = [f"<p>{escape(sentence)}</p>" for sentence in wording.sentences]
    if result.was_trained_on:
        notes = [
            "This picture, or one nearly like it, is a training picture: the answer "
            "says nothing about how good the classifier is.",
            *notes,
        ]
    lines = [
        f"<p class='nebula-note'>{escape(note)}</p>"
        for note in (*result.notes, *notes)
        if note
    ]
    return f"""
<section class="nebula-answer" aria-label="Answer for {escape(result.path)}">
<div class="nebula-main">
{_render_picture(result)}
<div class="nebula-words">
<h3>{escape(wording.headline)}</h3>
{_render_numbers(result)}
{"".join(said)}
{"".join(lines)}
{render_bars(result.probabilities)}
</div>
</div>
{_render_evidence(result, evidence)}
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
            f"<td class='nebula-share'>{format_share(share)}</td></tr>"
        )
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
    folded = "<details><summary>What the answers mean</summary>"
    folded += f"<dl class='nebula-types'>{types}</dl></details>"
    if card:
        folded += "<details><summary>Model card: how good it is, and where it "
        folded += f"fails</summary><div class='nebula-card'>{_render_card(card)}</div>"
        folded += "</details>"
    return f"<div class='nebula-about'>{folded}</div>"


def overlay_evidence(
    image: np.ndarray, evidence: np.ndarray, largest: float
) -> np.ndarray:
    """Lay a map of evidence over a picture.

    Parameters
    ----------
    image : ndarray of shape (h, w, 3), uint8
        RGB.
    evidence : ndarray of shape (rows, columns), float32
        Over the whole of it; ``largest`` glows most.

    Returns
    -------
    ndarray of shape (h, w, 3), uint8
        The picture in dim grey; where the evidence lies it glows yellow.
    """
    fine = enlarge(evidence[..., None], *image.shape[:2])
    weight = 0.7 * np.clip(fine / max(largest, 1e-9), 0, 1)
    grey = image.astype(np.float32).mean(2, keepdims=True) * 0.8
    return (grey * (1 - weight) + GLOW * weight).astype(np.uint8)


def to_data_uri(image: np.ndarray, side: int | None = None) -> str:
    """Return a picture as an inline JPEG, its shorter side at most ``side`` px."""
    return "data:image/jpeg;base64," + base64.b64encode(to_jpeg(image, side)).decode()


def to_jpeg(image: np.ndarray, side: int | None = None, quality: int = 85) -> bytes:
    """Return a picture as a JPEG file, its shorter side at most ``side`` px."""
    if side and min(image.shape[:2]) > side:
        image = reading.resize_short_side(image, side)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def to_png(image: np.ndarray) -> bytes:
    """Return a picture as a PNG file, quickly."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=1)
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


def _render_numbers(result: Result) -> str:
    """Draw the two numbers that matter, large."""
    share = format_share(result.probabilities[result.label])
    held = format_share(result.stability)
    return (
        f"<p class='nebula-numbers'><span><b>{share}</b> probability</span>"
        f"<span><b>{held}</b> of it left when the colours change</span></p>"
    )


def _render_evidence(result: Result, evidence: np.ndarray | None) -> str:
    if result.picture is None or evidence is None:
        return ""
    names = list(result.probabilities)
    ranked = sorted(names, key=lambda name: -result.probabilities[name])[:2]
    picture = reading.resize_short_side(
        result.picture, min(SHOWN_SIDE, min(result.picture.shape[:2]))
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
    return (
        "<h4>Where the evidence lies</h4>"
        f"<div class='nebula-row'>{''.join(figures)}</div>"
        "<p class='nebula-hint'>The most probable type and the runner-up, on one "
        "scale. Coarse: a hint, not proof.</p>"
    )


def _render_strip(result: Result, strip: Mapping[str, np.ndarray]) -> str:
    if not strip:
        return ""
    answers = {"as_is": result.probabilities, **result.counterfactuals}
    figures = []
    for name, view in strip.items():
        answer = answers[name]
        label = max(answer, key=answer.__getitem__)
        # Painting a grey picture adds colour; it takes none away that had decided.
        changed = label != result.label and not result.is_grey
        what = escape(describe_counterfactual(name))
        words = f"{CLASS_LABELS[label]} {format_share(answer[label])}"
        figures.append(
            f"<figure class='nebula-small{' nebula-changed' if changed else ''}'>"
            f"<img src='{to_data_uri(view)}' alt='The picture {what}'>"
            f"<figcaption>{what}<br><b>{escape(words)}</b>"
            f"{'<br>another answer' if changed else ''}</figcaption></figure>"
        )
    asked = "it had colour" if result.is_grey else "its colours were different"
    return f"<h4>What if {asked}?</h4><div class='nebula-row'>{''.join(figures)}</div>"


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
        shown = "<div class='nebula-hidden'>not shown here</div>"
    else:
        alt = f"Training picture of {name}"
        shown = f"<img src='{to_data_uri(neighbour.thumbnail)}' alt='{alt}'>"
    credit = ", ".join(filter(None, (neighbour.credit, neighbour.licence)))
    return (
        f"<figure class='nebula-small'>{shown}<figcaption><b>{name}</b><br>"
        f"{escape(label)}<br><small>{escape(credit)}</small></figcaption></figure>"
    )


def _render_card(card: str) -> str:
    import mistune

    class Offline(mistune.HTMLRenderer):
        def image(self, text: str, url: str, title: str | None = None) -> str:
            return f"<i>{escape(text)}</i>"

    made = mistune.create_markdown(
        renderer=Offline(escape=True), plugins=["table", "strikethrough"]
    )
    return str(made(card))

"""Charts of the bias (05): what flips under colour and framing, groups, dust."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nebula_utils.counterfactuals.colour import PALETTES
from nebula_utils.report.charts import plot_paired
from nebula_utils.report.drawing import (
    CHANGE_NAMES,
    COLOURS,
    HEAD_STYLE,
    OFFSET,
    draw_shares,
    format_percent,
    get_figure,
    make_axes,
    make_grid,
    write_cell,
    write_title,
)
from nebula_utils.report.style import CLASS_LABELS
from nebula_utils.training.scores import (
    MIN_GROUP,
    Predictions,
    compute_balanced_accuracy,
    compute_confusion,
    compute_recall,
    make_score,
    make_weights,
)


def plot_confusion_grid(
    predictions: Mapping[str, Mapping[str, Predictions]],
    names: Sequence[str] = COLOURS,
) -> np.ndarray:
    """Draw small confusion matrices: a row a head, a column a change.

    Parameters
    ----------
    predictions : mapping of str to mapping of str to Predictions
        Name of each head → ``"as_is"`` and changes → its predictions of all pictures.
    names : sequence of str
        The changes to draw, from left to right.

    Returns
    -------
    ndarray of Axes
        Shares by colour, without counts; the balanced accuracy stands above each.
    """
    axes = make_grid(len(predictions), len(names), (1.75, 2.1))
    means = {}
    for line, (head, under) in zip(axes, predictions.items(), strict=True):
        for ax, name in zip(line, names, strict=True):
            p = under[name]
            draw_shares(ax, compute_confusion(p))
            weights = make_weights(p.groups, p.y_true, 0)
            means[head, name] = compute_balanced_accuracy(p, weights)[0]
            ax.set_title(f"{CHANGE_NAMES[name]}: {means[head, name]:.2f}", fontsize=8)
            ax.set(xticks=[], yticks=[])
        labels = [CLASS_LABELS[name] for name in under[names[0]].class_names]
        line[0].set_yticks(range(len(labels)), labels, fontsize=6.5)
        line[0].set_ylabel(f"{head} head", fontsize=9)
    losses = [
        f"{100 * (means[head, names[0]] - min(means[head, n] for n in names)):.0f} "
        f"({head})"
        for head in predictions
    ]
    found = (
        f"Points of balanced accuracy that the worst change costs: {', '.join(losses)}"
    )
    get_figure(axes[0, 0]).suptitle(found, fontsize=11, x=0.01, ha="left")
    axes[0, 0].set_label(found)
    return axes


def plot_flip_rates(
    heads: Mapping[str, Mapping[str, Any]],
    ax: Axes | None = None,
    key: str = "flip_rate",
    first: str = "grey",
) -> Axes:
    """Compare how often a change of colour, or of framing, changes the answer.

    Parameters
    ----------
    heads : mapping of str to dict
        The heads' scores, as in metrics.json.
    key : str
        ``"flip_rate"`` or ``"framing_flip_rate"``.
    first : str
        The change that the title tells.
    """
    flips = {name: head[key] for name, head in heads.items()}
    values = [f"{flip[first]['value']:.0%} ({name})" for name, flip in flips.items()]
    ax = plot_paired(flips, CHANGE_NAMES, ax)
    ax.set(xlim=(0, None), xlabel="share of answers that flip, 95 % interval by nebula")
    score = next(iter(flips.values()))[first]
    about = f"{score['n_images']} pictures of {score['n_nebulae']} nebulae, out of fold"
    title = f"Answers that flip, {CHANGE_NAMES[first]}: {', '.join(values)}"
    return write_title(ax, title, about)


def plot_group_recall(
    p: Predictions,
    palettes: np.ndarray,
    ax: Axes | None = None,
    subtitle: str = "out-of-fold answers",
) -> Axes:
    """Draw the recall of each type × palette group, with its number of nebulae.

    Parameters
    ----------
    p : Predictions
        Answers to the pictures as they are.
    palettes : ndarray of shape (n_images,), str
        The palette of each picture.
    subtitle : str
        Which head.
    """
    found = tabulate_groups(p, palettes)
    types = [name for name in p.class_names if name != "other"]
    there = np.unique(palettes)
    columns = [name for name in PALETTES if name in there]
    ax = make_axes(ax, (1.1 * len(columns) + 3, 0.55 * len(types) + 1.8))
    grid = np.full((len(types), len(columns)), np.nan)
    for row in found:
        i, j = types.index(row["type"]), columns.index(row["palette"])
        score = row["recall"]
        enough = score["n_nebulae"] >= MIN_GROUP
        grid[i, j] = score["value"] if enough else np.nan
        text = f"{score['value']:.2f}" if enough else "–"
        text = f"{text}\n{score['n_nebulae']} neb."
        write_cell(ax, i, j, text, score["value"] if enough else 0)
    ax.imshow(grid, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(types)), [CLASS_LABELS[name] for name in types])
    ax.set_xlabel(f"palette of the picture (–: fewer than {MIN_GROUP} nebulae)")
    scored = [row for row in found if row["recall"]["n_nebulae"] >= MIN_GROUP]
    title = "No type × palette group is large enough"
    if scored:
        worst = min(scored, key=lambda row: row["recall"]["value"])
        title = (
            f"Worst group: {worst['palette']} {CLASS_LABELS[worst['type']]}, recall "
            f"{format_percent(worst['recall'])}"
        )
    return write_title(ax, title, f"recall by type and palette; {subtitle}")


def tabulate_groups(p: Predictions, palettes: np.ndarray) -> list[dict[str, Any]]:
    """Return ``type``, ``palette`` and the ``recall`` score of each group there is."""
    rows = []
    for label, name in enumerate(p.class_names):
        for palette in np.unique(palettes):
            mask = (p.y_true == label) & (palettes == palette)
            if name == "other" or not mask.any():
                continue
            part = p.select(mask)
            weights = make_weights(part.groups, part.y_true)
            values = compute_recall(part, weights)[:, label]
            score = make_score(values, part.groups)
            rows.append({"type": name, "palette": palette, "recall": score})
    return rows


def plot_dose_response(response: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw P(dark) against the extinction, the median and half of the scenes.

    Parameters
    ----------
    response : DataFrame
        From `bias.measure_dose_response`.
    """
    ax = make_axes(ax, (6.4, 3.6))
    for (head, colour), rows in response.groupby(["head", "colour"], sort=False):
        curve = rows.groupby("a_v")["p_dark"].quantile([0.25, 0.5, 0.75]).unstack()
        shade, grey = HEAD_STYLE[head]["color"], colour == "grey"
        line = ":" if grey else "-"
        ax.plot(curve.index, curve[0.5], line, color=shade, marker="o", ms=4)
        if not grey:
            band = (curve[0.25], curve[0.75])
            ax.fill_between(curve.index, *band, color=shade, alpha=0.1)
        end = (curve.index[-1], float(curve[0.5].iloc[-1]))
        text = {"xytext": (6, 4 if grey else -8), "color": shade, **OFFSET}
        ax.annotate(f"{head}, {colour}", end, **text)
    ax.set(
        xlabel="visual extinction A$_V$ of the cloud's densest part, magnitudes",
        ylabel="P(dark)",
        ylim=(0, 1),
        xlim=(0, 1.35 * response["a_v"].max()),
    )
    ax.spines[["top", "right"]].set_visible(False)
    about = f"{response['scene'].nunique()} simulated fields, only the dust changes"
    return write_title(ax, describe_response(response), about)


def describe_response(response: pd.DataFrame) -> str:
    """Say in one sentence what the dust changes, whatever it is."""
    as_is = response[response["colour"] == "as it is"]
    medians = as_is.groupby(["head", "a_v"], sort=False)["p_dark"].median()
    least, most = as_is["a_v"].min(), as_is["a_v"].max()
    parts = []
    for head in as_is["head"].unique():
        before, after = medians[head, least], medians[head, most]
        change = "rises" if after > before + 0.02 else "does not rise"
        change = "falls" if after < before - 0.02 else change
        parts.append(f"{change} from {before:.2f} to {after:.2f} ({head})")
    return f"With the dust P(dark) {' and '.join(parts)}"

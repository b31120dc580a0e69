"""Charts: each takes results, returns its Axes, and says in its title what was found.

Photographs are drawn by `pictures`; charts of data and training are in `charts`, and
can be had from here. Nothing here draws random numbers but the t-SNE map, which has a
seed of its own.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from nebula_utils.counterfactuals.colour import PALETTES
from nebula_utils.report.charts import (
    plot_counts,
    plot_embedding_map,
    plot_learning_curves,
    share_neighbours,
)
from nebula_utils.report.drawing import (
    COLOUR_NAMES,
    HEAD_STYLE,
    draw_score,
    format_percent,
    make_axes,
    name_rows,
    save_figure,
    style_marker,
    write_title,
)
from nebula_utils.report.style import CLASS_LABELS, CLASS_STYLE
from nebula_utils.training.calibration import compute_reliability
from nebula_utils.training.scores import (
    MIN_GROUP,
    Predictions,
    Score,
    compute_balanced_accuracy,
    compute_confusion,
    compute_ece,
    compute_recall,
    make_score,
    make_weights,
)

if TYPE_CHECKING:
    from nebula_utils.bias.analysis import Answers

__all__ = [
    "CLASS_LABELS",
    "CLASS_STYLE",
    "plot_confusion",
    "plot_confusion_grid",
    "plot_counts",
    "plot_embedding_map",
    "plot_flip_rates",
    "plot_group_recall",
    "plot_learning_curves",
    "plot_recall",
    "plot_reliability",
    "plot_scores",
    "plot_split_comparison",
    "save_figure",
    "share_neighbours",
    "tabulate_groups",
]


def plot_confusion(
    p: Predictions, ax: Axes | None = None, subtitle: str = "out-of-fold answers"
) -> Axes:
    """Draw a confusion matrix: shares by colour, counts of pictures in the cells.

    Parameters
    ----------
    p : Predictions
        Answers and truth.
    ax : Axes, optional
        Where to draw; default: a new figure.
    subtitle : str
        Which head and which pictures.

    Returns
    -------
    Axes
        Rows are true classes, normalised; counts are means over the repeats.
    """
    counts = compute_confusion(p)
    n = len(counts)
    ax = make_axes(ax, (0.75 * n + 2.2, 0.6 * n + 2))
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if share[row, column] > 0.55 else "#222"
        if count >= 0.5:
            ax.text(column, row, f"{count:.0f}", ha="center", va="center", color=colour)
    labels = [CLASS_LABELS[name] for name in p.class_names]
    ax.set_xticks(range(n), labels, rotation=40, ha="right")
    ax.set_yticks(range(n), labels)
    ax.set(xlabel="answer", ylabel="true class")
    wrong = share - np.diag(np.diag(share))
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    found = (
        f"{wrong.max():.0%} of {labels[row]} pictures taken for {labels[column]}"
        if wrong.max() > 0
        else "No picture is taken for another class"
    )
    accuracy = compute_balanced_accuracy(p, make_weights(p.groups, p.y_true, 0))[0]
    about = f"{subtitle}; {len(p.y_true)} pictures; balanced accuracy {accuracy:.2f}"
    return write_title(ax, found, about)


def plot_confusion_grid(
    answers: Mapping[str, "Answers"], names: Sequence[str] = tuple(COLOUR_NAMES)
) -> np.ndarray:
    """Draw small confusion matrices: a row a head, a column a colour.

    Parameters
    ----------
    answers : mapping of str to Answers
        Name of each head → its out-of-fold answers.
    names : sequence of str
        ``"as_is"`` and counterfactuals.

    Returns
    -------
    ndarray of Axes
        Shares by colour, without counts; the balanced accuracy stands above each.
    """
    size = (1.75 * len(names) + 0.6, 1.95 * len(answers) + 0.6)
    figure, axes = plt.subplots(
        len(answers), len(names), figsize=size, squeeze=False, layout="constrained"
    )
    means = {}
    for line, (head, one) in zip(axes, answers.items(), strict=True):
        for ax, name in zip(line, names, strict=True):
            p = one.predict_under(name)
            counts = compute_confusion(p)
            share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
            ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
            weights = make_weights(p.groups, p.y_true, 0)
            means[head, name] = compute_balanced_accuracy(p, weights)[0]
            ax.set_title(f"{COLOUR_NAMES[name]}: {means[head, name]:.2f}", fontsize=8)
            ax.set(xticks=[], yticks=[])
        labels = [CLASS_LABELS[name] for name in one.dataset.class_names]
        line[0].set_yticks(range(len(labels)), labels, fontsize=6.5)
        line[0].set_ylabel(f"{head} head", fontsize=9)
    losses = [
        f"{100 * (means[head, 'as_is'] - min(means[head, n] for n in names)):.0f} "
        f"({head})"
        for head in answers
    ]
    figure.suptitle(
        f"Points of balanced accuracy that the worst colour costs: {', '.join(losses)}",
        fontsize=11,
        x=0.01,
        ha="left",
    )
    return axes


def plot_scores(
    scores: Mapping[str, Score],
    ax: Axes | None = None,
    title: str = "",
    subtitle: str = "",
    xlabel: str = "balanced accuracy",
) -> Axes:
    """Draw scores as dots with their intervals, one a row.

    Parameters
    ----------
    scores : mapping of str to score
        What a row is called → a score as metrics.json has it.
    ax : Axes, optional
        Where to draw; default: a new figure.
    title, subtitle, xlabel : str
        The finding, what is plotted, and the unit.

    Returns
    -------
    Axes
    """
    ax = make_axes(ax, (7, 0.5 * len(scores) + 1.5))
    for row, (name, score) in enumerate(scores.items()):
        head = name.split(",")[0]
        style = HEAD_STYLE.get(head, HEAD_STYLE["robust"])
        draw_score(ax, score, row, style)
        if score["value"] is not None:
            text = f"{score['value']:.2f}"
            ax.text(score["value"], row - 0.22, text, ha="center", fontsize=9)
    name_rows(ax, list(scores))
    ax.set_xlabel(f"{xlabel}, 95 % interval by nebula")
    return write_title(ax, title, subtitle)


def plot_split_comparison(
    heads: Mapping[str, Mapping[str, Any]], ax: Axes | None = None
) -> Axes:
    """Show how much a random split flatters, against a split by nebula.

    Parameters
    ----------
    heads : mapping of str to dict
        The heads' scores, as in metrics.json.
    ax : Axes, optional
        Where to draw; default: a new figure.

    Returns
    -------
    Axes
    """
    rows: dict[str, Score] = {}
    for name, head in heads.items():
        rows[f"{name}, by nebula"] = head["balanced_accuracy"]
        rows[f"{name}, random"] = head["balanced_accuracy_random_split"]
    first = next(iter(heads))
    gain = (rows[f"{first}, random"]["value"] or 0.0) - (
        rows[f"{first}, by nebula"]["value"] or 0.0
    )
    word = "more" if gain >= 0 else "less"
    title = (
        f"A random split would claim {abs(100 * gain):.1f} points {word} ({first} head)"
    )
    score = rows[f"{first}, by nebula"]
    about = f"{score['n_images']} pictures of {score['n_nebulae']} objects"
    return plot_scores(rows, ax, title, about)


def plot_recall(heads: Mapping[str, Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Compare each class's recall between heads.

    Parameters
    ----------
    heads : mapping of str to dict
        The heads' scores, as in metrics.json.
    ax : Axes, optional
        Where to draw; default: a new figure.

    Returns
    -------
    Axes
    """
    recalls = {name: head["recall"] for name, head in heads.items()}
    last = list(recalls)[-1]
    worst = min(recalls[last], key=lambda name: recalls[last][name]["value"])
    title = (
        f"Hardest for the {last} head: {CLASS_LABELS[worst]}, "
        f"recall {format_percent(recalls[last][worst])}"
    )
    ax = _plot_paired(recalls, CLASS_LABELS, ax)
    ax.set(xlim=(0, 1), xlabel="recall, 95 % interval by nebula")
    return write_title(ax, title, "out-of-fold answers, pictures as they are")


def plot_flip_rates(
    heads: Mapping[str, Mapping[str, Any]], ax: Axes | None = None
) -> Axes:
    """Compare how often a change of colour changes the answer.

    Parameters
    ----------
    heads : mapping of str to dict
        The heads' scores, as in metrics.json.
    ax : Axes, optional
        Where to draw; default: a new figure.

    Returns
    -------
    Axes
    """
    flips = {name: head["flip_rate"] for name, head in heads.items()}
    values = [f"{flip['grey']['value']:.0%} ({name})" for name, flip in flips.items()]
    ax = _plot_paired(flips, COLOUR_NAMES, ax)
    ax.set(xlim=(0, None), xlabel="share of answers that flip, 95 % interval by nebula")
    score = next(iter(flips.values()))["grey"]
    about = f"{score['n_images']} pictures of {score['n_nebulae']} nebulae, out of fold"
    title = f"Without colour, answers flip: {' → '.join(values)}"
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
    ax : Axes, optional
        Where to draw; default: a new figure.
    subtitle : str
        Which head.

    Returns
    -------
    Axes
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
        scored = score["n_nebulae"] >= MIN_GROUP
        grid[i, j] = score["value"] if scored else np.nan
        text = f"{score['value']:.2f}" if scored else "–"
        light = scored and score["value"] > 0.55
        ax.text(
            j,
            i,
            f"{text}\n{score['n_nebulae']} neb.",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if light else "#222",
        )
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


def plot_reliability(
    predictions: Mapping[str, Predictions], ax: Axes | None = None
) -> Axes:
    """Draw how often answers of a given confidence are right.

    Parameters
    ----------
    predictions : mapping of str to Predictions
        Name of each head → its out-of-fold answers.
    ax : Axes, optional
        Where to draw; default: a new figure.

    Returns
    -------
    Axes
        Dots on the diagonal are calibrated; their area is the share of the nebulae.
    """
    ax = make_axes(ax, (5.4, 5))
    ax.plot([0, 1], [0, 1], color="#bbb", lw=1)
    errors = []
    for name, p in predictions.items():
        points = compute_reliability(p)
        style = HEAD_STYLE[name]
        confidence, accuracy = points["confidence"], points["accuracy"]
        ax.plot(confidence, accuracy, color=style["color"], lw=1)
        size = 400 * np.asarray(points["weight"]) + 12
        ax.scatter(confidence, accuracy, size, zorder=3, **style_marker(style))
        ax.plot([], [], color=style["color"], marker=style["marker"], label=name)
        weights = make_weights(p.groups, p.y_true, 0)
        errors.append(f"{compute_ece(p, weights)[0]:.3f} ({name})")
    ax.set(xlim=(0, 1.05), ylim=(0, 1.05), aspect="equal")
    ax.set(xlabel="mean confidence", ylabel="share of right answers")
    ax.legend(frameon=False, loc="lower right")
    title = f"Calibration error {', '.join(errors)}"
    return write_title(ax, title, "out-of-fold answers; area: share of the objects")


def _plot_paired(
    series: Mapping[str, Mapping[str, Score]],
    labels: Mapping[str, str],
    ax: Axes | None,
) -> Axes:
    keys = list(next(iter(series.values())))
    ax = make_axes(ax, (7, 0.55 * len(keys) + 1.6))
    shifts = np.linspace(-0.16, 0.16, len(series)) if len(series) > 1 else [0.0]
    for (name, scores), shift in zip(series.items(), shifts, strict=True):
        style = HEAD_STYLE[name]
        for row, key in enumerate(keys):
            label = name if row == 0 else None
            draw_score(ax, scores[key], row + shift, style, label)
    name_rows(ax, [labels.get(key, key) for key in keys])
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax

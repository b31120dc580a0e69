"""Charts of data, features and heads (02 to 04): results in, Axes out.

Each says in its title what was found, and takes ``ax``, where to draw; default: a new
figure. Nothing here draws random numbers but the t-SNE map, with a seed of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nebula_utils.config import CLASS_NAMES, RANDOM_STATE
from nebula_utils.dataset.manifest import compute_cramers_v
from nebula_utils.report.drawing import (
    HEAD_STYLE,
    OFFSET,
    draw_score,
    draw_shares,
    format_percent,
    make_axes,
    name_rows,
    style_marker,
    write_cell,
    write_title,
)
from nebula_utils.report.style import CLASS_LABELS, CLASS_STYLE
from nebula_utils.training.calibration import compute_reliability
from nebula_utils.training.probes import share_neighbours
from nebula_utils.training.scores import (
    Predictions,
    Score,
    compute_balanced_accuracy,
    compute_confusion,
    compute_ece,
    make_weights,
)


def plot_counts(data: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Show how many nebulae and pictures each class has.

    Parameters
    ----------
    data : mapping
        `Dataset.describe`.
    """
    ax = make_axes(ax, (7, 0.45 * len(data["classes"]) + 1.6))
    counts = data["classes"]
    for row, (name, count) in enumerate(counts.items()):
        style = CLASS_STYLE[name]
        ax.hlines(row, 1, count["nebulae"], color=style["color"], lw=1)
        ax.scatter(count["nebulae"], row, s=60, zorder=3, **style_marker(style))
        text = f"  {count['nebulae']} nebulae, {count['images']} pictures"
        ax.text(count["nebulae"] * 1.06, row, text, va="center", fontsize=9)
    ax.set(xscale="log", xlabel="nebulae (logarithmic)")
    largest = max(count["nebulae"] for count in counts.values())
    ax.set_xlim(1, 12 * largest)
    name_rows(ax, [CLASS_LABELS[name] for name in counts])
    types = {name: n["nebulae"] for name, n in counts.items() if name != "other"}
    thin = min(types, key=types.__getitem__)
    found = f"Thinnest type: {CLASS_LABELS[thin]}, with {types[thin]} nebulae"
    left_out = ", ".join(CLASS_LABELS[name] for name in data["left_out"])
    if left_out:
        found = f"Too thin to study: {left_out}. {found}"
    total = f"{data['n_images']} pictures of {data['n_nebulae']} objects"
    return write_title(ax, found, f"{total}, source {data['source']}")


def plot_composition(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Show how each class divides among the palettes.

    Parameters
    ----------
    table : DataFrame
        From `tabulate_composition`; sources are added up (select rows for one).

    Returns
    -------
    Axes
        A row a palette, a dot a class, with Wilson's 95 % interval for as many
        witnesses as there are nebulae. Were colour no help, the dots of a row would
        stand one below the other.
    """
    ax = make_axes(ax, (8, 4.5))
    counts = table.groupby(level="label").sum()
    counts = counts.loc[[name for name in CLASS_NAMES if name in counts.index]]
    images = counts["images"]
    shares = counts.drop(columns=["images", "nebulae"]).div(images, axis=0) * 100
    places = np.arange(shares.shape[1])
    offsets = np.linspace(-0.3, 0.3, len(shares)) if len(shares) > 1 else [0.0]
    for (name, share), offset in zip(shares.iterrows(), offsets, strict=True):
        style = CLASS_STYLE[str(name)]
        low, high = _compute_interval(share.to_numpy() / 100, counts["nebulae"][name])
        ax.hlines(places + offset, low * 100, high * 100, color=style["color"], lw=1)
        ax.scatter(
            share,
            places + offset,
            s=64,
            **style_marker(style),
            label=f"{str(name).replace('_', ' ')} ({images[name]})",
            clip_on=False,
            zorder=3,
        )
    for place in places[:-1]:
        ax.axhline(place + 0.5, color="#ddd", linewidth=0.8)
    ax.set(xlim=(0, 100), ylim=(len(places) - 0.5, -0.5))
    ax.set_xlabel("share of the class's pictures (%)")
    ax.set_yticks(places, list(shares.columns))
    ax.set_ylabel("palette")
    ax.grid(axis="x", color="#eee")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    palettes = counts.drop(columns=["images", "nebulae"]).to_numpy()
    value = compute_cramers_v(palettes)
    found = f"Colour and type go together with Cramér's V = {value:.2f}"
    if np.isnan(value):
        found = "One class or palette only: no association to measure"
    sources = ", ".join(table.index.unique(level="source"))
    about = f"{images.sum():,} pictures by palette ({sources}); intervals count nebulae"
    return write_title(ax, found, about)


def _compute_interval(share: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    # Wilson's 95 % interval of a share, with nebulae as the independent witnesses.
    z2 = 1.96**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return centre - half, centre + half


def plot_embedding_map(
    X: np.ndarray,
    y: np.ndarray,
    class_names: Sequence[str],
    ax: Axes | None = None,
    method: str = "tsne",
    random_state: int = RANDOM_STATE,
) -> Axes:
    """Draw embeddings on a plane, one marker a picture.

    Parameters
    ----------
    X : ndarray of shape (n_images, n_features), float32
        Embeddings.
    y : ndarray of shape (n_images,), int
        Classes.
    class_names : sequence of str
        One name a class.
    method : str
        ``"tsne"`` or ``"pca"``.
    random_state : int
        Seed of t-SNE.
    """
    ax = make_axes(ax, (8, 6))
    points, variance = _project(X, method, random_state)
    for label in reversed(range(len(class_names))):
        name = class_names[label]
        style = CLASS_STYLE[name]
        here = points[y == label]
        kind: dict[str, Any] = {"edgecolors": "#333", "linewidths": 0.4}
        if style["marker"] == "x":
            kind = {"linewidths": 0.6}
        ax.scatter(
            here[:, 0],
            here[:, 1],
            s=14 if name == "other" else 34,
            c=style["color"],
            marker=style["marker"],
            label=f"{CLASS_LABELS[name]} ({len(here)})",
            **kind,
        )
    ax.set(xticks=[], yticks=[])
    handles, labels = ax.get_legend_handles_labels()
    kind = {"loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}
    ax.legend(handles[::-1], labels[::-1], fontsize=9, **kind)
    if method == "pca":
        title = f"Two principal components hold {variance:.0%} of the variance"
        return write_title(ax, title, f"{len(X)} embeddings, PCA")
    same, chance = share_neighbours(X, y)
    title = f"Nearest neighbours share the class in {same:.0%} (chance: {chance:.0%})"
    return write_title(ax, title, f"{len(X)} embeddings, t-SNE; mean over the classes")


def _project(X: np.ndarray, method: str, random_state: int) -> tuple[np.ndarray, float]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    pca = PCA(min(50, *X.shape), random_state=random_state)
    reduced = pca.fit_transform(X)
    variance = float(pca.explained_variance_ratio_[:2].sum())
    if method == "pca":
        return reduced[:, :2], variance
    perplexity = min(30, (len(X) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=random_state)
    return tsne.fit_transform(reduced), variance


def plot_learning_curves(
    history: Mapping[str, Sequence[float]],
    steps: int,
    reference: float,
    ax: Axes | None = None,
) -> Axes:
    """Draw the Keras head's losses against the training steps.

    Parameters
    ----------
    history : mapping of str to sequence of float
        ``loss`` and ``val_loss``, one value an epoch, as `training.fit_keras` gives.
    steps : int
        Of gradient descent, in all.
    reference : float
        Validation loss of the logistic head on the same split.
    """
    ax = make_axes(ax, (7, 4))
    x = np.linspace(0, steps, len(history["loss"]) + 1)[1:]
    for key, label, colour in (
        ("loss", "training", "#8a8a8a"),
        ("val_loss", "validation", "#b5651d"),
    ):
        ax.plot(x, history[key], color=colour)
        ax.annotate(label, (x[-1], history[key][-1]), (5, 0), **OFFSET)
    ax.axhline(reference, color="#0b3c6f", lw=1, ls="--")
    ax.annotate("logistic, validation", (x[0], reference), (5, 4), **OFFSET)
    ax.set(xlabel="steps", ylabel="cross-entropy (nats)", xlim=(0, 1.15 * steps))
    title = (
        f"After {steps:,} steps the Keras head's validation loss is "
        f"{history['val_loss'][-1]:.2f}; logistic regression: {reference:.2f}"
    )
    return write_title(ax, title, "one split by nebula; plain gradient descent")


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
    title, subtitle, xlabel : str
        The finding, what is plotted, and the unit.
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
    """
    recalls = {name: head["recall"] for name, head in heads.items()}
    last = list(recalls)[-1]
    worst = min(recalls[last], key=lambda name: recalls[last][name]["value"])
    title = (
        f"Hardest for the {last} head: {CLASS_LABELS[worst]}, "
        f"recall {format_percent(recalls[last][worst])}"
    )
    ax = plot_paired(recalls, CLASS_LABELS, ax)
    ax.set(xlim=(0, 1), xlabel="recall, 95 % interval by nebula")
    return write_title(ax, title, "out-of-fold answers, pictures as they are")


def plot_confusion(
    p: Predictions, ax: Axes | None = None, subtitle: str = "out-of-fold answers"
) -> Axes:
    """Draw a confusion matrix: shares by colour, counts of pictures in the cells.

    Parameters
    ----------
    p : Predictions
        Answers and truth.
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
    share = draw_shares(ax, counts)
    for (row, column), count in np.ndenumerate(counts):
        if count >= 0.5:
            write_cell(ax, row, column, f"{count:.0f}", float(share[row, column]))
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


def plot_reliability(
    predictions: Mapping[str, Predictions], ax: Axes | None = None
) -> Axes:
    """Draw how often answers of a given confidence are right.

    Parameters
    ----------
    predictions : mapping of str to Predictions
        Name of each head → its out-of-fold answers.

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


def plot_paired(
    series: Mapping[str, Mapping[str, Score]],
    labels: Mapping[str, str],
    ax: Axes | None,
) -> Axes:
    """Draw several heads' scores side by side, a row a key."""
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

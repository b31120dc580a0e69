"""Charts of data, features, heads and their bias (02 to 05): results in, Axes out.

Each says in its title what was found, and takes ``ax``, where to draw; default: a new
figure. Nothing here draws random numbers but the t-SNE map, with a seed of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nebula_utils.config import CLASS_NAMES, RANDOM_STATE
from nebula_utils.counterfactuals.colour import PALETTES
from nebula_utils.dataset.manifest import compute_cramers_v
from nebula_utils.report.drawing import (
    CHANGE_NAMES,
    CLASS_LABELS,
    CLASS_STYLE,
    COLOURS,
    HEAD_STYLE,
    OFFSET,
    draw_scores,
    draw_table,
    format_percent,
    get_figure,
    make_axes,
    make_grid,
    name_rows,
    style_marker,
    write_title,
)
from nebula_utils.training.calibration import compute_reliability
from nebula_utils.training.comparison import share_neighbours
from nebula_utils.training.scores import (
    MIN_GROUP,
    Predictions,
    compute_balanced_accuracy,
    compute_confusion,
    compute_ece,
    compute_recall,
    make_score,
    make_weights,
)

Heads = Mapping[str, Mapping[str, Any]]  # name → scores, as in metrics.json


def plot_counts(data: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Show how many nebulae and pictures each class has, by `Dataset.describe`."""
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
    """Show how each class divides among the palettes, by `tabulate_composition`.

    Sources are added up (select rows for one). A row is a palette, a dot a class, with
    Wilson's 95 % interval for as many independent units as there are nebulae. Were
    colour no help, the dots of a row would stand one below the other.
    """
    ax = make_axes(ax, (8, 4.5))
    counts = table.groupby(level="label").sum()
    counts = counts.loc[[name for name in CLASS_NAMES if name in counts.index]]
    images = counts["images"]
    palettes = counts.drop(columns=["images", "nebulae"])
    shares = palettes.div(images, axis=0) * 100
    places = np.arange(shares.shape[1])
    offsets = np.linspace(-0.3, 0.3, len(shares)) if len(shares) > 1 else [0.0]
    for (name, share), offset in zip(shares.iterrows(), offsets, strict=True):
        style = CLASS_STYLE[str(name)]
        low, high = _compute_interval(share.to_numpy() / 100, counts["nebulae"][name])
        ax.hlines(places + offset, low * 100, high * 100, color=style["color"], lw=1)
        label = f"{str(name).replace('_', ' ')} ({images[name]})"
        look = {"s": 64, "clip_on": False, "zorder": 3, **style_marker(style)}
        ax.scatter(share, places + offset, label=label, **look)
    for place in places[:-1]:
        ax.axhline(place + 0.5, color="#ddd", linewidth=0.8)
    ax.set(xlim=(0, 100), ylim=(len(places) - 0.5, -0.5))
    ax.set_xlabel("share of the class's pictures (%)")
    ax.set_yticks(places, list(shares.columns))
    ax.set_ylabel("palette")
    ax.grid(axis="x", color="#eee")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    value = compute_cramers_v(palettes.to_numpy())
    found = f"Colour and type go together with Cramér's V = {value:.2f}"
    if np.isnan(value):
        found = "One class or palette only: no association to measure"
    sources = ", ".join(table.index.unique(level="source"))
    about = f"{images.sum():,} pictures by palette ({sources}); intervals count nebulae"
    return write_title(ax, found, about)


def _compute_interval(share: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    # Wilson's 95 % interval of a share, with nebulae as the independent units.
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
        Indices into ``class_names``.
    method : {"tsne", "pca"}
        What makes two numbers of many.
    random_state : int
        Seed of t-SNE.
    """
    ax = make_axes(ax, (8, 6))
    points, variance = _project(X, method, random_state)
    for label in reversed(range(len(class_names))):
        name = class_names[label]
        here = points[y == label]
        look = style_marker(CLASS_STYLE[name]) | {
            "label": f"{CLASS_LABELS[name]} ({len(here)})",
            "s": 14 if name == "other" else 34,
            "linewidths": 0.6 if name == "other" else 0.4,
        }
        ax.scatter(here[:, 0], here[:, 1], **look)
    ax.set(xticks=[], yticks=[])
    handles, labels = ax.get_legend_handles_labels()
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    ax.legend(handles[::-1], labels[::-1], fontsize=9, frameon=False, **beside)
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
    """Draw the Keras head's losses against the steps of gradient descent.

    Parameters
    ----------
    history : mapping of str to sequence of float
        ``loss`` and ``val_loss``, one value an epoch, as `KerasTrial` has.
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


def plot_split_comparison(heads: Heads, ax: Axes | None = None) -> Axes:
    """Show how much a random split flatters, against a split by nebula."""
    ways = {
        "balanced_accuracy": "by nebula",
        "balanced_accuracy_random_split": "random",
    }
    scores = {name: {way: head[way] for way in ways} for name, head in heads.items()}
    first = next(iter(scores))
    strict, loose = scores[first].values()
    gain = (loose["value"] or 0.0) - (strict["value"] or 0.0)
    word = "more" if gain >= 0 else "less"
    title = (
        f"A random split would claim {abs(100 * gain):.1f} points {word} ({first} head)"
    )
    ax = draw_scores(scores, ways, ax)
    ax.set_xlabel("balanced accuracy, 95 % interval by nebula")
    about = f"{strict['n_images']} pictures of {strict['n_nebulae']} objects"
    return write_title(ax, title, about)


def plot_recall(heads: Heads, ax: Axes | None = None) -> Axes:
    """Compare each class's recall between heads."""
    recalls = {name: head["recall"] for name, head in heads.items()}
    last = list(recalls)[-1]
    worst = min(recalls[last], key=lambda name: recalls[last][name]["value"])
    title = (
        f"Hardest for the {last} head: {CLASS_LABELS[worst]}, "
        f"recall {format_percent(recalls[last][worst])}"
    )
    ax = draw_scores(recalls, CLASS_LABELS, ax)
    ax.set(xlim=(0, 1), xlabel="recall, 95 % interval by nebula")
    return write_title(ax, title, "out-of-fold answers, pictures as they are")


def plot_flip_rates(
    heads: Heads,
    ax: Axes | None = None,
    key: str = "flip_rate",
    first: str = "grey",
) -> Axes:
    """Compare how often a change of colour, or of framing, changes the answer.

    ``key`` is ``"flip_rate"`` or ``"framing_flip_rate"``, ``first`` the change that the
    title tells.
    """
    flips = {name: head[key] for name, head in heads.items()}
    values = [f"{flip[first]['value']:.0%} ({name})" for name, flip in flips.items()]
    ax = draw_scores(flips, CHANGE_NAMES, ax)
    ax.set(xlim=(0, None), xlabel="share of answers that flip, 95 % interval by nebula")
    score = next(iter(flips.values()))[first]
    about = f"{score['n_images']} pictures of {score['n_nebulae']} nebulae, out of fold"
    title = f"Answers that flip, {CHANGE_NAMES[first]}: {', '.join(values)}"
    return write_title(ax, title, about)


def plot_reliability(
    predictions: Mapping[str, Predictions], ax: Axes | None = None
) -> Axes:
    """Draw how often heads' out-of-fold answers of a given confidence are right.

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
        The changes to draw; above each stands the balanced accuracy.
    """
    axes = make_grid(len(predictions), len(names), (1.75, 2.1))
    losses = []
    for line, (head, under) in zip(axes, predictions.items(), strict=True):
        labels = [CLASS_LABELS[name] for name in under[names[0]].class_names]
        means = []
        for ax, name in zip(line, names, strict=True):
            p = under[name]
            counts = compute_confusion(p)
            draw_table(ax, counts / np.maximum(counts.sum(1, keepdims=True), 1))
            weights = make_weights(p.groups, p.y_true, 0)
            means.append(compute_balanced_accuracy(p, weights)[0])
            ax.set_title(f"{CHANGE_NAMES[name]}: {means[-1]:.2f}", fontsize=8)
        line[0].set_yticks(range(len(labels)), labels, fontsize=6.5)
        line[0].set_ylabel(f"{head} head", fontsize=9)
        losses.append(f"{100 * (means[0] - min(means)):.0f} ({head})")
    found = (
        f"Points of balanced accuracy that the worst change costs: {', '.join(losses)}"
    )
    get_figure(axes[0, 0]).suptitle(found, fontsize=11, x=0.01, ha="left")
    axes[0, 0].set_label(found)
    return axes


def plot_group_recall(
    p: Predictions,
    palettes: np.ndarray,
    ax: Axes | None = None,
    subtitle: str = "out-of-fold answers",
) -> Axes:
    """Draw the recall of each type × palette group, with its number of nebulae.

    ``palettes`` holds one name a picture, shape (n_images,); ``subtitle`` says which
    head.
    """
    types = [name for name in p.class_names if name != "other"]
    columns = [name for name in PALETTES if name in palettes]
    grid = np.full((len(types), len(columns)), np.nan)
    texts = np.full(grid.shape, "", object)
    scored: list[tuple[float, str]] = []
    for i, j in np.ndindex(grid.shape):
        label = p.class_names.index(types[i])
        mask = (p.y_true == label) & (palettes == columns[j])
        if not mask.any():
            continue
        part = p.select(mask)
        values = compute_recall(part, make_weights(part.groups, part.y_true))[:, label]
        score = make_score(values, part.groups)
        n, value = score["n_nebulae"] or 0, score["value"]
        texts[i, j] = f"–\n{n} neb."
        if value is not None and n >= MIN_GROUP:
            grid[i, j] = value
            texts[i, j] = f"{value:.2f}\n{n} neb."
            name = f"{columns[j]} {CLASS_LABELS[types[i]]}"
            scored.append((value, f"{name}, recall {format_percent(score)}"))
    ax = make_axes(ax, (1.1 * len(columns) + 3, 0.55 * len(types) + 1.8))
    draw_table(ax, grid, texts, [CLASS_LABELS[name] for name in types], columns)
    ax.set_xlabel(f"palette of the picture (–: fewer than {MIN_GROUP} nebulae)")
    title = "No type × palette group is large enough"
    if scored:
        title = f"Worst group: {min(scored, key=lambda found: found[0])[1]}"
    return write_title(ax, title, f"recall by type and palette; {subtitle}")


def plot_dose_response(response: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw P(dark) against the extinction, by `bias.measure_dust_response`.

    Lines are the medians of the pictures, bands the middle half of them.
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
            ax.plot([], [], color=shade, marker="o", ms=4, label=head)
    ax.set(
        xlabel="visual extinction A$_V$ of the cloud's densest part, magnitudes",
        ylabel="P(dark)",
        ylim=(0, 1),
        xlim=(0, 1.02 * response["a_v"].max()),
    )
    ax.legend(loc="upper left", frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    n = response["nebula"].nunique()
    about = (
        f"dust before {n} emission nebulae, only its amount changes; dotted: in grey"
    )
    return write_title(ax, describe_response(response), about)


def describe_response(response: pd.DataFrame) -> str:
    """Say in one sentence what the dust changes, whatever it is."""
    as_is = response[response["colour"] == "as it is"]
    medians = as_is.groupby(["head", "a_v"], sort=False)["p_dark"].median().unstack()
    ends = zip(medians.index, medians.iloc[:, 0], medians.iloc[:, -1], strict=True)
    parts = [f"{before:.2f} → {after:.2f} ({head})" for head, before, after in ends]
    return f"P(dark) without → with the most dust: {', '.join(parts)}"

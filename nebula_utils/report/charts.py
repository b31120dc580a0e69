"""Charts of data and training: counts, learning curves, maps of embeddings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from nebula_utils.config import RANDOM_STATE
from nebula_utils.report.drawing import (
    OFFSET,
    make_axes,
    name_rows,
    style_marker,
    write_title,
)
from nebula_utils.report.style import CLASS_LABELS, CLASS_STYLE


def plot_counts(data: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Show how many nebulae and pictures each class has.

    Parameters
    ----------
    data : mapping
        `Dataset.describe`.
    ax : Axes, optional
        Where to draw; default: a new figure.

    Returns
    -------
    Axes
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
    ax : Axes, optional
        Where to draw; default: a new figure.

    Returns
    -------
    Axes
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
    ax : Axes, optional
        Where to draw; default: a new figure.
    method : str
        ``"tsne"`` or ``"pca"``.
    random_state : int
        Seed of t-SNE.

    Returns
    -------
    Axes
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
    same = share_neighbours(X, y)
    title = f"The nearest other picture has the same class in {same:.0%} of the cases"
    return write_title(ax, title, f"{len(X)} embeddings, t-SNE; mean over the classes")


def share_neighbours(X: np.ndarray, y: np.ndarray) -> float:
    """Return how often a picture's nearest neighbour has the same value of ``y``.

    Parameters
    ----------
    X : ndarray of shape (n_images, n_features), float32
        Embeddings.
    y : ndarray of shape (n_images,), int
        Classes, or any other grouping.

    Returns
    -------
    float
        In [0, 1], by the cosine of the centred embeddings; the mean over the values
        of ``y``, so that the largest does not decide alone.
    """
    centred = X - X.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True) + 1e-9
    similarity = centred @ centred.T
    np.fill_diagonal(similarity, -np.inf)
    same = y[similarity.argmax(1)] == y
    return float(np.mean([same[y == label].mean() for label in np.unique(y)]))


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

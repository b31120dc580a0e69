"""What all figures share: looks, titles, dots with intervals, alt text, files."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nebula_utils.files import write_atomic
from nebula_utils.training.scores import Score

if TYPE_CHECKING:
    from IPython.display import Image

DPI = 100
QUALITY = 82  # of JPEG, for figures with photographs
OFFSET: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9}
# The heads of every comparison; told apart by shade and marker.
HEAD_STYLE = {
    "plain": {"color": "#8a8a8a", "marker": "o"},
    "balanced": {"color": "#5b7fa6", "marker": "D"},
    "robust": {"color": "#0b3c6f", "marker": "s"},
    "fine-tuned": {"color": "#b5651d", "marker": "^"},
}
COLOURS = ("as_is", "grey", "saturated", "red", "blue", "gold", "swapped")
CHANGE_NAMES = {
    "as_is": "as it is",
    "grey": "greyscale",
    "saturated": "saturation ×2",
    "red": "red tint",
    "blue": "blue tint",
    "gold": "gold tint",
    "swapped": "channels swapped",
    "smaller": "half as large",
    "much_smaller": "a third as large",
    "larger": "larger",
    "off_centre": "off-centre",
    "turned": "turned",
    "mirrored": "mirrored",
    "mean": "mean of the framings",
}


def show(axes: Axes | np.ndarray, alt: str | None = None) -> "Image":
    """Return a figure as an image with alt text, for a notebook, and close it.

    Parameters
    ----------
    axes : Axes or array of Axes
        Of the figure.
    alt : str, optional
        What is to be seen, for those who can't; default: the title and the subtitle
        that `write_title` gave, and the axes' labels.

    Returns
    -------
    IPython.display.Image
        JPEG where photographs are drawn, else PNG.
    """
    from IPython.display import Image

    first = axes.flat[0] if isinstance(axes, np.ndarray) else axes
    figure = get_figure(first)
    drawn = [image.get_array() for ax in figure.axes for image in ax.get_images()]
    photo = any(array is not None and array.ndim == 3 for array in drawn)
    stream = io.BytesIO()
    kind: dict[str, Any] = {"metadata": {"Software": None}}
    if photo:
        kind = {"pil_kwargs": {"quality": QUALITY}}
    name = "jpeg" if photo else "png"
    figure.savefig(stream, format=name, dpi=DPI, **kind)
    plt.close(figure)
    return Image(stream.getvalue(), format=name, alt=alt or describe_figure(first))


def describe_figure(ax: Axes) -> str:
    """Return alt text from a figure's titles and labels."""
    parts = [ax.get_title(loc="left").strip(), str(ax.get_label())]
    axis = [ax.get_xlabel(), ax.get_ylabel()]
    parts.append(" against ".join(text for text in axis[::-1] if text))
    return ". ".join(part for part in parts if part and not part.startswith("_"))


def save_figure(axes: Axes | np.ndarray, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all, and return the path."""
    first = axes.flat[0] if isinstance(axes, np.ndarray) else axes
    with write_atomic(path) as temporary:
        # No version of Matplotlib inside: two runs give equal files.
        get_figure(first).savefig(
            temporary, format="png", dpi=DPI, metadata={"Software": None}
        )
    return path


def make_axes(ax: Axes | None, size: tuple[float, float], **subplot: Any) -> Axes:
    """Return the given Axes, or those of a new figure of this size (inches)."""
    if ax is None:
        _, ax = plt.subplots(
            figsize=size, dpi=DPI, layout="constrained", subplot_kw=subplot
        )
    return ax


def make_grid(rows: int, columns: int, size: tuple[float, float]) -> np.ndarray:
    """Return the Axes of a new figure, (rows, columns), each of a size in inches."""
    _, axes = plt.subplots(
        rows,
        columns,
        figsize=(size[0] * columns, size[1] * rows),
        layout="constrained",
        squeeze=False,
        dpi=DPI,
    )
    return axes


def write_title(ax: Axes, title: str, subtitle: str) -> Axes:
    """Write the finding, and in smaller type what is plotted; both go into alt text."""
    ax.set_title(f"{title}\n", loc="left", fontsize=11)
    ax.text(0, 1.02, subtitle, transform=ax.transAxes, fontsize=9, color="#555")
    ax.set_label(subtitle)
    return ax


def format_percent(score: Score) -> str:
    """Return a score in percent with its interval: "24 % [17, 31]"."""
    value, low, high = (score[key] for key in ("value", "low", "high"))
    if value is None:
        return "not known"
    text = f"{100 * value:.0f} %"
    if low is None or high is None:
        return text
    return f"{text} [{100 * low:.0f}, {100 * high:.0f}]"


def draw_score(
    ax: Axes,
    score: Score,
    row: float,
    style: Mapping[str, str],
    label: str | None = None,
) -> None:
    """Draw a score as a dot with its interval."""
    if score["value"] is None:
        return
    if score["low"] is not None and score["high"] is not None:
        ax.hlines(row, score["low"], score["high"], color=style["color"], lw=1.5)
    ax.scatter(score["value"], row, s=44, zorder=3, label=label, **style_marker(style))


def draw_shares(ax: Axes, counts: np.ndarray) -> np.ndarray:
    """Draw a table of counts as shares of its rows, and return the shares."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    return share


def write_cell(ax: Axes, row: int, column: int, text: str, share: float) -> None:
    """Write into a cell of a table in blues, light on dark."""
    ink = "white" if share > 0.55 else "#222"
    ax.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)


def style_marker(style: Mapping[str, str]) -> dict[str, Any]:
    """Return a style's colour and marker as `Axes.scatter` takes them."""
    look: dict[str, Any] = {"c": style["color"], "marker": style["marker"]}
    if style["marker"] != "x":  # a cross has no edge to draw
        look |= {"edgecolors": "#333", "linewidths": 0.6}
    return look


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Write a name beside each row, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="x", color="#eee")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def get_figure(ax: Axes) -> Figure:
    """Return the whole figure that an Axes belongs to."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure

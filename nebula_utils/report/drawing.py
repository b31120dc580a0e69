"""What all charts share: looks, titles, dots with intervals, writing a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nebula_utils.files import write_atomic
from nebula_utils.training.scores import Score

DPI = 100
# The two heads of every comparison; told apart by shade and marker.
HEAD_STYLE = {
    "plain": {"color": "#8a8a8a", "marker": "o"},
    "balanced": {"color": "#5b7fa6", "marker": "D"},
    "colour-randomised": {"color": "#6a9a5b", "marker": "v"},
    "Keras dense": {"color": "#b5651d", "marker": "^"},
    "robust": {"color": "#0b3c6f", "marker": "s"},
}
COLOUR_NAMES = {
    "as_is": "as it is",
    "grey": "greyscale",
    "saturated": "saturation ×2",
    "red": "red tint",
    "blue": "blue tint",
    "gold": "gold tint",
    "swapped": "channels swapped",
}


OFFSET: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9}


def save_figure(ax: Axes, path: Path) -> Path:
    """Write an Axes' figure as PNG, whole or not at all.

    Parameters
    ----------
    ax : Axes
        Any Axes of the figure.
    path : Path
        The ``.png`` file; its folder is made if needed.

    Returns
    -------
    Path
        The same path.
    """
    with write_atomic(path) as temporary:
        # No version of Matplotlib inside: two runs give equal files.
        figure = get_figure(ax)
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
    return path


def format_percent(score: Score) -> str:
    """Return a score in percent with its interval: "24 % [17, 31]"."""
    value, low, high = (score[key] for key in ("value", "low", "high"))
    if value is None:
        return "not known"
    text = f"{100 * value:.0f} %"
    if low is None or high is None:
        return text
    return f"{text} [{100 * low:.0f}, {100 * high:.0f}]"


def make_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the given Axes, or those of a new figure of this size (inches)."""
    if ax is None:
        _, ax = plt.subplots(figsize=size, dpi=DPI, layout="constrained")
    return ax


def write_title(ax: Axes, title: str, subtitle: str) -> Axes:
    """Write the finding, and in smaller type what is plotted."""
    ax.set_title(f"{title}\n", loc="left", fontsize=11)
    ax.text(0, 1.02, subtitle, transform=ax.transAxes, fontsize=9, color="#555")
    return ax


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
    figure = ax.figure
    return figure if isinstance(figure, Figure) else figure.figure

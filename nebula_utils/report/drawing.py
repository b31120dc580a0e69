"""What all figures share: looks, titles, tables, dots with intervals, alt text, files.

Colours and names serve the page too, so Matplotlib is imported only where it draws.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nebula_utils.config import CLASS_NAMES
from nebula_utils.files import write_atomic

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nebula_utils.training.scores import Score

DPI = 100
CHARACTERS = 13  # of a title to an inch
QUALITY = 82  # of JPEG, for figures with photographs
OFFSET: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9}
# Colour and marker: told apart by the colour-blind and in a grey print.
CLASS_STYLE: dict[str, dict[str, Any]] = {
    "dark": {"color": "#000000", "marker": "o"},
    "emission": {"color": "#CC3311", "marker": "s"},
    "reflection": {"color": "#0072B2", "marker": "D"},
    "planetary": {"color": "#44AA99", "marker": "^"},
    "protoplanetary": {"color": "#E69F00", "marker": "v"},
    "supernova_remnant": {"color": "#882255", "marker": "P"},
    "other": {"color": "#777777", "marker": "x"},
}
CLASS_LABELS: dict[str, str] = {
    name: name.replace("_", " ") for name in CLASS_NAMES if name != "other"
} | {"other": "not a nebula"}
HEAD_STYLE = {
    "plain": {"color": "#8a8a8a", "marker": "o"},
    "balanced": {"color": "#5b7fa6", "marker": "D"},
    "robust": {"color": "#0b3c6f", "marker": "s"},
}
HEADS = tuple(HEAD_STYLE)
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


def show(axes: "Axes | np.ndarray", alt: str | None = None) -> "Image":
    """Return a figure as an image with alt text, for a notebook, and close it.

    It is a JPEG where photographs are drawn, else a PNG. ``alt`` says what is to be
    seen, for those who can't; by default title, subtitle and the axes' labels do.
    """
    from IPython.display import Image
    from matplotlib import pyplot as plt

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
    return Image(stream.getvalue(), format=name, alt=alt or _describe(first))


def _describe(ax: "Axes") -> str:
    axis = [text for text in (ax.get_ylabel(), ax.get_xlabel()) if text]
    parts = [
        ax.get_title(loc="left").strip(),
        str(ax.get_label()),
        " against ".join(axis),
    ]
    return ". ".join(part for part in parts if part and not part.startswith("_"))


def save_figure(axes: "Axes | np.ndarray", path: Path) -> Path:
    """Write a figure as PNG, whole or not at all, and return the path."""
    first = axes.flat[0] if isinstance(axes, np.ndarray) else axes
    with write_atomic(path) as temporary:
        # No version of Matplotlib inside: two runs give equal files.
        how: dict[str, Any] = {"format": "png", "metadata": {"Software": None}}
        get_figure(first).savefig(temporary, dpi=DPI, **how)
    return path


def make_axes(ax: "Axes | None", size: tuple[float, float], **subplot: Any) -> "Axes":
    """Return the given Axes, or those of a new figure of this size (inches)."""
    return ax or make_grid(1, 1, size, **subplot)[0, 0]


def make_grid(
    rows: int, columns: int, size: tuple[float, float], **subplot: Any
) -> np.ndarray:
    """Return the Axes of a new figure, (rows, columns), each of a size in inches."""
    from matplotlib import pyplot as plt

    whole = (size[0] * columns, size[1] * rows)
    options: dict[str, Any] = {"layout": "constrained", "squeeze": False, "dpi": DPI}
    return plt.subplots(rows, columns, figsize=whole, subplot_kw=subplot, **options)[1]


def get_figure(ax: "Axes") -> "Figure":
    """Return the whole figure that an Axes belongs to."""
    figure: Any = ax.get_figure(root=True)
    return figure


def write_title(ax: "Axes", title: str, subtitle: str) -> "Axes":
    """Write the finding, and in smaller type what is plotted; both go into alt text."""
    inches = get_figure(ax).get_figwidth() * ax.get_position().width
    title = textwrap.fill(title, max(30, round(CHARACTERS * inches)))
    ax.set_title(f"{title}\n", loc="left", fontsize=11)
    ax.text(0, 1.02, subtitle, transform=ax.transAxes, fontsize=9, color="#555")
    ax.set_label(subtitle)
    return ax


def name_rows(ax: "Axes", names: Sequence[str]) -> None:
    """Write a name beside each row, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="x", color="#eee")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def style_marker(style: Mapping[str, str]) -> dict[str, Any]:
    """Return a style's colour and marker as `Axes.scatter` takes them."""
    look: dict[str, Any] = {"c": style["color"], "marker": style["marker"]}
    if style["marker"] != "x":  # a cross has no edge to draw
        look |= {"edgecolors": "#333", "linewidths": 0.6}
    return look


def format_percent(score: "Score") -> str:
    """Return a score in percent with its interval: "24 % [17, 31]"."""
    value, low, high = (score[key] for key in ("value", "low", "high"))
    if value is None:
        return "not known"
    text = f"{100 * value:.0f} %"
    if low is None or high is None:
        return text
    return f"{text} [{100 * low:.0f}, {100 * high:.0f}]"


def draw_scores(
    heads: "Mapping[str, Mapping[str, Score]]",
    labels: Mapping[str, str],
    ax: "Axes | None",
) -> "Axes":
    """Draw heads' scores as dots with intervals side by side, a row a key."""
    keys = list(next(iter(heads.values())))
    ax = make_axes(ax, (7, 0.55 * len(keys) + 1.6))
    shifts = np.linspace(-0.16, 0.16, len(heads)) if len(heads) > 1 else [0.0]
    for (name, scores), shift in zip(heads.items(), shifts, strict=True):
        style = HEAD_STYLE[name]
        for row, key in enumerate(keys):
            value, low, high = (scores[key][part] for part in ("value", "low", "high"))
            if low is not None and high is not None:
                ax.hlines(row + shift, low, high, color=style["color"], lw=1.5)
            label = name if row == 0 else None
            look = {"s": 44, "zorder": 3, "label": label, **style_marker(style)}
            ax.scatter(np.nan if value is None else value, row + shift, **look)
    name_rows(ax, [labels.get(key, key) for key in keys])
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def draw_table(
    ax: "Axes",
    shares: np.ndarray,
    texts: np.ndarray | None = None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> None:
    """Draw shares in [0, 1] as a table in blues, its texts light on dark."""
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), text in np.ndenumerate([] if texts is None else texts):
        ink = "white" if shares[row, column] > 0.55 else "#222"
        how: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9}
        ax.text(column, row, text, color=ink, **how)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)

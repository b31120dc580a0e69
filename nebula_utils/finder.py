"""Show where a nebula stands: a live sky where one is online, else a finder chart."""

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nebula_utils.config import CLASS_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALADIN_HOST = "aladin.cds.unistra.fr"
MIN_SIDE_DEG = 2.0
MAX_SIDE_DEG = 40.0
SIDE_FACTOR = 5.0  # side of the chart / size of the nebula
N_NAMES = 12  # neighbours that get their name written beside them


def plot_finder(
    nebula: Any, neighbours: pd.DataFrame, ax: "Axes | None" = None
) -> "Axes":
    """Draw a nebula among the catalogue nebulae around it.

    Parameters
    ----------
    nebula : Nebula, Series or mapping
        With name, type, ra_deg, dec_deg (ICRS) and size_arcmin.
    neighbours : DataFrame
        The catalogue, or a part of it; what is not in view is left out.
    ax : Axes, optional
        Where to draw; default is a new figure.

    Returns
    -------
    Axes
        Offsets in degrees on the tangent plane, north up, east left; circles are the
        nebulae's sizes.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(6, 6.4), layout="constrained")
    side = _choose_side(_read(nebula, "size_arcmin"))
    near = _project(nebula, neighbours, side)
    for row in near.to_dict("records"):
        _draw(ax, row, alpha=0.55)
    centre = {field: _read(nebula, field) for field in ("name", "type", "size_arcmin")}
    _draw(ax, centre | {"x": 0.0, "y": 0.0}, alpha=1.0)
    biggest = near.sort_values("size_arcmin", ascending=False).head(N_NAMES)
    for row in biggest.to_dict("records"):
        _write_name(ax, row["name"], (row["x"], row["y"]), shift=(6, 5))
    _write_name(ax, centre["name"], (0, 0), shift=(-8, -14), ha="right", weight="bold")
    half = side / 2
    ax.set(xlim=(half, -half), ylim=(-half, half), aspect="equal")
    ax.set_xlabel("offset to the east (degrees)")
    ax.set_ylabel("offset to the north (degrees)")
    ax.grid(color="#eee")
    ax.set_axisbelow(True)
    _write_legend(ax, {centre["type"], *near["type"]})
    ax.set_title(_describe(nebula, near, side), loc="left", fontsize=10)
    return ax


def show_sky(
    nebula: Any, neighbours: pd.DataFrame | None = None, online: bool | None = None
) -> Any:
    """Return a live view of the sky at a nebula, or a finder chart without a network.

    Parameters
    ----------
    nebula : Nebula, Series or mapping
        With name, type, ra_deg, dec_deg (ICRS) and size_arcmin.
    neighbours : DataFrame, optional
        For the finder chart; default is the whole catalogue.
    online : bool, optional
        Whether CDS can be reached; default is to find out (two seconds at most).

    Returns
    -------
    ipyaladin.Aladin or matplotlib.figure.Figure
        Either is shown as the last value of a notebook cell.
    """
    if _is_online() if online is None else online:
        from ipyaladin import Aladin

        ra, dec = _read(nebula, "ra_deg"), _read(nebula, "dec_deg")
        side = _choose_side(_read(nebula, "size_arcmin"))
        target = f"{ra:.6f} {dec:+.6f}"
        return Aladin(target=target, fov=side / 2, survey="CDS/P/DSS2/color")
    if neighbours is None:
        from nebula_utils.catalogue import read_catalogue

        neighbours = read_catalogue()
    import matplotlib.pyplot as plt

    figure = plot_finder(nebula, neighbours).get_figure(root=True)
    plt.close(figure)  # else the notebook would show it twice
    return figure


def _read(nebula: Any, field: str) -> Any:
    # A Series has an attribute `name` of its own, so items come first.
    if isinstance(nebula, (Mapping, pd.Series)):
        return nebula[field]
    return getattr(nebula, field)


def _is_online() -> bool:
    try:
        with socket.create_connection((ALADIN_HOST, 443), timeout=2):
            return True
    except OSError:
        return False


def _choose_side(size_arcmin: float | None) -> float:
    if size_arcmin is None or not np.isfinite(size_arcmin):
        return MIN_SIDE_DEG
    return float(np.clip(SIDE_FACTOR * size_arcmin / 60, MIN_SIDE_DEG, MAX_SIDE_DEG))


def _project(nebula: Any, neighbours: pd.DataFrame, side: float) -> pd.DataFrame:
    # Gnomonic projection about the nebula; x to the east, y to the north, degrees.
    ra0, dec0 = (np.radians(_read(nebula, key)) for key in ("ra_deg", "dec_deg"))
    ra = np.radians(neighbours["ra_deg"].to_numpy(float)) - ra0
    dec = np.radians(neighbours["dec_deg"].to_numpy(float))
    depth = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.cos(dec) * np.sin(ra) / depth
        y = np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra)
        y = y / depth
    placed = neighbours.assign(x=np.degrees(x), y=np.degrees(y))
    inside = (depth > 0) & (placed[["x", "y"]].abs() <= side / 2).all(axis=1)
    return placed[inside & (placed["name"] != _read(nebula, "name"))]


def _draw(ax: "Axes", row: Mapping[str, Any], alpha: float) -> None:
    from matplotlib.patches import Circle

    from nebula_utils.plots import CLASS_STYLE

    style = CLASS_STYLE[row["type"]]
    size = row["size_arcmin"]
    if size is not None and np.isfinite(size):
        place = (row["x"], row["y"])
        ring = Circle(place, size / 120, fill=False, ec=style["color"], alpha=alpha)
        ax.add_patch(ring)
    ax.scatter(
        row["x"],
        row["y"],
        s=30 if alpha < 1 else 60,
        c=style["color"],
        marker=style["marker"],
        edgecolors="#333",
        linewidths=0.5,
        alpha=alpha,
        zorder=3,
    )


def _write_name(
    ax: "Axes",
    name: str,
    place: tuple[float, float],
    shift: tuple[int, int],
    **how: Any,
) -> None:
    ax.annotate(
        name,
        place,
        xytext=shift,
        textcoords="offset points",
        fontsize=8,
        clip_on=True,
        **how,
    )


def _write_legend(ax: "Axes", types: set[str]) -> None:
    from matplotlib.lines import Line2D

    from nebula_utils.plots import CLASS_STYLE

    present = [name for name in CLASS_NAMES if name in types]
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            color=CLASS_STYLE[name]["color"],
            marker=CLASS_STYLE[name]["marker"],
            markeredgecolor="#333",
            label=name.replace("_", " "),
        )
        for name in present
    ]
    ax.legend(handles=handles, loc="lower left", fontsize=8, framealpha=0.9)


def _describe(nebula: Any, near: pd.DataFrame, side: float) -> str:
    name = _read(nebula, "name")
    kind = str(_read(nebula, "type")).replace("_", " ")
    place = f"RA {_read(nebula, 'ra_deg'):.2f}°, Dec {_read(nebula, 'dec_deg'):+.2f}°"
    if near.empty:
        return f"{name} ({kind}) stands alone in {side:.0f}° × {side:.0f}°\n{place}"
    away = np.hypot(near["x"], near["y"])
    nearest = near.loc[away.idxmin(), "name"]
    others = "1 other nebula" if len(near) == 1 else f"{len(near)} other nebulae"
    return (
        f"{name} ({kind}): {nearest} is {away.min():.1f}° away\n"
        f"{place}; {others} in {side:.0f}° × {side:.0f}°"
    )

"""Show where a nebula stands: a live sky where one is online, else a finder chart."""

import os
import queue
import socket
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nebula_utils.config import CLASS_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALADIN_HOST = "aladin.cds.unistra.fr"
TIMEOUT_S = 2.0  # how long to wait for it, the search for its address included
MIN_SIDE_DEG = 2.0
MAX_SIDE_DEG = 40.0
SIDE_FACTOR = 5.0  # side of the chart / size of the nebula
N_NAMES = 12  # neighbours that get their name written beside them
# Where a name may stand, tried in this order: offset in points, alignment.
_PLACES = (
    ((6, 4), "left", "bottom"),
    ((6, -4), "left", "top"),
    ((-6, 4), "right", "bottom"),
    ((-6, -4), "right", "top"),
    ((0, 8), "center", "bottom"),
    ((0, -8), "center", "top"),
)
_MARKER_PX = 5  # half a marker's side, kept free of names


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
    half = side / 2
    ax.set(xlim=(half, -half), ylim=(-half, half), aspect="equal")
    ax.set_xlabel("offset to the east (degrees)")
    ax.set_ylabel("offset to the north (degrees)")
    ax.grid(color="#eee")
    ax.set_axisbelow(True)
    _write_legend(ax, {centre["type"], *near["type"]})
    ax.set_title(_describe(nebula, near, side), loc="left", fontsize=10)
    biggest = near.sort_values("size_arcmin", ascending=False, kind="stable")
    _write_names(ax, str(centre["name"]), biggest)
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
        Whether to show the live view. Default: in a notebook that somebody has open
        in Jupyter, if CDS can be reached (found out in `TIMEOUT_S`). Papermill, nbval
        and scripts get the chart, and ask no network.

    Returns
    -------
    ipyaladin.Aladin or matplotlib.figure.Figure
        Either is shown as the last value of a notebook cell.
    """
    if (_is_watched() and _is_online()) if online is None else online:
        from ipyaladin import Aladin

        ra, dec = _read(nebula, "ra_deg"), _read(nebula, "dec_deg")
        side = _choose_side(_read(nebula, "size_arcmin"))
        target = f"{ra:.6f} {dec:+.6f}"
        return Aladin(target=target, fov=side / 2, survey="CDS/P/DSS2/color")
    if neighbours is None:
        from nebula_utils.catalogue.table import read_catalogue

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


def _is_watched() -> bool:
    # A Jupyter server names the notebook to its kernel; nothing else that runs
    # notebooks does.
    return bool(os.environ.get("JPY_SESSION_NAME"))


def _is_online() -> bool:
    # In a thread, as the search for a host's address knows no time-out.
    answer: queue.SimpleQueue[bool] = queue.SimpleQueue()
    threading.Thread(target=lambda: answer.put(_reach_cds()), daemon=True).start()
    try:
        return answer.get(timeout=TIMEOUT_S)
    except queue.Empty:
        return False


def _reach_cds() -> bool:
    try:
        with socket.create_connection((ALADIN_HOST, 443), timeout=TIMEOUT_S):
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

    from nebula_utils.report.plots import CLASS_STYLE

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
        zorder=4 if alpha < 1 else 3,  # one that stands at the same place is seen
    )


def _write_names(ax: "Axes", centre: str, near: pd.DataFrame) -> None:
    # Beside the markers, where nothing else is written; left out where it is crowded.
    from matplotlib.transforms import Bbox

    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # settles the layout, which offsets depend on
    places = [(0.0, 0.0), *zip(near["x"], near["y"], strict=True)]
    taken = []
    for x, y in ax.transData.transform(places):
        corners = [[x - _MARKER_PX, y - _MARKER_PX], [x + _MARKER_PX, y + _MARKER_PX]]
        taken.append(Bbox(corners))
    _write_name(ax, centre, places[0], taken, weight="bold")
    for name, place in list(zip(near["name"], places[1:], strict=True))[:N_NAMES]:
        _write_name(ax, name, place, taken)


def _write_name(
    ax: "Axes", name: str, place: tuple[float, float], taken: list[Any], **how: Any
) -> None:
    for shift, ha, va in _PLACES:
        how |= {"textcoords": "offset points", "fontsize": 8, "ha": ha, "va": va}
        text = ax.annotate(name, place, xytext=shift, **how)
        box = text.get_window_extent()
        inside = ax.bbox.x0 < box.x0 and box.x1 < ax.bbox.x1
        inside = inside and ax.bbox.y0 < box.y0 and box.y1 < ax.bbox.y1
        if inside and not box.count_overlaps(taken):
            taken.append(box)
            return
        text.remove()


def _write_legend(ax: "Axes", types: Iterable[str]) -> None:
    from matplotlib.lines import Line2D

    from nebula_utils.report.plots import CLASS_STYLE

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
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.1),
        ncols=3,
        frameon=False,
    )


def _describe(nebula: Any, near: pd.DataFrame, side: float) -> str:
    name = _read(nebula, "name")
    kind = str(_read(nebula, "type")).replace("_", " ")
    place = f"RA {_read(nebula, 'ra_deg'):.2f}°, Dec {_read(nebula, 'dec_deg'):+.2f}°"
    if near.empty:
        return f"{name} ({kind}) stands alone in {side:.0f}° × {side:.0f}°\n{place}"
    others = "1 other nebula" if len(near) == 1 else f"{len(near)} other nebulae"
    return (
        f"{name} ({kind}){_relate(nebula, near)}\n"
        f"{place}; {others} in {side:.0f}° × {side:.0f}°"
    )


def _relate(nebula: Any, near: pd.DataFrame) -> str:
    # Inside which larger nebula it lies, the smallest of them, or which is nearest.
    away = np.hypot(near["x"], near["y"])
    own = np.nan_to_num(float(_read(nebula, "size_arcmin") or 0))
    around = near[(away * 120 < near["size_arcmin"]) & (near["size_arcmin"] > own)]
    if len(around):
        outer = around.loc[around["size_arcmin"].idxmin()]
        return f" lies inside {outer['name']} ({outer['type'].replace('_', ' ')})"
    gap = away.min()
    distance = f"{gap:.1f}°" if gap >= 1 else f"{gap * 60:.0f}′"
    return f": {near.loc[away.idxmin(), 'name']} is {distance} away"

"""Figures of the catalogue: where the nebulae are, how large, how many."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nebula_utils.config import NEBULA_TYPES, OTHER
from nebula_utils.report.style import CLASS_LABELS, CLASS_STYLE

_GLOWING = ("emission", "reflection")  # what dusty H II regions are, both at once
_NEAR_PLANE = 10  # deg of galactic latitude: "near the Milky Way's plane"


def plot_sky_map(catalogue: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw all nebulae on an all-sky map in galactic coordinates.

    Parameters
    ----------
    catalogue : DataFrame
        Columns ``type``, ``ra_deg`` and ``dec_deg`` (ICRS, degrees), as
        ``catalogue.read_catalogue`` gives them.
    ax : Axes, optional
        Axes of the projection "aitoff"; made if absent.

    Returns
    -------
    Axes
        The galactic centre in the middle, longitude growing to the left.
    """
    longitude, latitude = _to_galactic(catalogue)
    ax = _make_axes(ax, (9, 5.6), projection="aitoff")
    for kind in _by_number(catalogue):
        here = (catalogue["type"] == kind).to_numpy()
        label = f"{CLASS_LABELS[kind]} ({here.sum():,})"
        style = _marker(kind)
        ax.plot(-longitude[here], latitude[here], label=label, **style)
    ticks = np.arange(-120, 150, 60)
    ax.set_xticks(np.radians(ticks), [])
    for tick in ticks:  # below the crowded plane
        name: dict[str, Any] = {"ha": "center", "fontsize": 7, "color": "#555555"}
        ax.text(np.radians(tick), np.radians(-41), f"l = {-tick % 360}°", **name)
    ax.tick_params(axis="y", labelsize=7)
    ax.grid(color="#DDDDDD", linewidth=0.5)
    ax.set_axisbelow(True)
    near = np.mean(np.abs(np.degrees(latitude)) < _NEAR_PLANE)
    ax.set_title(
        f"{near:.0%} of {len(catalogue):,} nebulae lie within {_NEAR_PLANE}° "
        "of the Milky Way's plane",
        fontsize=11,
        pad=18,
    )
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.04)}
    ax.legend(ncols=3, markerscale=2, frameon=False, **place)
    return ax


def plot_type_counts(catalogue: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how many nebulae of each type the catalogue has.

    Parameters
    ----------
    catalogue : DataFrame
        Column ``type``.
    ax : Axes, optional
        Where to draw; made if absent.

    Returns
    -------
    Axes
        One bar a type, the largest on top, with its number.
    """
    ax = _make_axes(ax, (8, 3))
    counts = catalogue["type"].value_counts()
    kinds = _by_number(catalogue)[::-1]
    numbers = [int(counts[kind]) for kind in kinds]
    bars = ax.barh(_labels(kinds), numbers, color=_colours(kinds))
    ax.bar_label(bars, [f"{number:,}" for number in numbers], padding=3)
    ax.margins(x=0.1)
    ax.set_xlabel("nebulae in the catalogue")
    most, least = kinds[-1], kinds[0]
    ax.set_title(
        f"{counts[most]:,} {CLASS_LABELS[most]} nebulae, but only {counts[least]} "
        f"{CLASS_LABELS[least]} ones",
        fontsize=11,
    )
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_size_distribution(catalogue: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the spread of angular sizes of each type.

    Parameters
    ----------
    catalogue : DataFrame
        Columns ``type`` and ``size_arcmin`` (arcminutes, NaN if unknown).
    ax : Axes, optional
        Where to draw; made if absent.

    Returns
    -------
    Axes
        A box a type on a logarithmic axis: median, quartiles and the middle 90 %.
    """
    ax = _make_axes(ax, (8, 3.4))
    sizes = catalogue.dropna(subset=["size_arcmin"])
    medians = sizes.groupby("type")["size_arcmin"].median().sort_values()
    kinds = list(medians.index)
    groups = [sizes.loc[sizes["type"] == kind, "size_arcmin"] for kind in kinds]
    names = [
        f"{CLASS_LABELS[kind]} ({len(group):,})"
        for kind, group in zip(kinds, groups, strict=True)
    ]
    options: dict[str, Any] = {"whis": (5, 95), "showfliers": False, "widths": 0.6}
    boxes = ax.boxplot(
        groups, orientation="horizontal", tick_labels=names, patch_artist=True,
        medianprops={"color": "white", "linewidth": 2}, **options,
    )  # fmt: skip
    for patch, colour in zip(boxes["boxes"], _colours(kinds), strict=True):
        patch.set_facecolor(colour)
    ax.set_xscale("log")
    ax.set_xticks([0.01, 0.1, 1, 10, 100], ["0.6″", "6″", "1′", "10′", "100′"])
    ax.set_xlabel("largest diameter (box: half of them, whiskers: 90 %)")
    small, large = kinds[0], kinds[-1]
    ax.set_title(
        f"From {_format_size(medians[small])} ({CLASS_LABELS[small]}) to "
        f"{_format_size(medians[large])} ({CLASS_LABELS[large]}) at the median",
        fontsize=11,
    )
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_coverage(
    catalogue: pd.DataFrame, manifest: pd.DataFrame, ax: Axes | None = None
) -> Axes:
    """Draw how many nebulae of each type have an image.

    Parameters
    ----------
    catalogue : DataFrame
        Columns ``name`` and ``type``.
    manifest : DataFrame
        Column ``nebula``: the canonical name, one row an image.
    ax : Axes, optional
        Where to draw; made if absent.

    Returns
    -------
    Axes
        A bar a type on a logarithmic axis: filled with an image, light without.
    """
    ax = _make_axes(ax, (8, 3.2))
    shown = catalogue["name"].isin(manifest["nebula"])
    with_image = catalogue["type"][shown].value_counts()
    counts = catalogue["type"].value_counts()
    kinds = _by_number(catalogue)[::-1]
    colours = _colours(kinds)
    have = np.array([with_image.get(kind, 0) for kind in kinds])
    total = np.array([counts[kind] for kind in kinds])
    bars = ax.barh(_labels(kinds), total, color=colours, alpha=0.2)
    ax.barh(_labels(kinds), have, color=colours)
    parts = [f"{h} of {t:,}" for h, t in zip(have, total, strict=True)]
    ax.bar_label(bars, parts, padding=3)
    ax.set_xscale("log")
    ax.set_xlim(0.8, 8 * total.max())
    ax.set_xlabel("nebulae (filled: with an image)")
    title = f"{shown.sum():,} of {len(catalogue):,} nebulae have an image"
    ax.set_title(title, fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_conflicts(conflicts: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw which types the sources of the catalogue take for which others.

    Parameters
    ----------
    conflicts : DataFrame
        As ``catalogue.read_conflicts`` gives them; only those on types are drawn.
    ax : Axes, optional
        Where to draw; made if absent.

    Returns
    -------
    Axes
        A row for each type in the catalogue, a column for each that a source says
        instead, with the number of disagreements; a source's guess counts as the type.
    """
    ax = _make_axes(ax, (8, 3.8))
    types = conflicts[conflicts["field"] == "type"]
    said = types["rejected"].str.rstrip("?")
    counts = pd.crosstab(types["chosen"].str.rstrip("?"), said)
    order = [*NEBULA_TYPES, OTHER]
    counts = counts.reindex(
        index=[kind for kind in order if kind in counts.index],
        columns=[kind for kind in order if kind in counts.columns],
    )
    most = counts.max(axis=None)
    ax.imshow(np.sqrt(counts), cmap="Greys", vmin=0, vmax=most**0.5, aspect="auto")
    for (row, column), number in np.ndenumerate(counts.to_numpy()):
        if number:
            ink = "white" if number > most / 4 else "black"
            ax.text(column, row, str(number), ha="center", va="center", color=ink)
    wrapped = [label.replace(" ", "\n", 1) for label in _labels(list(counts.columns))]
    ax.set_xticks(range(counts.shape[1]), wrapped)
    ax.set_yticks(range(counts.shape[0]), _labels(list(counts.index)))
    ax.tick_params(length=0, axis="both")
    ax.set_xlabel("what another source says")
    ax.set_ylabel("type in the catalogue")
    ax.spines[:].set_visible(False)
    mixed = types["chosen"].str.rstrip("?").isin(_GLOWING) & said.isin(_GLOWING)
    ax.set_title(
        f"{len(types)} disagreements on a type, {mixed.sum()} of them between "
        "emission and reflection",
        fontsize=11,
    )
    return ax


def _to_galactic(catalogue: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    # astropy takes a second to import, which reading the catalogue doesn't need
    from astropy.coordinates import SkyCoord

    places = SkyCoord(
        catalogue["ra_deg"].to_numpy(), catalogue["dec_deg"].to_numpy(), unit="deg"
    ).galactic
    return places.l.wrap_at("180d").radian, places.b.radian


def _make_axes(
    ax: Axes | None, size: tuple[float, float], projection: str | None = None
) -> Axes:
    if ax is not None:
        return ax
    _, made = plt.subplots(
        figsize=size, subplot_kw={"projection": projection}, layout="constrained"
    )
    return made


def _by_number(catalogue: pd.DataFrame) -> list[str]:
    counts = catalogue["type"].value_counts()
    return sorted(set(NEBULA_TYPES) & set(counts.index), key=lambda k: -counts[k])


def _labels(kinds: list[str]) -> list[str]:
    return [CLASS_LABELS[kind] for kind in kinds]


def _colours(kinds: list[str]) -> list[str]:
    return [CLASS_STYLE[kind]["color"] for kind in kinds]


def _marker(kind: str) -> dict[str, Any]:
    size = 5.5 if kind == "protoplanetary" else 3  # few: they would drown
    plain = {"linestyle": "none", "markeredgewidth": 0, "alpha": 0.8}
    return plain | {"markersize": size} | dict(CLASS_STYLE[kind])


def _format_size(arcmin: float) -> str:
    return f"{arcmin:.3g}′" if arcmin >= 1 else f"{arcmin * 60:.2g}″"

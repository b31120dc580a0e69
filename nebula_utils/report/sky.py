"""Figures of the catalogue (01): where the nebulae are, how large, what is pictured."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nebula_utils.config import CLASS_NAMES, NEBULA_TYPES
from nebula_utils.report.drawing import (
    CLASS_LABELS,
    CLASS_STYLE,
    draw_table,
    make_axes,
    name_rows,
    write_title,
)

GLOWING = ("emission", "reflection")  # what dusty H II regions are, both at once
NEAR_PLANE = 10  # deg of galactic latitude: "near the Milky Way's plane"


def plot_sky_map(catalogue: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw all nebulae on an all-sky map in galactic coordinates.

    Its Axes have the projection "aitoff", the galactic centre in the middle, longitude
    growing to the left.
    """
    places = _locate(catalogue).galactic
    longitude, latitude = places.l.wrap_at("180d").radian, places.b.radian
    ax = make_axes(ax, (9, 5.6), projection="aitoff")
    for name in _by_number(catalogue):
        here = (catalogue["type"] == name).to_numpy()
        size = 5.5 if name == "protoplanetary" else 3  # few: they would drown
        look = {"ls": "none", "mew": 0, "alpha": 0.8, "ms": size, **CLASS_STYLE[name]}
        label = f"{CLASS_LABELS[name]} ({here.sum():,})"
        ax.plot(-longitude[here], latitude[here], label=label, **look)
    ticks = np.arange(-120, 150, 60)
    ax.set_xticks(np.radians(ticks), [])
    for tick in ticks:  # below the crowded plane
        text: dict[str, Any] = {"ha": "center", "fontsize": 7, "color": "#555"}
        ax.text(np.radians(tick), np.radians(-41), f"l = {-tick % 360}°", **text)
    ax.tick_params(axis="y", labelsize=7)
    ax.grid(color="#ddd", linewidth=0.5)
    ax.set_axisbelow(True)
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.04)}
    ax.legend(ncols=3, markerscale=2, frameon=False, **below)
    near = np.mean(np.abs(np.degrees(latitude)) < NEAR_PLANE)
    found = f"{near:.0%} lie within {NEAR_PLANE}° of the Milky Way's plane"
    return write_title(ax, found, f"{len(catalogue):,} nebulae, galactic coordinates")


def plot_size_distribution(catalogue: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the spread of angular sizes of each type: median, quartiles, middle 90 %."""
    ax = make_axes(ax, (8, 3.4))
    sizes = catalogue.dropna(subset=["size_arcmin"])
    medians = sizes.groupby("type")["size_arcmin"].median().sort_values()
    groups = [sizes.loc[sizes["type"] == name, "size_arcmin"] for name in medians.index]
    rows = zip(medians.index, groups, strict=True)
    labels = [f"{CLASS_LABELS[name]} ({len(group):,})" for name, group in rows]
    options: dict[str, Any] = {"whis": (5, 95), "showfliers": False, "widths": 0.6}
    boxes = ax.boxplot(
        groups, orientation="horizontal", tick_labels=labels, patch_artist=True,
        medianprops={"color": "white", "linewidth": 2}, **options,
    )  # fmt: skip
    for patch, name in zip(boxes["boxes"], medians.index, strict=True):
        patch.set_facecolor(CLASS_STYLE[name]["color"])
    ax.set_xscale("log")
    ax.set_xticks([0.01, 0.1, 1, 10, 100], ["0.6″", "6″", "1′", "10′", "100′"])
    ax.set_xlabel("largest diameter (box: half of them, whiskers: 90 %)")
    ax.spines[["top", "right"]].set_visible(False)
    small, large = medians.index[0], medians.index[-1]
    found = (
        f"From {_format_size(medians[small])} ({CLASS_LABELS[small]}) to "
        f"{_format_size(medians[large])} ({CLASS_LABELS[large]}) at the median"
    )
    return write_title(ax, found, f"{len(sizes):,} nebulae of known size")


def plot_coverage(
    catalogue: pd.DataFrame, manifest: pd.DataFrame, ax: Axes | None = None
) -> Axes:
    """Draw how many nebulae of each type there are, and how many have an image."""
    ax = make_axes(ax, (8, 3.2))
    shown = catalogue["name"].isin(manifest["nebula"])
    counts = catalogue["type"].value_counts()
    names = _by_number(catalogue)
    colours = [CLASS_STYLE[name]["color"] for name in names]
    have = catalogue["type"][shown].value_counts().reindex(names, fill_value=0)
    labels = [CLASS_LABELS[name] for name in names]
    bars = ax.barh(range(len(names)), counts[names], color=colours, alpha=0.2)
    ax.barh(range(len(names)), have, color=colours)
    parts = [f"{have[name]} of {counts[name]:,}" for name in names]
    ax.bar_label(bars, parts, padding=3)
    name_rows(ax, labels)
    ax.set(xscale="log", xlim=(0.8, 8 * counts.max()))
    ax.set_xlabel("nebulae (filled: with an image)")
    found = f"{shown.sum():,} of {len(catalogue):,} nebulae have an image"
    return write_title(ax, found, "by the type in the catalogue")


def plot_conflicts(conflicts: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw which types the sources of the catalogue take for which others.

    Of ``catalogue.read_conflicts`` those on types are drawn: a row for each type in the
    catalogue, a column for each that a source says instead, with the number of
    disagreements; a source's guess counts as the type.
    """
    types = conflicts[conflicts["field"] == "type"]
    chosen, said = (types[side].str.rstrip("?") for side in ("chosen", "rejected"))
    counts = pd.crosstab(chosen, said)
    rows, columns = (
        [name for name in CLASS_NAMES if name in axis]
        for axis in (counts.index, counts.columns)
    )
    counts = counts.loc[rows, columns]
    shares = counts.div(counts.sum(axis=1), axis=0).to_numpy()
    texts = counts.astype(str).replace("0", "").to_numpy()
    labels = [CLASS_LABELS[name].replace(" ", "\n", 1) for name in columns]
    ax = make_axes(ax, (8, 3.8))
    draw_table(ax, shares, texts, [CLASS_LABELS[name] for name in rows], labels)
    ax.tick_params(length=0, axis="both")
    ax.set(xlabel="what another source says", ylabel="type in the catalogue")
    ax.spines[:].set_visible(False)
    mixed = (chosen.isin(GLOWING) & said.isin(GLOWING)).sum()
    found = f"{mixed} of {len(types)} are between emission and reflection"
    return write_title(ax, found, "disagreements on a type; colour: share of the row")


def _locate(table: pd.DataFrame) -> Any:
    # astropy takes a second to import, which reading the catalogue doesn't need
    from astropy.coordinates import SkyCoord

    places = table["ra_deg"].to_numpy(float), table["dec_deg"].to_numpy(float)
    return SkyCoord(*places, unit="deg")


def _by_number(catalogue: pd.DataFrame) -> list[str]:
    counts = catalogue["type"].value_counts()
    return sorted(set(NEBULA_TYPES) & set(counts.index), key=lambda k: -counts[k])


def _format_size(arcmin: float) -> str:
    return f"{arcmin:.3g}′" if arcmin >= 1 else f"{arcmin * 60:.2g}″"

"""See, before training, how far the colours of the pictures give the type away."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nebula_utils.config import CLASS_NAMES, RANDOM_STATE
from nebula_utils.counterfactuals.colour import PALETTES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_SHUFFLES = 999


def tabulate_composition(
    manifest: pd.DataFrame, palettes: Sequence[str] | np.ndarray
) -> pd.DataFrame:
    """Count the pictures of each source and class by their colour palette.

    Parameters
    ----------
    manifest : DataFrame
        One row a picture, with source, label and nebula.
    palettes : sequence of str, shape (n_pictures,)
        The palette of each, as from `counterfactuals.compute_palette`.

    Returns
    -------
    DataFrame
        Indexed by source and label (in the order of ``CLASS_NAMES``); a column of
        picture counts for each palette, then ``images`` and ``nebulae``.

    Raises
    ------
    ValueError
        If there is not one palette a picture.
    """
    palette = _check_palettes(manifest, palettes)
    keys = ["source", "label"]
    table = pd.crosstab([manifest["source"], manifest["label"]], palette)
    table = table.assign(
        images=manifest.groupby(keys).size(),
        nebulae=manifest.groupby(keys)["nebula"].nunique(),
    )
    order = {name: place for place, name in enumerate(CLASS_NAMES)}
    table.columns.name = None
    known = [*PALETTES, *sorted(set(palette) - set(PALETTES)), "images", "nebulae"]
    table = table[[name for name in known if name in table.columns]]
    return table.sort_index(
        key=lambda level: level.map(order) if level.name == "label" else level
    )


def compute_association(
    manifest: pd.DataFrame,
    palettes: Sequence[str] | np.ndarray,
    random_state: int = RANDOM_STATE,
) -> dict[str, dict[str, float]]:
    """Measure how strongly the palette of a picture goes with its class.

    Parameters
    ----------
    manifest : DataFrame
        One row a picture, with source, label and nebula.
    palettes : sequence of str, shape (n_pictures,)
        The palette of each.
    random_state : int
        Seed of the shuffles.

    Returns
    -------
    dict
        For "all" and for each source: ``cramers_v`` in [0, 1], bias-corrected
        (0: colour says nothing; 1: it says it all; NaN with one class or palette
        only), ``chance`` (what 95 % of 999 shuffles stay below), ``p_value``,
        ``n_images``, ``n_nebulae``.

    Raises
    ------
    ValueError
        If there is not one palette a picture.

    Notes
    -----
    Pictures of one nebula are no independent witnesses. So the shuffles deal the
    types out to whole nebulae, and p_value and chance are as honest with ten
    pictures a nebula as with one.

    References
    ----------
    .. [1] Bergsma (2013), A bias-correction for Cramér's V and Tschuprow's T,
       doi:10.1016/j.jkss.2012.10.002.
    """
    palette = _check_palettes(manifest, palettes)
    parts = {"all": np.ones(len(manifest), dtype=bool)}
    for source in manifest["source"].unique():
        parts[source] = (manifest["source"] == source).to_numpy()
    return {
        name: _associate(manifest[mask], palette[mask], random_state)
        for name, mask in parts.items()
    }


def compute_cramers_v(counts: np.ndarray) -> float:
    """Return the bias-corrected Cramér's V of a table of counts.

    Parameters
    ----------
    counts : ndarray of int, shape (n_rows, n_columns)
        A contingency table; empty rows and columns are left out.

    Returns
    -------
    float
        In [0, 1]; NaN if fewer than two rows or columns are left.
    """
    counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    n_rows, n_columns = counts.shape
    total = counts.sum()
    if min(n_rows, n_columns) < 2 or total < 2:
        return float("nan")
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / total
    phi2 = ((counts - expected) ** 2 / expected).sum() / total
    phi2 = max(0.0, phi2 - (n_rows - 1) * (n_columns - 1) / (total - 1))
    rows = n_rows - (n_rows - 1) ** 2 / (total - 1)
    columns = n_columns - (n_columns - 1) ** 2 / (total - 1)
    smaller = min(rows, columns) - 1
    return float(min(1.0, np.sqrt(phi2 / smaller))) if smaller > 0 else float("nan")


def _check_palettes(
    manifest: pd.DataFrame, palettes: Sequence[str] | np.ndarray
) -> np.ndarray:
    array = np.asarray(palettes, dtype=object)
    if array.shape != (len(manifest),):
        raise ValueError(
            f"{len(manifest)} pictures need one palette each, not shape {array.shape}"
        )
    return array


def _associate(
    manifest: pd.DataFrame, palette: np.ndarray, random_state: int
) -> dict[str, float]:
    labels, _ = pd.factorize(manifest["label"])
    colours, _ = pd.factorize(palette)
    nebulae, _ = pd.factorize(manifest["nebula"])
    value = _measure(labels, colours)
    # The class of each nebula, from the first of its pictures.
    _, first = np.unique(nebulae, return_index=True)
    rng = np.random.default_rng(random_state)
    shuffled = np.array(
        [
            _measure(rng.permutation(labels[first])[nebulae], colours)
            for _ in range(N_SHUFFLES)
        ]
    )
    known = shuffled[np.isfinite(shuffled)]
    return {
        "cramers_v": value,
        "chance": float(np.quantile(known, 0.95)) if known.size else float("nan"),
        "p_value": (
            float((1 + (known >= value - 1e-12).sum()) / (1 + known.size))
            if np.isfinite(value)
            else float("nan")
        ),
        "n_images": len(labels),
        "n_nebulae": len(first),
    }


def _measure(labels: np.ndarray, colours: np.ndarray) -> float:
    shape = (labels.max() + 1, colours.max() + 1)
    cells = np.bincount(labels * shape[1] + colours, minlength=shape[0] * shape[1])
    return compute_cramers_v(cells.reshape(shape))


def plot_composition(table: pd.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Show how each class divides among the palettes.

    Parameters
    ----------
    table : DataFrame
        From `tabulate_composition`; sources are added up (select rows for one).
    ax : Axes, optional
        Where to draw; default is a new figure.

    Returns
    -------
    Axes
        A row a palette, a dot a class, with Wilson's 95 % interval for as many
        witnesses as there are nebulae. Were colour no help, the dots of a row would
        stand one below the other.
    """
    import matplotlib.pyplot as plt

    from nebula_utils.report.drawing import style_marker
    from nebula_utils.report.style import CLASS_STYLE

    if ax is None:
        _, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
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
    _write_title(ax, compute_cramers_v(palettes), table)
    return ax


def _compute_interval(share: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    # Wilson's 95 % interval of a share, with nebulae as the independent witnesses.
    z2 = 1.96**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return centre - half, centre + half


def _write_title(ax: "Axes", value: float, table: pd.DataFrame) -> None:
    if np.isnan(value):
        found = "One class or palette only: no association to measure"
    else:
        limits = {0.1: "hardly", 0.3: "weakly", 0.6: "clearly", 1.1: "closely"}
        tied = next(word for limit, word in limits.items() if value < limit)
        found = f"Colour is {tied} tied to the type: Cramér's V = {value:.2f}"
    sources = ", ".join(table.index.unique(level="source"))
    ax.set_title(
        f"{found}\n{table['images'].sum():,} pictures by palette ({sources}); bars: "
        "95 % interval, counting nebulae",
        loc="left",
        fontsize=11,
    )

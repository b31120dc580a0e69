"""See, before training, how far the colours of the pictures give the type away."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from nebula_utils.config import CLASS_NAMES, RANDOM_STATE
from nebula_utils.counterfactuals.colour import PALETTES

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
        The palette of each, as from `compute_palette`.

    Returns
    -------
    DataFrame
        Indexed by source and label (in the order of ``CLASS_NAMES``); a column of
        picture counts for each palette, then ``images`` and ``nebulae``.
    """
    palette = np.asarray(palettes, object)
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


def tabulate_photographers(manifest: pd.DataFrame) -> pd.DataFrame:
    """Count who made the pictures of each class, and how large they are.

    Parameters
    ----------
    manifest : DataFrame
        One row a picture, with label, credit and path.

    Returns
    -------
    DataFrame
        A row a class: ``photographers``, ``busiest`` and the ``share`` of the class's
        pictures that the busiest one made, and the quartiles of the shorter side, px.
    """
    order = [name for name in CLASS_NAMES if name in set(manifest["label"])]
    side = manifest["path"].map(_measure_side)
    rows = {}
    for name in order:
        here = manifest["label"] == name
        credits = manifest.loc[here, "credit"].value_counts()
        sides = side[here].quantile([0.25, 0.5, 0.75]).round().astype(int)
        rows[name] = {
            "photographers": len(credits),
            "busiest": credits.index[0],
            "share": round(credits.iloc[0] / here.sum(), 2),
            "shorter side, px": " / ".join(map(str, sides)),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def compute_association(
    manifest: pd.DataFrame,
    palettes: Sequence[str] | np.ndarray,
    random_state: int = RANDOM_STATE,
) -> dict[str, dict[str, float]]:
    """Measure how strongly the palette of a picture goes with its class.

    Parameters
    ----------
    manifest, palettes
        As for `tabulate_composition`.
    random_state : int
        Seed of the shuffles.

    Returns
    -------
    dict
        For "all" and for each source: ``cramers_v`` in [0, 1], bias-corrected
        (0: colour says nothing; 1: it says it all; NaN with one class or palette
        only), ``chance`` (what 95 % of 999 shuffles stay below), ``p_value``,
        ``n_images``, ``n_nebulae``.

    Notes
    -----
    Pictures of one nebula are not independent units. So the shuffles deal the
    types out to whole nebulae, and p_value and chance are as honest with ten
    pictures a nebula as with one.
    """
    palette = np.asarray(palettes, object)
    parts = {"all": np.ones(len(manifest), dtype=bool)}
    for source in manifest["source"].unique():
        parts[source] = (manifest["source"] == source).to_numpy()
    return {
        name: _associate(manifest[mask], palette[mask], random_state)
        for name, mask in parts.items()
    }


def _measure_side(path: Path | str) -> float:
    """Return the shorter side, px, from the file itself; NaN where it is not known."""
    try:
        with Image.open(path) as picture:
            return min(picture.size)
    except OSError:  # a FITS file, say
        return float("nan")


def compute_cramers_v(counts: np.ndarray) -> float:
    """Return the bias-corrected Cramér's V (Bergsma 2013) of a table of counts.

    Parameters
    ----------
    counts : ndarray of int, shape (n_rows, n_columns)
        A contingency table; empty rows and columns are left out.

    Returns
    -------
    float
        In [0, 1]; NaN if fewer than two rows or columns are left.

    References
    ----------
    .. [1] Bergsma (2013), A bias-correction for Cramér's V and Tschuprow's T,
       doi:10.1016/j.jkss.2012.10.002.
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

"""Get the pictures of a source, or of several, as one table and as a study's arrays.

The functions at the end see, before training, how far the pictures' colours give the
type away.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from nebula_utils.config import (
    CLASS_NAMES,
    MIN_NEBULAE,
    OTHER,
    OTHER_KINDS,
    RANDOM_STATE,
)
from nebula_utils.counterfactuals.colour import PALETTES
from nebula_utils.dataset.screening import Screened, screen
from nebula_utils.errors import SourceError
from nebula_utils.files import write_atomic

SOURCES = (
    *("stellarium", "stellarium-newer", "everyday", "archives", "photos", "hips"),
)
NUMBERS = ("ra_deg", "dec_deg", "size_arcmin")
COLUMNS = (
    *("image_id", "path", "source", "nebula", "label", "accept", "other_kind"),
    *(*NUMBERS, "credit", "licence", "flag"),
)
# Kept out of training and of every fold: the original's author's own example.
HELD_OUT = ("LDN 1622",)
N_SHUFFLES = 999


@dataclass(frozen=True)
class Dataset:
    """The pictures of a study and what is known of them."""

    manifest: pd.DataFrame  # one row a picture: `COLUMNS`, ``group`` and ``palette``
    class_names: tuple[str, ...]  # that are studied, in the house order
    left_out: dict[str, str]  # classes that are not, and why
    held_out: pd.DataFrame  # pictures of the nebulae that no head is fitted on

    @property
    def y(self) -> np.ndarray:
        """Index of each picture's class, shape (n_images,), int."""
        index = {name: i for i, name in enumerate(self.class_names)}
        return self.manifest["label"].map(index).to_numpy(int)

    @property
    def groups(self) -> np.ndarray:
        """The nebula of each picture, shape (n_images,), str."""
        return self.manifest["group"].to_numpy(str)

    @property
    def palettes(self) -> np.ndarray:
        """The palette of each picture, shape (n_images,), str."""
        return self.manifest["palette"].to_numpy(str)

    @property
    def accept(self) -> np.ndarray:
        """Which answers count as right, shape (n_images, n_classes), bool."""
        accepted = self.manifest["accept"].str.split("|")
        return np.array(
            [[name in names for name in self.class_names] for names in accepted]
        )

    @property
    def is_ambiguous(self) -> np.ndarray:
        """Whether a picture has a second accepted type, shape (n_images,), bool."""
        return self.manifest["accept"].str.contains("|", regex=False).to_numpy(bool)

    def ungroup(self) -> "Dataset":
        """Return the dataset with each picture a nebula of its own.

        A split of it is a random split by picture: only good to show how that flatters.
        """
        return replace(
            self, manifest=self.manifest.assign(group=self.manifest["image_id"])
        )

    def describe(self) -> dict:
        """Return the ``data`` part of metrics.json."""
        rows = self.manifest
        groups = {
            name: rows["group"][rows["label"] == name] for name in self.class_names
        }
        return {
            "source": "+".join(sorted(rows["source"].unique())),
            "n_images": len(rows),
            "n_nebulae": int(rows["group"].nunique()),
            "classes": {
                name: {"images": len(of_one), "nebulae": int(of_one.nunique())}
                for name, of_one in groups.items()
            },
            "left_out": self.left_out,
        }


def load_dataset(
    source: str = "stellarium",
    photos_dir: Path | str | None = None,
    classes: Sequence[str] = CLASS_NAMES,
    min_nebulae: int = MIN_NEBULAE,
    listing: Path | None = None,
) -> Dataset:
    """Get a source's pictures, exclude the unusable ones, and group by nebula.

    Parameters
    ----------
    source : str
        One of `SOURCES`, or several joined by ``"+"``.
    photos_dir : Path or str, optional
        Folder of the ``photos`` source.
    classes, min_nebulae
        As for `make_dataset`.
    listing : Path, optional
        Where the screened manifest is written as CSV.

    Raises
    ------
    SourceError
        If the source can't be had, a class name is unknown, or fewer than two classes
        are left.
    """
    kept = screen_source(source, photos_dir).kept
    if listing is not None:
        with write_atomic(listing) as temporary:
            kept.drop(columns="path").to_csv(temporary, index=False)
    return make_dataset(kept, classes, min_nebulae)


def make_dataset(
    manifest: pd.DataFrame,
    classes: Sequence[str] = CLASS_NAMES,
    min_nebulae: int = MIN_NEBULAE,
) -> Dataset:
    """Choose the classes and hold the nebulae of `HELD_OUT` out, with their groups.

    Parameters
    ----------
    manifest : DataFrame
        With ``group`` and ``palette``, as `screening.screen` makes it.
    classes : sequence of str
        Classes to study, any of `config.CLASS_NAMES`.
    min_nebulae : int
        A type of nebula with fewer nebulae is left out, by name and reason.

    Raises
    ------
    SourceError
        If a class name is unknown or fewer than two classes are left.
    """
    unknown = sorted(set(classes) - set(CLASS_NAMES))
    if unknown:
        raise SourceError(f"unknown class {unknown}: choose from {list(CLASS_NAMES)}")
    named = manifest["nebula"].isin(HELD_OUT)
    hidden = manifest["group"].isin(manifest.loc[named, "group"])
    rest = manifest[~hidden]
    nebulae = rest.groupby("label")["group"].nunique()
    left_out = {
        name: f"only {n} nebulae with pictures, fewer than {min_nebulae}"
        for name in classes
        if (n := int(nebulae.get(name, 0))) < (1 if name == OTHER else min_nebulae)
    }
    names = tuple(n for n in CLASS_NAMES if n in classes and n not in left_out)
    if len(names) < 2:
        raise SourceError(
            f"fewer than two classes are left ({left_out}): add pictures or lower "
            "MIN_NEBULAE"
        )
    return Dataset(
        rest[rest["label"].isin(names)].reset_index(drop=True),
        names,
        left_out,
        manifest[hidden].reset_index(drop=True),
    )


def screen_source(source: str, photos_dir: Path | str | None = None) -> Screened:
    """Get a source's pictures and screen them; see `load_source` and `screen`."""
    return screen(load_source(source, photos_dir))


def list_left_out(screened: Screened) -> pd.DataFrame:
    """List every picture that is not used: ``image_id``, ``reason``, ``detail``.

    The labelled table of Stellarium's textures holds some back from the start: no
    picture of one object, or a doubtful label.
    """
    tables = [screened.left_out]
    if (screened.manifest["source"] == "stellarium").any():
        from nebula_utils.dataset import photos, stellarium

        table = pd.DataFrame(photos.read_rows(stellarium.TABLE))
        held = table[table["use"] == "no"]
        names = "stellarium/" + held["file"].str.removesuffix(".png")
        about = {"image_id": names, "reason": "label", "detail": held["reason"]}
        tables.insert(0, pd.DataFrame(about))
    return pd.concat(tables, ignore_index=True).sort_values("image_id")


def load_source(source: str, photos_dir: Path | str | None = None) -> pd.DataFrame:
    """Return the manifest of a source, or of several joined by "+".

    Returns
    -------
    DataFrame
        One row a picture with the columns `COLUMNS`, in the order of the sources.
        The same nebula may come from several: splits go by group.

    Raises
    ------
    SourceError
        If a source is unknown, named twice, not there, or its manifest is wrong.
    """
    names = [name.strip() for name in source.split("+")]
    unknown = [name for name in names if name not in SOURCES]
    if unknown:
        raise SourceError(
            f"unknown source {', '.join(map(repr, unknown))}: the sources are "
            f"{', '.join(SOURCES)}, or several joined by +, as in stellarium+archives"
        )
    if len(set(names)) < len(names):
        raise SourceError(f"{source!r} names a source twice")
    if "photos" in names and photos_dir is None:
        raise SourceError("the source photos needs a folder: give photos_dir")
    # Imported here: each source's module needs the columns above.
    from nebula_utils.dataset import download, hips, photos, stellarium

    loaders: dict[str, Callable[[], pd.DataFrame]] = {
        "stellarium": stellarium.load_stellarium,
        "stellarium-newer": lambda: stellarium.load_stellarium(newer=True),
        "everyday": photos.load_everyday,
        "archives": download.load_archives,
        "photos": lambda: photos.load_photos(Path(str(photos_dir))),
        "hips": hips.load_hips,
    }
    tables = [loaders[name]()[list(COLUMNS)] for name in names]
    manifest = pd.concat(tables, ignore_index=True)
    check_manifest(manifest)
    return manifest


def check_manifest(manifest: pd.DataFrame) -> None:
    """Check the columns, labels and names of a manifest.

    Raises
    ------
    SourceError
        If a column is missing, a value is wrong, or there is no row at all.
    """
    missing = [column for column in COLUMNS if column not in manifest]
    if missing:
        raise SourceError(f"the manifest has no column {', '.join(missing)}")
    if manifest.empty:
        raise SourceError("the manifest is empty: no picture was found")
    accepted = manifest["accept"].astype(str).str.split("|")
    is_other = manifest["label"] == OTHER
    kind, ra, dec = manifest["other_kind"], manifest["ra_deg"], manifest["dec_deg"]
    problems = {
        f"{column} is missing": manifest[column].isna()
        for column in COLUMNS
        if column not in NUMBERS
    } | {
        "image_id stands twice": manifest["image_id"].duplicated(),
        "path is empty": manifest["path"] == "",
        "nebula is empty": manifest["nebula"] == "",
        "label is unknown": ~manifest["label"].isin(CLASS_NAMES),
        "accept is not label first, then other classes": ~(
            accepted.map(lambda names: set(names) <= set(CLASS_NAMES))
            & (accepted.str[0] == manifest["label"])
        ),
        "other_kind does not fit the label": (is_other & ~kind.isin(OTHER_KINDS))
        | (~is_other & (kind != "")),
        "the position is off the sky": ~(
            (ra.between(0, 360) & dec.between(-90, 90)) | (ra.isna() & dec.isna())
        ),
    }
    for problem, wrong in problems.items():
        if wrong.any():
            ids = manifest.loc[wrong, "image_id"].astype(str).tolist()
            more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
            raise SourceError(f"wrong manifest: {problem}: {', '.join(ids[:3])}{more}")


def tabulate_composition(
    manifest: pd.DataFrame, palettes: Sequence[str] | np.ndarray
) -> pd.DataFrame:
    """Count the pictures of each source and class by their colour palette.

    Parameters
    ----------
    manifest : DataFrame
        One row a picture.
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
    table = table[[name for name in PALETTES if name in table]]
    table.columns.name = None
    nebulae = manifest.groupby(keys)["nebula"].nunique()
    table = table.assign(images=manifest.groupby(keys).size(), nebulae=nebulae)
    return table.sort_index(
        key=lambda level: (
            level.map({name: i for i, name in enumerate(CLASS_NAMES)})
            if level.name == "label"
            else level
        )
    )


def tabulate_photographers(manifest: pd.DataFrame) -> pd.DataFrame:
    """Count who made the pictures of each class, and how large they are.

    Returns
    -------
    DataFrame
        A row a class: ``photographers``, ``busiest`` and the ``share`` of the class's
        pictures that the busiest one made, and the quartiles of the shorter side, px.
    """
    side = manifest["path"].map(_measure_side)
    rows = {}
    for name in [name for name in CLASS_NAMES if name in set(manifest["label"])]:
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

    Pictures of one nebula are not independent units. So the shuffles deal the
    types out to whole nebulae, and p_value and chance are as honest with ten
    pictures a nebula as with one.

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
    """
    palette = np.asarray(palettes, object)
    parts = {"all": np.ones(len(manifest), dtype=bool)}
    for source in manifest["source"].unique():
        parts[source] = (manifest["source"] == source).to_numpy()
    return {
        name: _associate(manifest[mask], palette[mask], random_state)
        for name, mask in parts.items()
    }


def compute_cramers_v(counts: np.ndarray) -> float:
    """Return the bias-corrected Cramér's V of a table of counts, in [0, 1].

    Empty rows and columns are left out; it is NaN if fewer than two of either remain.

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


def _measure_side(path: Path | str) -> float:
    """Return the shorter side, px, from the file itself; NaN where it is not known."""
    try:
        with Image.open(path) as picture:
            return min(picture.size)
    except OSError:  # a FITS file, say
        return float("nan")


def _associate(
    manifest: pd.DataFrame, palette: np.ndarray, random_state: int
) -> dict[str, float]:
    labels, _ = pd.factorize(manifest["label"])
    colours, _ = pd.factorize(palette)
    nebulae, _ = pd.factorize(manifest["nebula"])
    value = _measure(labels, colours)
    _, first = np.unique(nebulae, return_index=True)
    types = labels[first]  # of each nebula, from the first of its pictures
    rng = np.random.default_rng(random_state)
    shuffled = np.array(
        [_measure(rng.permutation(types)[nebulae], colours) for _ in range(N_SHUFFLES)]
    )
    known = shuffled[np.isfinite(shuffled)]
    p_value = (1 + (known >= value - 1e-12).sum()) / (1 + known.size)
    return {
        "cramers_v": value,
        "chance": float(np.quantile(known, 0.95)) if known.size else float("nan"),
        "p_value": float(p_value) if np.isfinite(value) else float("nan"),
        "n_images": len(labels),
        "n_nebulae": len(first),
    }


def _measure(labels: np.ndarray, colours: np.ndarray) -> float:
    shape = (labels.max() + 1, colours.max() + 1)
    cells = np.bincount(labels * shape[1] + colours, minlength=shape[0] * shape[1])
    return compute_cramers_v(cells.reshape(shape))

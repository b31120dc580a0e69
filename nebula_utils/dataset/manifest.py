"""Get the pictures of a source, or of several, as one table and as a study's arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from nebula_utils.config import CLASS_NAMES, MIN_NEBULAE, OTHER, OTHER_KINDS
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


@dataclass(frozen=True)
class Dataset:
    """The pictures of a study and what is known of them.

    Attributes
    ----------
    manifest : DataFrame
        One row a picture; the columns `COLUMNS`, and ``group`` and ``palette``.
    class_names : tuple of str
        Classes that are studied, in the house order.
    left_out : dict of str to str
        Classes that are not, and why.
    held_out : DataFrame
        Pictures of the nebulae that no head is fitted on.
    """

    manifest: pd.DataFrame
    class_names: tuple[str, ...]
    left_out: dict[str, str]
    held_out: pd.DataFrame

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

        A split of it is a random split by picture, which lets one nebula stand on
        both sides: only good to show how that flatters.
        """
        alone = self.manifest.assign(group=self.manifest["image_id"])
        return replace(self, manifest=alone)

    def describe(self) -> dict:
        """Return the ``data`` part of metrics.json."""
        counts = self.manifest.groupby("label")
        return {
            "source": "+".join(sorted(self.manifest["source"].unique())),
            "n_images": len(self.manifest),
            "n_nebulae": int(self.manifest["group"].nunique()),
            "classes": {
                name: {
                    "images": len(counts.get_group(name)),
                    "nebulae": int(counts.get_group(name)["group"].nunique()),
                }
                for name in self.class_names
            },
            "left_out": self.left_out,
        }


def load_dataset(
    source: str = "stellarium",
    photos_dir: Path | str | None = None,
    classes: Sequence[str] = CLASS_NAMES,
    min_nebulae: int = MIN_NEBULAE,
    listing: Path | None = None,
    use_flags: bool = True,
) -> Dataset:
    """Get a source's pictures, exclude the unusable ones, and group by nebula.

    Parameters
    ----------
    source : str
        One of `SOURCES`, or several joined by ``"+"``.
    photos_dir : Path or str, optional
        Folder of the ``photos`` source.
    classes : sequence of str
        Classes to study, any of `config.CLASS_NAMES`.
    min_nebulae : int
        A type of nebula with fewer nebulae is left out.
    listing : Path, optional
        Where the screened manifest is written as CSV.
    use_flags : bool
        Whether pictures that their source flags as doubtful are excluded.

    Returns
    -------
    Dataset

    Raises
    ------
    SourceError
        If the source can't be had, a class name is unknown, or fewer than two classes
        are left.
    """
    kept = screen_source(source, photos_dir, use_flags).kept
    if listing is not None:
        with write_atomic(listing) as temporary:
            kept.drop(columns="path").to_csv(temporary, index=False)
    return make_dataset(kept, classes, min_nebulae)


def make_dataset(
    manifest: pd.DataFrame,
    classes: Sequence[str] = CLASS_NAMES,
    min_nebulae: int = MIN_NEBULAE,
    held_out: Sequence[str] = HELD_OUT,
) -> Dataset:
    """Choose the classes and hold nebulae out.

    Parameters
    ----------
    manifest : DataFrame
        With ``group`` and ``palette``, as `screening.screen` makes it.
    classes : sequence of str
        Classes to study.
    min_nebulae : int
        A type of nebula with fewer nebulae is left out, by name and reason.
    held_out : sequence of str
        Nebulae that no head may be fitted on, nor on any picture of their groups.

    Returns
    -------
    Dataset

    Raises
    ------
    SourceError
        If a class name is unknown or fewer than two classes are left.
    """
    unknown = sorted(set(classes) - set(CLASS_NAMES))
    if unknown:
        raise SourceError(f"unknown class {unknown}: choose from {list(CLASS_NAMES)}")
    named = manifest["nebula"].isin(held_out)
    hidden = manifest["group"].isin(manifest.loc[named, "group"])
    rest = manifest[~hidden]
    nebulae = rest.groupby("label")["group"].nunique()
    left_out = {}
    for name in classes:
        n = int(nebulae.get(name, 0))
        if n < (1 if name == OTHER else min_nebulae):
            left_out[name] = f"only {n} nebulae with pictures, fewer than {min_nebulae}"
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


def screen_source(
    source: str, photos_dir: Path | str | None = None, use_flags: bool = True
) -> Screened:
    """Get a source's pictures and screen them; see `load_source` and `screen`."""
    manifest = load_source(source, photos_dir)
    return screen(manifest if use_flags else manifest.assign(flag=""))


def list_left_out(screened: Screened) -> pd.DataFrame:
    """List every picture that is not used, those that the source holds back included.

    Returns
    -------
    DataFrame
        ``image_id``, ``reason``, ``detail``. The labelled table of Stellarium's
        textures holds some back: no picture of one object, or a doubtful label.
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
    tables = [_find_loader(name, photos_dir)() for name in names]
    manifest = pd.concat([table[list(COLUMNS)] for table in tables], ignore_index=True)
    check_manifest(manifest)
    return manifest


def _find_loader(
    name: str, photos_dir: Path | str | None
) -> Callable[[], pd.DataFrame]:
    # Imported here: each source's module needs the columns above.
    from nebula_utils.dataset import archives, hips, photos, stellarium

    return {
        "stellarium": stellarium.load_stellarium,
        "stellarium-newer": lambda: stellarium.load_stellarium(newer=True),
        "everyday": photos.load_everyday,
        "archives": archives.load_archives,
        "photos": lambda: photos.load_photos(Path(str(photos_dir))),
        "hips": hips.load_hips,
    }[name]


def check_manifest(manifest: pd.DataFrame) -> None:
    """Check the columns, labels and names of a manifest.

    Raises
    ------
    SourceError
        If a column is missing, a value is wrong, or there is no row at all.
    """
    missing = [column for column in COLUMNS if column not in manifest.columns]
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

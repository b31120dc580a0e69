"""Get the manifest of one source of pictures, or of several together."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from nebula_utils.config import CLASS_NAMES, OTHER, OTHER_KINDS
from nebula_utils.errors import SourceError

SOURCES = ("stellarium", "everyday", "photos", "hips")
COLUMNS = (
    "image_id",
    "path",
    "source",
    "nebula",
    "label",
    "accept",
    "other_kind",
    "ra_deg",
    "dec_deg",
    "size_arcmin",
    "credit",
    "licence",
    "flag",
)
_NUMBERS = ("ra_deg", "dec_deg", "size_arcmin")


def load_source(source: str, photos_dir: Path | str | None = None) -> pd.DataFrame:
    """Return the manifest of a source, or of several joined by "+".

    Parameters
    ----------
    source : str
        "stellarium", "everyday", "photos", "hips", or a sum such as
        "stellarium+hips".
    photos_dir : Path, optional
        The folder of the source photos.

    Returns
    -------
    DataFrame
        One row a picture with the columns `COLUMNS`, in the order of the sources.
        The same nebula may come from several: splits go by ``nebula``.

    Raises
    ------
    SourceError
        If a source is unknown, named twice, not there, or its manifest is wrong.
    """
    names = parse_source(source)
    if "photos" in names and photos_dir is None:
        raise SourceError("the source photos needs a folder: give photos_dir")
    tables = [_find_loader(name, photos_dir)() for name in names]
    for table in tables:
        check_manifest(table)
    manifest = pd.concat([table[list(COLUMNS)] for table in tables], ignore_index=True)
    check_manifest(manifest)
    return manifest


def parse_source(source: str) -> list[str]:
    """Return the names in "stellarium+hips".

    Raises
    ------
    SourceError
        If a name is unknown or stands twice.
    """
    names = [name.strip() for name in source.split("+")]
    unknown = [name for name in names if name not in SOURCES]
    if unknown:
        raise SourceError(
            f"unknown source {', '.join(map(repr, unknown))}: the sources are "
            f"{', '.join(SOURCES)}, or several joined by +, as in stellarium+hips"
        )
    if len(set(names)) < len(names):
        raise SourceError(f"{source!r} names a source twice")
    return names


def _find_loader(
    name: str, photos_dir: Path | str | None
) -> Callable[[], pd.DataFrame]:
    # Imported one by one: who uses one source needs nothing of the others.
    if name == "stellarium":
        from nebula_utils.dataset.stellarium import load_stellarium

        return load_stellarium
    if name == "photos":
        from nebula_utils.dataset.photos import load_photos

        return lambda: load_photos(Path(str(photos_dir)))
    if name == "everyday":
        from nebula_utils.dataset.everyday import load_everyday

        return load_everyday
    from nebula_utils.dataset.hips import load_hips

    return load_hips


def check_manifest(manifest: pd.DataFrame) -> None:
    """Check the columns, labels and names of a manifest.

    Parameters
    ----------
    manifest : DataFrame
        One row a picture, columns `COLUMNS`.

    Raises
    ------
    SourceError
        If a column is missing, an image id stands twice or is missing, a label or a
        kind is unknown, the accepted classes leave out the label, a nebula has no
        name, a position is off the sky, or there is no row at all.
    """
    missing = [column for column in COLUMNS if column not in manifest.columns]
    if missing:
        raise SourceError(f"the manifest has no column {', '.join(missing)}")
    if manifest.empty:
        raise SourceError("the manifest is empty: no picture was found")
    text = manifest[[column for column in COLUMNS if column not in _NUMBERS]]
    if text.isna().any(axis=None):
        column = text.columns[text.isna().any()][0]
        raise SourceError(
            f"{column} is missing for {_name(manifest, text[column].isna())}"
        )
    problems = {
        "image_id stands twice": manifest["image_id"].duplicated(),
        "path is empty": manifest["path"] == "",
        "nebula is empty": manifest["nebula"] == "",
        "label is unknown": ~manifest["label"].isin(CLASS_NAMES),
        "accept is not label first, then other classes": ~_check_accept(manifest),
        "other_kind does not fit the label": ~_check_kind(manifest),
        "the position is off the sky": ~_check_position(manifest),
    }
    for problem, wrong in problems.items():
        if wrong.any():
            raise SourceError(f"wrong manifest: {problem}: {_name(manifest, wrong)}")


def _check_accept(manifest: pd.DataFrame) -> pd.Series:
    parts = manifest["accept"].str.split("|")
    known = parts.map(lambda names: set(names) <= set(CLASS_NAMES))
    return known & (parts.str[0] == manifest["label"])


def _check_kind(manifest: pd.DataFrame) -> pd.Series:
    is_other = manifest["label"] == OTHER
    known = manifest["other_kind"].isin(OTHER_KINDS)
    return (is_other & known) | (~is_other & (manifest["other_kind"] == ""))


def _check_position(manifest: pd.DataFrame) -> pd.Series:
    ra, dec = manifest["ra_deg"], manifest["dec_deg"]
    on_sky = ra.between(0, 360) & dec.between(-90, 90)
    return on_sky | (ra.isna() & dec.isna())


def _name(manifest: pd.DataFrame, wrong: pd.Series) -> str:
    # The first few offenders, and how many more there are.
    ids = manifest.loc[wrong, "image_id"].astype(str).tolist()
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return ", ".join(ids[:3]) + more

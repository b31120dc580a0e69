"""Pictures in folders: one's own as class folders or a manifest, and everyday photos.

The original tool's layout is ``DIR/dark/barnard_150-10.jpg``. A ``DIR/manifest.csv``
says more than file names can: a column ``file``, and any of ``class, nebula, accept,
other_kind, ra_deg, dec_deg, size_arcmin, credit, licence, flag``; every other source
that keeps a table of its files is read by the same reader.
"""

import importlib.util
import logging
import math
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd

from nebula_utils.catalogue.names import canonical
from nebula_utils.catalogue.table import find
from nebula_utils.config import (
    CLASS_NAMES,
    DATA,
    NEBULA_TYPES,
    OTHER,
    OTHER_KINDS,
    PICTURE_SUFFIXES,
)
from nebula_utils.dataset.manifest import COLUMNS, NUMBERS
from nebula_utils.errors import SourceError

logger = logging.getLogger(__name__)

_ALIASES = {
    **dict.fromkeys(("dn", "absorption"), "dark"),
    **dict.fromkeys(("hii", "h_ii", "hii_region", "h_ii_region"), "emission"),
    "rn": "reflection",
    "pn": "planetary",
    **dict.fromkeys(
        ("ppn", "pre_planetary", "preplanetary", "proto_planetary"), "protoplanetary"
    ),
    **dict.fromkeys(("snr", "supernova"), "supernova_remnant"),
}
_KINDS = {
    **{kind: kind for kind in OTHER_KINDS},
    **dict.fromkeys(("globular", "globular_cluster", "open_cluster"), "cluster"),
    # A folder `other` without saying of what: photos of anything.
    **dict.fromkeys((OTHER, "none", "not_a_nebula", "no_nebula"), "everyday"),
}
_INDEX = re.compile(r"(?:__|-| +)\d{1,4}$|[ _-]*\(\d+\)$")
_LONGEST_NUMBER = 3  # words, as in "sh 2 155"

# Photos that lie on every machine; those of one place share its name.
EVERYDAY = DATA / "everyday.csv"
FREE_LICENCES = ("CC", "public domain")


def load_photos(folder: Path) -> pd.DataFrame:
    """List the pictures of a folder, as `make_manifest` does, in file order.

    It has class folders (``dark/``, ``SNR/`` …), or a ``manifest.csv``, which then
    decides what is listed. Nothing is decoded here.

    Raises
    ------
    SourceError
        If the folder is missing or has no picture, or its manifest is wrong.
    CatalogueError
        If the catalogue, which knows the nebulae's names and places, is damaged.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise SourceError(f"no folder {folder}: give one with class folders like dark/")
    path = folder / "manifest.csv"
    rows = read_rows(path) if path.is_file() else list_class_folders(folder)
    there = [row for row in rows if (folder / row["file"]).is_file()]
    for row in rows:
        if row not in there:
            logger.warning("%s is in the manifest but not there: left out", row["file"])
    if not there:
        raise SourceError(
            f"{folder} holds no picture: put some into folders named like "
            f"{', '.join(CLASS_NAMES)}"
        )
    return make_manifest(there, folder, "photos", guess=True)


def list_class_folders(folder: Path) -> list[dict[str, str]]:
    """List the pictures of class folders as rows of a manifest with ``file`` alone.

    Raises
    ------
    SourceError
        If a class folder holds no picture.
    """
    rows = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        if match_class(place.name) is None:
            logger.warning("%s is no class folder: left out", place)
            continue
        files = sorted(
            path
            for path in place.rglob("*")
            if path.name.lower().endswith(PICTURE_SUFFIXES)
            and not path.name.startswith(".")
        )
        if not files:
            raise SourceError(f"{place} holds no picture: fill it or remove the folder")
        rows += [{"file": file.relative_to(folder).as_posix()} for file in files]
    return rows


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV table of pictures: one dict a row, blanks stripped.

    Raises
    ------
    SourceError
        If it can't be read, or a ``file`` lies outside of its folder or a class is
        unknown; the message has the line.
    """
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} can't be read as a CSV table: {error}") from error
    if "file" not in table and "id" not in table:
        raise SourceError(f"{path} has no column 'file': add it, one picture a row")
    table = table.fillna("").apply(lambda column: column.str.strip())  # short lines
    for column in set(NUMBERS) & set(table):
        numbers = pd.to_numeric(table[column], errors="coerce")
        wrong = table[column][numbers.isna() & table[column].ne("")]
        for text in wrong:
            raise SourceError(f"{path}: {text!r} in column {column} is no number")
    rows = table.to_dict("records")
    for line, row in enumerate(rows, start=2):
        name = row.get("class", "")
        if "file" in row:
            windows = PureWindowsPath(row["file"])
            if not windows.parts or windows.anchor or ".." in windows.parts:
                raise SourceError(
                    f"{path}, line {line}: {row['file']!r} is no file inside the "
                    "folder; write names relative to it, without '..'"
                )
            name = name or PurePosixPath(row["file"]).parts[0]
        if match_class(name) is None:
            raise SourceError(
                f"{path}, line {line}: {name!r} is no class; use one of "
                f"{', '.join(CLASS_NAMES)}"
            )
    return rows


def make_manifest(
    rows: Sequence[Mapping[str, str]], folder: Path, source: str, guess: bool = False
) -> pd.DataFrame:
    """Turn rows of a table of pictures into a source's manifest.

    Parameters
    ----------
    rows : sequence of mapping of str to str
        From `read_rows`, each with a ``file`` relative to the folder.
    folder : Path
        Where the pictures lie.
    source : str
        The first part of every ``image_id``.
    guess : bool
        Whether nebulae are named as people name them, or by their files; else a name
        that the catalogue doesn't know stays as it is.

    Returns
    -------
    DataFrame
        One row a picture, `manifest.COLUMNS`: positions in degrees (ICRS) and sizes in
        arcminutes as the row gives them, else from the catalogue, else NaN.
    """
    table = pd.DataFrame([_make_row(row, guess) for row in rows])
    table["path"] = [str((folder / row["file"]).absolute()) for row in rows]
    table["source"] = source
    files = pd.Series([row["file"] for row in rows])
    stems = files.map(lambda file: PurePosixPath(file).with_suffix("").as_posix())
    twice = stems.duplicated(keep=False)
    table["image_id"] = f"{source}/" + stems.where(~twice, files)
    return table[list(COLUMNS)]


def match_class(name: str) -> tuple[str, str] | None:
    """Match a folder's name to (class, kind of other); None if it is no class.

    E.g. "SNR" → ("supernova_remnant", ""), "galaxies" → ("other", "galaxy").
    """
    plain = re.sub(r"[\s_-]+", "_", name.strip().lower()).strip("_")
    plain = re.sub(r"_?nebula[es]?$", "", plain)
    singular = re.sub(r"ies$", "y", plain)
    for candidate in (plain, singular, plain.removesuffix("s")):
        if candidate in _KINDS:
            return OTHER, _KINDS[candidate]
        label = candidate if candidate in NEBULA_TYPES else _ALIASES.get(candidate)
        if label:
            return label, ""
    return None


def guess_nebula(stem: str, counted: bool = True) -> str:
    """Turn a file's stem, or a name as people write it, into the catalogue's name.

    E.g. "barnard_150-10" → "B 150", "ngc1499-california" → "NGC 1499"; where neither
    the catalogue nor the pattern of a designation knows it, the name as it is, without
    the running number that file names have (``counted``).
    """
    stripped = (counted and _INDEX.sub("", stem)) or stem
    words = re.split(r"[\s_]+|(?<!\d)-|-(?!\d)", stripped)
    ends = [
        (first, first + length)
        for length in range(_LONGEST_NUMBER, 0, -1)
        for first in range(len(words) - length + 1)
    ]
    # Of single letters only the first word's count: "DEM L 316A" is not LDN 316.
    parts = [" ".join(words[i:j]) for i, j in ends if i == 0 or words[i][1:2].isalpha()]
    numbers = [part for part in parts if canonical(part)]
    names = [stem, stripped, re.sub(r"(?<=\d)-\d\d?$", "", stripped), *numbers]
    # "sh2-155-cave": what is left without its number may be a common name.
    named = " ".join(word for word in words if not re.search(r"\d", word))
    for candidate in (*names, *([named] if len(named) > 3 else [])):
        nebula = find(candidate)
        if nebula is not None:
            return str(nebula.name)
    plain = re.sub(r"[\s_]+|(?<![0-9])-|-(?![0-9])", " ", stripped).strip()
    return next(filter(None, map(canonical, (stem, stripped, *numbers))), plain)


def is_free(licence: str) -> bool:
    """Say whether a licence lets us show the picture, small and with its credit."""
    return licence.startswith(FREE_LICENCES)


def load_everyday() -> pd.DataFrame:
    """List photos of anything but the sky: a model must not call a cat a nebula.

    scikit-image, scikit-learn and Matplotlib bundle a few for their examples, and
    Stellarium has landscapes; what is not installed is left out.
    """
    tables = []
    for origin, listed in groupby(read_rows(EVERYDAY), key=lambda row: row["origin"]):
        folder = _find_origin(origin)
        rows = [row for row in listed if folder and (folder / row["file"]).is_file()]
        if folder and rows:
            names = [PurePosixPath(row["file"]).stem for row in rows]
            table = make_manifest(rows, folder, "everyday")
            table["image_id"] = [f"everyday/{origin}/{name}" for name in names]
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _find_origin(name: str) -> Path | None:
    if name == "stellarium":  # whose module needs this one
        from nebula_utils.dataset.stellarium import fetch_textures

        return fetch_textures().parent.parent
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _make_row(row: Mapping[str, str], guess: bool) -> dict[str, Any]:
    file, named = PurePosixPath(row["file"]), row.get("nebula", "")
    label, kind = match_class(row.get("class") or file.parts[0]) or (OTHER, "")
    also = [name.strip() for name in row.get("accept", "").split("|")]
    also = [name for name in also if name in CLASS_NAMES and name != label]
    name = named or re.sub(r"\.(fits?|fts)$", "", file.stem, flags=re.I)  # of .fits.gz
    if guess:
        name = guess_nebula(name, counted=not named)
    nebula = find(name)
    if label == OTHER and not row.get("other_kind"):
        told = re.search(r"\bkind=(\w+)", row.get("note", ""))
        kind = _KINDS.get(told[1], kind) if told else kind
    given = {key: row.get(key) or "nan" for key in NUMBERS}
    if nebula is not None and given["ra_deg"] == "nan":
        given = {key: getattr(nebula, key) for key in NUMBERS}
    place = {key: math.nan if n is None else float(n) for key, n in given.items()}
    return {
        "nebula": name if nebula is None else nebula.name,
        "label": label,
        "accept": "|".join([label, *also]),
        "other_kind": row.get("other_kind") or kind,
        **place,
        "credit": row.get("credit") or row.get("source", ""),
        "licence": row.get("licence", ""),
        "flag": row.get("flag", ""),
    }

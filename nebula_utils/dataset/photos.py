"""The source `photos DIR`: class folders of one's own pictures as a manifest.

The original tool's layout: ``DIR/dark/barnard_150-10.jpg``. A ``DIR/manifest.csv``
with a column ``file``, and any of ``class, nebula, flag, accept, other_kind,
credit, licence``, says more than file names can.
"""

import logging
import math
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd

from nebula_utils.config import CLASS_NAMES, NEBULA_TYPES, OTHER, OTHER_KINDS
from nebula_utils.errors import CatalogueError, SourceError

logger = logging.getLogger(__name__)

COLUMNS = (
    *("image_id", "path", "source", "nebula", "label", "accept", "other_kind"),
    *("ra_deg", "dec_deg", "size_arcmin", "credit", "licence", "flag"),
)
SUFFIXES = frozenset(
    ".jpg .jpeg .png .webp .tif .tiff .gif .bmp .heic .heif .fits .fit .fts".split()
)
_ALIASES = {
    **dict.fromkeys(("dn", "absorption"), "dark"),
    **dict.fromkeys(("hii", "h_ii", "hii_region", "h_ii_region"), "emission"),
    "rn": "reflection",
    "pn": "planetary",
    **dict.fromkeys(
        ("ppn", "pre_planetary", "preplanetary", "proto_planetary"), "protoplanetary"
    ),
    **dict.fromkeys(("snr", "supernova"), "supernova_remnant"),
    **dict.fromkeys(("none", "not_a_nebula", "no_nebula"), OTHER),
    **dict.fromkeys(OTHER_KINDS, OTHER),
}
# How people and Stellarium write catalogue names: prefix → (canonical, joint).
_CATALOGUES = {
    **dict.fromkeys(("ngc", "n"), "NGC "),
    "ic": "IC ",
    **dict.fromkeys(("sh2", "sh", "sharpless"), "Sh2-"),
    **dict.fromkeys(("barnard", "b"), "B "),
    **dict.fromkeys(("ldn", "lynds"), "LDN "),
    **{"lbn": "LBN ", "vdb": "vdB ", "rcw": "RCW ", "ced": "Ced ", "abell": "Abell "},
    **{"messier": "M ", "m": "M ", "dwb": "DWB ", "gum": "Gum "},
}
_DESIGNATION = re.compile(
    rf"(?<![a-z0-9])({'|'.join(sorted(_CATALOGUES, key=len, reverse=True))})"
    r"[ _-]*(\d+[a-z]?)(?![a-z0-9])"
)
_INDEX = re.compile(r"(?:__|-| +)\d{1,4}$|[ _-]*\(\d+\)$")


def load_photos(folder: Path, source: str = "photos") -> pd.DataFrame:
    """List the pictures of a folder with class, nebula and place on the sky.

    Parameters
    ----------
    folder : Path
        Has class folders (``dark/``, ``SNR/`` …), or a ``manifest.csv``, which
        then decides what is listed. Nothing is decoded here.
    source : str
        Name of the source; the first part of every ``image_id``.

    Returns
    -------
    DataFrame
        One row a picture, in file order, with the columns `COLUMNS`: positions in
        degrees (ICRS) and sizes in arcminutes from the catalogue, else NaN.

    Raises
    ------
    SourceError
        If the folder is missing, has no class folder or an empty one, or its
        manifest is unreadable, names an unknown class or a file outside of it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise SourceError(f"no folder {folder}: give one with class folders like dark/")
    if (folder / "manifest.csv").is_file():
        rows = _read_manifest(folder)
    else:
        rows = _walk_class_folders(folder)
    if not rows:
        raise SourceError(
            f"{folder} holds no picture: put some into folders named like "
            f"{', '.join(CLASS_NAMES)}"
        )
    places = {name: _look_up(name) for name in {row["nebula"] for row in rows}}
    for row in rows:
        row.update(places[row["nebula"]])
    table = pd.DataFrame(rows)
    table["path"] = [str((folder / file).absolute()) for file in table["file"]]
    table["source"] = source
    table["image_id"] = _make_ids(table["file"], source)
    return table[list(COLUMNS)]


def match_class(name: str) -> tuple[str, str] | None:
    """Match a folder's name, however written, to (class, kind of other).

    Returns
    -------
    (str, str) or None
        E.g. "SNR" and "Supernova remnants" → ("supernova_remnant", ""),
        "galaxies" → ("other", "galaxy"); None if it is no class.
    """
    plain = re.sub(r"[\s_-]+", "_", name.strip().lower()).strip("_")
    plain = re.sub(r"_?nebula[es]?$", "", plain)
    singular = re.sub(r"ies$", "y", plain) if plain.endswith("ies") else plain
    for candidate in (plain, singular, plain.removesuffix("s")):
        label = candidate if candidate in CLASS_NAMES else _ALIASES.get(candidate)
        if label:
            kind = candidate if candidate in OTHER_KINDS else ""
            # A folder `other` without saying of what: photos of anything.
            return label, kind or ("everyday" if label == OTHER else "")
    return None


def guess_nebula(name: str) -> str:
    """Turn a file's stem or a loosely written name into the catalogue's name.

    Parameters
    ----------
    name : str
        E.g. ``"barnard_150-10"`` or ``"ngc1499-california"``.

    Returns
    -------
    str
        The canonical name ("B 150", "NGC 1499") where the catalogue or the pattern
        of a designation gives one, else the name without its running number.
    """
    for candidate in _list_candidates(name):
        nebula = _resolve(candidate)
        if nebula is not None:
            return str(nebula.name)
    designations = _find_designations(name)
    return designations[0] if designations else _clean(_strip_index(name))


def _resolve(name: str) -> Any | None:
    try:
        from nebula_utils.catalogue import table  # type: ignore[attr-defined,unused-ignore]

        return table.find(name)
    except (CatalogueError, ImportError):
        return None


def _list_candidates(name: str) -> list[str]:
    # From the most literal reading to the freest; the first that resolves wins.
    stripped = _strip_index(name)
    words = _clean(_DESIGNATION.sub(" ", stripped.lower()))
    candidates = [_clean(name), _clean(stripped)]
    if len(words) > 3:
        candidates.append(words)
    return list(dict.fromkeys([*candidates, *_find_designations(name)]))


def _find_designations(name: str) -> list[str]:
    stripped = _strip_index(name).lower().replace("_", " ")
    found = (m.groups() for m in _DESIGNATION.finditer(stripped))
    return [
        _CATALOGUES[letters] + number.lstrip("0").upper() for letters, number in found
    ]


def _strip_index(name: str) -> str:
    shorter = _INDEX.sub("", name)
    # "sh2-155" and "barnard-147" end in a catalogue's number, not in a copy's.
    ends_in_catalogue = re.split(r"[\s_-]+", shorter.lower())[-1] in _CATALOGUES
    return name if ends_in_catalogue or not shorter else shorter


def _clean(name: str) -> str:
    return re.sub(r"[\s_]+|(?<![0-9])-|-(?![0-9])", " ", name).strip()


def _look_up(name: str) -> dict[str, float]:
    nebula = _resolve(name)
    if nebula is None:
        logger.info("%s is not in the catalogue: no position on the sky", name)
    keys = ("ra_deg", "dec_deg", "size_arcmin")
    return {key: float(getattr(nebula, key, math.nan)) for key in keys}


def _walk_class_folders(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        match = match_class(place.name)
        if match is None:
            logger.warning("%s is no class folder: left out", place)
            continue
        files = sorted(
            path
            for path in place.rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        if not files:
            raise SourceError(f"{place} holds no picture: fill it or remove the folder")
        for file in files:
            rows.append(_make_row({}, file.relative_to(folder).as_posix(), *match))
    return rows


def _read_manifest(folder: Path) -> list[dict[str, Any]]:
    path = folder / "manifest.csv"
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} can't be read as a CSV table: {error}") from error
    if "file" not in table:
        raise SourceError(f"{path} has no column 'file': add it, one picture a row")
    rows = []
    for number, given in enumerate(table.to_dict("records"), start=2):
        file = _check_file_name(given["file"].strip(), f"{path}, line {number}")
        label, kind = _read_class(given, file, f"{path}, line {number}")
        if (folder / file).is_file():
            rows.append(_make_row(given, file, label, kind))
        else:
            logger.warning("%s is in the manifest but not there: left out", file)
    return rows


def _check_file_name(file: str, where: str) -> str:
    windows = PureWindowsPath(file)
    if not file or windows.drive or windows.root or ".." in windows.parts:
        raise SourceError(
            f"{where}: {file!r} is no file inside the folder; "
            "write names relative to it, without '..'"
        )
    return file


def _read_class(given: dict[str, str], file: str, where: str) -> tuple[str, str]:
    name = given.get("class", "").strip() or PurePosixPath(file).parts[0]
    match = match_class(name)
    if match is None:
        raise SourceError(
            f"{where}: {name!r} is no class; use one of {', '.join(CLASS_NAMES)}"
        )
    return match


def _make_row(
    given: dict[str, str], file: str, label: str, kind: str
) -> dict[str, Any]:
    also = [name.strip() for name in given.get("accept", "").split("|")]
    also = [name for name in also if name in NEBULA_TYPES and name != label]
    return {
        "file": file,
        "nebula": guess_nebula(given.get("nebula", "") or PurePosixPath(file).stem),
        "label": label,
        "accept": "|".join([label, *also]),
        "other_kind": given.get("other_kind", "") or kind,
        "credit": given.get("credit") or given.get("source", ""),
        "licence": given.get("licence", ""),
        "flag": given.get("flag", ""),
    }


def _make_ids(files: pd.Series, source: str) -> list[str]:
    stems = [PurePosixPath(file).with_suffix("").as_posix() for file in files]
    shared = pd.Series(stems).duplicated(keep=False)
    return [
        f"{source}/{file if twice else stem}"
        for file, stem, twice in zip(files, stems, shared, strict=True)
    ]

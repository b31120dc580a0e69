"""The source `stellarium`: real photographs that come with the planetarium program.

`textures.json` says where on the sky each texture lies and whose picture it is;
data/stellarium.csv, in git, says what it shows. Here the two meet the files.
"""

import json
import logging
import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from nebula_utils import config
from nebula_utils.dataset.textures import TAG, fetch_landscapes, fetch_textures
from nebula_utils.errors import CacheError, ImageError, SourceError
from nebula_utils.files import seal, unseal, write_atomic
from nebula_utils.images.reading import compute_pixel_hash, read_image

__all__ = [
    "COLUMNS",
    "TABLE",
    "fetch_landscapes",
    "fetch_textures",
    "load_stellarium",
    "read_table",
    "read_textures_json",
]

TABLE = config.DATA / "stellarium.csv"
COLUMNS = (
    *("file", "pixel_sha256", "nebula", "label", "accept", "other_kind", "use"),
    *("reason", "ra_deg", "dec_deg", "size_arcmin", "credit", "licence"),
    "label_source",
)
_NUMBERS = ["ra_deg", "dec_deg", "size_arcmin"]
_N_THREADS = 4  # decoding PNG lets go of Python's lock
# What a JSON text of Stellarium's may hold that JSON doesn't allow. Strings come
# first, so that "//" in an address is not taken for a comment.
_ODDITIES = re.compile(
    r'(?P<string>"(?:\\.|[^"\\])*")'
    r"|(?P<comment>//[^\n]*|/\*.*?\*/|\#[^\n]*)"
    r"|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)",
    re.DOTALL,
)
_STRING_OR_LAST_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[\]}])')

_log = logging.getLogger(__name__)


def read_textures_json(path: Path) -> pd.DataFrame:
    """Read where each texture lies on the sky, and whose picture it is.

    Parameters
    ----------
    path : Path
        Stellarium's ``textures.json``, or the folder it is in: JSON, but with
        numbers such as ``-.9794``, comments and commas before a closing bracket.

    Returns
    -------
    DataFrame
        One row a file, in file order: ``file`` (PNG name), ``credit`` ("" if
        nobody is named), ``ra_deg`` in [0, 360) and ``dec_deg`` of the centre
        (J2000), ``size_arcmin``, the longer side on the sky. The last three are NaN
        where the corners are missing. A file that several tiles name counts once,
        as the first of them has it.

    Raises
    ------
    SourceError
        If the file is missing or is not the JSON that Stellarium writes.
    """
    path = path / "textures.json" if path.is_dir() else path
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"can't read {path}: {error}") from error
    try:
        tiles = json.loads(_to_strict_json(text), strict=False)["subTiles"]
        rows = [_describe_tile(tile) for tile in tiles]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise SourceError(
            f"{path} is not Stellarium's list of textures ({error!r}): "
            "get the folder it is in anew"
        ) from error
    table = pd.DataFrame(rows, columns=["file", "credit", *_NUMBERS])
    return table.drop_duplicates("file", ignore_index=True)


def read_table(path: Path = TABLE) -> pd.DataFrame:
    """Read data/stellarium.csv: what each texture shows.

    Parameters
    ----------
    path : Path, default=TABLE
        A file with the columns that data/README.md explains.

    Returns
    -------
    DataFrame
        One row a texture; empty text is "", unknown numbers are NaN.

    Raises
    ------
    SourceError
        If the file is missing, lacks a column, or has text where a number belongs.
    """
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype=str)
        missing = [column for column in COLUMNS if column not in table.columns]
        if missing:
            raise SourceError(f"{path} has no column {', '.join(missing)}")
        table[_NUMBERS] = table[_NUMBERS].apply(pd.to_numeric).astype(float)
    except (OSError, ValueError) as error:
        raise SourceError(f"can't read {path}: {error}") from error
    return table


def load_stellarium(folder: Path | str | None = None) -> pd.DataFrame:
    """List the usable textures with what they show.

    Textures that are missing, or have other pixels than those that were labelled
    (other releases reuse a name for another picture), are left out with a warning.

    Parameters
    ----------
    folder : Path or str, optional
        A folder with Stellarium's textures; by default they are looked for, and
        fetched if need be.

    Returns
    -------
    DataFrame
        The manifest: one row a picture, sorted by ``image_id``, which is
        ``stellarium/`` and the file name without ending; ``accept`` is the accepted
        classes joined by ``|``.

    Raises
    ------
    SourceError
        If there are no textures and they can't be fetched, or none is known.
    """
    folder = (Path(folder) if folder else fetch_textures()).resolve()
    table = read_table(TABLE)
    table = table[table["use"] == "yes"].sort_values("file")
    paths = table["file"].map(lambda name: folder / name)
    there = paths.map(Path.is_file).astype(bool)
    _warn(table[~there], "missing in", folder)
    hashes = _hash_files(list(paths[there]))
    same = there & (paths.map(hashes.get) == table["pixel_sha256"])
    _warn(table[there & ~same], "not the labelled pictures in", folder)
    if not same.any():
        raise SourceError(
            f"{folder} holds none of the textures that {TABLE.name} describes: use "
            f"Stellarium {TAG.removeprefix('v')} to 24.3, or unset STELLARIUM_DATA "
            "to have them looked for or fetched"
        )
    return _to_manifest(table[same], paths[same])


def _to_manifest(table: pd.DataFrame, paths: pd.Series) -> pd.DataFrame:
    manifest = pd.DataFrame(
        {
            "image_id": "stellarium/" + table["file"].str.removesuffix(".png"),
            "path": paths.map(str),
            "source": "stellarium",
        }
    )
    same = ["nebula", "label", "accept", "other_kind", *_NUMBERS, "credit", "licence"]
    manifest[same] = table[same]
    manifest["flag"] = table["reason"]
    return manifest.sort_values("image_id", ignore_index=True)


def _warn(rows: pd.DataFrame, what: str, folder: Path) -> None:
    if len(rows):
        names = ", ".join(rows["file"].head(5)) + (", …" if len(rows) > 5 else "")
        _log.warning(
            "%d textures are %s %s and left out: %s", len(rows), what, folder, names
        )


def _hash_files(paths: list[Path]) -> dict[Path, str]:
    """Give the pixel hash of each file, from the cache where it hasn't changed."""
    store = config.cache_dir() / "stellarium" / "checked.json"
    known = _read_hashes(store)
    stamps = {path: _stamp(path) for path in paths}
    new = [path for path in paths if stamps[path] not in known]
    if new:
        with ThreadPoolExecutor(_N_THREADS) as pool:
            hashes = list(
                tqdm(
                    pool.map(_hash_file, new), total=len(new), unit="picture",
                    desc="Checking the textures", disable=None,
                )
            )  # fmt: skip
        known |= {stamps[path]: found for path, found in zip(new, hashes, strict=True)}
        _write_hashes(store, known)
    return {path: known[stamps[path]] for path in paths}


def _hash_file(path: Path) -> str:
    try:
        return compute_pixel_hash(read_image(path))
    except ImageError as error:
        _log.warning("%s can't be used: %s", path, error)
        return ""


def _read_hashes(store: Path) -> dict[str, str]:
    try:
        return unseal(json.loads(store.read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def _write_hashes(store: Path, known: dict[str, str]) -> None:
    try:
        with write_atomic(store) as temporary:
            temporary.write_text(json.dumps(seal(known), indent=0), "utf-8")
    except CacheError as error:  # a pity, but the answer is there
        _log.warning("the textures will be checked again next time: %s", error)


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def _to_strict_json(text: str) -> str:
    return _STRING_OR_LAST_COMMA.sub(r"\1", _ODDITIES.sub(_mend, text))


def _mend(match: re.Match) -> str:
    if match["comment"]:
        return " "
    if match["number"]:
        value = float(match["number"])
        return repr(value) if math.isfinite(value) else "null"
    return match[0]


def _describe_tile(tile: dict) -> dict:
    found = tile.get("imageCredits") or {}
    credit = {key.lower(): value for key, value in found.items()}.get("short") or ""
    ra, dec, size = _describe_corners(tile.get("worldCoords"))
    return {
        "file": tile["imageUrl"],
        "credit": " ".join(credit.split()),
        "ra_deg": ra,
        "dec_deg": dec,
        "size_arcmin": size,
    }


def _describe_corners(polygons: list | None) -> tuple[float, float, float]:
    """Give centre RA, Dec in deg and the longer side in arcmin of a quadrangle."""
    if not polygons:
        return math.nan, math.nan, math.nan
    ra, dec = np.radians(np.array(polygons[0], dtype=float)).T
    # Averaged as unit vectors: right ascensions may be negative or jump at 360.
    corners = np.stack(
        [np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1
    )
    x, y, z = corners.mean(axis=0)
    chords = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    sides = np.degrees(2 * np.arcsin(np.minimum(1, chords / 2))) * 60
    size = max(sides[::2].mean(), sides[1::2].mean())
    centre_ra = round(math.degrees(math.atan2(y, x)) % 360, 5) % 360
    centre_dec = math.degrees(math.atan2(z, math.hypot(x, y)))
    return centre_ra, round(centre_dec, 5), round(float(size), 3)

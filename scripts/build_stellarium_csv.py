"""Label Stellarium's textures by catalogue facts and write data/stellarium.csv.

Run as ``python scripts/build_stellarium_csv.py --package DIR``, with DIR Debian's
stellarium-data 0.22.2 as `dpkg-deb -x` unpacks it. A texture's file name says which
object is meant; the object's type and place come from data/table.csv and
OpenNGC; the place is checked against the sky corners of textures.json. What was seen
by eye, or is a matter of judgement, stands with its reason in
data/stellarium_corrections.csv and counts last, so it wins.
"""

import argparse
import gzip
import importlib.util
import json
import logging
import math
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nebula_utils import config
from nebula_utils.catalogue import table
from nebula_utils.dataset import stellarium
from nebula_utils.errors import CatalogueError, SourceError
from nebula_utils.files import write_atomic
from nebula_utils.images.reading import compute_pixel_hash, read_image

_log = logging.getLogger("build_stellarium_csv")

CORRECTIONS = config.DATA / "stellarium_corrections.csv"
PACKAGE_LICENCE = "GPL-2.0-or-later (package)"
_NUMBERS = ["ra_deg", "dec_deg", "size_arcmin"]
COLUMNS = (
    *("file", "pixel_sha256", "nebula", "class", "accept", "other_kind", "use"),
    *("reason", "ra_deg", "dec_deg", "size_arcmin", "credit", "licence"),
    *("label_source", "label_note"),
)
# What a JSON text of Stellarium's may hold that JSON doesn't allow. Strings come
# first, so that "//" in an address is not taken for a comment.
_ODDITIES = re.compile(
    r'(?P<string>"(?:\\.|[^"\\])*")'
    r"|(?P<comment>//[^\n]*|/\*.*?\*/|\#[^\n]*)"
    r"|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)",
    re.DOTALL,
)
_STRING_OR_LAST_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[\]}])')

# How Stellarium's file names begin, and the designation that is meant.
_PREFIXES = (
    (r"m(\d+)", "M {}"),
    (r"n(\d+)", "NGC {}"),
    (r"ic(\d+)", "IC {}"),
    (r"u(\d+)", "UGC {}"),
    (r"p(\d+)", "PGC {}"),
    (r"sh2-(\d+)", "Sh2-{}"),
    (r"barnard(\d+)", "B {}"),
    (r"abell(\d+)", "Abell {}"),
    (r"(rcw|ldn|lbn|vdb)(\d+)", "{} {}"),
)
_SPELLING = {"rcw": "RCW", "ldn": "LDN", "lbn": "LBN", "vdb": "vdB"}
_OPENNGC_KINDS = {
    **dict.fromkeys(("G", "GPair", "GTrpl", "GGroup"), "galaxy"),
    **dict.fromkeys(("OCl", "GCl", "*Ass"), "cluster"),
}
# CREDITS.md names these pictures otherwise than their files are named.
_CREDIT_NAMES = {
    "GammaCygni-vasey": "sadrregiongammacygni",
    "Jones-Emberson1-vasey": "jonesemberson1",
    "barnard_loop": "barnardloop",
    "calabash": "calabashnebula",
    "cas": "ic63",
    "darkshark-vasey": "ldn1235",
    "etaCarinae": "etacarinae",
    "lmc": "lmcmagellanicclouds",
    "n4038-9": "ngc40384039",
    "n869-884spano": "ngc884",
    "n7318-vasey": "ngc7318",
    "pleiades": "thepleiades",
    "red_rectangle": "redrectangle",
    "rho-a": "rhooph",
    "smc-ha": "smchydrogenalpha",
    "smc29": "smcmagellanicclouds",
    "velasnr": "velasupernovaremnant",
    "wilds": "wildstriplet",
}
_LICENCES = (  # pattern in the licence line, SPDX-like name
    (r"CC0", "CC0 1.0"),
    (r"Share ?-?Alike (\d\.\d) Germany", "CC BY-SA {} DE"),
    (r"Share ?-?Alike (\d\.\d)", "CC BY-SA {}"),
    (r"Attribution (\d\.\d)", "CC BY {}"),
    (r"Free Documentation License, Version 1\.2", "GFDL-1.2-or-later"),
    (r"public domain", "public domain"),
    (r"as long as it is credited", "free use with credit"),
    (r"may be used by anyone for any purpose", "free use"),
)


@dataclass(frozen=True)
class Credit:
    """One numbered entry of CREDITS.md: whose pictures, under which licence."""

    pictures: frozenset[str]
    author: str
    licence: str


def main() -> None:
    """Build the table and log what is worth a look."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=stellarium.TABLE)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    share = arguments.package / "usr" / "share"
    folder = share / "stellarium" / "nebulae" / "default"
    tiles = read_textures_json(folder / "textures.json")
    credits = read_credits(share / "doc" / "stellarium-data" / "CREDITS.md.gz")
    table = pd.DataFrame([label_texture(tile) for tile in tiles.to_dict("records")])
    table = apply_corrections(table, read_corrections())
    table["pixel_sha256"] = [
        compute_pixel_hash(read_image(folder / name)) for name in table["file"]
    ]
    table["licence"] = [
        find_licence(*pair, credits)
        for pair in zip(table["file"], table["credit"], strict=True)
    ]
    check(table)
    write_table(table, arguments.out)


def label_texture(tile: dict) -> dict:
    """Say what a texture shows, from its file name and its place on the sky.

    Parameters
    ----------
    tile : dict
        A row of `read_textures_json`.

    Returns
    -------
    dict
        A row of data/stellarium.csv, without hash and licence. Without an object
        in a catalogue, or with one that lies elsewhere, ``use`` is "no".
    """
    name = guess_name(tile["file"])
    found = look_up(name) if name else None
    row = {
        **{key: tile[key] for key in ("file", "credit", "ra_deg", "dec_deg")},
        "size_arcmin": tile["size_arcmin"],
        **dict.fromkeys(("nebula", "label", "accept", "other_kind", "reason"), ""),
        **{"use": "no", "label_source": "", "label_note": ""},
    }
    if found is None:
        return {**row, "reason": "no catalogue knows the object"}
    canonical, kind, place, source = found
    label = kind if kind in config.NEBULA_TYPES else "other"
    row |= {"nebula": canonical, "label": label, "accept": label}
    row |= {"other_kind": "" if label == kind else kind, "label_source": source}
    if (
        place
        and separation(place, (row["ra_deg"], row["dec_deg"]))
        > row["size_arcmin"] * 0.75 + 1
    ):
        return {**row, "reason": "the object lies outside the texture"}
    return {**row, "use": "yes"}


def guess_name(file: str) -> str:
    """Return the designation that a file name means, or ""."""
    for pattern, form in _PREFIXES:
        if match := re.match(rf"{pattern}(?!\d)", file):
            return form.format(*(_SPELLING.get(g, g) for g in match.groups()))
    return ""


def look_up(name: str) -> tuple[str, str, tuple[float, float] | None, str] | None:
    """Return canonical name, type or kind, place and source of an object.

    OpenNGC decides between galaxy, cluster and nebula, data/table.csv between
    the types of nebula; galaxies of UGC and PGC are believed by their number.
    """
    if name.startswith(("UGC", "PGC")):
        return name, "galaxy", None, "designation"
    row = find_in_openngc(name)
    if row and row[1] in _OPENNGC_KINDS:
        return row[0], _OPENNGC_KINDS[row[1]], row[2], "openngc"
    try:
        nebula = table.resolve(name)
    except CatalogueError:
        return None
    return nebula.name, nebula.type, (nebula.ra_deg, nebula.dec_deg), "catalogue"


def find_in_openngc(name: str) -> tuple[str, str, tuple[float, float]] | None:
    """Return canonical name, OpenNGC's type and place of a Messier, NGC, IC object."""
    letters, _, number = name.partition(" ")
    if letters not in ("M", "NGC", "IC"):
        return None
    package = importlib.util.find_spec("pyongc")
    assert package is not None and package.origin is not None
    database = sqlite3.connect(Path(package.origin).parent / "ongc.db")
    column = "messier" if letters == "M" else "name"
    key = f"{int(number):03}" if letters == "M" else f"{letters}{int(number):04}"
    query = "SELECT name, type, ra, dec, ngc, ic, notngc FROM objects"
    rows = database.execute(f"{query} WHERE {column} = ?", (key,)).fetchall()
    for found, kind, ra, dec, ngc, ic, _ in rows:
        if kind == "Dup" and (ngc or ic):
            return find_in_openngc(f"NGC {ngc}" if ngc else f"IC {ic}")
        if ra is None:
            continue
        match = re.fullmatch(r"(NGC|IC)0*(\d+[A-Z]?)", found)
        spelt = f"{match[1]} {match[2]}" if match else name
        return spelt, kind, (math.degrees(ra), math.degrees(dec))
    return None


def separation(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the angle between two places (RA, Dec in degrees) in arcminutes."""
    (ra, dec), (ra2, dec2) = [tuple(map(math.radians, p)) for p in (one, other)]
    half = math.sin((dec2 - dec) / 2) ** 2
    half += math.cos(dec) * math.cos(dec2) * math.sin((ra2 - ra) / 2) ** 2
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(half)))) * 60


def read_credits(path: Path) -> list[Credit]:
    """Read section 4 of CREDITS.md.gz: the licence of each named picture."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8")
    text = text.split("4. Graphics", 1)[1].split("## Appendix", 1)[0]
    found = []
    for entry in re.split(r"\n\s*4\.\d+[a-z]?\s", text):
        flat = " ".join(entry.split())
        start, _, licence = flat.partition("License:")
        head, _, author = start.partition(" from ")
        match = re.match(r"(?:Images?|All messiers|M31 pictures).*", head)
        if not match:
            continue
        names = re.sub(r"^Images? of |No machine-readable.*", "", head).replace(
            "M31 pictures come", "M31"
        )
        pictures = {squash(n) for n in re.split(r",| and ", names) if squash(n)}
        found.append(Credit(frozenset(pictures), author, read_licence(licence)))
    return found


def read_licence(text: str) -> str:
    """Return a licence's short name, the package's where none is named."""
    for pattern, name in _LICENCES:
        if match := re.search(pattern, text):
            return name.format(*match.groups())
    if text.strip():
        raise ValueError(f"unknown licence: {text}")
    return PACKAGE_LICENCE


def find_licence(file: str, credit: str, credits: list[Credit]) -> str:
    """Return the licence of a texture from its name in CREDITS.md.

    Where two entries name the picture, the author in textures.json decides. A
    survey's picture (DSS, SDSS, 2MASS) that no entry names has the package's
    licence; Messier pictures that none names are Grasslands Observatory's.
    """
    name = guess_name(file) or file.removesuffix(".png")
    for start, other in _CREDIT_NAMES.items():
        if file.startswith(start):
            name = other
    named = [entry for entry in credits if squash(name) in entry.pictures]
    same = [entry for entry in named if squash(entry.author)[:5] == squash(credit)[:5]]
    if same or named:
        return (same or named)[0].licence
    if "Grasslands" in credit:
        return "free use with credit"
    return PACKAGE_LICENCE


def squash(name: str) -> str:
    """Return a name as its small letters and digits, Barnard as "b"."""
    name = re.sub(r"\bbarnard\s*(?=\d)", "b", name.lower())
    return re.sub(r"[^a-z0-9]", "", name)


def read_corrections() -> pd.DataFrame:
    """Read data/stellarium_corrections.csv; an empty cell changes nothing."""
    return pd.read_csv(CORRECTIONS, keep_default_na=False, dtype=str)


def apply_corrections(table: pd.DataFrame, corrections: pd.DataFrame) -> pd.DataFrame:
    """Let what was seen by eye overrule the catalogues."""
    table = table.set_index("file")
    for row in corrections.to_dict("records"):
        file = row["file"]
        if file not in table.index:
            raise KeyError(f"{CORRECTIONS.name} names {file}: no such texture")
        if row["label"] or row["nebula"]:
            table.loc[file, ["use", "reason"]] = ["yes", ""]
            table.loc[file, "other_kind"] = row["other_kind"]
        for column in ("nebula", "label", "accept", "other_kind", "use"):
            if row[column]:
                table.loc[file, column] = row[column]
        if row["label"] and not row["accept"]:
            table.loc[file, "accept"] = row["label"]
        if table.loc[file, "use"] == "no":
            table.loc[file, "reason"] = row["why"]
        table.loc[file, "label_source"] = "hand"
        table.loc[file, "label_note"] = row["why"]
    return table.reset_index()


def check(table: pd.DataFrame) -> None:
    """Log the counts, and which textures are left out without a look by eye."""
    used = table[table["use"] == "yes"]
    counts = used.groupby(["label", "other_kind"])["nebula"].agg(["size", "nunique"])
    _log.info("%s", counts.to_string())
    _log.info("%s", table["licence"].value_counts().to_string())
    left = table[(table["use"] == "no") & (table["label_source"] != "hand")]
    _log.info("%s", left[["file", "nebula", "label", "reason"]].to_string())


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write the columns in their order, one row a texture, sorted by file."""
    table = table.rename(columns={"label": "class"})[[*COLUMNS]].sort_values("file")
    # Rows of newer releases, known from copies only, are by hand: they stay.
    known = pd.read_csv(stellarium.TABLE, dtype=str, keep_default_na=False)
    table = pd.concat([table, known[known["use"] == "newer"]])
    with write_atomic(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


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


if __name__ == "__main__":
    main()

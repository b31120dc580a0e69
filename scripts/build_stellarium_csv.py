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
import logging
import math
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nebula_utils import config
from nebula_utils.catalogue import table
from nebula_utils.dataset import stellarium
from nebula_utils.errors import CatalogueError
from nebula_utils.files import write_atomic
from nebula_utils.images.reading import compute_pixel_hash, read_image

_log = logging.getLogger("build_stellarium_csv")

CORRECTIONS = config.DATA / "stellarium_corrections.csv"
PACKAGE_LICENCE = "GPL-2.0-or-later (package)"

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
    tiles = stellarium.read_textures_json(folder / "textures.json")
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
        A row of `stellarium.read_textures_json`.

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
    table = table[[*stellarium.COLUMNS, "label_note"]].sort_values("file")
    with write_atomic(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()

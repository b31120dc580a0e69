"""The catalogue of nebulae: read it, find a nebula by name or by place."""

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rapidfuzz import fuzz, process
from rapidfuzz.distance import Levenshtein

from nebula_utils import config
from nebula_utils.catalogue.names import (
    MAX_NAME_LENGTH,
    SHARED_WORDS,
    canonical,
    explain,
    name_key,
    split_name,
    tidy,
    translate,
)
from nebula_utils.errors import CatalogueError

if TYPE_CHECKING:
    import pandas as pd
    from astropy.coordinates import SkyCoord

COLUMNS = tuple(
    "name type aliases common_names ra_deg dec_deg size_arcmin constellation "
    "source_names source_type source_position source_size".split()
)
N_SUGGESTIONS = 5


@dataclass(frozen=True)
class Nebula:
    """One nebula of the catalogue."""

    name: str  # canonical, e.g. "NGC 1952"
    type: str  # one of ``config.NEBULA_TYPES``
    ra_deg: float  # ICRS, in [0, 360)
    dec_deg: float
    size_arcmin: float | None  # largest diameter; None if no source gives one
    aliases: tuple[str, ...]  # all other names, common names first
    constellation: str  # IAU abbreviation, e.g. "Tau"
    sources: tuple[str, ...]  # that know it, as data/README.md names them


class UnknownNameError(CatalogueError):
    """A name that is not in the catalogue; ``suggestions`` are like it."""

    def __init__(self, message: str, suggestions: list[str]) -> None:
        super().__init__(message)
        self.suggestions = suggestions


def read_catalogue(path: Path | None = None) -> "pd.DataFrame":
    """Read and check the table of nebulae, by default data/catalogue.csv.

    Returns
    -------
    DataFrame
        One row a nebula, sorted by name; columns ``COLUMNS``, described in
        data/README.md. ``size_arcmin`` may be NaN; absent text is "".

    Raises
    ------
    CatalogueError
        If the file is missing or no such table, or a value is out of range.
    """
    path = path or config.DATA / "catalogue.csv"
    numbers = dict.fromkeys(("ra_deg", "dec_deg", "size_arcmin"), float)
    texts = {column: str for column in COLUMNS if column not in numbers}
    table = _read_table(path, "a catalogue", COLUMNS, dtype=texts | numbers)
    table[list(texts)] = table[list(texts)].fillna("")
    _check(table, path)
    return table


def read_conflicts(path: Path | None = None) -> "pd.DataFrame":
    """Read what the sources disagree on, by default data/catalogue_conflicts.csv.

    Returns
    -------
    DataFrame
        One row a disagreement: ``name``, ``field`` (type, position or size), the
        ``chosen`` value and the ``rejected`` one with their sources, ``difference``.

    Raises
    ------
    CatalogueError
        If the file is missing or no such table.
    """
    path = path or config.DATA / "catalogue_conflicts.csv"
    columns = ("name", "field", "chosen", "rejected")
    return _read_table(path, "conflicts", columns, dtype=str, keep_default_na=False)


def _read_table(
    path: Path, what: str, columns: Iterable[str], **how: Any
) -> "pd.DataFrame":
    import pandas as pd  # slow to import, and a look-up by name needs none of it

    try:
        table = pd.read_csv(path, encoding="utf-8", **how)
    except FileNotFoundError as error:
        raise CatalogueError(
            f"{path} is missing: check it out again, or build it by "
            "scripts/build_catalogue.py"
        ) from error
    except (ValueError, OSError) as error:
        raise CatalogueError(f"{path} can't be read as {what}: {error}") from error
    missing = set(columns) - set(table.columns)
    if missing:
        raise CatalogueError(f"{path} lacks the columns {sorted(missing)}")
    return table


def resolve(name: str) -> Nebula:
    """Find a nebula by any of its names.

    E.g. "M 1", "ngc1952", "Sharpless 155", "thors helmet", "B 33 (Horsehead)". A name
    that several nebulae bear gives the best-known of them.

    Raises
    ------
    UnknownNameError
        A CatalogueError, with up to five similar names as ``suggestions``.
    """
    return _look_up(name)[0]


def _look_up(name: str) -> tuple[Nebula, str]:
    """Return the nebula of a name, and which of its names it was."""
    said = tidy(name).removeprefix("the ")
    if said in SHARED_WORDS:
        raise _shared_name_error(name, said)
    key = name_key(name) if find(name) else _find_key_by_parts(name)
    if key:
        return _index()[key], _spellings()[key]
    reason = explain(name)
    suggestions = [] if reason.startswith("it is") else suggest(name)
    hint = f"; did you mean {', '.join(suggestions)}?" if suggestions else ""
    reason = f": {reason}" if reason else ""
    message = f"no nebula is called {name_for_message(name)}{reason}{hint}"
    raise UnknownNameError(message, suggestions)


def _find_key_by_parts(name: str) -> str:
    """Find what "M 1 (Crab Nebula)" means, if its parts agree; else ""."""
    if len(name) > MAX_NAME_LENGTH:
        return ""
    parts = split_name(name)
    keys = {
        part: name_key(part if find(part) else translate(part) or "") for part in parts
    }
    found = {part: _index().get(key) for part, key in keys.items()}
    numbers = [part for part in parts if canonical(part)]
    ranked = [part for part in numbers + parts if found[part]]
    if not all(found[part] for part in numbers) or not ranked:
        return ""
    if not numbers and len(parts) > 1:
        return ""
    first = found[ranked[0]]
    assert first is not None
    known = [name_key(other) for other in (first.name, *first.aliases)]
    for part, nebula in found.items():
        if nebula not in (None, first) and not any(keys[part] in key for key in known):
            raise UnknownNameError(
                f"{name_for_message(name)} names two nebulae: {first.name} and "
                f"{nebula.name}; look them up one by one",
                [first.name, nebula.name],
            )
    return keys[ranked[0]]


def _shared_name_error(name: str, word: str) -> UnknownNameError:
    bearers = {}
    for nebula in _nebulae():
        named = [n for n in nebula.aliases if re.match(rf"(.*\W)?{word}s?\b", tidy(n))]
        if named:
            bearers[nebula.name] = f"{nebula.name} ({named[0]})"
    best = find(name)
    names = sorted(bearers, key=lambda n: best is None or n != best.name)
    names = names[:N_SUGGESTIONS]
    shown = ", ".join(bearers[n] for n in names)
    return UnknownNameError(
        f"no one nebula is called {name_for_message(name)}; did you mean {shown}?",
        names,
    )


def find(name: str) -> Nebula | None:
    """Find a nebula by one of its names, without advice where there is none."""
    key = name_key(name) if len(name) <= MAX_NAME_LENGTH else ""
    return _index().get(key) if key else None


def suggest(name: str, n: int = N_SUGGESTIONS) -> list[str]:
    """Return up to ``n`` names that a misspelt one may mean, one a nebula."""
    key = name_key(name)
    if not key or len(name) > MAX_NAME_LENGTH:
        return []
    keys = list(_spellings())
    too_long = canonical(name.rstrip()[:-1])  # "Barnard 1500" has a digit too many
    if canonical(name) is not None or (too_long and key[-1].isdigit()):
        if canonical(name) is None:
            key = f"{too_long}{key[-1]}".casefold()
        head = key.rstrip("0123456789.+-")  # numbers of the same catalogue only
        keys = [other for other in keys if other.startswith(head)]
        scorer = Levenshtein.normalized_similarity
        found = process.extract(key, keys, scorer=scorer, limit=None, score_cutoff=0.6)
    else:
        found = process.extract(
            key, keys, scorer=fuzz.ratio, limit=None, score_cutoff=60
        )
        if len(key) >= 4:  # "Thor" begins "Thor's Helmet"; the shortest names first
            begun = [other for other in keys if other.startswith(key)]
            found += [(other, 100 - len(other) / 100, 0) for other in begun]
    found.sort(key=lambda hit: (-hit[1], abs(_number(hit[0]) - _number(key))))
    best: dict[str, str] = {}
    for other, _, _ in found:
        best.setdefault(_index()[other].name, _spellings()[other])
    return list(best.values())[:n]


def match_position(
    ra_deg: float, dec_deg: float, radius_arcmin: float
) -> list[tuple[Nebula, float]]:
    """Return the nebulae whose catalogue position is near a place in the sky.

    The place is ICRS. Each comes with its distance in arcminutes, the nearest first.

    Raises
    ------
    ValueError
        If a number is not finite, abs(dec) exceeds 90 or the radius is negative.
    """
    if not (math.isfinite(ra_deg) and abs(dec_deg) <= 90 and radius_arcmin >= 0):
        raise ValueError(f"no place in the sky: {ra_deg}, {dec_deg}, {radius_arcmin}")
    from astropy.coordinates import SkyCoord

    arcmin = SkyCoord(ra_deg, dec_deg, unit="deg").separation(_places()).arcmin
    near = np.flatnonzero(arcmin <= radius_arcmin)
    nebulae = _nebulae()
    return [(nebulae[i], float(arcmin[i])) for i in near[np.argsort(arcmin[near])]]


def as_record(query: str) -> dict:
    """Return the answer to a look-up by name as one JSON-able dictionary.

    Returns
    -------
    dict
        As `describe` gives it, and ``matched``, the name that was found; or ``query``,
        ``error`` and ``suggestions``.
    """
    try:
        nebula, matched = _look_up(query)
    except UnknownNameError as error:
        return dict(query=query, error=str(error), suggestions=error.suggestions)
    return describe(query, nebula) | {"matched": matched}


def describe(query: str, nebula: Nebula) -> dict:
    """Return a nebula as the JSON-able answer to a query.

    Returns
    -------
    dict
        ``query`` and the fields of `Nebula`; ``conflicts``, what its sources disagree
        on: a list of rows of data/catalogue_conflicts.csv.
    """
    conflicts = _conflicts().get(nebula.name, [])
    return {"query": query} | asdict(nebula) | {"conflicts": conflicts}


def name_for_message(name: str) -> str:
    """Return a name quoted for an error message: short and printable."""
    short = name if len(name) <= 60 else name[:57] + "..."
    return repr(short)


def _number(key: str) -> int:
    digits = re.search(r"\d+", key.removeprefix("sh2-"))
    return int(digits.group()[:9]) if digits else 0


def _check(table: "pd.DataFrame", path: Path) -> None:
    wrong = {
        "a name is empty": table["name"].eq(""),
        "a name stands twice": table["name"].map(name_key).duplicated(),
        "an unknown type": ~table["type"].isin(config.NEBULA_TYPES),
        "a right ascension outside [0, 360)": ~table["ra_deg"].between(
            0, 360, inclusive="left"
        ),
        "a declination outside [-90, 90]": ~table["dec_deg"].between(-90, 90),
        "a size that is not positive": table["size_arcmin"].le(0),
    }
    for problem, rows in wrong.items():
        if rows.any():
            line = int(np.flatnonzero(rows)[0]) + 2
            raise CatalogueError(f"{path}, line {line}: {problem}")


@lru_cache(maxsize=1)
def _nebulae() -> list[Nebula]:
    rows = _read_rows("catalogue.csv")
    try:
        return [_make_nebula(row) for row in rows]
    except (KeyError, ValueError) as error:
        path = config.DATA / "catalogue.csv"
        raise CatalogueError(f"{path} can't be read as a catalogue: {error}") from error


@lru_cache(maxsize=1)
def _conflicts() -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for row in _read_rows("catalogue_conflicts.csv"):
        found.setdefault(row.pop("name"), []).append(row)
    return found


def _read_rows(file: str) -> list[dict[str, str]]:
    path = config.DATA / file
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except FileNotFoundError as error:
        raise CatalogueError(f"{path} is missing: check it out again") from error


def _make_nebula(row: dict[str, str]) -> Nebula:
    names = row["common_names"].split("|") + row["aliases"].split("|")
    return Nebula(
        row["name"],
        row["type"],
        float(row["ra_deg"]),
        float(row["dec_deg"]),
        float(row["size_arcmin"]) if row["size_arcmin"] else None,
        tuple(filter(None, names)),
        row["constellation"],
        tuple(row["source_names"].split("+")),
    )


@lru_cache(maxsize=1)
def _keys() -> list[tuple[str, str, Nebula]]:
    return [
        (name_key(name), name, nebula)
        for nebula in _nebulae()
        for name in (nebula.name, *nebula.aliases)
    ]


@lru_cache(maxsize=1)
def _index() -> dict[str, Nebula]:
    return {key: nebula for key, _, nebula in reversed(_keys())}


@lru_cache(maxsize=1)
def _spellings() -> dict[str, str]:
    return {key: name for key, name, _ in reversed(_keys())}


@lru_cache(maxsize=1)
def _places() -> "SkyCoord":
    from astropy.coordinates import SkyCoord

    places = [(nebula.ra_deg, nebula.dec_deg) for nebula in _nebulae()]
    return SkyCoord(places, unit="deg")

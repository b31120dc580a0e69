"""The catalogue of nebulae: read it, find a nebula by name or by place."""

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rapidfuzz import fuzz, process
from rapidfuzz.distance import Levenshtein

from nebula_utils import config
from nebula_utils.catalogue.designations import (
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

COLUMNS = (
    "name",
    "type",
    "aliases",
    "common_names",
    "ra_deg",
    "dec_deg",
    "size_arcmin",
    "constellation",
    "source_names",
    "source_type",
    "source_position",
    "source_size",
)
N_SUGGESTIONS = 5


@dataclass(frozen=True)
class Nebula:
    """One nebula of the catalogue.

    Attributes
    ----------
    name : str
        The canonical name, e.g. "NGC 1952".
    type : str
        One of ``config.NEBULA_TYPES``.
    aliases : tuple of str
        All other names, common names first.
    ra_deg, dec_deg : float
        ICRS position in degrees, right ascension in [0, 360).
    size_arcmin : float or None
        Largest diameter in arcminutes; None if no source gives one.
    constellation : str
        IAU abbreviation, e.g. "Tau".
    """

    name: str
    type: str
    aliases: tuple[str, ...]
    ra_deg: float
    dec_deg: float
    size_arcmin: float | None
    constellation: str


class UnknownNameError(CatalogueError):
    """A name that is not in the catalogue; ``suggestions`` are like it."""

    def __init__(self, message: str, suggestions: list[str]) -> None:
        super().__init__(message)
        self.suggestions = suggestions


def read_catalogue(path: Path | None = None) -> "pd.DataFrame":
    """Read and check the table of nebulae.

    Parameters
    ----------
    path : Path, optional
        A table like data/catalogue.csv, which is the default.

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
    """Read the list of what the sources of the catalogue disagree on.

    Parameters
    ----------
    path : Path, optional
        A table like data/catalogue_conflicts.csv, which is the default.

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

    Parameters
    ----------
    name : str
        E.g. "M 1", "ngc1952", "Sharpless 155", "thors helmet". A name that
        several nebulae bear gives the best-known of them.

    Returns
    -------
    Nebula
        The nebula of that name.

    Raises
    ------
    UnknownNameError
        A CatalogueError, with up to five similar names as ``suggestions``.
    """
    said = tidy(name)
    if said.removeprefix("the ") in SHARED_WORDS:
        raise _shared_name_error(name, said.removeprefix("the "))
    nebula = find(name) or _find_by_parts(name)
    if nebula is not None:
        return nebula
    reason = explain(name)
    suggestions = [] if reason.startswith("it is") else suggest(name)
    hint = f"; did you mean {', '.join(suggestions)}?" if suggestions else ""
    reason = f": {reason}" if reason else ""
    message = f"no nebula is called {name_for_message(name)}{reason}{hint}"
    raise UnknownNameError(message, suggestions)


def _find_by_parts(name: str) -> Nebula | None:
    """Find what "M 1 (Crab Nebula)" means, if its parts agree."""
    if len(name) > MAX_NAME_LENGTH:
        return None
    parts = split_name(name)
    found = {part: find(part) or find(translate(part) or "") for part in parts}
    numbers = [part for part in parts if canonical(part)]
    if not all(found[part] for part in numbers):
        return None
    ranked = [nebula for part in numbers + parts if (nebula := found[part])]
    if not ranked or not (numbers or len(parts) == 1):
        return None
    first = ranked[0]
    keys = [name_key(other) for other in (first.name, *first.aliases)]
    for part, nebula in found.items():
        said = name_key(translate(part) or part)
        agrees = nebula in (None, first) or any(said in k for k in keys)
        if nebula and not agrees:
            raise UnknownNameError(
                f"{name_for_message(name)} names two nebulae: {first.name} and "
                f"{nebula.name}; look them up one by one",
                [first.name, nebula.name],
            )
    return first


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
    """Find a nebula by any of its names, without advice where there is none.

    Parameters
    ----------
    name : str
        As in `resolve`, which costs more where a name is unknown.

    Returns
    -------
    Nebula or None
        The nebula of that name, if there is one.
    """
    key = name_key(name) if len(name) <= MAX_NAME_LENGTH else ""
    return _index().get(key) if key else None


def suggest(name: str, n: int = N_SUGGESTIONS) -> list[str]:
    """Return names of the catalogue that are like a given one.

    Parameters
    ----------
    name : str
        A name that may be misspelt.
    n : int, default=5
        The largest number of suggestions.

    Returns
    -------
    list of str
        Names as the catalogue spells them, the most similar first, one a
        nebula; empty if nothing is similar.
    """
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

    Parameters
    ----------
    ra_deg, dec_deg : float
        ICRS, degrees.
    radius_arcmin : float
        How far away a nebula's position may be, in arcminutes.

    Returns
    -------
    list of (Nebula, float)
        With the distance in arcminutes, the nearest first.

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
    """Return the answer to a look-up as one JSON-able dictionary.

    Parameters
    ----------
    query : str
        Any name.

    Returns
    -------
    dict
        ``query``, ``name``, ``type``, ``ra_deg``, ``dec_deg``, ``size_arcmin``
        (None if unknown) and ``aliases``; or ``query``, ``error`` and
        ``suggestions``.
    """
    try:
        nebula = resolve(query)
    except UnknownNameError as error:
        return {
            "query": query,
            "error": str(error),
            "suggestions": error.suggestions,
        }
    return describe(query, nebula)


def describe(query: str, nebula: Nebula) -> dict:
    """Return a nebula as `as_record` answers a query with it."""
    return {
        "query": query,
        "name": nebula.name,
        "type": nebula.type,
        "ra_deg": nebula.ra_deg,
        "dec_deg": nebula.dec_deg,
        "size_arcmin": nebula.size_arcmin,
        "aliases": list(nebula.aliases),
    }


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
    path = config.DATA / "catalogue.csv"
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return [_make_nebula(row) for row in csv.DictReader(stream)]
    except FileNotFoundError as error:
        raise CatalogueError(f"{path} is missing: check it out again") from error
    except (KeyError, ValueError) as error:
        raise CatalogueError(f"{path} can't be read as a catalogue: {error}") from error


def _make_nebula(row: dict[str, str]) -> Nebula:
    names = row["common_names"].split("|") + row["aliases"].split("|")
    return Nebula(
        row["name"],
        row["type"],
        tuple(filter(None, names)),
        float(row["ra_deg"]),
        float(row["dec_deg"]),
        float(row["size_arcmin"]) if row["size_arcmin"] else None,
        row["constellation"],
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

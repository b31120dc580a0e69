"""Merge three public lists and our corrections into data/catalogue.csv.

Run as ``python scripts/build_catalogue.py --stellarium DIR``, with DIR Stellarium
0.22.2's ``nebulae/default`` folder. What the columns mean stands in
data/README.md.
"""

import argparse
import logging
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pandas as pd
from astropy.coordinates import SkyCoord, get_constellation
from catalogue_merge import (
    distance,
    join_by_number,
    join_planetaries,
    note_conflict,
    strong_names,
)
from catalogue_sources import Record, read_hnsky, read_openngc, read_stellarium

from nebula_utils import config
from nebula_utils.catalogue.designations import canonical, name_key
from nebula_utils.files import write_atomic

_log = logging.getLogger("build_catalogue")

# Whose word counts first, for each fact; "hand" is data/catalogue_corrections.csv
# and data/protoplanetary.csv.
_TRUST = ("hand", "openngc", "stellarium", "hnsky")
# Stellarium gives some of Barnard's nebulae the place of a cloud of Lynds' list.
_TRUST_DARK = ("hand", "openngc", "hnsky", "stellarium")
_ORDER = "NGC,IC,Sh2-,B,LDN,vdB,RCW,Gum,PK,SNR,Ced,Abell,PN,M,Caldwell,DWB,vdBH,LBN"
_PLANETARY_ORDER = "NGC,IC,Abell,Sh2-,PK,RCW,PN,"
_DEFAULT = Path("/usr/share/stellarium/nebulae/default")

COLUMNS = [
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
]


def main() -> None:
    """Build the table and the list of conflicts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stellarium", type=Path, default=_DEFAULT)
    parser.add_argument("--out", type=Path, default=config.DATA)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    records = [*read_openngc(), *read_stellarium(arguments.stellarium)]
    records += read_hnsky(config.cache_dir())
    conflicts: list[dict] = []
    groups = join_planetaries(join_by_number(records, conflicts))
    groups = correct(groups, read_corrections())
    rows = [row for group in groups if (row := settle(group, conflicts))]
    table = add_constellations(give_names_away(rows))
    write_table(table[COLUMNS], arguments.out / "catalogue.csv")
    known = set(table["name"])
    listed = pd.DataFrame([c for c in conflicts if c["name"] in known])
    listed = listed.drop_duplicates().sort_values(["field", "name"])
    write_table(listed, arguments.out / "catalogue_conflicts.csv")
    _log.info("%s", table["type"].value_counts().to_string())
    _log.info("%s", listed["field"].value_counts().to_string())


def read_corrections() -> pd.DataFrame:
    """Return our own facts: corrections and the list of protoplanetaries."""
    options = {"dtype": str, "keep_default_na": False}
    ours = pd.read_csv(config.DATA / "catalogue_corrections.csv", **options)
    young = pd.read_csv(config.DATA / "protoplanetary.csv", **options)
    young["type"] = "protoplanetary"
    return pd.concat([ours, young], ignore_index=True).fillna("")


def correct(groups: list[list[Record]], table: pd.DataFrame) -> list[list[Record]]:
    """Put our own facts first in the groups they speak of.

    A row's names belong to it alone. Groups that go by one of them are merged
    into the row; groups that merely have one among their names lose it.
    """
    owner: dict[str, list[Record]] = {}
    for group in groups:
        owner.update((name_key(n), group) for r in group for n in r.designations)
        owner.setdefault(name_key(choose_name(group, None)), group)
    for row in table.itertuples():
        names = [row.name, *filter(None, row.aliases.split("|"))]
        keys = dict.fromkeys(map(name_key, names))  # in order: two builds are equal
        found = list({id(owner[k]): owner[k] for k in keys if k in owner}.values())
        whole = [g for g in found if name_key(choose_name(g, None)) in keys]
        main = owner.get(name_key(row.name))
        if not row.ra_deg and main is not None and all(g is not main for g in whole):
            whole.append(main)
        whole.sort(key=lambda group: group is not main)
        target = [record for group in whole for record in group]
        for group in found:
            if any(group is g for g in whole):
                group.clear()
            _take_away(group, set(keys))
        target.insert(0, _make_record(row, names))
        owner.update((name_key(n), target) for r in target for n in r.designations)
        groups.append(target)
    return [group for group in groups if group]


def _take_away(group: list[Record], keys: set[str]) -> None:
    for record in group:
        for names in (record.designations, record.common_names):
            names[:] = [n for n in names if name_key(n) not in keys]


def _make_record(row: Any, names: list[str]) -> Record:
    numbers = [n for n in names if canonical(n) or re.search(r"\d", n)]
    return Record(
        "hand",
        [row.name] + [n for n in numbers if n != row.name],
        [n for n in names if n not in numbers and n != row.name],
        row.type or None,
        float(row.ra_deg or "nan"),
        float(row.dec_deg or "nan"),
        float(row.size_arcmin or "nan"),
    )


def choose_name(group: list[Record], kind: str | None) -> str:
    """Return the canonical name of a group: ours, else by catalogue."""
    if group[0].source == "hand":
        return group[0].designations[0]
    names = [n for r in group for n in r.designations]
    types = {r.type for r in group} if kind is None else {kind}
    planetary = types & {"planetary", "protoplanetary"}
    order = (_PLANETARY_ORDER if planetary else "") + _ORDER
    ranks = order.split(",")

    def rank(name: str) -> tuple:
        hits = [i for i, p in enumerate(ranks) if p and _in_catalogue(name, p)]
        number = re.search(r"\d+", name)
        low = int(number.group()) if number else 0
        return (min(hits, default=99), -names.count(name), low, name)

    if names:
        return min(names, key=rank)
    return next((n for r in group for n in r.common_names), "")


def _in_catalogue(name: str, prefix: str) -> bool:
    return re.match(rf"{re.escape(prefix)} ?[G\d]", name) is not None


def settle(group: list[Record], conflicts: list[dict]) -> dict | None:
    """Return the row of a group, or None if it is no nebula or nameless."""
    trust = _TRUST_DARK if is_barnard(group) else _TRUST
    group = sorted(group, key=lambda r: trust.index(r.source))
    chosen = choose_type(group)
    if chosen is None or chosen.type in (None, "other", "none"):
        return None
    name = choose_name(group, chosen.type)
    if not name or only_lbn(group) or unconfirmed_remnant(group, chosen):
        return None
    if unseen_cloud(group, chosen):
        return None
    place = next((r for r in group if not math.isnan(r.ra_deg)), None)
    if place is None:
        _log.error("%s: a correction without a place that no source knows", name)
        return None
    size = next((r for r in group if not math.isnan(r.size_arcmin)), None)
    note_differences(group, name, chosen, place, size, conflicts)
    numbers = [n for r in group for n in r.designations]
    common = [n for r in group for n in r.common_names]
    sources = dict.fromkeys(r.source for r in group)
    return {
        "name": name,
        "type": str(chosen.type).rstrip("?"),
        "aliases": numbers,
        "common_names": common,
        "ra_deg": round(place.ra_deg % 360, 5),
        "dec_deg": round(place.dec_deg, 5),
        "size_arcmin": float(f"{size.size_arcmin:.3g}") if size else math.nan,
        "source_names": "+".join(sources),
        "source_type": chosen.source,
        "source_position": place.source,
        "source_size": size.source if size else "",
        "fame": fame(group),
        "own": names_of(group[0]) if group[0].source == "hand" else [],
    }


def names_of(record: Record) -> list[str]:
    """Return all names of a record."""
    return record.designations + record.common_names


def is_barnard(group: list[Record]) -> bool:
    """Tell whether a group is one of Barnard's dark nebulae."""
    return any(n.startswith("B ") for r in group for n in r.designations)


def choose_type(group: list[Record]) -> Record | None:
    """Return the record whose type is believed: ours, else the majority's."""
    says = [record for record in group if record.type]
    says = [r for r in says if not str(r.type).endswith("?")] or says
    if not says or says[0].source == "hand":
        return says[0] if says else None
    votes: dict[str, set[str]] = defaultdict(set)
    for record in says:
        votes[str(record.type)].add(record.source)
    # Van den Bergh's list is one of reflection nebulae: it breaks a tie.
    vdb = any(n.startswith("vdB ") for r in group for n in r.designations)
    return max(
        says,
        key=lambda r: (len(votes[str(r.type)]), vdb and r.type == "reflection"),
    )


def only_lbn(group: list[Record]) -> bool:
    """Tell whether nothing but Lynds' list of bright nebulae knows a group.

    That list doesn't tell emission from reflection or galactic cirrus, and what
    Stellarium says of these objects is one word for all.
    """
    names = [n for r in group for n in r.designations + r.common_names]
    return all(n.startswith("LBN") for n in names) and group[0].source != "hand"


def unconfirmed_remnant(group: list[Record], chosen: Record) -> bool:
    """Tell whether a remnant is a mere candidate: no size, no name but a G-number.

    Green's list has a size for each; Stellarium adds objects from other papers.
    """
    names = [n for r in group for n in r.designations + r.common_names]
    sized = any(not math.isnan(r.size_arcmin) for r in group)
    alone = not sized and all(n.startswith("SNR G") for n in names)
    return chosen.type == "supernova_remnant" and alone


def unseen_cloud(group: list[Record], chosen: Record) -> bool:
    """Tell whether a dark nebula is known as a remnant or a planetary only.

    Stellarium says "molecular cloud" of some radio sources that were once taken for
    one of these: nobody has seen a dark nebula there.
    """
    names = [n for r in group for n in strong_names(r)]
    foreign = [n for n in names if n.startswith(("SNR G", "PK ", "PN G"))]
    is_dark = str(chosen.type).startswith("dark") and chosen.source != "hand"
    return is_dark and bool(foreign) and foreign == names


def note_differences(
    group: list[Record],
    name: str,
    chosen: Record,
    place: Record,
    size: Record | None,
    conflicts: list[dict],
) -> None:
    """List what the sources of one nebula disagree on."""
    for record in group:
        if record.type and record.type.rstrip("?") != str(chosen.type).rstrip("?"):
            note_conflict(conflicts, name, "type", chosen, record, "")
        extent = np.nanmax([0.0, place.size_arcmin, record.size_arcmin]) / 60
        gap = 0.0 if math.isnan(record.ra_deg) else distance(place, record)
        if gap > max(0.05, 0.25 * extent):
            note = f"{gap:.2f} deg"
            note_conflict(conflicts, name, "position", place, record, note)
        ratio = record.size_arcmin / size.size_arcmin if size else math.nan
        if not 1 / 3 <= ratio <= 3 and not math.isnan(ratio):
            note_conflict(conflicts, name, "size", size, record, f"x{ratio:.3g}")


def fame(group: list[Record]) -> tuple:
    """Return a sort key: who gets a name that several nebulae bear."""
    names = [n for r in group for n in r.designations]
    size = np.nanmax([0.0, *(r.size_arcmin for r in group)])
    best = 4
    for level, prefix in enumerate(("M ", "Caldwell ", "NGC ", "IC ")):
        if any(n.startswith(prefix) and "-" not in n for n in names):
            best = min(best, level)
    return (group[0].source != "hand", best, -len(names), -size)


def give_names_away(rows: list[dict]) -> pd.DataFrame:
    """Give every name to one row only: the best-known one that bears it."""
    rows = sorted(rows, key=lambda row: row["fame"])
    taken: dict[str, dict] = {}
    for row in rows:
        if taken.setdefault(name_key(row["name"]), row) is not row:
            _log.warning("left out: a second %s", row["name"])
    rows = [row for row in rows if taken[name_key(row["name"])] is row]
    for row in rows:
        taken.update((name_key(name), row) for name in row["own"])
    for row in rows:
        seen = {name_key(row["name"])}
        for column in ("common_names", "aliases"):
            kept: dict[str, str] = {}
            for name in row[column]:
                key = name_key(name)
                if key and key not in seen and taken.setdefault(key, row) is row:
                    kept[key] = max(kept.get(key, ""), _tidy_label(name), key=len)
            seen |= set(kept)
            row[column] = "|".join(kept.values())
    table = pd.DataFrame(rows).drop(columns=["fame", "own"])
    return table.sort_values("name", key=lambda names: names.map(_natural))


def _tidy_label(name: str) -> str:
    if name.islower():
        name = name.title()
    return name.replace("’", "'").replace(" nebula", " Nebula").removeprefix("the ")


def _natural(name: str) -> str:
    return re.sub(r"\d+", lambda digits: digits.group().zfill(5), name.casefold())


def add_constellations(table: pd.DataFrame) -> pd.DataFrame:
    """Add the IAU abbreviation of each nebula's constellation."""
    places = SkyCoord(
        table["ra_deg"].to_numpy() * u.deg, table["dec_deg"].to_numpy() * u.deg
    )
    return table.assign(constellation=get_constellation(places, short_name=True))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV file, whole or not at all."""
    with write_atomic(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()

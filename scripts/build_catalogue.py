"""Merge nine published lists, three copies and our corrections into data/catalogue.csv.

Run as ``python scripts/build_catalogue.py --stellarium DIR``, with DIR Stellarium
0.22.2's ``nebulae/default`` folder. What the columns mean, what the rules found and
how the orders below were counted stands in data/README.md.
"""

import argparse
import logging
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import astropy.units as u
import catalogue_rules as rules
import numpy as np
import pandas as pd
from astropy.coordinates import SkyCoord, get_constellation
from catalogue_merge import (
    join_at_one_place,
    join_by_number,
    join_by_place,
    note_conflict,
    strong_names,
)
from catalogue_rules import Place, angle
from catalogue_sources import (
    ORIGINALS,
    REFERENCES,
    Record,
    read_hnsky,
    read_openngc,
    read_originals,
    read_stellarium,
)

from nebula_utils import config
from nebula_utils.catalogue.names import canonical, name_key
from nebula_utils.catalogue.table import COLUMNS as READ_COLUMNS
from nebula_utils.files import write_atomic

_log = logging.getLogger("build_catalogue")

# Whose word counts first on place and size, by type; "hand" is
# data/catalogue_corrections.csv and data/protoplanetary.csv.
_PLACE_ORDER = {
    "planetary": "hand openngc stellarium hnsky acker",
    "dark": "hand barnard stellarium lynds hnsky openngc",
    "supernova_remnant": "hand openngc green sharpless hnsky stellarium",
    "other": "hand openngc vdb hnsky sharpless stellarium ced rcw gum",
}
_SIZE_ORDER = {
    "planetary": "hand openngc acker hnsky stellarium",
    "dark": "hand barnard lynds hnsky stellarium openngc",
    "supernova_remnant": "hand green openngc sharpless hnsky stellarium",
    "other": "hand openngc sharpless vdb hnsky stellarium ced",
}
# Lists whose places are exact to a small part of a nebula, or to an arcminute.
_EXACT = "openngc green acker vdb barnard lynds sharpless".split()
_TYPE_ORDER = "hand openngc stellarium hnsky".split() + list(ORIGINALS)
_ORDER = "NGC,IC,Sh2-,B,LDN,vdB,RCW,Gum,PK,SNR,Ced,Abell,PN,M,Caldwell,DWB,vdBH,LBN"
_PLANETARY_ORDER = "NGC,IC,Abell,Sh2-,PK,RCW,PN,"
_DEFAULT = Path("/usr/share/stellarium/nebulae/default")

COLUMNS = [
    *READ_COLUMNS,
    "minor_arcmin",
    "angle_deg",
    "magnitude",
    "position_class",
    "size_class",
    "reference",
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
    records += read_originals(config.DATA / "originals")
    places = apply_rules(records)
    conflicts: list[dict] = []
    groups = join_by_place(join_by_number(records, places, conflicts))
    groups = join_at_one_place(groups, tell_type)
    groups = correct(groups, read_corrections())
    groups = rules.part_far_numbers(groups, places, lambda g: tell_place(g, places))
    groups = join_at_one_place(join_by_place(groups), tell_type)
    groups = rules.part_far_numbers(groups, places, lambda g: tell_place(g, places))
    rows = [row for group in groups if (row := settle(group, places, conflicts))]
    table = add_constellations(give_names_away(rows))
    write_table(table[COLUMNS], arguments.out / "catalogue.csv")
    known = set(table["name"])
    listed = pd.DataFrame([c for c in conflicts if c["name"] in known])
    listed = listed.drop_duplicates().sort_values(["field", "name"])
    write_table(listed, arguments.out / "catalogue_conflicts.csv")
    _log.info("%s", table["type"].value_counts().to_string())
    _log.info("%s", listed["field"].value_counts().to_string())


def apply_rules(records: list[Record]) -> dict[str, Place]:
    """Hold every record against the places of its numbers; return those places."""
    rules.mend_cederblad(records)
    rules.drop_places_far_from_names(records)
    places = rules.own_places(records)
    rules.believe_agreeing_copies(records, places)
    rules.double_radii(records, places)
    rules.part_small_from_large(records, places)
    rules.keep_own_names(records, places)
    for rule, count in rules.found.items():
        _log.info("rule: %s: %d", rule, count)
    return places


def tell_type(group: list[Record]) -> str | None:
    """Return the type that a group has, without the mark of a guess."""
    chosen = choose_type(group)
    return str(chosen.type).rstrip("?") if chosen else None


def tell_place(group: list[Record], places: dict[str, Place]) -> Place | None:
    """Return the place and size that a group's row will have."""
    kind = tell_type(group) or "other"
    place, size = choose_place(group, kind, places), choose_size(group, kind)
    if place is None:
        return None
    arcmin = size.size_arcmin if size else math.nan
    return Place(place.ra_deg, place.dec_deg, arcmin, 1, "row")


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
            if group:  # what the list that gave the number says goes with it
                lines = [r for r in group if r.number and name_key(r.number) in keys]
                group[:] = [r for r in group if r not in lines]
                target.extend(lines)
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
        reference=row.reference,
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


def settle(
    group: list[Record], places: dict[str, Place], conflicts: list[dict]
) -> dict | None:
    """Return the row of a group, or None if it is no nebula or nameless."""
    group = sorted(group, key=lambda r: _TYPE_ORDER.index(r.source))
    chosen = choose_type(group)
    if chosen is None or chosen.type in (None, "", "other", "none"):
        return None
    name = choose_name(group, chosen.type)
    if not name or only_lbn(group) or unconfirmed_remnant(group, chosen):
        return None
    if unseen_cloud(group, chosen):
        return None
    kind = str(chosen.type).rstrip("?")
    place = choose_place(group, kind, places)
    if place is None:
        _log.error("%s: no source has a place that may be right", name)
        return None
    size = choose_size(group, kind)
    note_differences(group, name, chosen, place, size, conflicts)
    shape = size if size and size.minor_arcmin <= size.size_arcmin else None
    lights = [r.magnitude for r in group if not math.isnan(r.magnitude)]
    sources = dict.fromkeys(r.source for r in group)
    said = dict.fromkeys(r for r in (chosen, place, size) if r)
    return {
        "name": name,
        "type": kind,
        "aliases": [n for r in group for n in r.designations],
        "common_names": [n for r in group for n in r.common_names],
        "ra_deg": round(place.ra_deg % 360, 5),
        "dec_deg": round(place.dec_deg, 5),
        "size_arcmin": float(f"{size.size_arcmin:.3g}") if size else math.nan,
        "source_names": "+".join(sources),
        "source_type": chosen.source,
        "source_position": place.source,
        "source_size": size.source if size else "",
        "minor_arcmin": float(f"{shape.minor_arcmin:.3g}") if shape else math.nan,
        "angle_deg": shape.angle_deg % 180 if shape else math.nan,
        "magnitude": round(lights[0], 2) if lights else math.nan,
        "position_class": grade_position(place, size, group),
        "size_class": grade_size(size, group),
        "reference": "; ".join(
            dict.fromkeys(r.reference or REFERENCES[r.source] for r in said)
        ),
        "fame": fame(group),
        "own": names_of(group[0]) if group[0].source == "hand" else [],
    }


def _by_order(group: list[Record], orders: dict[str, str], kind: str) -> list[Record]:
    """Return a group's records in the order of trust for a type."""
    kind = "planetary" if kind == "protoplanetary" else kind
    order = orders.get(kind, orders["other"]).split()
    order += [source for source in _TYPE_ORDER if source not in order]
    # What OpenNGC has as a cluster or a star is not where the nebula's middle is.
    return sorted(group, key=lambda r: (r.type == "", order.index(r.source)))


def choose_place(
    group: list[Record], kind: str, places: dict[str, Place]
) -> Record | None:
    """Return the record whose place fits most of the numbers' own places.

    Among those that fit equally many the order of trust decides; our own word stands.
    """
    placed = [r for r in group if not math.isnan(r.ra_deg)]
    placed = _by_order(placed, _PLACE_ORDER, kind)
    sure = placed and (placed[0].source == "hand" or kind == "dark")
    if not placed or sure or (placed[0].source == "openngc" and placed[0].type):
        return placed[0] if placed else None
    names = {name_key(n) for r in group for n in r.designations}
    own = {p for n in names if (p := places.get(n)) and p.source in _EXACT}

    def fits(record: Record) -> int:
        """Return how many numbers' own nebulae the record's place lies in."""
        return sum(angle(record, p) <= max(1, p.size_arcmin / 2) for p in own)

    return max(placed, key=fits)


def choose_size(group: list[Record], kind: str) -> Record | None:
    """Return the record whose size is taken, in the order of trust.

    Passed over is one that two others contradict by a factor 3, or an original list by
    a factor 5.
    """
    sized = [r for r in group if not math.isnan(r.size_arcmin)]
    sized = _by_order(sized, _SIZE_ORDER, kind)
    if not sized or sized[0].source == "hand":
        return sized[0] if sized else None
    firm = [r for r in sized if r.source in _EXACT and r.source != "openngc"]
    for record in sized:
        others = [r.size_arcmin for r in sized if r.source != record.source]
        far = [s for s in others if not 1 / 3 <= s / record.size_arcmin <= 3]
        if len(far) > 1 and max(far) < 2 * min(far):
            continue
        if all(1 / 5 <= r.size_arcmin / record.size_arcmin <= 5 for r in firm):
            return record
    return firm[0] if firm else sized[0]


def grade_position(place: Record, size: Record | None, group: list[Record]) -> str:
    """Return how well the sources agree on a place: a, b, c, or d for one source."""
    gaps = [angle(place, r) for r in group if r.source != place.source]
    gap = np.nanmin([*gaps, math.nan]) if np.isfinite(gaps).any() else math.nan
    near = max(3.0, 0.1 * (size.size_arcmin if size else 0))
    return (
        "d" if math.isnan(gap) else "a" if gap <= 0.5 else "b" if gap <= near else "c"
    )


def grade_size(size: Record | None, group: list[Record]) -> str:
    """Return how well the sources agree on a size, as for a place; "" without one."""
    if size is None:
        return ""
    logs = [
        abs(math.log(r.size_arcmin / size.size_arcmin))
        for r in group
        if r.source != size.source and r.size_arcmin > 0
    ]
    if not logs:
        return "d"
    return (
        "a" if min(logs) <= math.log(1.25) else "b" if min(logs) <= math.log(2) else "c"
    )


def names_of(record: Record) -> list[str]:
    """Return all names of a record."""
    return record.designations + record.common_names


def choose_type(group: list[Record]) -> Record | None:
    """Return the record whose type is believed: ours, else the majority's.

    Between emission and reflection spectra and colours decide, those of Cederblad and
    van den Bergh, unless a list of an H-alpha survey or OpenNGC and no copy against it
    have the nebula glow.
    """
    group = sorted(group, key=lambda r: _TYPE_ORDER.index(r.source))
    says = [record for record in group if record.type]
    says = [r for r in says if not str(r.type).endswith("?")] or says
    if not says or says[0].source == "hand":
        return says[0] if says else None
    votes: dict[str, set[str]] = defaultdict(set)
    for record in says:
        votes[str(record.type)].add(record.source)
    names = [n for r in group for n in r.designations]
    vdb = any(n.startswith("vdB ") for n in names)
    if says[0].source != "openngc" and any(r.source in ORIGINALS for r in group):
        votes["other"].clear()  # a star or a cluster, and a nebula around it
    most = max(
        says,
        key=lambda r: (len(votes[str(r.type)]), vdb and r.type == "reflection"),
    )
    seen = [r for r in says if r.source in ("vdb", "ced")]
    if most.type not in ("emission", "reflection") or len({r.type for r in seen}) != 1:
        return most
    if seen[0].type == "emission":
        return seen[0]
    copies = {r.source: r.type for r in says if r.source not in ORIGINALS}
    glows = any(n.startswith(("Sh2-", "RCW ", "Gum ")) for n in names) or (
        copies.get("openngc") == "emission" and "reflection" not in copies.values()
    )
    return most if glows else seen[0]


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
        extent = np.nanmax([0.0, place.size_arcmin, record.size_arcmin])
        gap = angle(place, record)
        if gap > max(3, 0.25 * extent):
            note = f"{gap:.0f}′"
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

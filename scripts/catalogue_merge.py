"""Find out which lines of the lists speak of one nebula, and list where they differ."""

import math

import numpy as np
from catalogue_sources import Record
from scipy.spatial import cKDTree

from nebula_utils.catalogue.designations import name_key

# Numbers that join records of two sources. Lynds' bright nebulae and the cluster
# lists don't: one of their numbers often covers several nebulae.
_NOT_JOINING = ("LBN", "Cr ", "Mel ", "Tr ")
_SAME_PLACE = 20 / 3600  # deg; two planetaries without a common name are one
_POSITION_SLACK = 0.3  # deg; sources differ this much on where a number is
_BARNARD_SLACK = 1.6  # deg; Stellarium moves some to a cloud of Lynds' list


def distance(a: Record, b: Record) -> float:
    """Return the angle between two records in degrees."""
    dec_a, dec_b = math.radians(a.dec_deg), math.radians(b.dec_deg)
    half_ra = math.radians(a.ra_deg - b.ra_deg) / 2
    h = math.sin((dec_a - dec_b) / 2) ** 2
    h += math.cos(dec_a) * math.cos(dec_b) * math.sin(half_ra) ** 2
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(h))))


def join_by_number(records: list[Record], conflicts: list[dict]) -> list[list[Record]]:
    """Group the records that share a catalogue number and lie close together."""
    group_of: dict[str, list[Record]] = {}
    groups: dict[int, list[Record]] = {}
    for record in records:
        mine = [record]
        for name in strong_names(record):
            other = group_of.get(name_key(name))
            if other is None or other is mine:
                continue
            if not may_be_same(record, other, name, conflicts):
                record.designations.remove(name)
                continue
            groups.pop(id(mine), None)
            groups.pop(id(other), None)
            mine = other + mine
            for member in mine[:-1]:  # what else this record is called: see below
                group_of.update((name_key(n), mine) for n in strong_names(member))
        groups[id(mine)] = mine
        group_of.update((name_key(n), mine) for n in strong_names(record))
    return list(groups.values())


def strong_names(record: Record) -> list[str]:
    """Return the catalogue numbers of a record that tell one nebula from another."""
    return [n for n in record.designations if not n.startswith(_NOT_JOINING)]


def may_be_same(
    record: Record, group: list[Record], name: str, conflicts: list[dict]
) -> bool:
    """Tell whether a record that shares a number with a group belongs to it."""
    nearest = min(group, key=lambda member: distance(record, member))
    gap = distance(record, nearest)
    sizes = [record.size_arcmin, *(member.size_arcmin for member in group)]
    reach = np.nanmax([0.0, *sizes]) / 60 * 0.6
    if name.startswith("B "):
        reach = max(reach, _BARNARD_SLACK)
    same_source = any(member.source == record.source for member in group)
    if gap <= (0.02 if same_source else max(_POSITION_SLACK, reach)):
        return True
    if record.type != "other" or nearest.type != "other":
        note_conflict(conflicts, name, "position", nearest, record, f"{gap:.2f} deg")
    return False


def note_conflict(
    conflicts: list[dict],
    name: str,
    fact: str,
    chosen: Record,
    rejected: Record,
    difference: str,
) -> None:
    """Write down that two sources disagree, and whose word was taken."""
    value = {
        "position": lambda r: f"{r.ra_deg:.3f} {r.dec_deg:+.3f}",
        "type": lambda r: str(r.type),
        "size": lambda r: f"{r.size_arcmin:.3g}",
    }[fact]
    conflicts.append(
        {
            "name": name,
            "field": fact,
            "chosen": value(chosen),
            "chosen_source": chosen.source,
            "rejected": value(rejected),
            "rejected_source": rejected.source,
            "difference": difference,
        }
    )


def join_planetaries(groups: list[list[Record]]) -> list[list[Record]]:
    """Join groups of planetaries at one place that share no number."""
    stars = [g for g in groups if any(r.type == "planetary" for r in g)]
    rest = [g for g in groups if not any(r.type == "planetary" for r in g)]
    ra = np.radians([g[0].ra_deg for g in stars])
    dec = np.radians([g[0].dec_deg for g in stars])
    points = np.c_[np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)]
    for a, b in sorted(cKDTree(points).query_pairs(math.radians(_SAME_PLACE))):
        if stars[a] and stars[b] and not _both_numbered(stars[a], stars[b]):
            stars[a], stars[b] = stars[a] + stars[b], []
    return rest + [group for group in stars if group]


def _both_numbered(a: list[Record], b: list[Record]) -> bool:
    def catalogues(group: list[Record]) -> set[str]:
        names = [n for r in group for n in r.designations]
        return {n.split()[0] for n in names if n.startswith(("PK", "PN G"))}

    return bool(catalogues(a) & catalogues(b))

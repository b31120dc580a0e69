"""Find out which lines of the lists speak of one nebula, and list where they differ."""

import math
from collections.abc import Callable

import numpy as np
from catalogue_rules import Place, agree, angle
from catalogue_sources import ORIGINALS, Record
from scipy.spatial import cKDTree

from nebula_utils.catalogue.names import name_key

# Numbers that join records of two sources. Lynds' bright nebulae and the cluster
# lists don't: one of their numbers often covers several nebulae.
_NOT_JOINING = ("LBN", "Cr ", "Mel ", "Tr ")
_NUMBERS_ONCE = ("green", "acker", "barnard", "lynds", "sharpless", "vdb")
_SAME_PLANETARY = 20 / 60  # arcmin; nearer, two planetaries are one
_POSITION_SLACK = 18  # arcmin; sources differ this much on where a number is
_ONE_PLACE = 1.0  # arcmin; two rows of one type so near are one nebula


def join_by_number(
    records: list[Record], places: dict[str, Place], conflicts: list[dict]
) -> list[list[Record]]:
    """Group the records that share a catalogue number and lie close together.

    A number whose own place is known joins always: where it belongs, the rules of
    `catalogue_rules` have settled.
    """
    group_of: dict[str, list[Record]] = {}
    groups: dict[int, list[Record]] = {}
    for record in records:
        mine = [record]
        for name in strong_names(record):
            other = group_of.get(name_key(name))
            if other is None or other is mine:
                continue
            twice = record.source in _NUMBERS_ONCE and name != record.number
            if (
                (twice and any(r.source == record.source for r in other))
                or (_clash(mine, other))
                or (
                    name_key(name) not in places
                    and not _may_be_same(record, other, name, conflicts)
                )
            ):
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


def _clash(mine: list[Record], other: list[Record]) -> bool:
    """Tell whether two groups hold NGC or IC objects at two places."""
    sides = [[r for r in g if r.source == "openngc"] for g in (mine, other)]
    return any(not agree(a, b) for a in sides[0] for b in sides[1])


def strong_names(record: Record) -> list[str]:
    """Return the catalogue numbers of a record that tell one nebula from another."""
    return [n for n in record.designations if not n.startswith(_NOT_JOINING)]


def _may_be_same(
    record: Record, group: list[Record], name: str, conflicts: list[dict]
) -> bool:
    """Tell whether a record that shares a number with a group belongs to it."""
    nearest = min(group, key=lambda member: np.nan_to_num(angle(record, member)))
    gap = angle(record, nearest)
    sizes = [record.size_arcmin, *(member.size_arcmin for member in group)]
    reach = np.nanmax([0.0, *sizes]) * 0.6
    same_source = any(member.source == record.source for member in group)
    if not gap > (1.2 if same_source else max(_POSITION_SLACK, reach)):
        return True
    if record.type != "other" or nearest.type != "other":
        note_conflict(conflicts, name, "position", nearest, record, f"{gap:.0f}′")
    return False


def join_by_place(groups: list[list[Record]]) -> list[list[Record]]:
    """Join what only one original list numbers to the nebula at its place.

    Gum, RCW, Cederblad and van den Bergh numbered nebulae of each other's lists. A
    group that only one of them knows is one with the nearest group of a fitting type
    that has no number of that list, lies as near as exact places allow, and is no
    more than three times as large or small.
    """
    whole = [g for g in groups if len({r.source for r in g}) > 1 or not _original(g)]
    alone = [g for g in groups if all(g is not other for other in whole)]
    for group in alone:
        record = group[0]
        fits = [g for g in whole if _fits(record, g)]
        if fits:
            min(fits, key=lambda g: _gap(record, g)).extend(group)
        else:
            whole.append(group)
    return whole


def _original(group: list[Record]) -> bool:
    return group[0].source in ("gum", "rcw", "ced", "vdb")


def _gap(record: Record, group: list[Record]) -> float:
    gaps = [angle(record, member) for member in group]
    return float(np.nanmin([*gaps, math.inf]))


def _fits(record: Record, group: list[Record]) -> bool:
    base = record.number.rstrip("abcdef")  # Cederblad 6a to 6c are parts of one
    if any(
        m.source == record.source and m.number.rstrip("abcdef") != base for m in group
    ):
        return False
    gap = _gap(record, group)
    if gap > 60:
        return False
    kinds = {str(m.type).rstrip("?") for m in group if m.type}
    if record.source in ("gum", "rcw") and kinds == {"reflection"}:
        return False
    mine = str(record.type).rstrip("?")
    bright = {"emission", "reflection"}
    # Only a list with spectra or colours can tell emission from reflection.
    if kinds and not (mine in kinds or kinds <= bright):
        return False
    size = np.nanmax([0.0, *(m.size_arcmin for m in group)]) or math.nan
    ratio = record.size_arcmin / size
    if ratio > 3 or ratio < 1 / 3:
        return False
    slack = ORIGINALS[record.source].slack
    return gap <= max(slack, 0.25 * np.nanmax([0.0, size, record.size_arcmin]))


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


def join_at_one_place(
    groups: list[list[Record]], kind_of: Callable[[list[Record]], str | None]
) -> list[list[Record]]:
    """Join groups of one type within an arcminute that no list numbers twice."""
    placed = [(g, next((r for r in g if r.ra_deg == r.ra_deg), None)) for g in groups]
    known = [(g, r) for g, r in placed if r is not None]
    ra = np.radians([r.ra_deg for _, r in known])
    dec = np.radians([r.dec_deg for _, r in known])
    points = np.c_[np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)]
    lists = [g for g, _ in known]
    near = math.radians(_ONE_PLACE / 60)
    for a, b in sorted(cKDTree(points).query_pairs(near)):
        first, second = lists[a], lists[b]
        if not first or not second or first is second:
            continue
        kinds = {kind_of(first), kind_of(second)} - {None}
        limit = _SAME_PLANETARY if "planetary" in kinds else _ONE_PLACE
        one = len(kinds) == 1 or (
            kinds == {"emission", "reflection"} and _same_size(first, second)
        )
        near_enough = angle(known[a][1], known[b][1]) < limit
        cluster = any(r.type == "" for r in (*first, *second))
        if one and near_enough and "other" not in kinds and not cluster:
            if not _both_numbered(first, second):
                first.extend(second)
                second.clear()
    return [group for group in groups if group]


def _same_size(a: list[Record], b: list[Record]) -> bool:
    sizes = [np.nanmax([0.0, *(r.size_arcmin for r in g)]) or math.nan for g in (a, b)]
    return not abs(math.log(sizes[0] / sizes[1])) > math.log(2)


def _both_numbered(a: list[Record], b: list[Record]) -> bool:
    """Tell whether one original numbers both; parts of one number (Ced 175a) aside."""

    def numbers(group: list[Record]) -> set[tuple[str, str]]:
        first = [r for r in group if r.source in (*ORIGINALS, "openngc")]
        names = {(r.source, r.number or "".join(r.designations[:1])) for r in first}
        return {(source, name.rstrip("abcdef")) for source, name in names}

    of_a, of_b = numbers(a), numbers(b)
    return bool({s for s, _ in of_a - of_b} & {s for s, _ in of_b - of_a})

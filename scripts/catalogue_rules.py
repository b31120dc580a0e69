"""Rules that hold what a list says against the places its names have.

Copies of a catalogue carry its numbers to wrong places. A number's own place is that
of the list which gave the number (`own_places`), or stands in the name itself
(`place_in_name`). What the rules found is told in data/README.md.
"""

import dataclasses
import logging
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import astropy.units as u
import numpy as np
from astropy.coordinates import FK4, SkyCoord
from catalogue_sources import ORIGINALS, Record

from nebula_utils.catalogue.names import name_key

_log = logging.getLogger("build_catalogue")
found: Counter[str] = Counter()  # rule → how often it had to act

_COARSE = 90.0  # arcmin; how exact a PK number tells its place
_LBN_WIDTH = 12  # numbers on either side that tell a number's galactic longitude
_LBN_SLACK = 5.0  # deg; Lynds numbered her bright nebulae by galactic longitude
_WHOLE = ("barnard", "lynds", "sharpless")  # lists that size whole nebulae
_SMALL = 5  # a reflection nebula this many times smaller is not the H II region


class Place(NamedTuple):
    """Where a number belongs: degrees, arcminutes, and how exact it is."""

    ra_deg: float
    dec_deg: float
    size_arcmin: float
    slack: float
    source: str


def angle(a: Record | Place, b: Record | Place) -> float:
    """Return the angle between two places in arcminutes, NaN if one is unknown."""
    dec_a, dec_b = math.radians(a.dec_deg), math.radians(b.dec_deg)
    half_ra = math.radians(a.ra_deg - b.ra_deg) / 2
    h = math.sin((dec_a - dec_b) / 2) ** 2
    h += math.cos(dec_a) * math.cos(dec_b) * math.sin(half_ra) ** 2
    half = math.asin(min(math.sqrt(h), 1.0))  # in this order NaN stays
    return math.degrees(2 * half) * 60


def agree(a: Record | Place, b: Record | Place) -> bool:
    """Tell whether two places may be one nebula's: as near as both sizes allow."""
    radius = np.nanmax([0.0, a.size_arcmin, b.size_arcmin]) / 2
    slack = max(getattr(a, "slack", 1), getattr(b, "slack", 1))
    return not angle(a, b) > radius + slack  # an unknown place agrees with any


def place_in_name(name: str) -> Place | None:
    """Return the place that a name carries in galactic coordinates."""
    exact = re.match(r"(?:PN |SNR )G(\d+\.\d+)([+-]\d+\.\d+)$", name)
    coarse = re.match(r"PK (\d+)([+-])(\d+)\.\d+$", name)
    if exact:  # Green's names of large remnants are not those of their middles
        lon, lat = float(exact[1]), float(exact[2])
        slack = 30.0 if name.startswith("SNR") else 15.0
    elif coarse:  # whole degrees, cut off
        lon, lat = float(coarse[1]) + 0.5, float(coarse[2] + coarse[3])
        lat, slack = lat + math.copysign(0.5, float(coarse[2] + "1")), _COARSE
    else:
        return None
    sky = SkyCoord(lon * u.deg, lat * u.deg, frame="galactic").icrs
    return Place(sky.ra.deg, sky.dec.deg, math.nan, slack, "name")


def own_places(records: list[Record]) -> dict[str, Place]:
    """Return the own place of every number that an original list gave.

    OpenNGC stands for the NGC and IC; Stellarium for Lynds' bright nebulae, as far as
    its galactic longitudes rise with the numbers as Lynds' did.
    """
    places: dict[str, Place] = {}
    bright: dict[int, Record] = {}
    for record in records:
        if record.source in ORIGINALS:
            slack, names = ORIGINALS[record.source].slack, [record.number]
        else:
            slack, names = 2, [] if record.source != "openngc" else record.designations
            names = [n for n in names if re.match(r"(NGC|IC|M|Caldwell) ", n)]
        if record.source == "stellarium":
            bright |= {
                int(n[4:]): record for n in record.designations if n[:4] == "LBN "
            }
        for name in names:
            place = (record.ra_deg, record.dec_deg, record.size_arcmin, slack)
            places.setdefault(name_key(name), Place(*place, record.source))
    wrong = set(_off_the_order(bright))
    for record in records:
        for name in [n for n in record.designations if n[:4] == "LBN "]:
            if int(name[4:]) in wrong and len(record.designations) > 1:
                _tell("LBN number out of its order", record, name)
                record.designations.remove(name)
    for number in bright.keys() - wrong:
        record = bright[number]
        place = (record.ra_deg, record.dec_deg, record.size_arcmin, 15)
        places[name_key(f"LBN {number}")] = Place(*place, "stellarium")
    return places


def _off_the_order(bright: dict[int, Record]) -> list[int]:
    """Return the numbers whose galactic longitude is not their neighbours'."""
    sky = SkyCoord(
        [r.ra_deg for r in bright.values()] * u.deg,
        [r.dec_deg for r in bright.values()] * u.deg,
    )
    numbers, lon = np.array(list(bright)), sky.galactic.l.deg
    wrong = []
    for number, own in zip(numbers, lon, strict=True):
        near = (abs(numbers - number) <= _LBN_WIDTH) & (numbers != number)
        if abs(np.median((lon[near] - own + 180) % 360 - 180)) > _LBN_SLACK:
            wrong.append(int(number))
    return wrong


def believe_agreeing_copies(records: list[Record], places: dict[str, Place]) -> None:
    """Move a number's own place where the original stands alone against all others.

    Two copies that agree and the place of another list's number on their records
    outweigh one line of an original: its copy may have a misprint. Not so for dark
    clouds, whose copies give Barnard's the places of Lynds'.
    """
    copies: dict[str, list[Record]] = {}
    for record in records:
        if record.source not in ORIGINALS and record.type != "dark":
            for name in record.designations:
                copies.setdefault(name_key(name), []).append(record)
    moved: dict[str, Place] = {}
    for key, place in places.items():
        near = [r for r in copies.get(key, []) if r.source != place.source]
        reach = np.nanmax([place.slack, place.size_arcmin / 2])
        if len({r.source for r in near}) < 2 or any(
            angle(r, place) <= reach for r in near
        ):
            continue
        others = {
            p.source: p
            for r in near
            for n in r.designations
            if (p := places.get(name_key(n))) and p.source in ORIGINALS
        }
        others.pop(place.source, None)
        first = near[0]
        if all(angle(first, r) < 3 * place.slack for r in near) and any(
            agree(p, first) for p in others.values()
        ):
            moved[key] = place._replace(ra_deg=first.ra_deg, dec_deg=first.dec_deg)
            _tell("original alone against all", first, key)
    places |= moved
    for record in records:
        if record.number and name_key(record.number) in moved:
            record.ra_deg, record.dec_deg = moved[name_key(record.number)][:2]


def mend_cederblad(records: list[Record]) -> None:
    """Mend an hour too much and a lost sign in the copy of Cederblad's table.

    The hour is one of 1900. It is taken back where the place then fits the number's
    place in OpenNGC or Stellarium, and did not before. The declination of Ced 6b has
    the wrong sign: its neighbours 6a and 6c lie in IC 1795.
    """
    others: dict[str, list[Record]] = {}
    for record in records:
        if record.source in ("openngc", "stellarium"):
            for name in record.designations:
                others.setdefault(name_key(name), []).append(record)
    for record in records:
        if record.source != "ced":
            continue
        if record.number == "Ced 6b":
            record.dec_deg = abs(record.dec_deg)
        known = [o for n in record.designations for o in others.get(name_key(n), [])]
        if not known or min(angle(record, o) for o in known) < 120:
            continue
        old = SkyCoord(record.ra_deg * u.deg, record.dec_deg * u.deg)
        old = old.transform_to(FK4(equinox="B1900"))
        new = SkyCoord(old.ra - 15 * u.deg, old.dec, frame=FK4(equinox="B1900")).icrs
        moved = dataclasses.replace(record, ra_deg=new.ra.deg, dec_deg=new.dec.deg)
        if min(angle(moved, o) for o in known) < 60:
            record.ra_deg, record.dec_deg = moved.ra_deg, moved.dec_deg
            _tell("Cederblad an hour off", record, "")


def double_radii(records: list[Record], places: dict[str, Place]) -> None:
    """Make diameters of the sizes of Lynds' clouds that are radii in a copy."""
    for record in records:
        clouds = [n for n in record.designations if n.startswith("LDN ")]
        for place in [places.get(name_key(n)) for n in clouds]:
            if place and record.source == "stellarium":
                if abs(2 * record.size_arcmin / place.size_arcmin - 1) < 0.02:
                    record.size_arcmin *= 2
                    record.minor_arcmin *= 2
                    found["radius taken for a diameter"] += 1
                    break


def keep_own_names(records: list[Record], places: dict[str, Place]) -> None:
    """Take numbers off records that stand elsewhere, or the place if all do.

    A number stays if its own place agrees with the record's, or with that of another
    number that does. Where no number agrees with the record's place, the place is
    wrong: the most numbers that agree among themselves stay, the place goes.
    """
    for record in records:
        bare = all(re.match(r"(NGC|IC) ", name) for name in record.designations)
        if record.source in ORIGINALS or (record.type == "other" and bare):
            continue
        own = {n: p for n in record.designations if (p := _own_place(n, places))}
        far = [n for n, place in own.items() if not agree(record, place)]
        for name in [n for n in own if n not in far and _whole_of_a_part(n, own)]:
            _tell("number of a whole taken off a part", record, name)
            record.designations.remove(name)
            own.pop(name)
        if not far:
            continue
        good = [n for n in own if n not in far]
        if not good:
            good = max(
                ([m for m in far if agree(own[n], own[m])] for n in far), key=len
            )
            _tell("place of a copy refused", record, "")
            record.ra_deg = record.dec_deg = math.nan
        for name in far:
            # PK's whole degrees are too coarse to vouch for another number.
            sure = [n for n in good if n == name or own[n].slack < _COARSE]
            if not any(agree(own[name], own[other]) for other in sure):
                _tell("number taken off", record, name)
                record.designations.remove(name)


def part_far_numbers(
    groups: list[list[Record]],
    places: dict[str, Place],
    row_of: Callable[[list[Record]], Place | None],
) -> list[list[Record]]:
    """Part a number from a group when its own place or size is not the group's.

    The last word on aliases: whatever joined them, the place of a number's own list is
    no farther from the row's than both sizes allow, and a list that gives each nebula
    its whole size differs by no more than a factor 5. Numbers in our own corrections
    stay, and are told.
    """
    parted: list[list[Record]] = []
    for group in groups:
        row = row_of(group)
        ours = {name_key(n) for r in group if r.source == "hand" for n in r.names}
        for record in [r for r in group if r.source in ORIGINALS and row]:
            name = record.number
            place = places[name_key(name)]
            ratio = place.size_arcmin / row.size_arcmin
            fits = 1 / _SMALL <= ratio <= _SMALL or record.source not in _WHOLE
            if (agree(row, place) and (fits or math.isnan(ratio))) or len(group) < 2:
                continue
            if name_key(name) in ours:
                note = f"{angle(row, place):.0f}′ away, {ratio:.2g} times as large"
                _log.info("kept by hand: %s on %s, %s", name, group[0].names[0], note)
                continue
            _tell("number parted from its row", record, name)
            group.remove(record)
            for other in group:
                other.designations[:] = [n for n in other.designations if n != name]
            record.designations[:] = [name]
            record.type = record.type or "reflection?"
            parted.append([record])
    return [
        g for g in groups if any(r.designations or r.common_names for r in g)
    ] + parted


def _whole_of_a_part(name: str, own: dict[str, Place]) -> bool:
    """Tell whether a number's nebula is three times as large as another's beside it."""
    large = own[name]
    return any(
        large.source in _WHOLE
        and large.size_arcmin > 3 * small.size_arcmin
        and angle(large, small) > max(large.slack, small.size_arcmin)
        for small in own.values()
    )


def _own_place(name: str, places: dict[str, Place]) -> Place | None:
    return places.get(name_key(name)) or place_in_name(name)


def drop_places_far_from_names(records: list[Record]) -> None:
    """Refuse places of originals that their own names contradict."""
    for record in records:
        if record.source in ("green", "acker"):
            for name in record.designations:
                place = place_in_name(name)
                if place and not agree(record, place):
                    _tell("name and place of an original differ", record, name)
                    if name != record.number:
                        record.designations.remove(name)
                    else:
                        record.ra_deg, record.dec_deg = place[:2]


def part_small_from_large(records: list[Record], places: dict[str, Place]) -> None:
    """Take an H II region's number off a small reflection nebula inside it."""
    for record in records:
        kinds = {p.source: p for n in record.names if (p := places.get(name_key(n)))}
        if record.type != "reflection" or record.source in ORIGINALS:
            continue
        for name in [n for n in record.designations if n.startswith(("Sh2-", "RCW "))]:
            region = places.get(name_key(name))
            small = [k for s, k in kinds.items() if s in ("vdb", "openngc", "ced")]
            sizes = [k.size_arcmin for k in small if k.size_arcmin > 0]
            if region and sizes and region.size_arcmin > _SMALL * max(sizes):
                _tell("merged that are two", record, name)
                record.designations.remove(name)


def _tell(rule: str, record: Record, name: str) -> None:
    found[rule] += 1
    place = f"{record.ra_deg:.2f} {record.dec_deg:+.2f}"
    _log.info("%s: %s %s at %s", rule, name, record.designations, place)

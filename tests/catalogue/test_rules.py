"""The table against the lists that gave the numbers: names, places, sizes, types."""

import csv
import re

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from nebula_utils import config
from nebula_utils.catalogue.names import name_key
from nebula_utils.catalogue.table import read_catalogue

# How exact each list is, in arcmin. Cederblad's copy is an hour off in places.
SLACK = {
    "green_snr": 2,
    "secgpn_planetary": 1,
    "van_den_bergh": 2,
    "barnard": 4,
    "lynds_dark": 4,
    "sharpless": 4,
    "rcw": 8,
    "gum": 8,
}
# Where the list is wrong, or one nebula has several numbers: data/README.md says why.
KNOWN_FAR = {
    "SNR G113.0+0.2": "its name has another place than its coordinates",
    "SNR G358.1+0.1": "a misprint of G358.1+1.0",
    "PN G35.9-1.1": "Acker's place is 15' west of Sh2-71",
    **dict.fromkeys(("Sh2-3", "Sh2-4", "Sh2-6", "Sh2-16", "Sh2-52"), "too far east"),
    "Sh2-176": "",
    "Sh2-212": "",
    "PN G257.5+0.6": "",
    "RCW 60": "",
    "LDN 1616": "the globule beside NGC 1788",
    "Sh2-292": "head of the Seagull",
}
GALAXIES = {"Sh2-191", "Sh2-197"}  # Maffei 1 and 2
SIZED = ("green_snr", "van_den_bergh", "barnard", "lynds_dark", "sharpless")
PART_OF_LARGE = {
    "vdB 28",
    "vdB 100",
    "vdB 142",
    "B 65",
    "B 66",
    "LDN 1773",
    "Sh2-292",
    "vdB 93",
}


def read_original(name):
    """Return the rows of one published list."""
    path = config.DATA / "originals" / f"{name}.csv"
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def table():
    """Return the catalogue in the repository."""
    return read_catalogue()


@pytest.fixture(scope="module")
def row_of(table):
    """Return the rows by the key of every name."""
    rows = {}
    for row in table.itertuples(False):
        names = [row.name, *row.aliases.split("|"), *row.common_names.split("|")]
        rows.update((name_key(name), row) for name in names if name)
    return rows


def separation(row, ra_deg, dec_deg):
    """Return the distance of a row from a place, in arcmin."""
    place = SkyCoord(float(ra_deg) * u.deg, float(dec_deg) * u.deg)
    own = SkyCoord(row.ra_deg * u.deg, row.dec_deg * u.deg)
    return own.separation(place).arcmin


@pytest.mark.parametrize("name", SLACK)
def test_every_number_of_a_list_stands_where_the_list_has_it(row_of, name):
    """No number is missing, or on a row farther away than both sizes allow."""
    far = []
    for line in read_original(name):
        if line["name"] in GALAXIES:
            continue
        row = row_of[name_key(line["name"])]
        size = np.nanmax([0, row.size_arcmin, float(line.get("size_arcmin") or 0)])
        if separation(row, line["ra_deg"], line["dec_deg"]) > size / 2 + SLACK[name]:
            far.append(line["name"])
    assert set(far) <= set(KNOWN_FAR)


@pytest.mark.parametrize("name", SIZED)
def test_sizes_are_those_of_the_lists(row_of, name):
    """No diameter is off by more than a factor 5; Lynds' are no radii."""
    off, ratios = [], []
    for line in read_original(name):
        row = row_of.get(name_key(line["name"]))
        if row is not None and line["size_arcmin"]:
            ratios.append(row.size_arcmin / float(line["size_arcmin"]))
            if not 1 / 5 <= ratios[-1] <= 5:
                off.append(line["name"])
    assert np.nanmedian(ratios) == pytest.approx(1, abs=0.02)
    assert set(off) <= PART_OF_LARGE


def test_names_that_carry_a_place_lie_there(table):
    """PN G, SNR G and PK numbers are those of the galactic coordinates of the row."""
    sky = SkyCoord(
        table["ra_deg"].to_numpy() * u.deg, table["dec_deg"].to_numpy() * u.deg
    )
    galactic, wrong = sky.galactic, []
    for i, row in enumerate(table.itertuples(False)):
        for name in [row.name, *row.aliases.split("|")]:
            exact = re.match(r"(?:PN|SNR) ?G(\d+\.\d+)([+-]\d+\.\d+)$", name)
            coarse = re.match(r"PK (\d+)([+-]\d+)\.\d+$", name)
            match = exact or coarse
            if not match:
                continue
            named = SkyCoord(
                float(match[1]) * u.deg, float(match[2]) * u.deg, frame="galactic"
            )
            reach = 0.5 + np.nan_to_num(row.size_arcmin) / 120 if exact else 2.2
            if galactic[i].separation(named).deg > reach:
                wrong.append(name)
    assert set(wrong) <= {"SNR G358.1+0.1"}


def test_bright_nebulae_follow_lynds_order(table):
    """An LBN number's galactic longitude is near that of a neighbour in the list."""
    rows = [
        (int(number), row.ra_deg, row.dec_deg)
        for row in table.itertuples(False)
        for number in re.findall(r"LBN (\d+)\b", f"{row.name}|{row.aliases}")
    ]
    numbers, ra, dec = np.array(sorted(rows)).T
    lon = SkyCoord(ra * u.deg, dec * u.deg).galactic.l.deg
    for number, own in zip(numbers, lon, strict=True):
        near = (abs(numbers - number) <= 15) & (numbers != number)
        if near.sum() < 10:  # the south, where the list is thin, tells nothing
            continue
        assert min(abs((lon[near] - own + 180) % 360 - 180)) < 6, number


def test_rows_at_one_place_are_two_nebulae(table):
    """Rows within an arcminute differ in type, or one list numbers both."""
    sky = SkyCoord(
        table["ra_deg"].to_numpy() * u.deg, table["dec_deg"].to_numpy() * u.deg
    )
    first, second, _, _ = sky.search_around_sky(sky, 1 * u.arcmin)
    for a, b in zip(first, second, strict=True):
        if a < b and table["type"].iloc[a] == table["type"].iloc[b]:
            pair = [table["name"].iloc[i] for i in (a, b)]
            lists = [re.match(r"[A-Za-z]+", name)[0] for name in pair]
            assert lists[0] == lists[1] or {"PK", "PN"} == set(lists), pair


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [
        ("IC 353", "reflection", 180),
        ("IC 354", "reflection", 130),
        ("IC 360", "reflection", 180),
        ("IC 1990", "reflection", None),
        ("IC 4591", "reflection", 12),
        ("Hen 1-5", "planetary", None),
        ("Sh2-249", "emission", 80),
        ("IC 444", "reflection", 8),
        ("Sh2-157", "emission", 60),
        ("LoTr 5", "planetary", 8.8),
    ],
)
def test_types_and_sizes_that_were_wrong(row_of, name, kind, size):
    """Spectra and colours decide the type, most lists the size."""
    row = row_of[name_key(name)]
    assert row.type == kind
    assert size is None or row.size_arcmin == pytest.approx(size, rel=0.5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Sh2-249", "IC 444"),
        ("vdB 16", "LBN 736"),
        ("LBN 437", "LBN 438"),
        ("vdB 70", "NGC 1579"),
        ("LDN 1473", "B 1"),
        ("LBN 470", "Sh2-132"),
        ("LBN 531", "Sh2-155"),
        ("Gum 35", "RCW 40"),
        ("NGC 6992", "SNR G74.0-8.5"),
        ("NGC 3603", "NGC 3576"),
    ],
)
def test_what_was_merged_is_two(row_of, one, other):
    """Nebulae that a copy put in one line are apart."""
    assert row_of.get(name_key(one)) is not row_of.get(name_key(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ced 24", "IC 353"),
        ("HDW 3", "PK 149-9.1"),
        ("Sh2-97", "NGC 6847"),
        ("LBN 531", "vdB 152"),
        ("Gum 25", "RCW 40"),
    ],
)
def test_what_stood_twice_is_one(row_of, one, other):
    """Two lines of one nebula are one row."""
    assert row_of[name_key(one)] is row_of[name_key(other)]

"""The merge behind data/catalogue.csv, on a few made-up records."""

import math
import sys

import pytest

from nebula_utils import config

sys.path.insert(0, str(config.REPOSITORY / "scripts"))
import build_catalogue
import catalogue_merge
import catalogue_rules
from catalogue_sources import Record

NAN = float("nan")


def record(source, names, kind="emission", ra=10.0, dec=20.0, size=NAN):
    """Return a record without common names."""
    return Record(source, list(names), [], kind, ra, dec, size)


def test_a_shared_number_joins_records_that_lie_close():
    """Two sources' lines on one nebula become one group, through a third."""
    records = [
        record("openngc", ["NGC 1"]),
        record("stellarium", ["Sh2-1"]),
        record("hnsky", ["NGC 1", "Sh2-1"], ra=10.05),
    ]
    groups = catalogue_merge.join_by_number(records, {}, [])
    assert [len(group) for group in groups] == [3]


def test_a_shared_number_far_away_is_a_conflict():
    """A number at another place is not believed, and listed."""
    conflicts: list[dict] = []
    records = [record("openngc", ["NGC 1"]), record("hnsky", ["NGC 1"], ra=15.0)]
    groups = catalogue_merge.join_by_number(records, {}, conflicts)
    assert len(groups) == 2
    assert conflicts[0]["field"] == "position"
    assert conflicts[0]["rejected_source"] == "hnsky"


def test_a_shared_lbn_number_joins_nothing():
    """One LBN number may span several nebulae."""
    records = [
        record("openngc", ["NGC 1", "LBN 5"]),
        record("stellarium", ["NGC 2", "LBN 5"]),
    ]
    assert len(catalogue_merge.join_by_number(records, {}, [])) == 2


def test_planetaries_at_one_place_are_one():
    """Within 20 arcseconds two planetaries without a common number are one."""
    near = [record("stellarium", ["PK 1+1.1"], "planetary")]
    also = [record("hnsky", ["K 1-1"], "planetary", dec=20.002)]
    far = [record("hnsky", ["K 1-2"], "planetary", dec=20.02)]
    groups = catalogue_merge.join_at_one_place(
        [near, also, far], build_catalogue.tell_type
    )
    assert sorted(len(group) for group in groups) == [1, 2]


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (["SNR G206.5-16.4", "LBN 953"], True),
        (["SNR G1.1-0.1", "LDN 5"], False),
        (["LDN 5"], False),
    ],
)
def test_molecular_clouds_of_other_lists_are_no_dark_nebulae(names, left_out):
    """A radio source that Stellarium calls a cloud needs a dark nebula's number."""
    group = [record("stellarium", names, "dark?", size=9.0)]
    assert (build_catalogue.settle(group, {}, []) is None) == left_out


@pytest.mark.parametrize(
    ("kinds", "names", "chosen"),
    [
        (("emission", "reflection", "reflection"), ["NGC 1"], "reflection"),
        ((None, "emission", "reflection"), ["NGC 1"], "emission"),
        ((None, "emission", "reflection"), ["vdB 1"], "reflection"),
        (("emission?", None, "dark"), ["NGC 1"], "dark"),
        (("emission?", None, None), ["NGC 1"], "emission?"),
    ],
)
def test_choose_type(kinds, names, chosen):
    """The majority decides, then trust; vdB breaks a tie; a guess counts last."""
    sources = ("openngc", "stellarium", "hnsky")
    group = [record(s, names, k) for s, k in zip(sources, kinds, strict=True)]
    assert build_catalogue.choose_type(group).type == chosen


@pytest.mark.parametrize(
    ("kind", "names", "chosen"),
    [
        ("emission", ["Sh2-5", "RCW 3", "IC 7"], "IC 7"),
        ("planetary", ["Sh2-290", "PK 219+31.1", "Abell 31"], "Abell 31"),
        ("dark", ["LDN 5", "B 7"], "B 7"),
    ],
)
def test_choose_name(kind, names, chosen):
    """The canonical name follows the order of the catalogues."""
    assert build_catalogue.choose_name([record("hnsky", names, kind)], kind) == chosen


def test_an_unknown_place_is_at_no_distance():
    """A source without a place disagrees with none, and is no witness of one."""
    somewhere = catalogue_rules.Place(83.6, 22.0, 6.0, 1, "green")
    nowhere = somewhere._replace(ra_deg=NAN, dec_deg=NAN)
    assert math.isnan(catalogue_rules.angle(somewhere, nowhere))
    assert catalogue_rules.agree(somewhere, nowhere)

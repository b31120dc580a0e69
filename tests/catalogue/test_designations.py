"""Spellings of names: one object, one key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nebula_utils.catalogue.names import canonical, name_key, tidy


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("M 1", "M 1"),
        ("m1", "M 1"),
        ("Messier 1", "M 1"),
        ("MESSIER 042", "M 42"),
        ("NGC1952", "NGC 1952"),
        ("ngc  0281", "NGC 281"),
        ("NGC-7635", "NGC 7635"),
        ("n2359", "NGC 2359"),
        ("Ic 434", "IC 434"),
        ("IC1396A", "IC 1396A"),
        ("sh 2-155", "Sh2-155"),
        ("Sharpless 155", "Sh2-155"),
        ("Sharpless 2-155", "Sh2-155"),
        ("S155", "Sh2-155"),
        ("Sh2 155", "Sh2-155"),
        ("sh2155", "Sh2-155"),
        ("Sh2–155", "Sh2-155"),
        ("B33", "B 33"),
        ("barnard-150", "B 150"),
        ("LDN1622", "LDN 1622"),
        ("Lynds 1622", "LDN 1622"),
        ("C20", "Caldwell 20"),
        ("Caldwell 20", "Caldwell 20"),
        ("vdb142", "vdB 142"),
        ("van den Bergh 142", "vdB 142"),
        ("Gum 12", "Gum 12"),
        ("rcw58", "RCW 58"),
        ("PN A66 31", "Abell 31"),
        ("abell 31", "Abell 31"),
        ("PK 164+31.1", "PK 164+31.1"),
        ("PK 010+18.2", "PK 10+18.2"),
        ("PN G164.8+31.1", "PN G164.8+31.1"),
        ("SNR G189.1+03.0", "SNR G189.1+3.0"),
        ("G189.1+3.0", "SNR G189.1+3.0"),
        ("Cederblad 214", "Ced 214"),
        ("Ced 19J", "Ced 19j"),
        ("M2-9", "M 2-9"),
        ("Minkowski 2-9", "M 2-9"),
    ],
)
def test_canonical_knows_the_usual_spellings(spelling, expected):
    """Every usual spelling of a catalogue number gives the one spelling."""
    assert canonical(spelling) == expected
    assert canonical(expected) == expected


@pytest.mark.parametrize(
    "name", ["Crab", "", "Thor's Helmet", "M", "NGC", "Sh2-", "x1"]
)
def test_canonical_leaves_other_names_alone(name):
    """What is no catalogue number gives None."""
    assert canonical(name) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Thor's Helmet", "thors helmet nebula"),
        ("Thor’s helmet", "THOR'S HELMET"),
        ("The Crab Nebula", "crab"),
        ("Coal Sack", "Coalsack"),
        ("Pac-Man Nebula", "pacman"),
        ("γ Cygni Nebula", "Gamma Cygni"),
        ("  Cat's\tEye ", "cats eye"),
    ],
)
def test_name_key_is_one_for_spellings_of_a_name(one, other):
    """Case, blanks, apostrophes and fillers don't tell names apart."""
    assert name_key(one) == name_key(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [("M 2-9", "M 29"), ("Sh2-1", "Sh2-11"), ("PK 1+1.1", "PK 11+1.1"), ("B 1", "C 1")],
)
def test_name_key_keeps_numbers_apart(one, other):
    """Digits that a sign parts are not run together."""
    assert name_key(one) != name_key(other)


@given(st.text(max_size=300))
def test_any_text_has_a_key_that_is_its_own_key(text):
    """No text breaks the reading of names; a tidy name stays as it is."""
    assert isinstance(name_key(text), str)
    assert tidy(tidy(text)) == tidy(text) or len(text) > 100

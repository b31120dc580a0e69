"""Names as people write them, in a list of the kinds found missing."""

import csv
from pathlib import Path

import pytest

from nebula_utils.catalogue import table as catalogue
from nebula_utils.catalogue.table import UnknownNameError

WRITTEN = Path(__file__).parents[1] / "data" / "names_people_write.csv"
with open(WRITTEN, encoding="utf-8", newline="") as stream:
    ROWS = list(csv.DictReader(stream))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["query"])
def test_name_as_people_write_it(row):
    """A name leads to the nebula that is meant; no name of one to none."""
    assert catalogue.as_record(row["query"]).get("name", "") == row["name"]


@pytest.mark.parametrize(
    ("query", "message", "suggestion"),
    [
        ("M 31", "it is a galaxy", None),
        ("NGC 224", "it is a galaxy", None),
        ("M31 (Andromeda Galaxy)", "it is a galaxy", None),
        ("M 13", "it is a globular star cluster", None),
        ("Sirius", "it is a star", None),
        ("LBN 114", "it is in Lynds' list only", None),
        ("NGC 9999", "there is no NGC 9999, the last one is NGC 7840", "NGC 1999"),
        ("Caldwell 110", "there is no Caldwell 110", "NGC 7635"),
        ("NGC 7000 (Crab Nebula)", "names two nebulae", "NGC 1952"),
        ("NGC 1952/Orion Nebula", "names two nebulae", "NGC 1976"),
        ("Veil", "NGC 6992 (Eastern Veil Nebula)", "NGC 6960"),
        ("the Butterfly", "did you mean", "PK 10+18.2"),
        ("Dragon", "Dragon's Head", "NGC 6523"),
        ("Orion", "did you mean", "NGC 1976"),
    ],
)
def test_what_is_no_one_nebula_is_told(query, message, suggestion):
    """Other kinds of objects, numbers that don't exist and shared names are named."""
    with pytest.raises(UnknownNameError) as caught:
        catalogue.resolve(query)
    assert message in str(caught.value)
    names = [catalogue.resolve(name).name for name in caught.value.suggestions]
    assert names == [] if suggestion is None else suggestion in names


@pytest.mark.parametrize("query", ["%", "m 1/" * 49, "1 " * 99, "(", "M /", "x (y)"])
def test_odd_text_is_no_other_object(query):
    """Signs that mean something to a pattern or a query mean nothing in a name."""
    assert "it is" not in catalogue.as_record(query).get("error", "")

"""The catalogue against what is known by hand, and look-ups by name and place."""

import csv
import json
import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nebula_utils import config
from nebula_utils.catalogue import table as catalogue
from nebula_utils.catalogue.names import name_key
from nebula_utils.errors import CatalogueError

KNOWN = Path(__file__).parents[1] / "data" / "known_nebulae.csv"
with open(KNOWN, encoding="utf-8", newline="") as stream:
    KNOWN_ROWS = list(csv.DictReader(stream))
POSITION_TOLERANCE = 6  # arcmin, or 0.4 of the size: centres of clouds are vague

LEAST = {
    "dark": 500,
    "emission": 400,
    "planetary": 1000,
    "reflection": 150,
    "supernova_remnant": 150,
    "protoplanetary": 20,
}


@pytest.fixture(scope="module")
def table():
    """Return the catalogue in the repository."""
    return catalogue.read_catalogue()


def all_names(row):
    """Return every name of a row."""
    names = [row.name, *row.aliases.split("|"), *row.common_names.split("|")]
    return [name for name in names if name]


def test_ground_truth_is_large_enough():
    """The hand-made table holds at least 150 nebulae, each once."""
    names = [row["name"] for row in KNOWN_ROWS]
    assert len(names) == len(set(names)) >= 150


@pytest.mark.parametrize("row", KNOWN_ROWS, ids=lambda row: row["name"])
def test_known_nebula(row):
    """Name, aliases, type and place of a well-known nebula are right."""
    nebula = catalogue.resolve(row["name"])
    assert nebula.name == row["name"]
    assert nebula.type == row["type"]
    for alias in filter(None, row["aliases"].split("|")):
        assert catalogue.resolve(alias) == nebula, alias
    ra, dec = float(row["ra_deg"]), float(row["dec_deg"])
    reach = max(POSITION_TOLERANCE, 0.4 * (nebula.size_arcmin or 0))
    near = [found for found, _ in catalogue.match_position(ra, dec, reach)]
    assert nebula in near


def test_every_type_is_well_filled(table):
    """The catalogue is as large as promised, type by type."""
    assert len(table) >= 2500
    counts = table["type"].value_counts()
    assert {kind: counts[kind] >= least for kind, least in LEAST.items()} == (
        dict.fromkeys(LEAST, True)
    )


def test_no_name_belongs_to_two_nebulae(table):
    """Each name, in any spelling, leads to one row."""
    keys = [
        name_key(name) for row in table.itertuples(False) for name in all_names(row)
    ]
    assert all(keys)
    assert len(keys) == len(set(keys))


def test_every_row_finds_itself(table):
    """All names in the table resolve to their row."""
    for row in table.itertuples(False):
        for name in all_names(row):
            assert catalogue.resolve(name).name == row.name, name


def test_every_fact_has_a_source(table):
    """Sources are named for type and place, and for a size where there is one."""
    known = set("openngc stellarium hnsky hand green acker vdb barnard lynds".split())
    known |= {"sharpless", "rcw", "gum", "ced"}
    assert set(table["source_type"]) | set(table["source_position"]) <= known
    assert (table["size_arcmin"].isna() == table["source_size"].eq("")).all()


def test_protoplanetaries_and_corrections_cite_their_source():
    """No fact of our own stands without a reference."""
    for name in ("protoplanetary.csv", "catalogue_corrections.csv"):
        ours = pd.read_csv(config.DATA / name, dtype=str, keep_default_na=False)
        assert ours["reference"].str.len().gt(3).all(), name
        assert not ours["name"].duplicated().any(), name


def test_conflicts_are_of_rows_in_the_catalogue(table):
    """The list of conflicts speaks of nebulae that are there."""
    conflicts = catalogue.read_conflicts()
    assert set(conflicts["name"]) <= set(table["name"])
    assert set(conflicts["field"]) == {"type", "position", "size"}
    assert not conflicts["rejected"].str.startswith("nan").any()
    assert conflicts["field"].value_counts()["position"] == 728


@pytest.mark.parametrize("content", [None, "", "name\nM 1\n"])
def test_read_conflicts_refuses_other_files(tmp_path, content):
    """A missing file, an empty one or another table is refused."""
    if content is not None:
        (tmp_path / "c.csv").write_text(content)
    with pytest.raises(CatalogueError, match=r"c\.csv"):
        catalogue.read_conflicts(tmp_path / "c.csv")


def test_constellations_are_the_usual_abbreviations(table):
    """A nebula lies in one of the 88 constellations; M 42's is Orion."""
    assert table["constellation"].nunique() <= 88
    assert catalogue.resolve("M 42").constellation == "Ori"


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("M 1", "NGC 1952"),
        ("m1", "NGC 1952"),
        ("Messier 1", "NGC 1952"),
        ("Crab", "NGC 1952"),
        ("NGC1952", "NGC 1952"),
        ("  messier   001 ", "NGC 1952"),
        ("sh 2-155", "Sh2-155"),
        ("Sharpless 155", "Sh2-155"),
        ("S155", "Sh2-155"),
        ("the S155 nebula", "Sh2-155"),
        ("Cave Nebula", "Sh2-155"),
        ("Thor’s helmet", "NGC 2359"),
        ("thors helmet nebula", "NGC 2359"),
        ("Barnard 33", "B 33"),
        ("B33", "B 33"),
        ("LDN1622", "LDN 1622"),
        ("Lynds 1622", "LDN 1622"),
        ("C20", "NGC 7000"),
        ("vdB 142", "IC 1396"),
        ("Gum 12", "Gum 12"),
        ("PN A66 31", "Abell 31"),
        ("SNR G189.1+03.0", "IC 443"),
        ("Cederblad 214", "NGC 7822"),
        # borne by several nebulae: the best-known has it
        ("Butterfly Nebula", "NGC 6302"),
        ("Horsehead", "B 33"),
        ("Cone Nebula", "NGC 2264"),
        ("Cocoon Nebula", "IC 5146"),
        ("Veil Nebula", "NGC 6960"),
        ("Pipe Nebula", "B 78"),
        ("Ring Nebula", "NGC 6720"),
    ],
)
def test_resolve_spellings(query, name):
    """People's spellings lead to the nebula that they mean."""
    assert catalogue.resolve(query).name == name


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("Thors helmut", "NGC 2359"),
        ("Crabb Nebula", "NGC 1952"),
        ("NGC 19522", "NGC 1952"),
        ("Rosete", "NGC 2237"),
        ("B 999", "B 99"),
        ("Barnard 1500", "B 150"),
        ("Thor", "NGC 2359"),
    ],
)
def test_unknown_names_bring_suggestions(query, meant):
    """A misspelt name is an error that offers the right one."""
    with pytest.raises(CatalogueError, match="no nebula is called") as caught:
        catalogue.resolve(query)
    assert meant in [catalogue.resolve(s).name for s in caught.value.suggestions]
    assert len(caught.value.suggestions) <= catalogue.N_SUGGESTIONS


@pytest.mark.parametrize(
    "query",
    [
        "",
        "   ",
        "nebula",
        "M 999",
        "M 31",
        "\x00\x1b[31m",
        "x" * 10_000,
        "🌌",
        "NGC",
        "*",
    ],
)
def test_nonsense_is_refused(query):
    """What names no nebula is an error with a short printable message."""
    with pytest.raises(CatalogueError) as caught:
        catalogue.resolve(query)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def misspell(name, rng):
    """Drop, double or swap a letter of a name, or put a blank or hyphen into it."""
    at = rng.choice([i for i, letter in enumerate(name) if letter.isalpha()])
    how = rng.choice(["drop", "double", "swap", "part"])
    pair = name[at : at + 2]
    changed = {"drop": pair[1:], "double": pair[0] + pair, "swap": pair[::-1]}
    return name[:at] + changed.get(how, rng.choice(" -").join(pair)) + name[at + 2 :]


def test_nine_of_ten_misspellings_bring_the_right_suggestion(table):
    """Of names that are not found for one slip the right nebula is among five."""
    rng = random.Random(7)
    every = [(n, row.name) for row in table.itertuples(False) for n in all_names(row)]
    offered = []
    for name, meant in rng.sample(every, 250):
        answer = catalogue.as_record(misspell(name, rng))
        if "error" in answer:
            names = [catalogue.resolve(s).name for s in answer["suggestions"]]
            offered.append(meant in names)
    assert len(offered) > 100
    assert np.mean(offered) > 0.9


def test_suggestions_are_spelt_as_the_name_that_was_meant():
    """Of a nebula's names that begin as the query does, the shortest is offered."""
    assert catalogue.suggest("Rosett")[0] == "Rosette Nebula"


def test_suggest_names_each_nebula_once():
    """The Crab is not offered under four of its names."""
    names = [catalogue.resolve(name).name for name in catalogue.suggest("M 1x")]
    assert len(names) == len(set(names))


def test_match_position_measures_angles_across_the_pole_and_zero():
    """Distances are angles on the sphere, in arcminutes, the nearest first."""
    crab = catalogue.resolve("Crab")
    found = catalogue.match_position(crab.ra_deg, crab.dec_deg + 0.5, 31)
    assert found[0][0] == crab
    assert found[0][1] == pytest.approx(30, abs=0.01)
    distances = [distance for _, distance in catalogue.match_position(83.8, -5, 120)]
    assert len(distances) > 3
    assert distances == sorted(distances)
    edge = catalogue.resolve("NGC 7822")
    near = catalogue.match_position(edge.ra_deg - 1 + 360, edge.dec_deg, 60)
    assert edge in [nebula for nebula, _ in near]


@pytest.mark.parametrize("place", [(math.nan, 0, 1), (0, 91, 1), (0, 0, -1)])
def test_match_position_refuses_no_place(place):
    """NaN, a declination beyond the pole or a negative radius is an error."""
    with pytest.raises(ValueError, match="no place"):
        catalogue.match_position(*place)


def test_as_record_is_the_json_of_the_interface():
    """A hit and a miss have the keys that the command line promises."""
    hit = json.loads(json.dumps(catalogue.as_record("S155"), allow_nan=False))
    promised = "query name type ra_deg dec_deg size_arcmin aliases".split()
    assert list(hit) == [
        *promised, "constellation", "sources", "conflicts", "matched"
    ]  # fmt: skip
    assert (hit["name"], hit["type"], hit["size_arcmin"]) == ("Sh2-155", "emission", 50)
    assert "Cave Nebula" in hit["aliases"]
    assert hit["constellation"] == "Cep" and "sharpless" in hit["sources"]
    crab = catalogue.as_record("Messier 1 (Krebsnebel)")
    assert crab["matched"] == "M 1"
    assert {"size", "position", "type"} >= {row["field"] for row in crab["conflicts"]}
    assert catalogue.as_record("krebsnebel")["matched"] == "Crab Nebula"
    miss = catalogue.as_record("no such thing")
    assert list(miss) == ["query", "error", "suggestions"]


def test_a_size_may_be_unknown_but_no_place(table):
    """Positions are always there; an unknown size is None, not NaN."""
    assert table[["ra_deg", "dec_deg"]].notna().all(axis=None)
    unsized = table.loc[table["size_arcmin"].isna(), "name"].iloc[0]
    assert catalogue.as_record(unsized)["size_arcmin"] is None


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("type", "galaxy", "unknown type"),
        ("ra_deg", 360.0, "right ascension"),
        ("dec_deg", np.nan, "declination"),
        ("size_arcmin", -1.0, "size"),
        ("name", "NGC 1952", "twice"),
        ("name", "", "empty"),
    ],
)
def test_read_catalogue_refuses_wrong_values(table, tmp_path, column, value, problem):
    """A damaged table is refused with the line that is wrong."""
    damaged = pd.concat([table[table["name"] == "NGC 1952"], table.iloc[:3]])
    damaged = damaged.reset_index(drop=True)
    damaged.loc[2, column] = value
    damaged.to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(CatalogueError, match=f"line 4: .*{problem}"):
        catalogue.read_catalogue(tmp_path / "c.csv")


@pytest.mark.parametrize("content", [None, "", "name\nM 1\n", '"\x00'])
def test_read_catalogue_refuses_other_files(tmp_path, content):
    """A missing file, an empty one or another table is refused."""
    path = tmp_path / "c.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CatalogueError, match=r"c\.csv"):
        catalogue.read_catalogue(path)


def test_each_default_image_is_tied_to_the_catalogue_or_says_why_not():
    """A row of data/stellarium.csv is a nebula of the catalogue, or no nebula."""
    images = pd.read_csv(config.DATA / "stellarium.csv", keep_default_na=False)
    found = images["nebula"].map(catalogue.find)
    names = [nebula.name if nebula else "" for nebula in found]
    tied = images["nebula"] == names
    assert set(images.loc[~tied, "class"]) == {config.OTHER}
    assert set(images.loc[~tied, "other_kind"]) == {"galaxy", "cluster", "star_field"}
    by_hand = images[~tied & images["label_source"].eq("hand")]
    assert by_hand["label_note"].ne("").all()
    assert tied.sum() > 150


def test_each_outside_photo_is_tied_to_the_catalogue(shared):
    """All photos of the original tool are of nebulae that the catalogue knows."""
    from nebula_utils.dataset.photos import load_photos

    table = load_photos(shared / "photos")
    known = {name: catalogue.find(name) for name in table["nebula"].unique()}
    assert [name for name, nebula in known.items() if not nebula] == []
    assert all(nebula.name == name for name, nebula in known.items())
    assert table[["ra_deg", "dec_deg", "size_arcmin"]].notna().all(axis=None)

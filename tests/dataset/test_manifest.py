"""Sources are joined, checked, screened, and cut into a study."""

import numpy as np
import pandas as pd
import pytest

from nebula_utils.dataset import hips, stellarium
from nebula_utils.dataset import manifest as sources
from nebula_utils.dataset.screening import Screened
from nebula_utils.errors import SourceError


def make_manifest(source: str = "stellarium") -> pd.DataFrame:
    """Return three correct rows."""
    names = ["NGC 2359", "B 33", "NGC 224"]
    return pd.DataFrame(
        {
            "image_id": [f"{source}/{name}" for name in names],
            "path": [f"{source}-{name}.png" for name in names],
            "source": source,
            "nebula": names,
            "label": ["emission", "dark", "other"],
            "accept": ["emission", "dark|emission", "other"],
            "other_kind": ["", "", "galaxy"],
            "ra_deg": [109.6, 85.2, np.nan],
            "dec_deg": [-13.2, -2.5, np.nan],
            "size_arcmin": [10.0, np.nan, 190.0],
            "credit": "somebody",
            "licence": "CC BY 4.0",
            "flag": "",
        }
    )


@pytest.fixture
def loaders(monkeypatch):
    """Replace the loaders of every source by small tables."""
    monkeypatch.setattr(hips, "load_hips", lambda: make_manifest("hips"))
    ours = make_manifest("stellarium")
    monkeypatch.setattr(stellarium, "load_stellarium", lambda: ours)


def test_sources_are_joined_in_order(loaders):
    """A sum of sources has the rows of each, and the columns of all."""
    table = sources.load_source("hips + stellarium")
    assert list(table["source"].unique()) == ["hips", "stellarium"]
    assert tuple(table.columns) == sources.COLUMNS and len(table) == 6


@pytest.mark.parametrize("source", ["", "stelarium", "hips+", "hips+hips"])
def test_wrong_source_names_are_errors(loaders, source):
    """Misspelt and repeated sources are named."""
    with pytest.raises(SourceError, match="unknown source|twice"):
        sources.load_source(source)


def test_photos_need_a_folder(loaders):
    """The source photos without its folder says so."""
    with pytest.raises(SourceError, match="photos_dir"):
        sources.load_source("photos")


def test_correct_manifest_passes():
    """Unknown positions and sizes are allowed."""
    sources.check_manifest(make_manifest())


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("image_id", "stellarium/NGC 2359", "twice"),
        ("label", "galaxy", "label is unknown"),
        ("accept", "emission|dark", "accept"),
        ("accept", "dark|bright", "accept"),
        ("other_kind", "cluster", "other_kind"),
        ("nebula", "", "nebula is empty"),
        ("nebula", None, "nebula is missing"),
        ("ra_deg", 400.0, "off the sky"),
        ("dec_deg", np.nan, "off the sky"),
    ],
)
def test_wrong_rows_are_named(column, value, words):
    """A wrong value is reported with the picture that has it."""
    table = make_manifest()
    table.loc[1, column] = value
    with pytest.raises(SourceError, match=words) as caught:
        sources.check_manifest(table)
    assert "stellarium/" in str(caught.value)


@pytest.mark.parametrize("column", sources.COLUMNS)
def test_missing_column_is_named(column):
    """Every column is needed."""
    with pytest.raises(SourceError, match=column):
        sources.check_manifest(make_manifest().drop(columns=column))


def test_empty_manifest_is_an_error():
    """A source without a picture is no source."""
    with pytest.raises(SourceError, match="empty"):
        sources.check_manifest(make_manifest().head(0))


def test_held_out_nebulae_go_with_their_group(manifest, monkeypatch):
    """A picture under another name of a held-out nebula trains nothing either."""
    rows = manifest.assign(group=manifest["nebula"], palette="mixed")
    alias = rows["nebula"] == "Sim dark 1"
    rows.loc[alias, "group"] = "Sim dark 0"
    monkeypatch.setattr(sources, "HELD_OUT", ("Sim dark 0",))
    made = sources.make_dataset(rows, min_nebulae=3)
    assert set(made.held_out["nebula"]) == {"Sim dark 0", "Sim dark 1"}
    assert not set(made.manifest["nebula"]) & set(made.held_out["nebula"])


def test_textures_that_are_held_back_are_listed(manifest):
    """The list of what is not used has the rows that Stellarium's table excludes."""
    empty = pd.DataFrame(columns=["image_id", "reason", "detail"])
    ours = manifest.assign(source="stellarium")
    listed = sources.list_left_out(Screened(ours, ours, empty, empty))
    assert len(listed) == 27 and (listed["reason"] == "label").all()
    assert sources.list_left_out(Screened(manifest, manifest, empty, empty)).empty

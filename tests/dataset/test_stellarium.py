"""The source stellarium: odd JSON, the labels and the check of the pixels."""

import json
import logging
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nebula_utils import config
from nebula_utils.dataset import stellarium
from nebula_utils.dataset.sources import check_manifest
from nebula_utils.errors import SourceError
from nebula_utils.images.reading import compute_pixel_hash

ODD = """{
 "shortName": "Nebulae", // "a comment
 "subTiles" : [ # another
  { "imageCredits" : {"Short" : "A  B", "infoUrl": "https://x.org/a,]b"},
    "imageUrl" : "m2.png",
    "worldCoords" : [[[10.5,-.5], [9.5,-.5], [9.5,+0.5], [10.5,.5]]], },
  /* two
     lines */
  { "imageUrl" : "none.png" },
  { "imageUrl" : "m2.png", "worldCoords" : [[[1,1], [2,1], [2,2], [1,2.]]] },
 ]
}"""


def describe(tmp_path, corners):
    """Read a list of one tile with these corners."""
    path = tmp_path / "textures.json"
    tile = {"imageUrl": "a.png", "worldCoords": [corners]}
    path.write_text(json.dumps({"subTiles": [tile]}))
    return stellarium.read_textures_json(path).iloc[0]


def test_odd_json_is_read(tmp_path):
    """Comments, bare decimal points and last commas don't stop the reader."""
    (tmp_path / "textures.json").write_text(ODD)
    table = stellarium.read_textures_json(tmp_path)
    assert list(table["file"]) == ["m2.png", "none.png"]
    assert list(table["credit"]) == ["A B", ""]
    assert table.loc[0, "ra_deg"] == pytest.approx(10)
    assert table.loc[0, "dec_deg"] == pytest.approx(0, abs=1e-4)
    assert table.loc[0, "size_arcmin"] == pytest.approx(60, rel=1e-3)
    assert math.isnan(table.loc[1, "ra_deg"])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"subTiles": [{}]}', '{"subTiles": [1]}', "\udcff"]
)
def test_other_json_is_refused(tmp_path, text):
    """Anything but a list of tiles is a SourceError that names the file."""
    path = tmp_path / "textures.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SourceError, match=r"textures\.json"):
        stellarium.read_textures_json(path)


@pytest.mark.parametrize("west", [-0.5, 359.5])
def test_centre_across_ra_0(tmp_path, west):
    """A texture across RA 0 has its centre there, not on the other side."""
    corners = [[0.7, 19.9], [west, 19.9], [west, 20.1], [0.7, 20.1]]
    found = describe(tmp_path, corners)
    assert found["ra_deg"] == pytest.approx(0.1, abs=1e-3)
    assert found["dec_deg"] == pytest.approx(20, abs=5e-3)
    assert found["size_arcmin"] == pytest.approx(72 * np.cos(np.radians(20)), rel=1e-3)


def test_size_is_the_mean_of_opposite_sides(tmp_path):
    """A trapezium counts with the mean of its two long sides."""
    found = describe(tmp_path, [[0, 0], [2, 0], [1.5, 0.5], [0.5, 0.5]])
    assert found["size_arcmin"] == pytest.approx(90, rel=1e-3)


@pytest.fixture
def folder(tmp_path, tmp_cache, monkeypatch):
    """Make a folder of four textures and their table: known, other, gone, unused."""
    folder = tmp_path / "textures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for name in ("known", "other", "gone", "unused"):
        image = rng.integers(0, 255, (20, 20, 3), np.uint8)
        if name != "gone":
            Image.fromarray(image).save(folder / f"{name}.png")
        row = dict.fromkeys(stellarium.COLUMNS, "")
        row |= {"file": f"{name}.png", "pixel_sha256": compute_pixel_hash(image)}
        row |= {"nebula": f"NGC {name}", "label": "dark", "accept": "dark|emission"}
        row |= {"use": "no" if name == "unused" else "yes"}
        row |= {"ra_deg": "12.5", "dec_deg": "-3"}
        rows.append(row | {"credit": "NA", "licence": "CC0"})
    Image.fromarray(255 - image).save(folder / "other.png")
    monkeypatch.setattr(stellarium, "TABLE", tmp_path / "stellarium.csv")
    pd.DataFrame(rows).to_csv(stellarium.TABLE, index=False)
    return folder


def test_other_pixels_and_missing_files_are_left_out(folder, caplog):
    """Only textures with the labelled pixels are used; the rest is counted."""
    with caplog.at_level(logging.WARNING):
        manifest = stellarium.load_stellarium(folder)
    assert list(manifest["image_id"]) == ["stellarium/known"]
    row = manifest.iloc[0]
    assert (row["path"], row["accept"]) == (str(folder / "known.png"), "dark|emission")
    assert (row["credit"], row["ra_deg"]) == ("NA", 12.5)
    assert "1 textures are missing" in caplog.text
    assert "1 textures are not the labelled pictures" in caplog.text
    check_manifest(manifest)


def test_second_call_decodes_nothing(folder, monkeypatch):
    """The hashes are kept; a file that changed is looked at again."""
    first = stellarium.load_stellarium(folder)
    read = []
    real = stellarium.read_image
    monkeypatch.setattr(
        stellarium, "read_image", lambda path: read.append(path.name) or real(path)
    )
    pd.testing.assert_frame_equal(stellarium.load_stellarium(folder), first)
    assert read == []
    (folder / "known.png").write_bytes(b"damaged")
    with pytest.raises(SourceError, match="none of the textures"):
        stellarium.load_stellarium(folder)
    assert read == ["known.png"]


def test_damaged_list_of_hashes_is_made_anew(folder, tmp_cache):
    """A cut-off checked.json costs time, nothing else."""
    stellarium.load_stellarium(folder)
    checked = tmp_cache / "stellarium/checked.json"
    checked.write_text(checked.read_text()[:20])
    assert len(stellarium.load_stellarium(folder)) == 1
    assert json.loads(checked.read_text())


def test_foreign_table_is_refused(tmp_path):
    """A table without the columns is named together with them."""
    path = tmp_path / "t.csv"
    path.write_text("file,label\na.png,dark\n")
    with pytest.raises(SourceError, match=r"t\.csv has no column pixel_sha256"):
        stellarium.read_table(path)


@pytest.fixture(scope="module")
def table():
    """Read the committed table."""
    return stellarium.read_table()


def test_committed_table_is_sound(table):
    """Every texture stands once, with hash, credit, licence and a known class."""
    used = table[table["use"] == "yes"]
    assert len(table) == 555
    assert set(table["use"]) == {"yes", "no"}
    assert not table["file"].duplicated().any()
    assert not table["pixel_sha256"].duplicated().any()
    assert table["pixel_sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert (used[["nebula", "credit", "licence", "label_source"]] != "").all(axis=None)
    assert used["label"].isin(config.CLASS_NAMES).all()
    assert used[["ra_deg", "dec_deg", "size_arcmin"]].notna().all(axis=None)
    assert (table.loc[table["use"] == "no", "reason"] != "").all()


def test_accepted_classes_begin_with_the_label(table):
    """`accept` is the label first, then other classes."""
    used = table[table["use"] == "yes"]
    parts = used["accept"].str.split("|")
    assert (parts.str[0] == used["label"]).all()
    assert parts.explode().isin(config.CLASS_NAMES).all()
    is_other = used["label"] == config.OTHER
    assert used.loc[is_other, "other_kind"].isin(config.OTHER_KINDS).all()
    assert (used.loc[~is_other, "other_kind"] == "").all()


@pytest.mark.parametrize("stem", ["rho-a", "barnard_loop-", "sh2-1-", "ic2118-"])
def test_mosaic_is_one_nebula(table, stem):
    """The tiles of a mosaic never part in a split."""
    tiles = table[table["file"].str.startswith(stem)]
    assert len(tiles) > 1
    assert tiles["nebula"].nunique() == 1


@pytest.mark.slow
def test_real_textures_are_the_labelled_ones(textures):
    """The textures of this machine have the pixels that the table describes."""
    manifest = stellarium.load_stellarium()
    check_manifest(manifest)
    assert len(manifest) > 450

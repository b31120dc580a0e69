"""The source stellarium: the labels and the check of the pixels."""

import logging

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nebula_utils import config
from nebula_utils.dataset import stellarium
from nebula_utils.dataset.manifest import check_manifest
from nebula_utils.errors import SourceError
from nebula_utils.images.reading import compute_pixel_hash


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
        row = {"file": f"{name}.png", "pixel_sha256": compute_pixel_hash(image)}
        row |= {"nebula": f"Sim {name}", "class": "dark", "accept": "dark|emission"}
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
    """What was found is kept; a file that changed is looked at again."""
    first = stellarium.load_stellarium(folder)
    read = []
    real = stellarium.reading.read_image
    monkeypatch.setattr(
        stellarium.reading,
        "read_image",
        lambda path: read.append(path.name) or real(path),
    )
    pd.testing.assert_frame_equal(stellarium.load_stellarium(folder), first)
    assert read == []
    (folder / "known.png").write_bytes(b"damaged")
    with pytest.raises(SourceError, match="none of the textures"):
        stellarium.load_stellarium(folder)
    assert "known.png" in read


def test_newer_textures_are_a_source_of_their_own(folder):
    """They are known by their looks, and the default source has none of them."""
    image = np.array(Image.open(folder / "unused.png").resize((200, 200)))
    Image.fromarray(image).save(folder / "new.png")
    small = Image.fromarray(image).resize((100, 100))
    table = pd.read_csv(stellarium.TABLE, dtype=str, keep_default_na=False)
    row = table.iloc[0].to_dict() | {"file": "new.png", "use": "newer"}
    row["pixel_sha256"] = f"phash:{imagehash.phash(small, hash_size=16)}"
    pd.DataFrame([*table.to_dict("records"), row]).to_csv(stellarium.TABLE, index=False)
    found = stellarium.load_stellarium(folder, newer=True)
    assert found["image_id"].tolist() == ["stellarium-newer/new"]
    assert "new" not in " ".join(stellarium.load_stellarium(folder)["image_id"])
    check_manifest(found)
    Image.fromarray(image[::-1]).save(folder / "new.png")
    with pytest.raises(SourceError, match=r"26\.3"):
        stellarium.load_stellarium(folder, newer=True)


@pytest.fixture(scope="module")
def table():
    """Read the committed table."""
    return pd.read_csv(stellarium.TABLE, dtype=str, keep_default_na=False)


def test_committed_table_is_sound(table):
    """Every texture stands once, with hash, credit, licence and a known class."""
    used = table[table["use"] != "no"]
    assert table["use"].value_counts().to_dict() == {"yes": 528, "newer": 66, "no": 27}
    assert not table["file"].duplicated().any()
    assert not table["pixel_sha256"].duplicated().any()
    newer = table["use"] == "newer"
    assert table.loc[~newer, "pixel_sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert table.loc[newer, "pixel_sha256"].str.fullmatch("phash:[0-9a-f]{64}").all()
    assert (used[["nebula", "credit", "licence", "label_source"]] != "").all(axis=None)
    assert used["class"].isin(config.CLASS_NAMES).all()
    assert used[["ra_deg", "dec_deg"]].ne("").all(axis=None)
    assert (table.loc[table["use"] == "no", "reason"] != "").all()


def test_accepted_classes_begin_with_the_label(table):
    """`accept` is the label first, then other classes."""
    used = table[table["use"] != "no"]
    parts = used["accept"].str.split("|")
    assert (parts.str[0] == used["class"]).all()
    assert parts.explode().isin(config.CLASS_NAMES).all()
    is_other = used["class"] == config.OTHER
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

"""What is left out and why, and the key of a verdict that is kept."""

import io
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from synthetic import draw_nebula

from nebula_utils.dataset import screening
from nebula_utils.dataset.photos import load_photos
from nebula_utils.files import list_code
from nebula_utils.images.reading import read_image, resize_image


@pytest.fixture
def add(manifest, tmp_path):
    """Return a function that adds one picture to the head of the manifest."""
    extra = []

    def _add(name, image, **values):
        path = tmp_path / name
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            Image.fromarray(image).save(path)
        row = manifest.iloc[0].to_dict() | {"image_id": name, "path": str(path)}
        extra.append(row | values)
        return pd.concat([manifest, pd.DataFrame(extra)], ignore_index=True)

    return _add


@pytest.fixture(autouse=True)
def _cache(tmp_cache):
    """Verdicts of these tests are kept apart."""


def reasons(table):
    """Return {image_id: reason}."""
    return dict(zip(table["image_id"], table["reason"], strict=True))


def test_sound_pictures_stay(manifest):
    """Nothing of the synthetic catalogue is left out."""
    screened = screening.screen(manifest)
    assert screened.left_out.empty and screened.duplicates.empty
    assert screened.kept[manifest.columns].equals(manifest)
    assert screened.kept["group"].tolist() == manifest["nebula"].tolist()


def test_unusable_files_are_named_with_the_reason(add):
    """Broken, missing, tiny, flat, drawn and flagged pictures each have a reason."""
    rng = np.random.default_rng(0)
    add("broken.jpg", b"\xff\xd8\xff\xe0 no more")
    add("tiny.png", draw_nebula("dark", rng, 40))
    add("grey.png", np.full((90, 90, 3), 40, np.uint8))
    chart = np.full((120, 120, 3), 255, np.uint8)
    chart[60, 10:110] = chart[10:110, 60] = (255, 0, 0)
    add("chart.png", chart)
    blocks = np.repeat(rng.integers(40, 230, (3, 3, 3)), 50, 0).repeat(50, 1)
    add("drawing.png", blocks.astype(np.uint8))
    table = add("doubt.png", draw_nebula("dark", rng), flag="infrared")
    found = reasons(screening.screen(table).left_out)
    assert found == {
        "broken.jpg": "broken",
        "tiny.png": "tiny",
        "grey.png": "featureless",
        "chart.png": "not a photograph",
        "drawing.png": "not a photograph",
        "doubt.png": "doubtful",
    }
    assert "doubt.png" not in reasons(screening.screen(table.assign(flag="")).left_out)


def test_copies_are_found_grey_resized_and_recompressed(add):
    """A grey, a small and a brighter JPEG copy are one picture to us."""
    rng = np.random.default_rng(1)
    image = resize_image(draw_nebula("emission", rng), 300, 300)
    grey = np.array(Image.fromarray(image).convert("L").convert("RGB"))
    add("first.png", image)
    add("grey.png", grey)
    buffer = io.BytesIO()
    bright = np.clip(image * 1.2, 0, 255).astype(np.uint8)
    Image.fromarray(bright).resize((200, 200)).save(buffer, "JPEG", quality=70)
    table = add("bright.jpg", buffer.getvalue())
    found = reasons(screening.screen(table).left_out)
    assert found == {"grey.png": "duplicate", "bright.jpg": "duplicate"}
    assert len(screening.screen(table).kept) == 57


def test_copy_under_another_class_removes_both(add):
    """One picture as dark and as emission says nothing: neither is kept."""
    image = draw_nebula("emission", np.random.default_rng(2), 200)
    add("a.png", image, label="dark", accept="dark", nebula="B 1")
    table = add("b.png", image, label="emission", accept="emission", nebula="NGC 1")
    found = reasons(screening.screen(table).left_out)
    assert found == {"a.png": "contradiction", "b.png": "contradiction"}
    pairs = screening.find_duplicates(table)
    assert pairs[["first", "second", "same_nebula"]].values.tolist() == [
        ["a.png", "b.png", False]
    ]


def test_round_nebulae_with_other_stars_are_no_copies(add):
    """The same disc in front of other stars has the same hash, but is no copy."""
    y, x = np.mgrid[:200, :200] - 100.0
    disc = 200 * np.exp(-((x / 25) ** 2 + (y / 25) ** 2))
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        field = disc + rng.normal(20, 4, disc.shape)
        rows, columns = rng.integers(5, 195, (2, 60))
        field[rows, columns] = 255
        image = np.clip(field, 0, 255).astype(np.uint8)[..., None].repeat(3, 2)
        table = add(f"disc{seed}.png", image)
    assert screening.find_duplicates(table).empty


@pytest.fixture
def count(monkeypatch):
    """Count how often something is screened, without screening it."""
    calls = []
    real = screening._screen

    def screen(manifest):
        calls.append(len(manifest))
        return real(manifest)

    monkeypatch.setattr(screening, "_screen", screen)
    return calls


def test_verdict_is_kept_until_something_changes(
    manifest, count, tmp_path, monkeypatch
):
    """Equal inputs are read; another accept, byte or catalogue is screened anew."""
    table = manifest.head(3).copy()
    first = screening.screen(table)
    again = screening.screen(table)
    for one, two in zip(first, again, strict=True):
        pd.testing.assert_frame_equal(one, two)
    assert len(count) == 1
    table.loc[0, "accept"] += "|dark"
    screening.screen(table)
    assert len(count) == 2
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(table.loc[0, "path"]).read_bytes() + b"!")
    table.loc[0, "path"] = str(copy)
    screening.screen(table)
    assert len(count) == 3
    (tmp_path / "catalogue.csv").write_text("another")
    monkeypatch.setattr(screening, "DATA", tmp_path)
    screening.screen(table)
    assert len(count) == 4


def test_code_that_groups_is_part_of_the_key():
    """Groups depend on the catalogue's code: an edit there screens anew."""
    code, _ = list_code(Path(screening.__file__))
    names = {f"{file.parent.name}/{file.name}" for file in code}
    assert {
        "dataset/splits.py",
        "catalogue/table.py",
        "counterfactuals/colour.py",
    } < names


def test_outside_copies_and_nebulae_are_not_trained_on(add, manifest):
    """Neither a nebula that is outside too nor a copy under another name stays."""
    rng = np.random.default_rng(4)
    image = draw_nebula("emission", rng, 200)
    known = add("own.png", image, nebula="NGC 1", ra_deg=np.nan, dec_deg=np.nan)
    small = resize_image(image, 150, 150)
    outside = add("copy.png", small, nebula="NGC 2", ra_deg=np.nan, dec_deg=np.nan)
    outside = outside.tail(1)
    rows = screening.find_unseen(known, outside)
    assert rows.tolist() == list(range(len(manifest)))
    rows = screening.find_unseen(known, manifest.head(2).assign(image_id=["x", "y"]))
    assert not set(known["nebula"].iloc[rows]) & set(manifest["nebula"].head(2))


def test_re_encoded_copy_has_the_known_hash():
    """A JPEG at half the size passes, another picture doesn't."""
    rng = np.random.default_rng(5)
    image, other = (
        resize_image(rng.integers(0, 255, (12, 12, 3), np.uint8), 300, 300)
        for _ in range(2)
    )
    known = str(imagehash.phash(Image.fromarray(image), hash_size=16))
    buffer = io.BytesIO()
    Image.fromarray(image).resize((150, 150)).save(buffer, "JPEG", quality=60)
    copy = read_image(buffer.getvalue())
    assert screening.measure_difference(copy, known) <= screening.MAX_DIFFERENCE
    assert screening.measure_difference(other, known) > screening.MAX_DIFFERENCE


@pytest.mark.slow
def test_known_copies_in_the_outside_photos_are_found(shared):
    """Of the pairs marked by hand, all but one, and none across classes."""
    table = load_photos(shared / "photos")
    pairs = screening.find_duplicates(table)
    found = {frozenset(pair) for pair in pairs[["first", "second"]].to_numpy()}
    marked = table[table["flag"].str.startswith("near-duplicate of ")]
    known = {
        frozenset((row.image_id, f"photos/{row.flag.split()[-1].removesuffix('.jpg')}"))
        for row in marked.itertuples()
    }
    assert len(known) == 13
    assert len(known & found) >= 12
    assert not pairs["contradicts"].any()

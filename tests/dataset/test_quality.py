"""What is left out, and why."""

import io

import numpy as np
import pandas as pd
import pytest
from conftest import draw_nebula
from PIL import Image

from nebula_utils.dataset import quality
from nebula_utils.dataset.photos import load_photos
from nebula_utils.images.reading import resize_image


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


def reasons(table):
    """Return {image_id: reason}."""
    return dict(zip(table["image_id"], table["reason"], strict=True))


def test_sound_pictures_stay(manifest):
    """Nothing of the synthetic catalogue is left out."""
    table = quality.check_quality(manifest)
    assert table.empty
    assert quality.apply_quality(manifest, table).equals(manifest)


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
    found = reasons(quality.check_quality(table))
    assert found == {
        "broken.jpg": "broken",
        "tiny.png": "tiny",
        "grey.png": "featureless",
        "chart.png": "not a photograph",
        "drawing.png": "not a photograph",
        "doubt.png": "doubtful",
    }
    assert "doubt.png" not in reasons(quality.check_quality(table, use_flags=False))


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
    found = reasons(quality.check_quality(table))
    assert found == {"grey.png": "duplicate", "bright.jpg": "duplicate"}
    assert len(quality.apply_quality(table, quality.check_quality(table))) == 57


def test_copy_under_another_class_removes_both(add):
    """One picture as dark and as emission says nothing: neither is kept."""
    image = draw_nebula("emission", np.random.default_rng(2), 200)
    add("a.png", image, label="dark", accept="dark", nebula="B 1")
    table = add("b.png", image, label="emission", accept="emission", nebula="NGC 1")
    found = reasons(quality.check_quality(table))
    assert found == {"a.png": "contradiction", "b.png": "contradiction"}
    pairs = quality.find_duplicates(table)
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
    assert quality.find_duplicates(table).empty


@pytest.mark.slow
def test_known_copies_in_the_outside_photos_are_found(shared):
    """Of the pairs marked by hand, all but one, and none across classes."""
    table = load_photos(shared / "photos")
    pairs = quality.find_duplicates(table)
    found = {frozenset(pair) for pair in pairs[["first", "second"]].to_numpy()}
    marked = table[table["flag"].str.startswith("near-duplicate of ")]
    known = {
        frozenset((row.image_id, f"photos/{row.flag.split()[-1].removesuffix('.jpg')}"))
        for row in marked.itertuples()
    }
    assert len(known) == 13
    assert len(known & found) >= 12
    assert not pairs["contradicts"].any()

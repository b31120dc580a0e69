"""Embeddings: one decode, views as asked, and a cache that is never wrong."""

import numpy as np
import pytest

from nebula_utils.features import extraction
from nebula_utils.features.extraction import FeatureCache, extract_features
from nebula_utils.features.views import Preprocessing, View

TWO_VIEWS = Preprocessing((View(64), View(64, "centre", "grey")))


class Counting:
    """Count what a backbone is asked to embed."""

    def __init__(self, backbone):
        self.backbone, self.count = backbone, 0
        self.name, self.sha256 = backbone.name, backbone.sha256
        self.n_features = backbone.n_features

    def embed(self, images):
        """Embed and count."""
        self.count += len(images)
        return self.backbone.embed(images)


@pytest.fixture
def backbone(fake_backbone):
    """Give a fake backbone that counts."""
    return Counting(fake_backbone)


def test_shapes_and_order(manifest, backbone, tmp_cache):
    """One row a picture, one column a view, in the order that was asked."""
    paths = list(manifest["path"])
    found = extract_features(paths, backbone, TWO_VIEWS)
    assert found.X.shape == (len(paths), 2, 32) and found.X.dtype == np.float32
    backwards = extract_features(paths[::-1], backbone, TWO_VIEWS)
    assert np.array_equal(backwards.X[::-1], found.X)


def test_second_run_does_no_forward_pass(manifest, backbone, tmp_cache):
    """What was embedded once is read from the cache, bit for bit."""
    first = extract_features(manifest["path"], backbone, TWO_VIEWS)
    backbone.count = 0
    again = extract_features(manifest["path"], backbone, TWO_VIEWS)
    assert backbone.count == 0
    assert np.array_equal(first.X, again.X)


def test_another_recipe_or_backbone_has_another_cache(backbone, tmp_cache):
    """No embedding is ever taken for one of other preprocessing or weights."""
    other = Counting(backbone.backbone)
    other.sha256 = "0" * 64
    folders = {
        FeatureCache(backbone, TWO_VIEWS).folder,
        FeatureCache(backbone, Preprocessing(TWO_VIEWS.views, inside=0.9)).folder,
        FeatureCache(backbone, Preprocessing()).folder,
        FeatureCache(other, TWO_VIEWS).folder,
    }
    assert len(folders) == 4


def test_unusable_files_are_named_and_left_out(manifest, backbone, tmp_cache, tmp_path):
    """A missing file and a text leave the others in their place."""
    text = tmp_path / "notes.jpg"
    text.write_text("not a picture")
    paths = [manifest["path"][0], tmp_path / "gone.png", text, manifest["path"][1]]
    found = extract_features(paths, backbone, TWO_VIEWS)
    assert found.kept.tolist() == [0, 3]
    assert set(found.failed) == {1, 2}
    assert "no such file" in found.failed[1] and "not an image" in found.failed[2]


def test_copies_of_a_file_are_embedded_once(manifest, backbone, tmp_cache):
    """The same bytes under two names cost one forward pass and give one result."""
    found = extract_features(
        [manifest["path"][0]] * 3, backbone, Preprocessing((View(64),))
    )
    assert backbone.count == 2  # one view, doubled
    assert np.array_equal(found.X[0], found.X[2])


@pytest.mark.parametrize("damage", ["flip", "cut", "text"])
def test_damaged_cache_is_computed_again(manifest, backbone, tmp_cache, damage):
    """Flipped bytes, half a file or rubbish are never used."""
    paths = list(manifest["path"][:4])
    first = extract_features(paths, backbone, TWO_VIEWS)
    part = next(FeatureCache(backbone, TWO_VIEWS).folder.glob("part-*.npz"))
    content = bytearray(part.read_bytes())
    if damage == "flip":
        # In the middle of the embeddings: the zip's own checksum is mended too.
        with np.load(part) as arrays:
            changed = dict(arrays)
        changed["X"][0, 0, 0] += 1
        np.savez(part, **changed)
    else:
        part.write_bytes(
            b"rubbish" if damage == "text" else content[: len(content) // 2]
        )
    again = extract_features(paths, backbone, TWO_VIEWS)
    assert np.array_equal(first.X, again.X)


def test_views_are_what_they_say():
    """A marker in the top-left corner is in the crop of that corner only."""
    image = np.zeros((100, 100, 3), np.uint8)
    image[:10, :10, 0] = 255
    views = Preprocessing(
        (View(32, "top_left"), View(32, "bottom_right"), View(32, "whole", "grey"))
    ).make_views(image)
    assert views[0][0, 0].tolist() == pytest.approx([1, 0, 0])
    assert views[1].max() == 0
    assert np.ptp(views[2], axis=-1).max() == pytest.approx(0, abs=1e-6)


def test_colour_steps_are_taken_in_order():
    """`red>grey` is the greyscale of the red picture."""
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    both, grey = Preprocessing(
        (View(32, colour="red>grey"), View(32, colour="grey"))
    ).make_views(image)
    np.testing.assert_allclose(both, grey, atol=1e-4)


def test_random_colours_depend_on_picture_and_copy_only():
    """The same picture gives the same copies; copies differ among each other."""
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    recipe = Preprocessing((View(32, colour="random:0"), View(32, colour="random:1")))
    first, again = recipe.make_views(image, 5), recipe.make_views(image, 5)
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


def test_full_disk_is_explained(manifest, backbone, tmp_cache, monkeypatch):
    """A cache that can't be written says so and names the way out."""
    from nebula_utils.errors import CacheError

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extraction.np, "savez", fail)
    with pytest.raises(CacheError, match="disk is full.*NEBULA_CACHE"):
        extract_features(manifest["path"][:2], backbone, TWO_VIEWS)

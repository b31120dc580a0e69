"""Embeddings: one decode, views as asked, and a cache that is never wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from nebula_utils import files
from nebula_utils.errors import CacheError
from nebula_utils.features import extraction
from nebula_utils.features.augmentation import RandomCrops
from nebula_utils.features.extraction import FeatureStore, extract_features
from nebula_utils.features.views import Preprocessing, View
from nebula_utils.images import reading

TWO_VIEWS = Preprocessing((View(64), View(64, "centre", "grey")))


class Counting:
    """Count what a backbone is asked to embed."""

    def __init__(self, backbone):
        self.backbone, self.count = backbone, 0
        self.name, self.sha256 = backbone.name, backbone.sha256
        self.n_features = backbone.n_features

    def fork(self):
        """Count for all threads."""
        return self

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


def test_a_view_is_embedded_once_whatever_others_are_asked(
    manifest, backbone, tmp_cache
):
    """Only the views that are new cost a forward pass."""
    paths = list(manifest["path"])
    both = extract_features(paths, backbone, TWO_VIEWS)
    backbone.count = 0
    more = (*TWO_VIEWS.views[::-1], View(64, "top_left"))
    found = extract_features(paths, backbone, Preprocessing(more))
    assert backbone.count == len(paths)
    assert np.array_equal(found.X[:, :2], both.X[:, ::-1])


def test_a_view_may_be_asked_for_twice(manifest, backbone, tmp_cache):
    """It is embedded once, and stands in both places."""
    views = Preprocessing((*TWO_VIEWS.views, TWO_VIEWS.views[0]))
    found = extract_features([manifest["path"][0]], backbone, views)
    assert backbone.count == 2
    assert np.array_equal(found.X[:, 0], found.X[:, 2])


def _find_folder(backbone, views):
    return Path(FeatureStore(extraction._make_parts(backbone, views)).folder)


def test_whatever_decides_an_embedding_is_in_its_key(backbone, tmp_cache, monkeypatch):
    """Weights, engine, border, decoded size and code: each has its own folder."""
    other = Counting(backbone.backbone)
    other.sha256 = "0" * 64
    large = Preprocessing((View(600),))
    folders = {
        _find_folder(backbone, TWO_VIEWS),
        _find_folder(backbone, Preprocessing(TWO_VIEWS.views, zoom=0.9)),
        _find_folder(backbone, Preprocessing(TWO_VIEWS.views, trim=True)),
        _find_folder(backbone, large),
        _find_folder(backbone, RandomCrops(2)),
        _find_folder(backbone, RandomCrops(3)),
        _find_folder(other, TWO_VIEWS),
    }
    monkeypatch.setattr(files, "_hash_code", lambda file: f"edited {file}")
    folders |= {
        _find_folder(backbone, TWO_VIEWS),
        _find_folder(backbone, RandomCrops(2)),
    }
    assert len(folders) == 9
    assert _find_folder(backbone, TWO_VIEWS) == _find_folder(backbone, Preprocessing())


def test_unusable_files_are_named_and_left_out(
    manifest, backbone, tmp_cache, tmp_path, monkeypatch
):
    """A missing file and a text leave the others in their place."""
    text = tmp_path / "notes.jpg"
    text.write_text("not a picture")
    paths = [manifest["path"][0], tmp_path / "gone.png", text, manifest["path"][1]]
    found = extract_features(paths, backbone, TWO_VIEWS)
    assert found.kept.tolist() == [0, 3]
    assert set(found.failed) == {1, 2}
    assert "no such file" in found.failed[1] and "not an image" in found.failed[2]
    monkeypatch.setattr(reading, "read_image", None)  # not decoded again
    assert extract_features(paths, backbone, TWO_VIEWS).failed == found.failed


def test_copies_of_a_file_are_embedded_once(manifest, backbone, tmp_cache):
    """The same bytes under two names cost one forward pass and give one result."""
    found = extract_features(
        [manifest["path"][0]] * 3, backbone, Preprocessing((View(64),))
    )
    assert backbone.count == 1
    assert np.array_equal(found.X[0], found.X[2])


@pytest.mark.parametrize("damage", ["flip", "cut", "text"])
def test_a_damaged_shard_is_computed_again(manifest, backbone, tmp_cache, damage):
    """A flipped bit, half a file or rubbish are never used."""
    paths = list(manifest["path"][:4])
    first = extract_features(paths, backbone, TWO_VIEWS)
    (shard,) = _find_folder(backbone, TWO_VIEWS).glob("shard-*.npz")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"flip": content, "cut": content[: len(content) // 2], "text": b"rubbish"}
    shard.write_bytes(damaged[damage])
    again = extract_features(paths, backbone, TWO_VIEWS)
    assert np.array_equal(first.X, again.X)


def test_another_file_under_the_same_name(manifest, backbone, tmp_cache, tmp_path):
    """A picture that was replaced is embedded anew, in one process too."""
    path = tmp_path / "a.png"
    shutil.copyfile(manifest["path"][0], path)
    first = extract_features([path], backbone, TWO_VIEWS)
    shutil.copyfile(manifest["path"][9], path)
    assert not np.array_equal(first.X, extract_features([path], backbone, TWO_VIEWS).X)


def test_full_disk_is_explained(manifest, backbone, tmp_cache, monkeypatch):
    """A cache that can't be written says so and names the way out."""

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(CacheError, match="disk is full.*NEBULA_CACHE"):
        extract_features(manifest["path"][:2], backbone, TWO_VIEWS)

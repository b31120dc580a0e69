"""Fine-tuning resumes to the bit, and gives a backbone like any other."""

import errno
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from nebula_utils.dataset.manifest import Dataset, make_dataset
from nebula_utils.errors import BackboneError, CacheError
from nebula_utils.features.backbone import load_backbone
from nebula_utils.features.engines import load_module
from nebula_utils.features.weights import export_feature_vector
from nebula_utils.training import batches, finetune, load_head

CHANNELS = (8, 8, 16, 16, 16, 16, 32, 32, 32, 32, 32, 32, 64, 64)
TINY = {"steps": 6, "batch_size": 4, "size": 32}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train two blocks, keep every second step, simulate no dust."""
    monkeypatch.setattr(finetune, "FIRST_BLOCK", 12)
    monkeypatch.setattr(finetune, "CHECKPOINT_STEPS", 2)
    monkeypatch.setattr(batches, "DUSTY", {})


def make_weights() -> finetune.Weights:
    """Draw a MobileNet v1 of an eighth of the channels."""
    rng = np.random.default_rng(5)

    def draw(*shape: int) -> tuple[np.ndarray, np.ndarray]:
        scale = np.sqrt(2 / np.prod(shape[:3] if shape[3] > 1 else shape[:2]))
        kernel = rng.normal(0, scale, shape).astype(np.float32)
        return kernel, np.full(shape[3] if shape[3] > 1 else shape[2], 0.1, "f4")

    weights = [draw(3, 3, 3, CHANNELS[0])]
    for before, after in zip(CHANNELS, CHANNELS[1:], strict=False):
        weights += [draw(3, 3, before, 1), draw(1, 1, before, after)]
    return weights


@pytest.fixture(scope="module")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the SavedModel folder of a small network."""
    folder = tmp_path_factory.mktemp("tiny") / "network"
    export_feature_vector(make_weights(), folder)
    return str(folder)


@pytest.fixture(scope="module")
def dataset(manifest: pd.DataFrame) -> Dataset:
    """Four nebulae of each of three classes."""
    kept = manifest[manifest["label"].isin(["dark", "emission", "other"])]
    kept = kept.assign(group=kept["nebula"], palette="mixed")
    return make_dataset(kept, ("dark", "emission", "other"), 1)


def test_output_is_a_backbone_with_its_head(
    tmp_cache: Path, tmp_path: Path, dataset: Dataset, tiny_backbone: str
) -> None:
    """TF-Hub and LiteRT load what comes out, and its early blocks are the old ones."""
    folder = finetune.fine_tune(
        dataset, tiny_backbone, **TINY, log_dir=tmp_path / "logs"
    )
    assert list(tmp_path.glob("logs/events*"))
    assert not list(tmp_cache.glob("fine-tuning/*.npz"))
    module, start = load_module(folder), load_module(Path(tiny_backbone))
    images = np.random.default_rng(0).random((3, 64, 64, 3), np.float32)
    X = module(images).numpy()
    assert X.shape == (3, 64) and not np.allclose(X, start(images))
    pairs = zip(module.weights, start.weights, strict=True)
    changed = [not np.array_equal(new[0].numpy(), old[0].numpy()) for new, old in pairs]
    assert changed == [False] * 23 + [True] * 4
    tuned = load_backbone(str(folder))
    np.testing.assert_allclose(tuned.embed(images), X, atol=1e-4)
    assert tuned.sha256 != load_backbone(tiny_backbone).sha256
    head = load_head(folder / finetune.HEAD)
    assert tuple(head.classes_) == dataset.class_names
    assert head.predict_proba(X).shape == (3, 3) and np.any(head.coef_)


def test_interrupted_training_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Dataset, tiny_backbone
) -> None:
    """Ctrl-C costs the steps since the last checkpoint, and changes no bit."""
    seen: list[int] = []
    real = batches.draw_batch

    def draw(*given: int) -> batches.Batch:
        seen.append(given[-1])
        if len(seen) == 5:
            raise KeyboardInterrupt
        return real(*given)

    found = []
    for cache in ("whole", "interrupted"):
        monkeypatch.setenv("NEBULA_CACHE", str(tmp_path / cache))
        if cache == "interrupted":
            monkeypatch.setattr(batches, "draw_batch", draw)
            with pytest.raises(KeyboardInterrupt):
                finetune.fine_tune(dataset, tiny_backbone, **TINY)
            assert len(list((tmp_path / cache).glob("fine-tuning/*.npz"))) == 1
        folder = finetune.fine_tune(dataset, tiny_backbone, **TINY)
        assert finetune.fine_tune(dataset, tiny_backbone, **TINY) == folder
        files = [*folder.glob("variables/*"), folder / finetune.HEAD]
        found.append({file.name: file.read_bytes() for file in files})
    assert found[0] == found[1]
    assert seen == [0, 1, 2, 3, 4, 4, 5, 6]  # each is drawn while one before is used


def test_other_input_is_fine_tuned_anew(
    tmp_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    dataset: Dataset,
    tiny_backbone: str,
) -> None:
    """Labels, seed and precision name the result."""
    monkeypatch.setattr(finetune, "write_whole_folder", lambda folder, export: None)

    def find(dataset: Dataset = dataset, **changes: int) -> Path:
        return finetune.fine_tune(dataset, tiny_backbone, **TINY, **changes)

    swapped = dataset.manifest.assign(label=dataset.manifest["label"].to_numpy()[::-1])
    other = find(Dataset(swapped, dataset.class_names, {}, dataset.held_out))
    first = find()
    assert first == find()
    monkeypatch.setattr(finetune, "find_precision", lambda: "float64")
    assert len({first, other, find(), find(random_state=1)}) == 4


def test_training_learns(monkeypatch: pytest.MonkeyPatch, dataset: Dataset) -> None:
    """A few pictures that are shown again and again are told apart."""
    monkeypatch.setattr(finetune, "FIRST_BLOCK", 6)
    monkeypatch.setattr(finetune, "LEARNING_RATE", 1e-2)
    monkeypatch.setattr(finetune, "WARM_UP", 1)
    pool = batches.make_pool(dataset)
    model = finetune.make_model(make_weights(), 3, 1000, 0, "float32")
    drawn = batches.draw_batch(pool, 8, 32, 0, 0)
    first = model.train_on_batch(*drawn)
    assert first[0] == pytest.approx(np.log(3), abs=1e-3)
    for _ in range(60):
        model.reset_metrics()
        last = model.train_on_batch(*drawn)
    assert last[1] > 0.8


def test_trained_network_is_the_exported_one(tiny_backbone: str) -> None:
    """What is trained computes what is exported, and in bfloat16 nearly so."""
    import keras

    images = np.random.default_rng(1).random((2, 64, 64, 3), np.float32)
    expected = load_module(Path(tiny_backbone))(images).numpy()
    for precision, tolerance in (("float32", 1e-4), ("bfloat16", 0.2)):
        model = finetune.make_model(make_weights(), 3, 1, 0, precision)
        vector = keras.Model(model.input, model.layers[-2].input)(images)
        np.testing.assert_allclose(np.array(vector), expected, atol=tolerance)


def test_pool_draws_every_class_and_dust(
    monkeypatch: pytest.MonkeyPatch, dataset: Dataset
) -> None:
    """Each type is drawn as often, with dust before emission nebulae; equal by seed."""
    monkeypatch.setattr(batches, "DUSTY", {"emission": (2, 0.5)})
    pool = batches.make_pool(dataset)
    assert len(pool.pictures) == len(pool.y) == 24 + 2 * 8
    assert (pool.y[24:] == dataset.class_names.index("dark")).all()
    assert pool.share[24:].sum() / pool.share[pool.y == 0].sum() == pytest.approx(1 / 3)
    shares = [pool.share[pool.y == label].sum() for label in range(3)]
    expected = [1, 1, batches.OTHER_SHARE]
    np.testing.assert_allclose(np.array(shares) / shares[0], expected)
    (first, y), (again, _), (other, _) = (
        batches.draw_batch(pool, 8, 48, 0, i) for i in (3, 3, 4)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.shape == (8, 48, 48, 3) and first.min() >= 0 and first.max() <= 1
    assert y.shape == (8, 3) and (y.sum(1) == 1).all()


def test_what_cannot_be_done_is_said(
    tmp_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    dataset: Dataset,
    tiny_backbone: str,
) -> None:
    """A full disk and a network of another kind are plain errors, before any work."""
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch, pytest.raises(CacheError, match="is full"):
        patch.setattr(finetune.np, "savez", Mock(side_effect=full))
        patch.setattr(finetune.batches, "make_pool", Mock(side_effect=AssertionError))
        finetune.fine_tune(dataset, tiny_backbone, **TINY)
    monkeypatch.setattr(finetune, "load_module", lambda folder: object())
    with pytest.raises(BackboneError, match="can't be fine-tuned"):
        finetune.fine_tune(dataset, tiny_backbone, **TINY)

"""Fine-tuning resumes to the bit, and gives a backbone like any other."""

import errno
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from nebula_utils.dataset.manifest import Dataset, make_dataset
from nebula_utils.errors import BackboneError, CacheError, ModelError
from nebula_utils.features.backbone import load_backbone
from nebula_utils.features.weights import export_feature_vector, load_module
from nebula_utils.training import batches, finetune
from nebula_utils.training.network import TrainableNetwork, Weights

CHANNELS = (8, 8, 16, 16, 16, 16, 32, 32, 32, 32, 32, 32, 64, 64)
TINY = finetune.FineTuning(
    steps=6, batch_size=4, size=32, first_block=12, dust=False, interval=2
)


def make_weights() -> Weights:
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
    return make_dataset(kept, ("dark", "emission", "other"), 1, ())


@pytest.fixture(scope="module")
def tuned_folder(
    tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, tiny_backbone: str
) -> Path:
    """Fine-tune without interruption, in a cache of its own."""
    place = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEBULA_CACHE", str(place))
        folder = finetune.fine_tune(dataset, tiny_backbone, TINY, place / "logs")
    assert list(place.glob("logs/events*"))
    assert not list(place.glob("fine-tuning/*.npz"))
    return folder


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the weights' and the head's bytes."""
    files = [*folder.glob("variables/*"), folder / finetune.HEAD]
    return {file.name: file.read_bytes() for file in files}


def test_output_is_a_backbone_with_its_head(
    tmp_cache: Path, dataset: Dataset, tiny_backbone: str, tuned_folder: Path
) -> None:
    """TF-Hub and LiteRT load what comes out, and its early blocks are the old ones."""
    module, start = load_module(tuned_folder), load_module(Path(tiny_backbone))
    images = np.random.default_rng(0).random((3, 64, 64, 3), np.float32)
    X = module(images).numpy()
    assert X.shape == (3, 64) and not np.allclose(X, start(images))
    pairs = zip(module.weights, start.weights, strict=True)
    changed = [not np.array_equal(new[0].numpy(), old[0].numpy()) for new, old in pairs]
    assert changed == [False] * 23 + [True] * 4
    tuned = load_backbone(str(tuned_folder))
    np.testing.assert_allclose(tuned.embed(images), X, atol=1e-4)
    assert tuned.sha256 != load_backbone(tiny_backbone).sha256
    y_proba = finetune.predict_fine_tuned(tuned_folder, dataset.manifest["path"])
    assert y_proba.shape == (2, len(dataset.y), 3)
    np.testing.assert_allclose(y_proba.sum(-1), 1, atol=1e-5)


def test_interrupted_training_ends_in_the_same_bytes(
    tmp_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    dataset: Dataset,
    tiny_backbone: str,
    tuned_folder: Path,
) -> None:
    """Ctrl-C costs the steps since the last checkpoint, and changes no bit."""
    seen: list[int] = []
    real = TrainableNetwork.step

    def step(self: TrainableNetwork, *given: object) -> tuple[float, float]:
        seen.append(given[-1])  # type: ignore[arg-type]
        if len(seen) == 6:
            raise KeyboardInterrupt
        return real(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainableNetwork, "step", step)
    with pytest.raises(KeyboardInterrupt):
        finetune.fine_tune(dataset, tiny_backbone, TINY)
    folder = finetune.fine_tune(dataset, tiny_backbone, TINY)
    assert finetune.fine_tune(dataset, tiny_backbone, TINY) == folder
    assert seen == [0, 1, 2, 3, 4, 5, 4, 5]
    assert read_folder(folder) == read_folder(tuned_folder)


def test_other_input_is_fine_tuned_anew(
    tmp_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    dataset: Dataset,
    tiny_backbone: str,
) -> None:
    """Labels, seed and precision name the result; how often it is kept does not."""
    monkeypatch.setattr(finetune, "write_whole_folder", lambda folder, export: None)

    def find(dataset: Dataset = dataset, **changes: object) -> Path:
        return finetune.fine_tune(dataset, tiny_backbone, replace(TINY, **changes))

    swapped = dataset.manifest.assign(label=dataset.manifest["label"].to_numpy()[::-1])
    other = find(Dataset(swapped, dataset.class_names, {}, dataset.held_out))
    first = find()
    assert first == find(interval=3)
    monkeypatch.setattr(finetune, "find_precision", lambda: "float64")
    assert len({first, other, find(), find(random_state=1)}) == 4


def test_cross_validation_never_asks_about_what_it_saw(
    monkeypatch: pytest.MonkeyPatch, dataset: Dataset
) -> None:
    """Each fold's network is trained without the nebulae that it is asked about."""
    trained: list[set[str]] = []

    def learn(given: Dataset, *others: object) -> Path:
        trained.append(set(given.manifest["path"]))
        return Path("anywhere")

    def ask(folder: Path, paths: list[str]) -> np.ndarray:
        assert trained[-1].isdisjoint(paths)
        assert len(trained[-1]) + len(paths) == len(dataset.y)
        return np.full((2, len(paths), 3), 1 / 3)

    monkeypatch.setattr(finetune, "fine_tune", learn)
    monkeypatch.setattr(finetune, "predict_fine_tuned", ask)
    assert np.isfinite(finetune.cross_validate_fine_tuned(dataset, 4)).all()
    assert len(trained) == 4


def test_training_learns(dataset: Dataset) -> None:
    """A few pictures that are shown again and again are told apart."""
    pool = batches.make_pool(dataset, dust=False)
    network = TrainableNetwork(make_weights(), 3, 6, "float32")
    drawn = batches.draw_batch(pool, 8, 32, 0, 0)
    steps = [network.step(*drawn, 1e-2, number) for number in range(60)]
    assert steps[0][0] == pytest.approx(np.log(3), abs=1e-3)
    assert np.mean(steps[-10:], axis=0)[1] > 0.9


def test_trained_network_is_the_exported_one(tiny_backbone: str) -> None:
    """What is trained computes what is exported, and in bfloat16 nearly so."""
    images = np.random.default_rng(1).random((2, 64, 64, 3), np.float32)
    expected = load_module(Path(tiny_backbone))(images).numpy()
    for precision, tolerance in (("float32", 1e-4), ("bfloat16", 0.2)):
        network = TrainableNetwork(make_weights(), 3, 6, precision)
        np.testing.assert_allclose(network.embed(images), expected, atol=tolerance)


def test_pool_draws_every_class_and_dust(
    monkeypatch: pytest.MonkeyPatch, dataset: Dataset
) -> None:
    """Each type is drawn as often, with dust before emission nebulae; equal by seed."""
    monkeypatch.setattr(batches, "DUSTY", {"emission": 1})
    pool = batches.make_pool(dataset)
    assert len(pool.pictures) == len(pool.y) == 24 + 2 * 8
    shares = [pool.share[pool.y == label].sum() for label in range(3)]
    expected = [1, 1, batches.OTHER_SHARE]
    np.testing.assert_allclose(np.array(shares) / shares[0], expected)
    first, again, next_one = (batches.draw_batch(pool, 8, 48, 0, i) for i in (3, 3, 4))
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, next_one.images)
    assert first.images.shape == (8, 48, 48, 3) and first.images.min() >= 0


def test_what_cannot_be_done_is_said(
    tmp_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dataset: Dataset,
    tiny_backbone: str,
) -> None:
    """A full disk and a network of another kind are plain errors, before any work."""
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch, pytest.raises(CacheError, match="is full"):
        patch.setattr(finetune.np, "savez", Mock(side_effect=full))
        patch.setattr(finetune.batches, "make_pool", Mock(side_effect=AssertionError))
        finetune.fine_tune(dataset, tiny_backbone, TINY)
    monkeypatch.setattr(finetune, "load_module", lambda folder: object())
    with pytest.raises(BackboneError, match="can't be fine-tuned"):
        finetune.fine_tune(dataset, tiny_backbone, TINY)
    with pytest.raises(ModelError):
        finetune.load_fine_tuned_head(tmp_path)

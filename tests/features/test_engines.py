"""LiteRT answers as TensorFlow does, and so does a classifier once exported."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nebula_utils.classifier.classifier import Classifier, load_classifier
from nebula_utils.config import CLASS_NAMES
from nebula_utils.errors import ModelError
from nebula_utils.features.engines import LiteBackbone
from nebula_utils.features.views import View
from nebula_utils.training.heads import Head


def test_a_missing_or_damaged_model_file(tmp_path: Path) -> None:
    """The message says which file, and to run `make reproduce`."""
    path = tmp_path / "backbone.tflite"
    with pytest.raises(ModelError, match=r"backbone\.tflite.*make reproduce"):
        LiteBackbone(path, "0" * 64, 4)
    path.write_bytes(b"TFL3 but not really")
    with pytest.raises(ModelError, match="damaged"):
        LiteBackbone(path, "0" * 64, 4)


@pytest.fixture(scope="module")
def backbone():
    """Give the real default backbone, or skip."""
    from nebula_utils.errors import NebulaError
    from nebula_utils.features.backbone import load_backbone

    try:
        return load_backbone()
    except NebulaError as error:
        pytest.skip(f"needs the default weights: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("size", [224, 160])
def test_litert_agrees_with_tensorflow(backbone, tmp_path: Path, size: int) -> None:
    """Embeddings differ by less than 1e-3, feature maps too, at two sizes."""
    from nebula_utils.features.engines import export_lite

    path = tmp_path / "backbone.tflite"
    export_lite(backbone, path)
    lite = LiteBackbone(path, backbone.sha256, backbone.n_features)
    rng = np.random.default_rng(0)
    pictures = rng.random((3, size, size, 3), dtype=np.float32)
    assert np.abs(lite.embed(pictures) - backbone.embed(pictures)).max() < 1e-3
    maps = lite.embed_with_map(pictures[:1])[1]
    assert maps.shape[1] == size // 32
    assert np.abs(maps - backbone.compute_feature_map(pictures[:1])).max() < 1e-3


@pytest.mark.slow
def test_export_and_load_give_equal_answers(
    backbone, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    """What `nebula classify` loads answers as the classifier that was exported."""
    from nebula_utils.dataset.manifest import make_dataset
    from nebula_utils.training.export import export_classifier

    n_classes = len(CLASS_NAMES)
    dataset = make_dataset(
        manifest.assign(group=manifest["nebula"], palette="red"), min_nebulae=1
    )
    rng = np.random.default_rng(1)
    coef = rng.normal(0, 0.3, (backbone.n_features, n_classes)).astype(np.float32)
    head = Head(CLASS_NAMES, coef, np.zeros(n_classes, np.float32))
    views = (View(), View(colour="grey"))
    X = rng.random((len(manifest), backbone.n_features), dtype=np.float32)
    export_classifier(
        tmp_path, head, backbone, views, ("grey", "blue"), 0.2, dataset, X, {}
    )
    path = Path(manifest["path"].iloc[0])
    loaded = load_classifier(tmp_path)
    mine = Classifier(head, backbone, views, ("grey", "blue"), 0.2).classify(path)
    theirs = loaded.classify(path)
    for name in CLASS_NAMES:
        for strip in ("grey", "blue"):
            difference = (
                mine.counterfactuals[strip][name] - theirs.counterfactuals[strip][name]
            )
            assert abs(difference) < 1e-3
        assert abs(mine.probabilities[name] - theirs.probabilities[name]) < 1e-3
    assert mine.label == theirs.label and mine.activation.shape == (7, 7)
    assert np.abs(mine.activation - theirs.activation).max() < 1e-2
    assert len(theirs.neighbours) == 4
    assert set(loaded.examples["label"]) == set(CLASS_NAMES)
    assert not list(tmp_path.glob("*.pkl")) and (tmp_path / "labels.txt").is_file()

"""A whole classifier but for its network, which is a small matrix."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nebula_utils.classifier.classifier import Certainty, Classifier
from nebula_utils.config import CLASS_NAMES
from nebula_utils.features.views import View
from nebula_utils.training.heads import make_linear_head

if TYPE_CHECKING:
    from nebula_utils.features.backbone import Backbone

STRIP = ("grey", "red")
VIEWS = (View(32), View(32, colour="grey"))
SURE = Certainty(0.5, 0.6, 0.9, "pictures by other photographers")


class MapBackbone:
    """A feature map of 4 × 4 cells: each cell's mean colour, times a fixed matrix."""

    name, sha256, n_features = "map", "0" * 64, 8

    def __init__(self) -> None:
        self.weights = np.random.default_rng(3).normal(size=(3, 8)).astype(np.float32)
        self.n_seen = 0

    def embed_with_map(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map float32 (n, h, w, 3) to (n, 8) and (n, 4, 4, 8)."""
        self.n_seen += len(images)
        n, side = len(images), images.shape[1] // 4
        cells = images.reshape(n, 4, side, 4, side, 3).mean((2, 4))
        maps = (cells @ self.weights).astype(np.float32)
        return maps.mean((1, 2)), maps

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Average the feature map."""
        return self.embed_with_map(images)[0]


def make_classifier() -> Classifier:
    """Build one with a random head and one picture to try."""
    rng = np.random.default_rng(5)
    coef = rng.normal(size=(8, len(CLASS_NAMES))).astype(np.float32)
    head = make_linear_head(CLASS_NAMES, coef, np.zeros(len(CLASS_NAMES), np.float32))
    examples = {
        "pictures": rng.integers(0, 255, (1, 64, 64, 3), dtype=np.uint8),
        "trained": np.array([False]),
        "nebula": np.array(["LDN 1622"]),
        "label": np.array(["dark"]),
        "credit": np.array(["Jane Doe"]),
        "licence": np.array(["CC BY 4.0"]),
    }
    return Classifier(head, MapBackbone(), VIEWS, STRIP, 0.2, SURE, examples=examples)


def make_tiny_backbone(folder: Path) -> "Backbone":
    """Convert a network of one convolution for LiteRT, with a feature map."""
    from nebula_utils.features.backbone import load_backbone
    from nebula_utils.features.engines import import_tensorflow

    tf = import_tensorflow()
    pictures = tf.TensorSpec([None, None, None, 3])

    class Tiny(tf.Module):
        def __init__(self) -> None:
            self.kernel = tf.random.stateless_normal([4, 4, 3, 8], [1, 2])

        @tf.function(input_signature=[pictures])
        def vector_and_map(self, images):
            cells = tf.nn.conv2d(images, self.kernel, 4, "SAME")
            return {"vector": tf.reduce_mean(cells, [1, 2]), "map": cells}

        @tf.function(input_signature=[pictures])
        def __call__(self, images):
            return self.vector_and_map(images)["vector"]

    tf.saved_model.save(Tiny(), str(folder))
    return load_backbone(str(folder))


def export_tiny(folder: Path, manifest: pd.DataFrame) -> None:
    """Export a classifier whose network has one convolution, for LiteRT and all."""
    from nebula_utils.dataset.manifest import make_dataset
    from nebula_utils.training.export import export_classifier
    from nebula_utils.training.study import BALANCED, run_study

    rows = manifest.assign(group=manifest["nebula"], palette="red")
    with tempfile.TemporaryDirectory() as place:
        study = run_study(
            make_dataset(rows, min_nebulae=1),
            make_tiny_backbone(Path(place)),
            replace(BALANCED, views=VIEWS),
            (3, 1, 0),
            STRIP,
            framings=(),
            random_split=False,
        )
        export_classifier(folder, study, study.score(), {})

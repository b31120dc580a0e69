"""A whole classifier but for its network, which is a small matrix: no TensorFlow."""

import numpy as np

from nebula_utils.classifier import Classifier
from nebula_utils.config import CLASS_NAMES
from nebula_utils.features import View
from nebula_utils.heads import Head

STRIP = ("grey", "red")


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
    head = Head(CLASS_NAMES, coef, np.zeros(len(CLASS_NAMES), np.float32))
    examples = {
        "pictures": rng.integers(0, 255, (1, 64, 64, 3), dtype=np.uint8),
        "trained": np.array([False]),
        "nebula": np.array(["LDN 1622"]),
        "label": np.array(["dark"]),
        "credit": np.array(["Jane Doe"]),
        "licence": np.array(["CC BY 4.0"]),
    }
    views = (View(32), View(32, colour="grey"))
    return Classifier(head, MapBackbone(), views, STRIP, 0.2, examples=examples)

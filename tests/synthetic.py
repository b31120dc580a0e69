"""Synthetic pictures and a fast network, where real ones would take too long."""

import hashlib

import numpy as np

SEED = 7
TINTS = {  # the mean colour of each synthetic class, RGB 0–1
    "dark": (0.25, 0.2, 0.15),
    "emission": (0.7, 0.2, 0.25),
    "reflection": (0.2, 0.35, 0.75),
    "planetary": (0.2, 0.7, 0.6),
    "protoplanetary": (0.7, 0.6, 0.3),
    "supernova_remnant": (0.6, 0.3, 0.7),
    "other": (0.6, 0.6, 0.6),
}


class FakeBackbone:
    """Stand in for a TF-Hub module: a fixed random projection of 8 × 8 pixels."""

    name = "fake"
    n_features = 32

    def __init__(self) -> None:
        rng = np.random.default_rng(SEED)
        self.weights = rng.normal(size=(192, self.n_features)).astype(np.float32)
        self.sha256 = hashlib.sha256(self.weights.tobytes()).hexdigest()

    def fork(self) -> "FakeBackbone":
        """Serve all threads."""
        return self

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Map float32 (n, h, w, 3) in [0, 1] to float32 (n, n_features)."""
        n, height, width, _ = images.shape
        rows, columns = height // 8 * 8, width // 8 * 8
        blocks = images[:, :rows, :columns].reshape(n, 8, rows // 8, 8, columns // 8, 3)
        pooled = blocks.mean((2, 4), dtype=np.float32).reshape(n, 192)
        # Row by row: a product of many rows has other last bits.
        return np.stack([row @ self.weights for row in pooled])


def draw_nebula(label: str, rng: np.random.Generator, side: int = 96) -> np.ndarray:
    """Draw a cloud with stars in the class's colour: uint8 (side, side, 3)."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    centre_x, centre_y = rng.uniform(-0.2, 0.2, 2)
    width = rng.uniform(0.15, 0.35)
    cloud = np.exp(-((x - centre_x) ** 2 + (y - centre_y) ** 2) / width**2)
    if label == "dark":
        cloud = 1 - cloud
    image = cloud[..., None] * np.array(TINTS[label])
    image += rng.normal(0, 0.03, image.shape)
    stars = rng.integers(0, side, (2, 30))
    image[stars[0], stars[1]] += rng.uniform(0.3, 0.9, (30, 1))
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)

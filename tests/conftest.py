"""What the tests share: a tiny synthetic catalogue, a fake backbone, real folders."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nebula_utils.config import CLASS_NAMES, OTHER, REPOSITORY

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


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Seven classes × 4 nebulae × 2 photos, drawn as PNG files."""
    folder = tmp_path_factory.mktemp("synthetic")
    rng = np.random.default_rng(SEED)
    rows = []
    for k, label in enumerate(CLASS_NAMES):
        for n in range(4):
            for photo in (1, 2):
                name = f"{label}/sim_{label}_{n}-{photo}"
                path = folder / f"{name}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(draw_nebula(label, rng)).save(path)
                rows.append(
                    {
                        "image_id": f"photos/{name}",
                        "path": str(path),
                        "source": "photos",
                        "nebula": f"Sim {label} {n}",
                        "label": label,
                        "accept": label,
                        "other_kind": "galaxy" if label == OTHER else "",
                        "ra_deg": 40.0 * k + 5.0 * n,
                        "dec_deg": 10.0 * n - 20.0,
                        "size_arcmin": 10.0,
                        "credit": "drawn by the tests",
                        "licence": "CC0",
                        "flag": "",
                    }
                )
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def synthetic_folder(manifest: pd.DataFrame) -> Path:
    """Folder of class folders that the pictures of ``manifest`` lie in."""
    return Path(manifest["path"].iloc[0]).parent.parent


@pytest.fixture(scope="session")
def fake_backbone() -> FakeBackbone:
    """Give a fast deterministic backbone with the real one's attributes."""
    return FakeBackbone()


@pytest.fixture
def tmp_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point NEBULA_CACHE to an empty folder."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("NEBULA_CACHE", str(cache))
    return cache


@pytest.fixture(scope="session")
def shared() -> Path:
    """Give the folder of outside data beside the repository, or skip."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "photos").is_dir():
        pytest.skip("needs the outside photos in ../shared/photos")
    return folder


@pytest.fixture(scope="session")
def textures() -> Path:
    """Give the folder of Stellarium's real textures, fetched if needed, or skip."""
    stellarium = pytest.importorskip("nebula_utils.dataset.stellarium")
    from nebula_utils.errors import NebulaError

    try:
        return Path(stellarium.fetch_textures())
    except NebulaError as error:
        pytest.skip(f"needs Stellarium's textures: {error}")

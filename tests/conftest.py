"""What the tests share: a tiny synthetic catalogue, a fake backbone, real folders."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from synthetic import SEED, FakeBackbone, draw_nebula

from nebula_utils.config import CLASS_NAMES, OTHER, REPOSITORY


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

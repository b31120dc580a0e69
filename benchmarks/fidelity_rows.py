"""Rows about embeddings: what reduced decoding and bfloat16 change in them."""

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from measuring import Options, Row, judge
from PIL import Image
from tqdm import tqdm

from nebula_utils.config import IMAGE_SIZE
from nebula_utils.dataset.stellarium import load_stellarium
from nebula_utils.features.backbone import FAST_BACKBONE, load_backbone
from nebula_utils.features.engines import load_extractor
from nebula_utils.features.extraction import Extractor, embed_views
from nebula_utils.features.views import Preprocessing
from nebula_utils.images import reading

N_PICTURES = 96
SIDE = 1600  # px, longer side of the JPEGs
QUALITY = 90
GOALS = (0.999, 0.99)  # of the median and of the worst cosine


def write_large(folder: Path) -> list[Path]:
    """Write some of the default pictures as large JPEGs, in even steps of the list."""
    folder.mkdir()
    table = load_stellarium()["path"]
    chosen = np.linspace(0, len(table) - 1, min(N_PICTURES, len(table))).astype(int)
    paths = []
    for i, source in enumerate(tqdm(table.iloc[chosen], "textures", disable=None)):
        picture = Image.fromarray(reading.read_image(Path(source)))
        scale = SIDE / max(picture.size)
        size = tuple(round(side * scale) for side in picture.size)
        path = folder / f"{i:03d}.jpg"
        picture.resize(size, Image.Resampling.BICUBIC).save(path, quality=QUALITY)
        paths.append(path)
    return paths


def make_full(path: Path) -> np.ndarray:
    """Decode in full; the rest as `features` does it."""
    return Preprocessing().make_views(reading.read_image(path))[0]


def make_antialiased(path: Path) -> np.ndarray:
    """Decode in full and resize with Pillow's antialiased bilinear filter."""
    square = Image.fromarray(reading.centre_crop(reading.read_image(path)))
    small = square.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    return reading.to_float(np.asarray(small))


def make_reduced(path: Path) -> np.ndarray:
    """Decode at reduced size, as `features` does."""
    recipe = Preprocessing()
    return recipe.make_views(reading.read_image(path, recipe.min_side))[0]


def embed(
    paths: list[Path], prepare: Callable[[Path], np.ndarray], network: Extractor
) -> np.ndarray:
    """Return the embeddings of the pictures as they are prepared."""
    return embed_views([[prepare(path)] for path in paths], network)[:, 0]


def compute_cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine between each pair of rows."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(1) / lengths


def measure(options: Options, names: Collection[str]) -> list[Row]:
    """Measure the cosines; nothing is timed here."""
    paths = write_large(options.scratch / "large")
    network, fast = load_extractor(), load_backbone(FAST_BACKBONE)
    reduced = embed(paths, make_reduced, network)
    antialiased = compute_cosines(reduced, embed(paths, make_antialiased, network))
    same = compute_cosines(reduced, embed(paths, make_full, network))
    bfloat16 = compute_cosines(reduced, embed(paths, make_reduced, fast))
    n, full = f"{len(paths)} pictures", "full decoding"
    work = f"reduced decoding of {n}"
    return [
        *judge_cosines(work, f"{full}, antialiased resizing", antialiased, GOALS),
        *judge_cosines(work, f"{full}, our resizing", same),
        *judge_cosines(f"bfloat16 (an option) on {n}", "float32", bfloat16),
    ]


def judge_cosines(
    work: str,
    baseline: str,
    cosines: np.ndarray,
    goals: tuple[float | None, float | None] = (None, None),
) -> list[Row]:
    """Return the rows of the median and of the worst cosine."""
    found = {"median": np.median(cosines), "worst": cosines.min()}
    return [
        judge(f"{work}: {name} cosine", baseline, lambda v=value: v, goal, "", 5)
        for (name, value), goal in zip(found.items(), goals, strict=True)
    ]

"""Make pictures to measure with: clouds with stars, 2 megapixels, no two alike."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

WIDTH, HEIGHT = 1632, 1224  # px
# Rows of cells in the cloud, from and to: one class tends to larger structures.
CLASSES = {"dark": (4, 11), "emission": (7, 14)}
STARS = 4000
QUALITY = 90
N_FIELDS = 4  # fields of noise, which pictures share, each shifted differently


def make_jpeg() -> bytes:
    """Return a 2-megapixel JPEG: a cloud with stars, like a photograph in its size."""
    return _encode(_draw(np.random.default_rng(0), 12, _make_noise(0)))


def make_photos(folder: Path, n_photos: int) -> list[Path]:
    """Write different 2-megapixel JPEGs into one folder a class; return them, sorted.

    The classes differ in how large their structures tend to be, so that there is
    something to learn, but not without doubts.
    """
    names = list(CLASSES)
    fields = [_make_noise(i) for i in range(N_FIELDS)]
    for name in names:
        (folder / name).mkdir(parents=True)

    def write(i: int) -> Path:
        name = names[i % len(names)]
        rng = np.random.default_rng(i)
        shift = rng.integers(0, (HEIGHT, WIDTH))
        noise = np.roll(fields[i % N_FIELDS], shift, axis=(0, 1))
        path = folder / name / f"photo_{i:05d}.jpg"
        rows = rng.integers(*CLASSES[name])
        path.write_bytes(_encode(_draw(rng, rows, noise)))
        return path

    with ThreadPoolExecutor(2) as pool:
        made = pool.map(write, range(n_photos))
        bar = tqdm(made, "photos made", n_photos, unit="photo", disable=None)
        return sorted(bar)


def _make_noise(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 6, (HEIGHT, WIDTH, 3)).astype(np.int16)


def _draw(rng: np.random.Generator, rows: int, noise: np.ndarray) -> np.ndarray:
    coarse = rng.integers(0, 160, (rows, rows * WIDTH // HEIGHT, 3), dtype=np.uint8)
    cloud = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    picture = np.clip(np.asarray(cloud, np.int16) + noise, 0, 255).astype(np.uint8)
    stars = rng.integers(0, (HEIGHT, WIDTH), (STARS, 2))
    picture[stars[:, 0], stars[:, 1]] = 255
    return picture


def _encode(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()

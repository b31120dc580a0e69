"""Draw the batches of fine-tuning: framed, coloured, stretched and dusted at random."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from nebula_utils.config import OTHER
from nebula_utils.counterfactuals import colour, framing
from nebula_utils.dataset.manifest import Dataset
from nebula_utils.features.augmentation import N_COLOURS, DustyCrops
from nebula_utils.images import reading
from nebula_utils.training.fitting import PICTURE, Samples, compute_sample_weight

SIDE = 256  # px, of the squares that crops are cut from
N_THREADS = 2
# Crops of a picture of each kind with dust in front, and what all these weigh among
# the dark samples beside the 1 of dark nebulae's pictures.
DUSTY = {"emission": (4, 0.75), "cluster": (1, 0.25)}
OTHER_SHARE = 1.6  # how often `other` is drawn, beside each type's 1
# How often a picture is set into a larger sky: textures are cut close to small things.
ZOOMED_OUT = {"planetary": 0.3, OTHER: 0.2}
ZOOMED_OUT_ELSE = 0.1
GREY = 1 / 3  # share of the samples without colour
AS_IS = 0.1  # and in their own colours

Batch = tuple[np.ndarray, np.ndarray]
Draw = Callable[[int], Batch]  # the batch of a step


class Pool(NamedTuple):
    """Everything that samples are drawn from."""

    pictures: np.ndarray  # (n, side, side, 3), uint8
    y: np.ndarray  # (n,), int
    n_classes: int
    share: np.ndarray  # how often each is drawn; sums to 1
    zoom: np.ndarray  # how often each is set into a larger sky


def make_pool(dataset: Dataset) -> Pool:
    """Decode every picture once, and simulate dust before some of them.

    Every class is drawn as often, `other` a little more; in a class each sample type
    has its share, and in a sample type every nebula.
    """
    rows, names = dataset.manifest, dataset.class_names
    is_other = rows["label"] == OTHER
    kinds = rows["other_kind"].where(is_other, PICTURE).tolist()
    zoom = rows["label"].map(ZOOMED_OUT).fillna(ZOOMED_OUT_ELSE).tolist()
    y, groups = dataset.y.tolist(), dataset.groups.tolist()
    jobs = [partial(_read_square, Path(path)) for path in rows["path"]]
    shown = rows["other_kind"].where(is_other, rows["label"])
    for i in np.flatnonzero(shown.isin(list(DUSTY))) if "dark" in names else ():
        n, _ = DUSTY[shown.iloc[i]]
        jobs.append(partial(_add_dust, Path(rows["path"].iloc[i]), n, int(i)))
        y += [names.index("dark")] * n
        groups += [groups[i]] * n
        kinds += [f"dusty {shown.iloc[i]}"] * n
        zoom += [0.0] * n
    with ThreadPoolExecutor(N_THREADS) as threads:
        done = threads.map(lambda job: job(), jobs)
        bar = tqdm(done, "preparing pictures", len(jobs), disable=None)
        pictures = np.concatenate(list(bar))
    nothing = np.empty((len(y), 0), np.float32)
    shares = {f"dusty {kind}": weight for kind, (_, weight) in DUSTY.items()}
    samples = Samples(nothing, np.array(y), np.array(groups), np.array(kinds), shares)
    share = compute_sample_weight(samples, balanced=True)
    if OTHER in names:
        share[samples.y == names.index(OTHER)] *= OTHER_SHARE
    return Pool(pictures, samples.y, len(names), share / share.sum(), np.array(zoom))


def draw_batch(pool: Pool, n: int, size: int, random_state: int, step: int) -> Batch:
    """Draw ``n`` samples of a side in px for one step; equal steps give equal ones.

    Returns
    -------
    images : ndarray of shape (n, size, size, 3), float32
        In [0, 1]; framed, turned, stretched and coloured at random.
    y : ndarray of shape (n, n_classes), float32
        One-hot classes.
    """
    rng = np.random.default_rng([random_state, step])
    rows = rng.choice(len(pool.y), n, p=pool.share)
    images = np.empty((n, size, size, 3), np.float32)
    for image, row in zip(images, rows, strict=True):
        framed = _frame(pool.pictures[row], pool.zoom[row], size, rng)
        np.clip(_stretch(framed, rng) @ _draw_colour(rng), 0, 1, out=image)
    return images, np.eye(pool.n_classes, dtype=np.float32)[pool.y[rows]]


def _read_square(path: Path) -> np.ndarray:
    image = reading.trim_border(reading.read_image(path, SIDE))
    return reading.cut_square(image, SIDE)[None]


def _add_dust(path: Path, n: int, seed: int) -> np.ndarray:
    crops = DustyCrops(n, SIDE)
    views = crops.make_views(reading.read_image(path, crops.min_side), seed)
    return reading.to_uint8(np.stack(views[::N_COLOURS]))  # colours come later


def _frame(
    square: np.ndarray, zoom: float, size: int, rng: np.random.Generator
) -> np.ndarray:
    if rng.random() < zoom:
        scale = float(np.exp(rng.uniform(np.log(0.25), np.log(0.8))))
        row, column = 0.5 + (1 - scale) * rng.uniform(-0.5, 0.5, 2)
        framed = framing.zoom_out(square, scale, size, (row, column), rng)
    else:
        side = len(square) * np.sqrt(rng.uniform(0.2, 1))  # 20 to 100 % of the area
        top, left = rng.uniform(0, len(square) - side, 2)
        box = (left, top, left + side, top + side)
        detail = int(size * rng.uniform(0.4, 0.9)) if rng.random() < 0.15 else size
        part = Image.fromarray(square)
        part = part.resize((detail, detail), Image.Resampling.BILINEAR, box)
        framed = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))
    turned = np.rot90(framed, int(rng.integers(4)))
    return np.ascontiguousarray(turned[:, ::-1] if rng.random() < 0.5 else turned)


def _stretch(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move black point, gain and middle, as image processing does: float32."""
    if rng.random() < AS_IS:
        return reading.to_float(picture)
    black = rng.uniform(0, 0.06) if rng.random() < 0.3 else 0.0
    light = np.maximum(np.arange(256) / 255 - black, 0) / (1 - black)
    gamma = np.exp(rng.normal(0, 0.25))
    if rng.random() < 0.3:
        middle = light[int(np.median(picture[::3, ::3].mean(-1)))]
        if 0.01 < middle < 0.7:
            target = rng.uniform(0.05, 0.35)
            gamma = np.clip(np.log(target) / np.log(middle), 0.45, 1.6)
    table = light**gamma * np.exp(rng.normal(0, 0.1))
    return np.take(table.astype(np.float32), picture)


def _draw_colour(rng: np.random.Generator) -> np.ndarray:
    """Return a matrix for RGB rows: grey, or other saturation, balance and order."""
    chance = rng.random()
    if chance < AS_IS:
        return np.eye(3, dtype=np.float32)
    if chance < AS_IS + GREY:  # mostly its light, else as through some filter
        light = colour.LUMA if rng.random() < 0.6 else rng.dirichlet([1, 1, 1])
        return np.repeat(np.asarray(light, np.float32)[:, None], 3, 1)
    grey = np.repeat(np.asarray(colour.LUMA)[:, None], 3, 1)
    saturation = rng.uniform(0, 1.8)
    matrix = saturation * np.eye(3) + (1 - saturation) * grey
    if rng.random() < 0.35:
        matrix = matrix[:, rng.permutation(3)]
    return (matrix * np.exp(rng.normal(0, 0.2, 3))).astype(np.float32)

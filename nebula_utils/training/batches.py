"""Draw the batches of fine-tuning: framed, coloured, stretched and dusted at random."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from nebula_utils.config import OTHER
from nebula_utils.counterfactuals import colour, framing
from nebula_utils.dataset.manifest import Dataset
from nebula_utils.features.augmentation import DustyCrops
from nebula_utils.images import reading
from nebula_utils.training.fitting import PICTURE, Samples, compute_sample_weight

SIDE = 256  # px, of the squares that crops are cut from
N_THREADS = 2
# What each kind of sample weighs in its class, beside the 1 of the class's pictures.
SHARES = {
    "dust before emission": 0.3,
    "dust before stars": 0.1,
    "without dust": 0.08,
    "field": 0.33,
}
OTHER_SHARE = 1.6  # how often `other` is drawn, beside each type's 1
DUSTY = {"emission": 4, "cluster": 1}  # crops a picture, to set dust before
# How often a picture is set into a larger sky: textures are cut close to small things.
ZOOMED_OUT = {"planetary": 0.3, OTHER: 0.2}
ZOOMED_OUT_ELSE = 0.1
GREY = 1 / 3  # share of the samples without colour
AS_IS = 0.1  # and in their own colours

Job = Callable[[], np.ndarray]


class Pool(NamedTuple):
    """Everything that samples are drawn from.

    Attributes
    ----------
    pictures : ndarray of shape (n, side, side, 3), uint8
        RGB squares.
    y : ndarray of shape (n,), int
        Their classes.
    share : ndarray of shape (n,), float
        How often each is drawn; sums to 1.
    zoom : ndarray of shape (n,), float
        How often each is set into a larger sky.
    """

    pictures: np.ndarray
    y: np.ndarray
    share: np.ndarray
    zoom: np.ndarray


def make_pool(dataset: Dataset, dust: bool = True) -> Pool:
    """Decode every picture once, and simulate dust before some of them.

    Parameters
    ----------
    dataset : Dataset
        Pictures to train on.
    dust : bool
        Whether dark nebulae and star fields are simulated; only where both ``dark``
        and ``other`` are studied.

    Returns
    -------
    Pool
        Every class is drawn as often, `other` a little more; in a class each kind of
        sample has its share, and in a kind every nebula.
    """
    rows, names = dataset.manifest, dataset.class_names
    jobs: list[Job] = [partial(_read_square, path) for path in rows["path"]]
    y, groups = dataset.y.tolist(), dataset.groups.tolist()
    kinds = np.where(rows["label"] == OTHER, rows["other_kind"], PICTURE).tolist()
    zoom = rows["label"].map(ZOOMED_OUT).fillna(ZOOMED_OUT_ELSE).tolist()
    if dust and {"dark", OTHER} <= set(names):
        for job, group, label, covered, clear in _list_simulated(rows):
            jobs.append(job)
            y += [names.index("dark"), names.index(label)]
            groups += [group, group]
            kinds += [covered, clear]
            zoom += [0.0, 0.0]
    with ThreadPoolExecutor(N_THREADS) as threads:
        done = threads.map(lambda job: job(), jobs)
        bar = tqdm(done, "preparing pictures", len(jobs), disable=None)
        pictures = np.concatenate(list(bar))
    nothing = np.empty((len(y), 0), np.float32)
    samples = Samples(nothing, np.array(y), np.array(groups), np.array(kinds), SHARES)
    share = compute_sample_weight(samples, balanced=True)
    if OTHER in names:
        share[samples.y == names.index(OTHER)] *= OTHER_SHARE
    return Pool(pictures, samples.y, share / share.sum(), np.array(zoom))


def _list_simulated(rows: Any) -> Iterator[tuple[Job, str, str, str, str]]:
    """Yield job, group, label without the dust, and the kinds with and without it."""
    for i, row in enumerate(rows.to_dict("records")):
        behind = "emission" if row["label"] == "emission" else row["other_kind"]
        for number in range(DUSTY.get(behind, 0)):
            job = partial(_add_dust, row["path"], i + 10_000 * number)
            if behind == "emission":
                kinds = "dust before emission", "without dust"
            else:
                kinds = "dust before stars", "field"
            yield job, row["group"], row["label"], *kinds


def _read_square(path: str) -> np.ndarray:
    image = reading.trim_border(reading.read_image(Path(path), SIDE))
    return reading.resize_image(reading.centre_crop(image), SIDE, SIDE)[None]


def _add_dust(path: str, seed: int) -> np.ndarray:
    maker = DustyCrops(1, SIDE)
    views = maker.make_views(reading.read_image(Path(path), maker.min_side), seed)
    # The first view with dust and the first without; colours come later.
    return reading.to_uint8(np.stack([views[0], views[len(views) // 2]]))


class Batch(NamedTuple):
    """Pictures (n, size, size, 3) in [0, 1], colour matrices (n, 3, 3), classes."""

    images: np.ndarray
    colours: np.ndarray
    y: np.ndarray


def draw_batch(pool: Pool, n: int, size: int, random_state: int, step: int) -> Batch:
    """Draw the samples of one step; equal steps give equal samples.

    Parameters
    ----------
    pool : Pool
        What is drawn from.
    n, size : int
        Samples, and their side in px.
    random_state, step : int
        Seed, and number of the step, both 0 or larger.

    Returns
    -------
    Batch
        Each picture is framed, turned and stretched at random; its matrix, applied to
        an RGB row, makes it grey or changes saturation, white balance and the order
        of the channels.
    """
    rng = np.random.default_rng([random_state, step])
    rows = rng.choice(len(pool.y), n, p=pool.share)
    images, colours = [], []
    for row in rows:
        framed = _frame(pool.pictures[row], pool.zoom[row], size, rng)
        images.append(_stretch(framed, rng))
        colours.append(_draw_colour(rng))
    return Batch(np.stack(images), np.stack(colours), pool.y[rows].astype(np.int32))


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

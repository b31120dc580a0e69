"""Training views: pictures as other photographers would frame and process them.

A texture is one framing, one stretch, one palette. What the robust head is fitted on
is many: random crops from inside the picture, some behind simulated dust, and copies
in a larger star field; turned (the sky has no up) and processed as web photos are.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from nebula_utils.config import IMAGE_SIZE
from nebula_utils.counterfactuals import colour, dust, framing
from nebula_utils.images import reading

Floats = NDArray[np.float32]
Generator = np.random.Generator
Copies = Iterator[tuple[Floats, Generator]]  # and what decides their colours

N_COLOURS = 3
MASK_SIDE = 96  # px, of the map of what is sky and what is a black border
SMALLEST_CROP = 0.4  # of the part of the picture that is not black
MOST_BLACK = 0.15  # of a crop
CENTRE_ROOM = 0.42  # a crop's centre may be this share of its side off the middle
TRIES = 10
ZOOMED_OUT = (0.3, 0.85)  # share of the side that a zoomed-out copy takes


@dataclass(frozen=True)
class _Copies:
    """Some copies of each picture, each as it is, in random colours, and in grey."""

    n_copies: int
    size: int = IMAGE_SIZE
    _stream: ClassVar[tuple[int, ...]] = ()  # of random numbers
    _least: ClassVar[float] = SMALLEST_CROP  # share of the picture that a copy shows

    @property
    def n_views(self) -> int:
        """How many views `make_views` gives."""
        return self.n_copies * N_COLOURS

    @property
    def min_side(self) -> int:
        """Shorter side, px, below which decoding at reduced size costs detail."""
        return round(self.size / self._least)

    def make_views(self, image: np.ndarray, seed: int = 0) -> list[Floats]:
        """Return the views of one picture, all colours of a copy in turn.

        Parameters
        ----------
        image : ndarray of shape (h, w, 3), uint8
            RGB.
        seed : int
            Equal seeds give equal views.

        Returns
        -------
        list of ndarray of shape (size, size, 3), float32
            In [0, 1].
        """
        rng = np.random.default_rng([1, *self._stream, seed])
        views: list[Floats] = []
        for copy, own in self._make_copies(image, rng):
            drawn = np.random.default_rng([int(own.integers(2**31)), 0])
            changed = colour.randomise_colour(copy, drawn)
            views += [copy, changed, colour.to_grey(copy)]
        return views

    def _make_copies(self, image: np.ndarray, rng: Generator) -> Copies:
        raise NotImplementedError

    def _crop(self, image: np.ndarray, rng: Generator) -> Iterator[Floats]:
        mask = make_content_mask(image)
        for _ in range(self.n_copies):
            crop = crop_at_random(image, mask, rng)
            yield turn(
                reading.to_float(reading.resize_image(crop, self.size, self.size)), rng
            )


class RandomCrops(_Copies):
    """Crops of a picture, three quarters of them processed as web photos are.

    They hold its middle and little of a black border.
    """

    def _make_copies(self, image: np.ndarray, rng: Generator) -> Copies:
        for number, crop in enumerate(self._crop(image, rng)):
            yield process_as_photo(crop, rng) if number % 4 else crop, rng


class DustyCrops(_Copies):
    """Crops of a picture with a simulated dark nebula in front."""

    _stream = (1,)

    def _make_copies(self, image: np.ndarray, rng: Generator) -> Copies:
        for crop in self._crop(image, rng):
            if np.median(crop) < 0.06:  # a black sky shows no dust
                crop = stretch_levels(crop, rng)
            dusty = dust.simulate_dark_nebula(crop, int(rng.integers(2**31)))[0]
            own = np.random.default_rng(int(rng.integers(2**31)))
            yield process_as_photo(dusty, own), own


class ZoomedOut(_Copies):
    """Copies of a picture set into a larger star field, every second one processed."""

    _stream = (3,)
    _least = reading.INSIDE

    def _make_copies(self, image: np.ndarray, rng: Generator) -> Copies:
        trimmed = reading.trim_border(image)
        for number in range(self.n_copies):
            scale = float(np.exp(rng.uniform(*np.log(ZOOMED_OUT))))
            row, column = 0.5 + (1 - scale) * rng.uniform(-0.5, 0.5, 2)
            framed = framing.zoom_out(trimmed, scale, self.size, (row, column), rng)
            copy = turn(reading.to_float(framed), rng)
            yield process_as_photo(copy, rng) if number % 2 else copy, rng


def make_content_mask(image: np.ndarray) -> NDArray[np.bool_]:
    """Say which cells of 96 × 96 of a uint8 picture are more than a black border."""
    small = reading.resize_image(image, MASK_SIDE, MASK_SIDE).max(-1)
    return reading.find_lit(gaussian_filter(small.astype(np.float32), 2))


def crop_at_random(image: np.ndarray, mask: np.ndarray, rng: Generator) -> np.ndarray:
    """Cut a square that holds the picture's middle and little black border.

    ``mask`` is from `make_content_mask`. The side is 0.4 to 1 of the part that is not
    black; if none of ten tries has little black, the least black one is taken.
    """
    height, width = image.shape[:2]
    top, bottom = _find_extent(mask.mean(1), height)
    left, right = _find_extent(mask.mean(0), width)
    largest = min(bottom - top, right - left)
    best: tuple[float, float, float, float] | None = None
    for _ in range(TRIES):
        side = largest * float(np.exp(rng.uniform(np.log(SMALLEST_CROP), 0)))
        y = _draw_centre(top, bottom, height, side, rng)
        x = _draw_centre(left, right, width, side, rng)
        rows = _to_mask(y - side / 2, y + side / 2, height)
        columns = _to_mask(x - side / 2, x + side / 2, width)
        black = 1 - float(mask[rows, columns].mean())
        if best is None or black < best[0]:
            best = (black, y, x, side)
        if black < MOST_BLACK:
            break
    assert best is not None
    _, y, x, side = best
    pixels = int(min(max(64, side), height, width))
    row = int(np.clip(y - pixels / 2, 0, height - pixels))
    column = int(np.clip(x - pixels / 2, 0, width - pixels))
    return image[row : row + pixels, column : column + pixels]


def turn(picture: Floats, rng: Generator) -> Floats:
    """Turn by a multiple of 90 degrees and perhaps mirror: the sky has no up."""
    turned = np.rot90(picture, int(rng.integers(4)))
    mirrored = turned[:, ::-1] if rng.random() < 0.5 else turned
    return np.ascontiguousarray(mirrored)


def stretch_levels(picture: Floats, rng: Generator) -> Floats:
    """Move black point, white point and median as image processing does."""
    grey = picture[::2, ::2].mean(-1)
    white = 1 + (max(np.percentile(grey, 99.7), 0.08) - 1) * rng.uniform()
    black = np.percentile(grey, 1) * rng.uniform()
    picture = np.clip((picture - black) / max(white - black, 0.05), 0, 1)
    median = float(np.median(picture[::2, ::2].mean(-1)))
    target = rng.uniform(0.05, 0.35)
    if 0.01 < median < 0.7:
        picture = picture ** np.clip(np.log(target) / np.log(median), 0.45, 1.6)
    return picture.astype(np.float32)


def process_as_photo(picture: Floats, rng: Generator) -> Floats:
    """Do to a picture what happens to photos on their way to the web.

    Some of these happen, as ``rng`` decides: levels, blur or seeing, sharpening, noise,
    vignette, a border, a watermark, JPEG. Float32 in [0, 1], before and after.
    """
    if rng.random() < 0.6:
        picture = stretch_levels(picture, rng)
    if rng.random() < 0.3:
        sigma = rng.uniform(0.3, 1.1)
        picture = gaussian_filter(picture, (sigma, sigma, 0))
    if rng.random() < 0.15:
        detail = picture - gaussian_filter(picture, (1, 1, 0))
        picture = picture + rng.uniform(0.3, 1) * detail
    if rng.random() < 0.35:
        channels = 3 if rng.random() < 0.5 else 1
        noise = rng.standard_normal((*picture.shape[:2], channels), np.float32)
        picture = picture + noise * rng.uniform(0, 0.04)
    if rng.random() < 0.1:
        picture = _darken_corners(picture, rng)
    if rng.random() < 0.08:
        picture = _add_border(picture, rng)
    encoded = Image.fromarray(reading.to_uint8(picture))
    if rng.random() < 0.08:
        _write_watermark(encoded, rng)
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        encoded.save(buffer, "JPEG", quality=int(rng.integers(40, 96)))
        encoded = Image.open(buffer)
    return reading.to_float(np.asarray(encoded))


def _find_extent(lit: np.ndarray, length: int) -> tuple[float, float]:
    filled = np.flatnonzero(lit > 0.12)
    if len(filled) < MASK_SIDE / 4:
        return 0.08 * length, 0.92 * length
    return filled[0] / MASK_SIDE * length, (filled[-1] + 1) / MASK_SIDE * length


def _draw_centre(
    low: float, high: float, length: int, side: float, rng: Generator
) -> float:
    first = max(low + side / 2, length / 2 - CENTRE_ROOM * side)
    last = min(high - side / 2, length / 2 + CENTRE_ROOM * side)
    return rng.uniform(first, last) if first < last else (first + last) / 2


def _to_mask(low: float, high: float, length: int) -> slice:
    first = max(0, int(low / length * MASK_SIDE))
    return slice(first, max(first, int(high / length * MASK_SIDE)) + 1)


def _darken_corners(picture: Floats, rng: Generator) -> Floats:
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    radius = np.hypot(columns * rng.uniform(0.7, 1.2), rows * rng.uniform(0.7, 1.2))
    loss = rng.uniform(0.2, 1) * np.maximum(radius - 0.6, 0) ** 1.5
    return picture * np.clip(1 - loss, 0, 1)[..., None].astype(np.float32)


def _add_border(picture: Floats, rng: Generator) -> Floats:
    framed = picture.copy()
    thickness = int(rng.integers(4, 22))
    value = 0.0 if rng.random() < 0.8 else 1.0
    if rng.random() < 0.5:
        framed[:thickness] = framed[-thickness:] = value
    else:
        framed[:, :thickness] = framed[:, -thickness:] = value
    return framed


def _write_watermark(picture: Image.Image, rng: Generator) -> None:
    letters = "".join(rng.choice(list("abcdefgh 12"), 10))
    place = (int(rng.integers(5, 120)), int(rng.choice([6, picture.height - 19])))
    shade = tuple(int(v) for v in rng.integers(120, 255, 3))
    ImageDraw.Draw(picture).text(place, f"(c) {letters}", fill=shade)

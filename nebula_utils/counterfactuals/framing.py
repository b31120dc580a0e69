"""Frame the same nebula otherwise: smaller in a star field, larger, off-centre, turned.

What a classifier answers should not hang on how much sky a photographer left around
a nebula. Every function takes a picture of any shape, uint8 RGB, and gives a square
of ``size`` px, uint8 RGB; equal seeds give equal pixels. A picture that fades to black
at its border is to be trimmed before (`reading.trim_border`).
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from nebula_utils.config import IMAGE_SIZE
from nebula_utils.counterfactuals import stars
from nebula_utils.images import reading

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]
Seed = int | np.random.Generator

FEATHER = 0.12  # of the picture's side, over which it goes over into the sky
_GLOW_SIDE = 12  # px, of the map of the picture's light that reaches beyond its edge
_GLOW_REACH = 0.3  # of the picture's side
_BRIGHTEST_SKY = 0.3  # encoded level; a nebula that fills its frame is no sky
_DENSITY = (0.0008, 0.02)  # stars a pixel


def zoom_out(
    image: Picture,
    scale: float,
    size: int = IMAGE_SIZE,
    centre: tuple[float, float] = (0.5, 0.5),
    random_state: Seed = 0,
) -> Picture:
    """Set a picture into a larger star field that matches its sky.

    The sky has the darker half of the colours at the picture's edge, as many stars an
    area as the picture and its noise, and the picture's own light reaches some way into
    it, so that no edge is seen.

    Parameters
    ----------
    image : ndarray of shape (h, w, 3), uint8
        RGB; its largest centred square is used.
    scale : float
        Side of the square within the result, as a share of the result's side, above 0.
    size : int
        Side of the result, px.
    centre : tuple of 2 floats
        Where the square's middle comes to lie, row before column, as shares of the
        side; what leaves the frame is cut off.
    random_state : int or Generator
        Seed of the stars and of the noise.
    """
    rng = np.random.default_rng(random_state)
    side = max(4, round(size * scale))
    small = reading.to_float(reading.cut_square(image, side))
    top, left = (round(share * size - side / 2) for share in centre)
    inside = _feather(size, side, top, left, rng)[..., None]
    canvas = _spread_light(small, size, top, left)
    field = _make_stars(small, size, rng)
    canvas = 1 - (1 - canvas) * (1 - field)
    noise = rng.standard_normal((size, size, 3), np.float32)
    canvas += np.float32(_measure_noise(small)) * noise
    rows, columns = (
        slice(max(0, at), max(0, min(size, at + side))) for at in (top, left)
    )
    part = small[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    canvas[rows, columns] += inside[rows, columns] * (part - canvas[rows, columns])
    return reading.to_uint8(canvas)


def turn(
    image: Picture, quarters: int, size: int = IMAGE_SIZE, mirror: bool = False
) -> Picture:
    """Turn the largest centred square by quarters, after mirroring it if asked."""
    square = reading.cut_square(image, size)
    return np.ascontiguousarray(
        np.rot90(square[:, ::-1] if mirror else square, quarters)
    )


# The fixed set of the reports. All share one signature: image, size=… → square.
FRAMINGS: dict[str, Callable[..., Picture]] = {
    "smaller": partial(zoom_out, scale=0.5),
    "much_smaller": partial(zoom_out, scale=0.3),
    "larger": partial(reading.cut_square, share=0.6),
    "off_centre": partial(zoom_out, scale=0.9, centre=(0.32, 0.36)),
    "turned": partial(turn, quarters=1),
    "mirrored": partial(turn, quarters=0, mirror=True),
}


def _list_edge(small: Floats) -> Floats:
    """Return the pixels of the outermost eighth, shape (n, 3)."""
    width = max(1, len(small) // 8)
    edge = np.ones(small.shape[:2], bool)
    edge[width:-width, width:-width] = False
    return small[edge]


def _find_sky(small: Floats) -> Floats:
    """Return the colour of the darker half of the edge, at most `_BRIGHTEST_SKY`."""
    edge = _list_edge(small)
    light = edge.mean(-1)
    sky = np.median(edge[light <= np.median(light)], axis=0)
    return sky * min(1.0, _BRIGHTEST_SKY / max(float(sky.mean()), 1e-6))


def _measure_noise(small: Floats) -> float:
    """Return the standard deviation of pixel noise (from differences, robustly)."""
    difference = np.diff(_list_edge(small).mean(-1))
    return float(np.median(np.abs(difference)) / 0.6745 / np.sqrt(2))


def _spread_light(small: Floats, size: int, top: int, left: int) -> Floats:
    """Let the picture's light at its edge fade into an even sky, (size, size, 3)."""
    side, sky = len(small), _find_sky(small)
    coarse = reading.to_float(
        reading.resize_image(reading.to_uint8(small), _GLOW_SIDE, _GLOW_SIDE)
    )
    coarse = gaussian_filter(coarse, (1, 1, 0), mode="nearest")
    rows, columns = ((np.arange(size) - at) / side for at in (top, left))
    # Nearest cells of the coarse map, then a blur: the edge's colours go on outwards.
    cells = [
        np.clip((x * _GLOW_SIDE).astype(int), 0, _GLOW_SIDE - 1)
        for x in (rows, columns)
    ]
    spread = coarse[np.ix_(*cells)]
    blur = 0.6 * side / _GLOW_SIDE
    spread = gaussian_filter(spread, (blur, blur, 0), mode="nearest", truncate=2.5)
    down, right = (np.maximum(np.abs(x - 0.5) - 0.5, 0) for x in (rows, columns))
    outside = np.hypot(down[:, None], right[None]) / _GLOW_REACH
    weight = np.exp(-(outside**2)).astype(np.float32)[..., None]
    return sky + weight * (spread - sky)


def _feather(
    size: int, side: int, top: int, left: int, rng: np.random.Generator
) -> Floats:
    """Return 1 inside the square, falling to 0 at its edge, with round corners."""
    rows, columns = (
        np.abs((np.arange(size) + 0.5 - at) / side - 0.5) for at in (top, left)
    )
    power = rng.uniform(3, 8)  # of the superellipse: between round and square
    radius = (rows[:, None] ** power + columns[None] ** power) ** (1 / power)
    step = np.clip((0.5 - radius) / FEATHER, 0, 1)
    return (step * step * (3 - 2 * step)).astype(np.float32)


def _make_stars(small: Floats, size: int, rng: np.random.Generator) -> Floats:
    """Draw a star field, encoded, with as many stars an area as the picture."""
    light = small.mean(-1)
    detail = light - gaussian_filter(light, 2)
    peaks = (maximum_filter(detail, 3) == detail) & (detail > 0.08)
    density = float(np.clip(peaks.mean(), *_DENSITY)) * rng.uniform(0.7, 1.4)
    number = rng.poisson(2 * density * size * size)
    points = stars.draw_stars((size, size), number, 3000, rng)
    psf = stars.make_psf((size, size), rng.uniform(1.0, 1.6) * size / 224)
    # The faintest stars reach a twelfth of white, those 200 times brighter saturate.
    white = 200 * float(psf.max())
    return stars.develop(stars.paint_stars(points, psf), white, 0.055)

"""Where in a picture the evidence lies: one smooth map from overlapping tiles.

The network's last feature map has seven cells a side. The whole picture is cut into
overlapping squares of the size that the network was trained on; their maps are
enlarged and laid over each other, each counting most in its middle.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from nebula_utils.images import reading

FINE = 28  # cells of the joined map along one tile
ZOOM = 1.5  # shorter side of the picture, in tiles
FADED = 0.08  # share of a side over which the map fades towards a border cut off
MOST = 8  # tiles along one side; of a longer strip only so many are looked at


class Tiles(NamedTuple):
    """Squares of a picture, and where they lie."""

    pictures: list[np.ndarray]  # (side, side, 3), float32 in [0, 1]
    places: list[tuple[int, int]]  # top and left of each, in cells of the joined map
    shape: tuple[int, int]  # of the joined map


def cut_tiles(image: np.ndarray, side: int) -> Tiles:
    """Cut a whole picture (h, w, 3), uint8, into overlapping squares of side px."""
    small = reading.resize_short_side(image, round(ZOOM * side))
    cells = [round(length * FINE / side) for length in small.shape[:2]]
    places = [(top, left) for top in _spread(cells[0]) for left in _spread(cells[1])]
    pictures = []
    for place in places:
        top, left = (
            min(round(start * side / FINE), length - side)
            for start, length in zip(place, small.shape[:2], strict=True)
        )
        pictures.append(reading.to_float(small[top : top + side, left : left + side]))
    return Tiles(pictures, places, (cells[0], cells[1]))


def join_tiles(maps: np.ndarray, tiles: Tiles) -> np.ndarray:
    """Return the weighted mean of tiles' maps; where no tile lies, 0.

    ``maps`` have shape (n_tiles, rows, columns, n_classes); the result is float32 of
    shape (*tiles.shape, n_classes).
    """
    ramp = 1 - np.abs(np.linspace(-1, 1, FINE + 2))[1:-1]
    window = np.outer(ramp, ramp)[..., None].astype(np.float32)
    total = np.zeros((*tiles.shape, maps.shape[-1]), np.float32)
    weight = np.zeros((*tiles.shape, 1), np.float32)
    for one, (top, left) in zip(maps, tiles.places, strict=True):
        here = np.s_[top : top + FINE, left : left + FINE]
        total[here] += window * enlarge(one, FINE, FINE)
        weight[here] += window
    return total / np.maximum(weight, 1e-9)


def pad_border(found: np.ndarray, share: float) -> np.ndarray:
    """Put zeros around a map that covers only this share of each side, smoothly."""
    if share >= 1:
        return found
    for axis in (0, 1):
        n = found.shape[axis]
        inwards = np.minimum(np.arange(n), np.arange(n)[::-1]) + 1
        fade = np.minimum(inwards / (FADED * n), 1).astype(np.float32)
        found = found * (fade[:, None, None] if axis == 0 else fade[None, :, None])
    missing = [round(length / share) - length for length in found.shape[:2]]
    around = [(n // 2, n - n // 2) for n in missing]
    return np.pad(found, (*around, (0, 0)))


def enlarge(found: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a map (rows, columns, n_classes) smoothly, float32."""
    layers = [
        Image.fromarray(np.ascontiguousarray(found[..., k], np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for k in range(found.shape[-1])
    ]
    return np.stack([np.asarray(layer) for layer in layers], -1)


def measure_share(
    found: np.ndarray, mask: np.ndarray, seen: np.ndarray
) -> tuple[float, float]:
    """Return which share of the evidence lies on an object, and by chance would.

    Parameters
    ----------
    found : ndarray of shape (rows, columns), float32
        Evidence for a class; what speaks against it does not count.
    mask : ndarray of shape (height, width), bool
        Where in the whole picture the object is.
    seen : ndarray of shape (rows, columns), float32
        How much each place can count: 0 where a border was cut off.

    Returns
    -------
    share, chance : float
        Both in [0, 1]; evidence that is spread evenly over what was seen has share =
        chance. NaN where nothing speaks for the class.
    """
    shares = []
    for layer in (found, seen):
        fine = np.maximum(enlarge(layer[..., None], *mask.shape)[..., 0], 0)
        total = float(fine.sum())
        shares.append(float(fine[mask].sum()) / total if total else np.nan)
    return shares[0], shares[1]


def _spread(length: int) -> list[int]:
    n = min(MOST, -(-2 * (length - FINE) // FINE) + 1)
    return [round(start) for start in np.linspace(0, length - FINE, n)]

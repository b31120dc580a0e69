"""What a network is shown of a picture: squares of one size, as they are or changed.

One code path for the study and for what is served: how large a picture is decoded,
which square is cut, at which size and in which colours is decided here and nowhere
else.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nebula_utils.config import IMAGE_SIZE
from nebula_utils.counterfactuals import colour
from nebula_utils.images import reading

# Shorter side, px, down to which every picture may be decoded: twice what the network
# sees, so that shrinking averages, and what the page shows.
DECODED_SIDE = 512

# Middles of the crops, row before column, as shares of the square's side.
CROPS: dict[str, tuple[float, float]] = {
    "centre": (0.5, 0.5),
    "top_left": (0.0, 0.0),
    "top_right": (0.0, 1.0),
    "bottom_left": (1.0, 0.0),
    "bottom_right": (1.0, 1.0),
}


class View(NamedTuple):
    """One input of the network, made from a picture: framed, cut, resized, recoloured.

    `size` is its side, px; `crop` is ``"whole"`` (the largest centred square) or a name
    from `CROPS`; `colour` is ``"as_is"`` or a name from `colour.COUNTERFACTUALS`
    (``"red>grey"`` does both, in this order), `framing` is ``"as_is"`` or one from
    `framing.FRAMINGS`.
    """

    size: int = IMAGE_SIZE
    crop: str = "whole"
    colour: str = "as_is"
    framing: str = "as_is"


@dataclass(frozen=True)
class Preprocessing:
    """Which views are made of each picture, in the order of the result's second axis.

    `zoom` is the side of the crops in `CROPS` as a share of the whole square's; `trim`
    says whether a dark border is cut off first (`reading.trim_border`).
    """

    views: tuple[View, ...] = (View(),)
    zoom: float = 0.65
    trim: bool = False

    @property
    def key(self) -> str:
        """The preprocessing in one line, for people."""
        views = [list(view) for view in self.views]
        return json.dumps({"trim": self.trim, "zoom": self.zoom, "views": views})

    @property
    def min_side(self) -> int:
        """Shorter side, px, below which decoding at reduced size costs detail."""
        kept = reading.INSIDE if self.trim else 1
        sides = (
            v.size if v.crop == "whole" else v.size / self.zoom for v in self.views
        )
        return max(DECODED_SIDE, math.ceil(max(sides) / kept))

    def read(self, source: Path | bytes) -> np.ndarray:
        """Decode a file or its content as large as its views need it, and no larger."""
        return reading.read_image(source, self.min_side)

    def make_views(self, image: np.ndarray) -> list[np.ndarray]:
        """Return the views of one picture.

        Parameters
        ----------
        image : ndarray of shape (h, w, 3), uint8
            RGB, as `read` gives it.

        Returns
        -------
        list of ndarray of shape (size, size, 3), float32
            RGB in [0, 1], one a view.
        """
        if self.trim:
            image = reading.trim_border(image)
        framed = {
            key: self._frame(image, *key)
            for key in {(view.size, view.framing) for view in self.views}
        }
        shaped = {
            shape: self._cut(framed[shape[0], shape[2]], *shape[:2])
            for shape in {(view.size, view.crop, view.framing) for view in self.views}
        }
        return [
            recolour(shaped[view.size, view.crop, view.framing], view.colour)
            for view in self.views
        ]

    def _frame(self, image: np.ndarray, size: int, framing: str) -> np.ndarray:
        """Frame a picture once for all of its crops, as large as they need it."""
        if framing == "as_is":
            return image
        from nebula_utils.counterfactuals.framing import FRAMINGS

        return FRAMINGS[framing](image, size=math.ceil(size / self.zoom))

    def _cut(self, image: np.ndarray, size: int, crop: str) -> np.ndarray:
        where = () if crop == "whole" else (self.zoom, CROPS[crop])
        return reading.to_float(reading.cut_square(image, size, *where))


def apply_first(counterfactual: str, views: Sequence[View]) -> tuple[View, ...]:
    """Return the views as they are of the picture after an intervention.

    A grey view after an intervention that keeps the luma is the grey view itself.
    """
    if counterfactual not in colour.COUNTERFACTUALS:
        return tuple(view._replace(framing=counterfactual) for view in views)
    return tuple(
        view._replace(colour=_chain(counterfactual, view.colour)) for view in views
    )


def make_batch(paths: Iterable[Path | str], size: int = IMAGE_SIZE) -> np.ndarray:
    """Return what the network is shown of some pictures, dark borders cut off.

    Returns
    -------
    ndarray of shape (n_images, size, size, 3), float32
        RGB in [0, 1].
    """
    shown = Preprocessing((View(size),), trim=True)
    return np.stack([shown.make_views(shown.read(Path(path)))[0] for path in paths])


def recolour(image: np.ndarray, steps: str) -> np.ndarray:
    """Return a float32 picture (..., h, w, 3) in the colours of a `View`."""
    for step in steps.split(">"):
        if step != "as_is":
            image = colour.COUNTERFACTUALS[step](image)
    return image


def _chain(first: str, then: str) -> str:
    if then == "as_is":
        return first
    if then == "grey" and first in colour.LUMA_KEEPING:
        return then
    return f"{first}>{then}"

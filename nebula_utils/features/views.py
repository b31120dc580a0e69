"""What a network is shown of a picture: squares of one size, as they are or changed.

One code path for the study and for what is served: how large a picture is decoded,
which square is cut, at which size and in which colours is decided here and nowhere
else.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
    """One input of the network, made from a picture.

    Attributes
    ----------
    size : int
        Side of the network's input, px.
    crop : str
        ``"whole"`` (the largest centred square) or a name from `CROPS`.
    colour : str
        ``"as_is"``, a name from `colour.COUNTERFACTUALS`, or ``"random:K"``
        for the K-th colour-randomised copy; ``"red>grey"`` does both, in this order.
    framing : str
        ``"as_is"`` or a name from `framing.FRAMINGS`; comes before the crop.
    """

    size: int = IMAGE_SIZE
    crop: str = "whole"
    colour: str = "as_is"
    framing: str = "as_is"


@dataclass(frozen=True)
class Preprocessing:
    """Which views are made of each picture.

    Attributes
    ----------
    views : tuple of View
        In the order of the result's second axis.
    zoom : float
        Side of the crops in `CROPS`, as a share of the whole square.
    trim : bool
        Whether a dark border is cut off first (`reading.trim_border`).
    """

    views: tuple[View, ...] = (View(),)
    zoom: float = 0.65
    trim: bool = False

    @property
    def key(self) -> str:
        """The preprocessing in one line, for people."""
        return json.dumps(
            {
                "trim": self.trim,
                "zoom": self.zoom,
                "views": [list(view) for view in self.views],
            }
        )

    @property
    def min_side(self) -> int:
        """Shorter side, px, below which decoding at reduced size costs detail."""
        kept = reading.INSIDE if self.trim else 1
        needed = max(self._find_side(view) for view in self.views) / kept
        return max(DECODED_SIDE, math.ceil(needed))

    def read(self, source: Path | bytes) -> np.ndarray:
        """Decode a file or its content as large as its views need it, and no larger."""
        return reading.read_image(source, self.min_side)

    def make_views(self, image: np.ndarray, seed: int = 0) -> list[np.ndarray]:
        """Return the views of one picture.

        Parameters
        ----------
        image : ndarray of shape (h, w, 3), uint8
            RGB, as `read` gives it.
        seed : int
            Decides the colours of the ``"random:K"`` views.

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
            _colour(shaped[view.size, view.crop, view.framing], view.colour, seed)
            for view in self.views
        ]

    def _find_side(self, view: View) -> float:
        """Return how many px of the whole square's side a view makes use of."""
        return view.size if view.crop == "whole" else view.size / self.zoom

    def _frame(self, image: np.ndarray, size: int, framing: str) -> np.ndarray:
        """Frame a picture once for all of its crops, as large as they need it."""
        if framing == "as_is":
            return image
        from nebula_utils.counterfactuals.framing import FRAMINGS

        return FRAMINGS[framing](image, size=math.ceil(size / self.zoom))

    def _cut(self, image: np.ndarray, size: int, crop: str) -> np.ndarray:
        if crop == "whole":
            square = reading.cut_square(image, size)
        else:
            square = reading.cut_square(image, size, self.zoom, CROPS[crop])
        return reading.to_float(square)


def read_views(
    source: Path, content: str, views: Any, columns: Sequence[int]
) -> list[np.ndarray]:
    """Make some of the views of a file; its content's SHA-256 is their seed."""
    image = reading.read_image(source, views.min_side)
    seed = int(content[:12], 16)
    if isinstance(views, Preprocessing):
        few = replace(views, views=tuple(views.views[i] for i in columns))
        return few.make_views(image, seed)
    return choose_views(partial(views.make_views, image), seed, columns)


def choose_views(
    make: Callable[[int], list[np.ndarray]], seed: int, columns: Sequence[int]
) -> list[np.ndarray]:
    """Make all views and return some."""
    made = make(seed)
    return [made[i] for i in columns]


def apply_first(counterfactual: str, views: Sequence[View]) -> tuple[View, ...]:
    """Return the views as they are of the picture after an intervention.

    A grey view after an intervention that keeps the luma is the grey view itself.
    """
    if counterfactual not in colour.COUNTERFACTUALS:
        return tuple(view._replace(framing=counterfactual) for view in views)
    return tuple(
        view._replace(colour=_chain(counterfactual, view.colour)) for view in views
    )


def _chain(first: str, then: str) -> str:
    if then == "as_is":
        return first
    if then == "grey" and first in colour.LUMA_KEEPING:
        return then
    return f"{first}>{then}"


def _colour(image: np.ndarray, steps: str, seed: int) -> np.ndarray:
    for step in steps.split(">"):
        if step.startswith("random:"):
            copy = int(step.removeprefix("random:"))
            image = colour.randomise_colour(image[None], copy, indices=[seed])[0]
        elif step != "as_is":
            image = colour.COUNTERFACTUALS[step](image)
    return image

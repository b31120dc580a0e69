"""What a network is shown of a picture: squares of one size, as they are or recoloured.

One code path for the study and for what is served: which square, which size and which
colours is decided here, and nowhere else.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nebula_utils.config import IMAGE_SIZE
from nebula_utils.counterfactuals import colour
from nebula_utils.images import reading

# Raised when the same recipe gives other pixels than before.
PREPROCESSING_VERSION = 1

# Corners (top, left) of the crops, as shares of the room that the crop leaves.
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
    """

    size: int = IMAGE_SIZE
    crop: str = "whole"
    colour: str = "as_is"


@dataclass(frozen=True)
class Preprocessing:
    """Which views are made of each picture.

    Attributes
    ----------
    views : tuple of View
        In the order of the result's second axis.
    inside : float
        Share of each side that is kept before anything else, in (0, 1]; below 1 for
        pictures that fade to black at their edges, as Stellarium's do.
    zoom : float
        Side of the crops in `CROPS`, as a share of the whole square.
    trim : bool
        Whether a dark border is cut off first (`reading.trim_border`), which every
        picture is judged by itself for; ``inside`` is not used then.
    """

    views: tuple[View, ...] = (View(),)
    inside: float = 1.0
    zoom: float = 0.65
    trim: bool = False

    @property
    def key(self) -> str:
        """The preprocessing in one line; equal keys give equal pixels."""
        return json.dumps(
            {
                "version": PREPROCESSING_VERSION,
                "inside": "0.85 if the border is dark" if self.trim else self.inside,
                "zoom": self.zoom,
                "views": [list(view) for view in self.views],
            }
        )

    @property
    def n_views(self) -> int:
        """How many views there are."""
        return len(self.views)

    @property
    def min_side(self) -> int:
        """Shorter side, px, below which decoding at reduced size costs detail."""
        crops = [
            v.size if v.crop == "whole" else v.size / self.zoom for v in self.views
        ]
        return int(np.ceil(max(crops) / self.inside))

    def make_views(self, image: np.ndarray, seed: int = 0) -> list[np.ndarray]:
        """Return the views of one picture.

        Parameters
        ----------
        image : ndarray of shape (h, w, 3), uint8
            RGB, as `reading.read_image` gives it.
        seed : int
            Decides the colours of the ``"random:K"`` views.

        Returns
        -------
        list of ndarray of shape (size, size, 3), float32
            RGB in [0, 1], one a view.
        """
        if self.trim:
            framed = reading.trim_border(image)
        else:
            framed = reading.crop_inside(image, self.inside)
        square = reading.centre_crop(framed)
        shaped = {
            (size, crop): reading.to_float(
                reading.resize_image(self._crop(square, crop), size, size)
            )
            for size, crop in {(view.size, view.crop) for view in self.views}
        }
        return [
            _colour(shaped[view.size, view.crop], view, seed) for view in self.views
        ]

    def _crop(self, square: np.ndarray, crop: str) -> np.ndarray:
        if crop == "whole":
            return square
        side = max(1, round(len(square) * self.zoom))
        top, left = (round(share * (len(square) - side)) for share in CROPS[crop])
        return square[top : top + side, left : left + side]


def apply_first(counterfactual: str, views: Sequence[View]) -> tuple[View, ...]:
    """Return the views as they are of the picture after an intervention.

    A grey view after an intervention that keeps the luma is the grey view itself.
    """
    return tuple(
        view._replace(colour=_chain(counterfactual, view.colour)) for view in views
    )


def _chain(first: str, then: str) -> str:
    if then == "as_is":
        return first
    if then == "grey" and first in colour.LUMA_KEEPING:
        return then
    return f"{first}>{then}"


def average_views(
    X: np.ndarray, made: Sequence[View], asked: Sequence[View]
) -> np.ndarray:
    """Average over the views that are asked for, each as often as it is.

    Parameters
    ----------
    X : ndarray of shape (..., n_made, n_features), float32
        Embeddings of the views that were made, each once.
    made, asked : sequence of View
        Which they are, and which are wanted.

    Returns
    -------
    ndarray of shape (..., n_features), float32
    """
    return X[..., [made.index(view) for view in asked], :].mean(-2)


def _colour(image: np.ndarray, view: View, seed: int) -> np.ndarray:
    for step in view.colour.split(">"):
        if step.startswith("random:"):
            copy = int(step.removeprefix("random:"))
            image = colour.randomise_colour(image[None], copy, indices=[seed])[0]
        elif step != "as_is":
            image = colour.COUNTERFACTUALS[step](image)
    return image

"""How much colour does it take: the smallest change of colour that flips an answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nebula_utils.counterfactuals import colour

PALETTES = ("natural", "HOO", "SHO")
HUES = (20.0, 40.0, 60.0, 90.0, 120.0, 150.0, 180.0)  # degrees, tried to both sides
PALER = (0.75, 0.5, 0.25, 0.0)  # factors of the saturation
STRONGER = (1.5, 2.0, 3.0)
HALVINGS = 3  # of the last step

Change = Callable[[np.ndarray], np.ndarray]
Predict = Callable[[Sequence[Change]], np.ndarray]


@dataclass(frozen=True)
class Shift:
    """A change of colour: a function of float32 pictures (..., h, w, 3) in [0, 1].

    Attributes
    ----------
    hue : float
        By which hues are turned, degrees in [-180, 180].
    saturation : float
        Factor of the distance from grey, at least 0.
    palette : {"natural", "HOO", "SHO"}
        Applied first; see `colour.shift`.
    """

    hue: float = 0.0
    saturation: float = 1.0
    palette: str = "natural"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Change a picture; the neutral shift returns it as it is."""
        return colour.shift(image, self.hue, self.saturation, self.palette)


class Flip(NamedTuple):
    """A change of colour that gives another answer, and which.

    Attributes
    ----------
    shift : Shift
        The change; one of its three parts is not neutral.
    label : int
        Index of the class that the answer turns to.
    """

    shift: Shift
    label: int


def find_flips(predict: Predict) -> list[Flip]:
    """Search hue, saturation and palette, one at a time, for the least that flips.

    Parameters
    ----------
    predict : callable
        Changes (n) → probabilities (n, n_classes) of one picture under each.

    Returns
    -------
    list of Flip
        At most one turn of hue (to either side), one paler, one stronger picture, and
        each palette. Exact to a few degrees and hundredths of the saturation; where an
        answer flips and flips back between two guesses, that is not seen.
    """
    paths = {
        "hue": [[Shift(hue=sign * hue) for hue in HUES] for sign in (1, -1)],
        "paler": [[Shift(saturation=factor) for factor in PALER]],
        "stronger": [[Shift(saturation=factor) for factor in STRONGER]],
        **{name: [[Shift(palette=name)]] for name in PALETTES[1:]},
    }
    shifts = [shift for several in paths.values() for path in several for shift in path]
    base, *found = (int(label) for label in predict([Shift(), *shifts]).argmax(1))
    labels = dict(zip(shifts, found, strict=True))
    flips = []
    for several in paths.values():
        ways = [_walk(predict, path, labels, base) for path in several]
        flips += sorted(filter(None, ways), key=lambda flip: abs(flip.shift.hue))[:1]
    return flips


def _walk(
    predict: Predict, path: list[Shift], labels: dict[Shift, int], base: int
) -> Flip | None:
    """Find where along a path the answer first flips; refine that step."""
    before = Shift()
    for shift in path:
        if labels[shift] != base:
            break
        before = shift
    else:
        return None
    flip = Flip(shift, labels[shift])
    for _ in range(HALVINGS if shift.palette == "natural" else 0):
        between = Shift(
            (before.hue + flip.shift.hue) / 2,
            (before.saturation + flip.shift.saturation) / 2,
        )
        label = int(predict([between]).argmax())
        if label == base:
            before = between
        else:
            flip = Flip(between, label)
    return flip

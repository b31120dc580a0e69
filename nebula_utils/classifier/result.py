"""What the classifier says about one picture."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nebula_utils.images.scientific import Decoded


class Neighbour(NamedTuple):
    """A training picture that the network finds similar.

    Attributes
    ----------
    nebula, label, credit, licence : str
        What it shows, and whose it is.
    similarity : float
        Cosine of the two centred embeddings, in [-1, 1].
    thumbnail : ndarray of shape (96, 96, 3), uint8, or None
        The picture, where its licence lets us show it.
    """

    nebula: str
    label: str
    credit: str
    licence: str
    similarity: float
    thumbnail: np.ndarray | None


class Certainty(NamedTuple):
    """When an answer counts as sure, and what that was worth.

    Attributes
    ----------
    threshold : float
        Least probability of a sure answer.
    coverage, accuracy : float
        Share of the pictures that were answered so, and of these the share that was
        answered rightly; in [0, 1].
    measured_on : str
        Which pictures, e.g. "pictures by other photographers".
    """

    threshold: float
    coverage: float
    accuracy: float
    measured_on: str


@dataclass(frozen=True)
class Result:
    """What the classifier says about one picture.

    Attributes
    ----------
    path : str
        Name that was given for the picture.
    label : str
        The most probable class.
    probabilities : dict of str to float
        Calibrated, over every class of the model; they sum to 1.
    confident : bool
        Whether the probability of ``label`` reaches `Certainty.threshold`.
    nebula : float or None
        1 - P(other), in [0, 1]; None where the model has no class ``other``.
    grey_label : str
        The answer to the same picture without its colour.
    stability : float
        Mean over the colour counterfactuals of P(label) there over P(label) here, at
        most 1; 1 means that no change of colour makes the answer weaker.
    candidates : tuple of str
        The classes that can't be excluded (conformal prediction set, never empty),
        most probable first.
    counterfactuals : dict of str to dict of str to float
        The probabilities after each colour intervention, of the same views.
    is_grey : bool
        Whether the picture has no colour that could have decided.
    neighbours : tuple of Neighbour
        The most similar training pictures; the picture itself is none.
    was_trained_on : bool
        Whether the picture, or one nearly like it, is a training picture.
    notes : tuple of str
        What was done to decode the file, e.g. a stretch of linear data.
    decoded : Decoded, optional
        The file's header and place on the sky, as far as it knows them.
    picture : ndarray of shape (h, w, 3), uint8
        As decoded: its shorter side is below 1024 px.
    """

    path: str
    label: str
    probabilities: dict[str, float]
    confident: bool
    nebula: float | None
    grey_label: str
    stability: float
    candidates: tuple[str, ...] = ()
    counterfactuals: dict[str, dict[str, float]] = field(default_factory=dict)
    is_grey: bool = False
    neighbours: tuple[Neighbour, ...] = ()
    was_trained_on: bool = False
    notes: tuple[str, ...] = ()
    decoded: Decoded | None = None
    picture: np.ndarray | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what ``nebula classify --json`` prints."""
        return {
            "path": self.path,
            "label": self.label,
            "probabilities": self.probabilities,
            "confident": self.confident,
            "candidates": list(self.candidates),
            "nebula": self.nebula,
            "grey_label": self.grey_label,
            "stability": self.stability,
        }

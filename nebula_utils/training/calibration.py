"""Calibrated probabilities, when to be sure, what to doubt and can't exclude."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nebula_utils.config import DATA
from nebula_utils.training.heads import SMALLEST, temper
from nebula_utils.training.scores import (
    Predictions,
    Score,
    make_weights,
    score_mean,
    weigh_nebulae,
)

if TYPE_CHECKING:
    from nebula_utils.training.study import Study

# From this probability on an answer is called sure. Chosen on other photographers'
# pictures, not on those that the head was made from: `scripts/choose_head.py` writes
# what it was worth there into data/certainty.json.
SURE = 0.8
CERTAINTY = DATA / "certainty.json"
COVERAGE = 0.9  # share of nebulae whose true type shall be in the prediction set


def read_certainty() -> dict[str, Any]:
    """Return what sure answers were worth on outside sets.

    As `scripts/choose_head.py` wrote it: ``threshold``, ``coverage``, ``accuracy``,
    ``measured_on``, and ``sets`` with these for each set; only ``sets``, and nothing in
    it, where it was not measured for `SURE`.
    """
    found: dict[str, Any] = {}
    if CERTAINTY.is_file():
        found = json.loads(CERTAINTY.read_text(encoding="utf-8"))
    return found if found.get("threshold") == SURE else {"sets": {}}


def fit_temperature(
    y_proba: np.ndarray, accept: np.ndarray, weight: np.ndarray
) -> float:
    """Return the temperature that makes held-out probabilities best calibrated.

    Between 0.1 and 10, it minimises the weighted cross-entropy of what is right [1]_.
    ``y_proba`` and ``accept``, which answers count as right, have shape (n_samples,
    n_classes).

    References
    ----------
    .. [1] Guo et al. (2017), On calibration of modern neural networks,
       arXiv:1706.04599.
    """
    from scipy.optimize import minimize_scalar

    def compute_loss(log_temperature: float) -> float:
        right = (temper(y_proba, np.exp(log_temperature)) * accept).sum(1)
        return float(-(weight * np.log(np.maximum(right, SMALLEST))).sum())

    bounds = (np.log(0.1), np.log(10))
    found = minimize_scalar(compute_loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def fit_temperatures(
    y_proba: np.ndarray,
    accept: np.ndarray,
    groups: np.ndarray,
    tests: Sequence[np.ndarray],
) -> list[float]:
    """Return a temperature for each fold, chosen on the answers of the others.

    So a picture never takes part in the choice of its own temperature, and the
    calibration error that is reported is an honest one. ``y_proba`` and ``accept`` are
    as for `fit_temperature`, of one repeat; ``groups`` are nebulae, which weigh alike;
    ``tests`` are the rows of each fold.
    """
    weight = weigh_nebulae(groups)
    found = []
    for test in tests:
        rows = np.setdiff1d(np.concatenate(tests), test)
        found.append(fit_temperature(y_proba[rows], accept[rows], weight[rows]))
    return found


def compute_threshold(p: Predictions, coverage: float = COVERAGE) -> float:
    """Return the probability from which on a class is in the prediction set.

    A set is all classes that reach it; on nebulae that are drawn like those of ``p``,
    the truth is among them with at least the probability ``coverage`` [1]_.

    Notes
    -----
    The score is one minus the probability of the true (or a second accepted) class.
    Each nebula counts once, by the mean of its pictures' scores: pictures of one
    nebula are not exchangeable, nebulae are.

    References
    ----------
    .. [1] Vovk, Gammerman, Shafer (2005), Algorithmic learning in a random world;
       Angelopoulos & Bates (2021), arXiv:2107.07511, section 1.
    """
    truth = compute_truth_probability(p).mean(0)
    names, inverse = np.unique(p.groups, return_inverse=True)
    by_nebula = np.bincount(inverse, truth) / np.bincount(inverse)
    rank = int(np.floor((1 - coverage) * (len(names) + 1)))
    return float(np.sort(by_nebula)[rank - 1]) if rank >= 1 else 0.0


def compute_truth_probability(p: Predictions) -> np.ndarray:
    """Return the probability of the best accepted class, (n_repeats, n_images)."""
    accept = np.eye(len(p.class_names), dtype=bool)[p.y_true]
    if p.accept is not None:
        accept = accept | p.accept
    return np.where(accept, p.y_proba, 0).max(-1)


def list_doubtful(study: "Study", n: int = 20) -> pd.DataFrame:
    """List the pictures whose accepted labels the study doubts most.

    Returns
    -------
    DataFrame
        ``row`` in the dataset, ``image_id``, ``path``, ``nebula``, ``label``,
        ``accept``, ``answer`` and ``self_confidence``, the probability of what is
        accepted [1]_, lowest first.

    References
    ----------
    .. [1] Northcutt et al. (2021), Confident learning, arXiv:1911.00068.
    """
    confidence = compute_truth_probability(study.predictions).mean(0)
    rows = np.argsort(confidence, kind="stable")[:n]
    answers = study.y_proba["as_is"].mean(0)[rows].argmax(1)
    shown = ["image_id", "path", "nebula", "label", "accept"]
    table = study.dataset.manifest.iloc[rows][shown].reset_index(drop=True)
    table.insert(0, "row", rows)
    return table.assign(
        answer=np.array(study.dataset.class_names)[answers],
        self_confidence=confidence[rows].round(3),
    )


def score_coverage(p: Predictions, threshold: float) -> dict[str, Any]:
    """Return how often the prediction sets hold the truth, and how large they are.

    Returns
    -------
    dict
        ``coverage``, a score; ``coverage_by_type``, one a class that occurs: a set
        that covers nine in ten of all nebulae may cover far fewer of a thin type;
        ``set_size``, the mean number of classes in a set.
    """
    covered = (compute_truth_probability(p) >= threshold).mean(0)
    # The most probable class is always named, however improbable it is.
    size = np.maximum((p.y_proba >= threshold).sum(-1), 1).mean(0)

    def score(values: np.ndarray, mask: np.ndarray) -> Score:
        return score_mean(values[mask], p.groups[mask], p.y_true[mask])

    everything = np.ones(len(p.y_true), bool)
    return {
        "coverage": score(covered, everything),
        "coverage_by_type": {
            p.class_names[label]: score(covered, p.y_true == label)
            for label in np.unique(p.y_true)
        },
        "set_size": score(size, everything),
    }


def compute_reliability(
    p: Predictions, n_bins: int = 10
) -> dict[str, Sequence[float] | np.ndarray]:
    """Return what a reliability diagram shows.

    In ``n_bins`` bins of equal width of the largest probability: ``confidence`` and
    ``accuracy`` (means in each bin that is not empty) and ``weight`` (share of the
    nebulae), each of shape (n_filled_bins,).
    """
    weight = np.tile(make_weights(p.groups, p.y_true, 0)[0], len(p.y_proba))
    confidence = p.y_proba.max(-1).ravel()
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    share = np.bincount(bins, weight, n_bins)
    filled = share > 0
    values = {"confidence": confidence, "accuracy": p.is_right.ravel()}
    means = {
        name: np.bincount(bins, weight * each, n_bins)[filled] / share[filled]
        for name, each in values.items()
    }
    return {**means, "weight": share[filled] / share.sum()}

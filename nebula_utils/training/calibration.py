"""When to say "not sure": conformal prediction sets, calibrated by nebula."""

from collections.abc import Sequence

import numpy as np

from nebula_utils.training.scores import Predictions, Score, make_score, make_weights

CONFIDENT = 0.5  # a less probable answer is never sure, whatever the others are
COVERAGE = 0.9  # share of nebulae whose true type shall be in the prediction set


def compute_threshold(p: Predictions, coverage: float = COVERAGE) -> float:
    """Return the probability from which on a class is in the prediction set.

    Parameters
    ----------
    p : Predictions
        Out-of-fold answers.
    coverage : float
        Wanted share of nebulae whose set holds the truth, in (0, 1).

    Returns
    -------
    float
        In [0, 1]. A set is all classes that reach it; on nebulae that are drawn like
        these, the truth is among them with at least this probability [1]_.

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


def is_confident(y_proba: np.ndarray, threshold: float) -> np.ndarray:
    """Say where the prediction set is one class, and that is more likely than not.

    Parameters
    ----------
    y_proba : ndarray of shape (..., n_classes)
        Calibrated probabilities.
    threshold : float
        From `compute_threshold`.

    Returns
    -------
    ndarray of shape (...,), bool
    """
    single = (y_proba >= threshold).sum(-1) == 1
    return single & (y_proba.max(-1) >= CONFIDENT)


def measure_certainty(
    p: Predictions, measured_on: str, accuracy: float = COVERAGE
) -> dict[str, float | str]:
    """Choose from which probability on an answer is called sure.

    Parameters
    ----------
    p : Predictions
        Answers on pictures that the head was not fitted on.
    measured_on : str
        Which they are, e.g. "pictures by other photographers".
    accuracy : float
        Share of right answers that is wanted among the sure ones, in (0, 1).

    Returns
    -------
    dict
        ``threshold``, ``coverage`` and ``accuracy`` in [0, 1] and ``measured_on``:
        `classifier.Certainty`. The lowest threshold at which the accuracy is reached;
        each nebula and class counts alike.
    """
    weight = np.tile(make_weights(p.groups, p.y_true, 0)[0], len(p.y_proba))
    top = p.y_proba.max(-1).ravel()
    order = np.argsort(-top, kind="stable")
    seen = np.cumsum(weight[order])
    right = np.cumsum((weight * p.is_right.ravel())[order]) / seen
    reached = np.flatnonzero(right >= accuracy)
    last = int(reached[-1]) if len(reached) else 0
    return {
        "threshold": round(float(top[order][last]), 6),
        "coverage": round(float(seen[last] / seen[-1]), 6),
        "accuracy": round(float(right[last]), 6),
        "measured_on": measured_on,
    }


def compute_truth_probability(p: Predictions) -> np.ndarray:
    """Return the probability of the best accepted class, (n_repeats, n_images)."""
    accept = np.eye(len(p.class_names), dtype=bool)[p.y_true]
    if p.accept is not None:
        accept = accept | p.accept
    return np.where(accept, p.y_proba, 0).max(-1)


def score_coverage(p: Predictions, threshold: float) -> dict[str, Score]:
    """Return how often the sets hold the truth, and how often there is just one class.

    Parameters
    ----------
    p : Predictions
        Out-of-fold answers.
    threshold : float
        From `compute_threshold`.

    Returns
    -------
    dict of str to score
        ``coverage``; ``confident``, the share of sure answers (`is_confident`);
        ``accuracy`` over all pictures; ``accuracy_if_confident``.
    """
    weights = make_weights(p.groups, p.y_true)
    sure = is_confident(p.y_proba, threshold)
    single = sure.mean(0)
    right = p.is_right
    both = (right & sure).mean(0)
    covered = (compute_truth_probability(p) >= threshold).mean(0)
    total = weights.sum(1)
    return {
        "coverage": make_score(weights @ covered / total, p.groups),
        "confident": make_score(weights @ single / total, p.groups),
        "accuracy": make_score(weights @ right.mean(0) / total, p.groups),
        "accuracy_if_confident": make_score(
            weights @ both / np.maximum(weights @ single, 1e-12), p.groups
        ),
    }


def compute_reliability(
    p: Predictions, n_bins: int = 10
) -> dict[str, Sequence[float] | np.ndarray]:
    """Return what a reliability diagram shows.

    Parameters
    ----------
    p : Predictions
        Out-of-fold answers.
    n_bins : int
        Bins of equal width of the largest probability.

    Returns
    -------
    dict
        ``confidence`` and ``accuracy`` (means in each bin that is not empty) and
        ``weight`` (share of the nebulae), each of shape (n_filled_bins,).
    """
    weight = np.tile(make_weights(p.groups, p.y_true, 0)[0], len(p.y_proba))
    confidence = p.y_proba.max(-1).ravel()
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    filled = np.unique(bins)
    share = np.array([weight[bins == i].sum() for i in filled])
    right = p.is_right.ravel()
    return {
        "confidence": np.array(
            [
                np.average(confidence[bins == i], weights=weight[bins == i])
                for i in filled
            ]
        ),
        "accuracy": np.array(
            [np.average(right[bins == i], weights=weight[bins == i]) for i in filled]
        ),
        "weight": share / share.sum(),
    }

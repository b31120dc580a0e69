"""Scores whose unit is the nebula, with intervals from resampling nebulae.

Every score is a function of one weight a picture, and takes many sets of weights at
once: the value uses one set (each nebula counts once, however many pictures it has),
the interval a thousand sets, one for each resampling of the nebulae. Repeated
cross-validation enters as rows: a picture predicted in three repeats has three rows.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nebula_utils.config import OTHER, RANDOM_STATE

N_RESAMPLES = 1000
N_BINS = 10  # of the calibration error
MIN_GROUP = 5  # nebulae; a smaller type x palette group can't be scored

Score = dict[str, float | int | None]
Metric = Callable[["Predictions", np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Predictions:
    """Out-of-sample answers of one head, and the truth.

    Attributes
    ----------
    y_true : ndarray of shape (n_images,), int
        Index of the true class in ``class_names``.
    y_proba : ndarray of shape (n_repeats, n_images, n_classes), float
        Probabilities, once for each repeat of the cross-validation.
    groups : ndarray of shape (n_images,), str
        The nebula that each picture shows.
    class_names : tuple of str
        In the order of the probabilities.
    accept : ndarray of shape (n_images, n_classes), bool, optional
        Which answers count as right; default: only ``y_true``.
    """

    y_true: np.ndarray
    y_proba: np.ndarray
    groups: np.ndarray
    class_names: tuple[str, ...]
    accept: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check that the arrays belong together: ValueError if they don't."""
        n, shape = len(self.y_true), self.y_proba.shape
        if len(shape) != 3 or shape[1:] != (n, len(self.class_names)):
            raise ValueError(f"y_proba of {n} pictures has shape {shape}")
        if len(self.groups) != n:
            raise ValueError(f"{len(self.groups)} groups for {n} pictures")
        if not np.allclose(self.y_proba.sum(-1), 1, atol=1e-3):
            raise ValueError("the probabilities of some pictures don't sum to 1")

    @property
    def y_pred(self) -> np.ndarray:
        """Most probable class, shape (n_repeats, n_images), int."""
        return self.y_proba.argmax(-1)

    @property
    def is_right(self) -> np.ndarray:
        """Whether each answer is accepted, shape (n_repeats, n_images), bool."""
        if self.accept is None:
            return self.y_pred == self.y_true
        return np.take_along_axis(self.accept[None], self.y_pred[..., None], 2)[..., 0]

    @property
    def is_nebula(self) -> np.ndarray:
        """Whether each picture shows a nebula, shape (n_images,), bool."""
        return np.array([name != OTHER for name in self.class_names])[self.y_true]

    def replace(self, y_proba: np.ndarray) -> "Predictions":
        """Return other answers to the same pictures."""
        return dataclasses.replace(self, y_proba=y_proba)

    def among_types(self) -> "Predictions":
        """Return the pictures of nebulae, and answers that must name a type."""
        return self.among([name for name in self.class_names if name != OTHER])

    def among(self, names: Sequence[str]) -> "Predictions":
        """Return the pictures of some classes, and answers that must be one of them.

        Their probabilities are scaled to sum to 1.
        """
        keep = [i for i, name in enumerate(self.class_names) if name in names]
        part = self.select(np.isin(self.y_true, keep))
        y_proba = part.y_proba[:, :, keep]
        return Predictions(
            np.searchsorted(keep, part.y_true),
            y_proba / np.maximum(y_proba.sum(-1, keepdims=True), 1e-12),
            part.groups,
            tuple(self.class_names[i] for i in keep),
            None if part.accept is None else part.accept[:, keep],
        )

    def select(self, mask: np.ndarray) -> "Predictions":
        """Return the predictions of the pictures where ``mask`` is true."""
        return dataclasses.replace(
            self,
            y_true=self.y_true[mask],
            y_proba=self.y_proba[:, mask],
            groups=self.groups[mask],
            accept=None if self.accept is None else self.accept[mask],
        )


def make_weights(
    groups: np.ndarray,
    y: np.ndarray,
    n_resamples: int = N_RESAMPLES,
    random_state: int = RANDOM_STATE,
) -> np.ndarray:
    """Return picture weights: one row for the value, the rest for the interval.

    ``groups`` and ``y`` are the nebula and the class of each picture; nebulae are
    resampled within their class, so that no class vanishes from a resample.

    Returns
    -------
    ndarray of shape (1 + n_resamples, n_images), float64
        Row 0: one over the number of the nebula's pictures. Other rows: the same,
        times how often the nebula was drawn.
    """
    names, first, inverse, counts = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    drawn = np.ones((1 + n_resamples, len(names)))
    rng = np.random.default_rng(random_state)
    for label in np.unique(y):
        members = np.flatnonzero(y[first] == label)
        if n := len(members):
            drawn[1:, members] = rng.multinomial(n, np.full(n, 1 / n), n_resamples)
    return (drawn / counts)[:, inverse]


def weigh_nebulae(groups: np.ndarray) -> np.ndarray:
    """Return one over the number of a nebula's pictures, for each picture."""
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return 1 / counts[inverse]


def compute_recall(p: Predictions, weights: np.ndarray) -> np.ndarray:
    """Return each class's recall, shape (n_weights, n_classes); NaN if it is absent."""
    is_class = np.eye(len(p.class_names))[p.y_true]
    right = p.is_right.mean(0)[:, None] * is_class
    return _divide(weights @ right, weights @ is_class)


def compute_balanced_accuracy(p: Predictions, weights: np.ndarray) -> np.ndarray:
    """Return the mean recall over the classes present, shape (n_weights,)."""
    return np.nanmean(compute_recall(p, weights), axis=1)


def compute_macro_f1(p: Predictions, weights: np.ndarray) -> np.ndarray:
    """Return the mean F1 over the classes present, shape (n_weights,).

    An accepted second answer counts as the true class.
    """
    n_classes = len(p.class_names)
    counted = np.where(p.is_right, p.y_true, p.y_pred)
    is_true = np.eye(n_classes)[p.y_true]
    is_pred = np.eye(n_classes)[counted].mean(0)
    hit = weights @ (is_true * is_pred)
    f1 = _divide(2 * hit, weights @ is_true + weights @ is_pred)
    present = np.unique(p.y_true)
    return f1[:, present].mean(axis=1)


def compute_ece(p: Predictions, weights: np.ndarray) -> np.ndarray:
    """Return the expected calibration error in [0, 1], shape (n_weights,).

    The weighted mean, over ten bins of equal width of the largest probability, of
    abs(share of right answers - mean probability) (Guo et al. 2017, arXiv:1706.04599).
    """
    confidence = p.y_proba.max(-1).ravel()
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    in_bin = np.eye(N_BINS)[bins]
    gap = (p.is_right.ravel() - confidence)[:, None] * in_bin
    rows = np.tile(weights, len(p.y_proba))
    return np.abs(rows @ gap).sum(1) / rows.sum(1)


def compute_nebula_auroc(p: Predictions, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of 1 - P(other), shape (n_weights,).

    Nebulae of all types against everything else; ties count one half; NaN where
    there is no `other`.
    """
    if OTHER not in p.class_names:
        return np.full(len(weights), np.nan)
    nebula = 1 - p.y_proba[:, :, p.class_names.index(OTHER)]
    areas = [_weighted_auroc(proba, p.is_nebula, weights) for proba in nebula]
    return np.mean(areas, axis=0)


def compute_flip_rate(
    p: Predictions, changed: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the share of nebula pictures whose answer changes, shape (n_weights,).

    ``changed`` are the probabilities after a change, as ``p.y_proba``. Pictures of
    `other` do not count: the question is whether colour or framing decides which
    nebula it is.
    """
    flips = (changed.argmax(-1) != p.y_pred).mean(0)
    return _divide(weights @ (flips * p.is_nebula), weights @ p.is_nebula.astype(float))


def compute_worst_group_recall(
    p: Predictions, palettes: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the smallest recall of any type x palette group, shape (n_weights,).

    Groups of fewer than `MIN_GROUP` nebulae are not scored; `other` is left out.
    """
    right = p.is_right.mean(0)
    recalls = []
    for label, name in enumerate(p.class_names):
        for palette in np.unique(palettes):
            member = (p.y_true == label) & (palettes == palette)
            if name == OTHER or len(np.unique(p.groups[member])) < MIN_GROUP:
                continue
            recalls.append(_divide(weights @ (right * member), weights @ member))
    if not recalls:
        return np.full(len(weights), np.nan)
    return np.fmin.reduce(recalls)


def make_score(values: np.ndarray, groups: np.ndarray) -> Score:
    """Return a score as metrics.json has it, from its value and then its resamples.

    ``low`` and ``high`` are the 95 % percentile interval, None where there is none.
    """
    finite = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (None, None)
    return {
        "value": _round(values[0]),
        "low": _round(low),
        "high": _round(high),
        "n_images": len(groups),
        "n_nebulae": len(np.unique(groups)),
    }


def score_accuracy(p: Predictions) -> Score:
    """Return the balanced accuracy of some answers, with its interval."""
    weights = make_weights(p.groups, p.y_true)
    return make_score(compute_balanced_accuracy(p, weights), p.groups)


def score_mean(values: np.ndarray, groups: np.ndarray, y: np.ndarray) -> Score:
    """Return the mean of one number a picture, nebulae alike, with its interval."""
    weights = make_weights(groups, y)
    return make_score(weights @ values / weights.sum(1), groups)


def score_head(
    p: Predictions,
    changed: Mapping[str, np.ndarray],
    palettes: np.ndarray,
    framed: Mapping[str, np.ndarray] | None = None,
    random_split: Predictions | None = None,
    sure: float | None = None,
) -> dict[str, Score | dict[str, Score]]:
    """Return every score that metrics.json holds of one head.

    Parameters
    ----------
    p : Predictions
        Answers to the pictures as they are.
    changed : mapping of str to ndarray of shape (n_repeats, n, n_classes)
        Answers in other colours, "grey" among them; all but grey may be of the
        pictures of nebulae only.
    palettes : ndarray of shape (n_images,), str
        The palette of each picture.
    framed : mapping, optional
        As ``changed``, of pictures framed otherwise.
    random_split : Predictions, optional
        Answers had the split been random.
    sure : float, optional
        Probability from which on an answer counts as sure.

    Returns
    -------
    dict
        Keys as in metrics.json, among them ``strict_balanced_accuracy`` (one right
        type a picture), ``type_recall``, ``grey_type_recall`` and ``type_flip_rate``
        (nebulae only, answers that must name a type), ``framing_flip_rate`` with
        the ``mean`` over the framings, and ``sure`` with ``share`` and ``accuracy``.
    """
    grey = p.replace(changed["grey"])
    types, grey_types = p.among_types(), grey.among_types()
    strict, nebulae = dataclasses.replace(p, accept=None), p.select(p.is_nebula)
    weights = make_weights(p.groups, p.y_true)
    nebula_weights = make_weights(nebulae.groups, nebulae.y_true)
    type_weights = make_weights(types.groups, types.y_true)

    def flips(answers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: compute_flip_rate(nebulae, _pick_nebulae(p, y_proba), nebula_weights)
            for name, y_proba in answers.items()
        }

    def describe(rates: Mapping[str, np.ndarray]) -> dict[str, Score]:
        return {k: make_score(rate, nebulae.groups) for k, rate in rates.items()}

    reframed = flips(framed or {})
    if reframed:
        reframed["mean"] = np.mean(list(reframed.values()), axis=0)
    recall = compute_recall(p, weights)
    type_flips = compute_flip_rate(types, grey_types.y_proba, type_weights)
    worst = compute_worst_group_recall(p, palettes, weights)
    missing = make_score(np.full(1, np.nan), p.groups)
    loose = missing if random_split is None else score_accuracy(random_split)
    return {
        "balanced_accuracy": score_accuracy(p),
        "balanced_accuracy_random_split": loose,
        "strict_balanced_accuracy": score_accuracy(strict),
        "macro_f1": make_score(compute_macro_f1(p, weights), p.groups),
        "recall": {
            name: make_score(recall[:, i], p.groups[p.y_true == i])
            for i, name in enumerate(p.class_names)
        },
        "grey_balanced_accuracy": score_accuracy(grey),
        "type_recall": score_accuracy(types),
        "grey_type_recall": score_accuracy(grey_types),
        "type_flip_rate": make_score(type_flips, types.groups),
        "flip_rate": describe(flips(changed)),
        "framing_flip_rate": describe(reframed),
        "worst_group_recall": make_score(worst, p.groups)
        | {"n_images": int(p.is_nebula.sum())},
        "ece": make_score(compute_ece(p, weights), p.groups),
        "nebula_auroc": make_score(compute_nebula_auroc(p, weights), p.groups),
        "sure": {} if sure is None else score_sure(p, sure),
    }


def score_sure(p: Predictions, sure: float) -> dict[str, Score]:
    """Return the ``share`` of sure answers, and the ``accuracy`` of these.

    Sure are those whose probability reaches ``sure``.
    """
    weights = make_weights(p.groups, p.y_true)
    is_sure = p.y_proba.max(-1) >= sure
    share, right = is_sure.mean(0), (is_sure & p.is_right).mean(0)
    return {
        "share": make_score(weights @ share / weights.sum(1), p.groups),
        "accuracy": make_score(_divide(weights @ right, weights @ share), p.groups),
    }


def compare_heads(
    a: Predictions,
    b: Predictions,
    metric: Metric = compute_balanced_accuracy,
) -> Score:
    """Return the difference b - a of two heads' scores on the same pictures.

    Its interval is paired: each resample draws the same nebulae for both, which two
    separate intervals would not.

    Raises
    ------
    ValueError
        If the two are not about the same pictures.
    """
    if not (np.array_equal(a.y_true, b.y_true) and np.array_equal(a.groups, b.groups)):
        raise ValueError("a paired comparison needs the same pictures on both sides")
    weights = make_weights(a.groups, a.y_true)
    return make_score(metric(b, weights) - metric(a, weights), a.groups)


def compute_confusion(p: Predictions) -> np.ndarray:
    """Return the confusion matrix averaged over repeats: rows are true classes."""
    n_classes = len(p.class_names)
    return np.eye(n_classes)[p.y_true].T @ np.eye(n_classes)[p.y_pred].mean(0)


def _weighted_auroc(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    _, tie = np.unique(scores, return_inverse=True)
    order = np.argsort(tie, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(tie[order]) > 0])

    def sum_ties(member: np.ndarray) -> np.ndarray:
        return np.add.reduceat((weights * member)[:, order], starts, axis=1)

    above, below = sum_ties(positive), sum_ties(~positive)
    beaten = np.cumsum(below, axis=1) - below / 2
    return _divide((above * beaten).sum(1), above.sum(1) * below.sum(1))


def _pick_nebulae(p: Predictions, y_proba: np.ndarray) -> np.ndarray:
    """Return the answers to the pictures of nebulae, if there are others."""
    return y_proba[:, p.is_nebula] if y_proba.shape[1] == len(p.y_true) else y_proba


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=np.asarray(b) > 0)


def _round(value: float | None) -> float | None:
    # Five digits are more than any interval here supports, and hide the last bits
    # in which two processors differ.
    if value is None or not np.isfinite(value):
        return None
    return round(float(value), 5)

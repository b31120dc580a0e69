"""A linear discriminant from sums: class means, and one covariance for all classes.

With few nebulae a class, logistic regression fits the few. A covariance shared by all
classes is learnt from all pictures and says which differences mean nothing: those
between two framings of one nebula, and - added on purpose - those between one crop in
colour and the same crop in grey. All it needs are sums over samples, and sums of
nebulae can be taken away again: so the samples are read once for a whole repeated
cross-validation, whatever the number of folds.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

from nebula_utils.heads import Head
from nebula_utils.training import (
    Fit,
    Samples,
    compute_sample_weight,
    fit_temperature,
    weigh_nebulae,
)

# Chosen on k-fold by nebula of the default pictures and on the original's photos.
RIDGE = 0.3  # on the diagonal, in units of a standardised feature's variance
COLOUR = 1.0  # what differences of colour add to the covariance
CHUNK = 4096  # samples at once, so that memory stays flat


class Moments(NamedTuple):
    """Sums over weighted samples, all that a discriminant needs.

    Attributes
    ----------
    weight : ndarray of shape (n_columns,), float64
        Sum of the weights of each part of each class.
    total : ndarray of shape (n_columns, n_features), float64
        Weighted sum of the embeddings.
    square : ndarray of shape (n_features, n_features), float32
        Weighted sum of their outer products.
    colour : ndarray of shape (n_features, n_features), float32
        The same of the differences between a crop in colour and in grey.
    """

    weight: np.ndarray
    total: np.ndarray
    square: np.ndarray
    colour: np.ndarray

    def minus(self, other: "Moments") -> "Moments":
        """Return the sums without those of some of the samples."""
        return Moments(*(a - b for a, b in zip(self, other, strict=True)))

    def plus(self, other: "Moments") -> "Moments":
        """Return the sums over two sets of samples."""
        return Moments(*(a + b for a, b in zip(self, other, strict=True)))


def number_columns(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Give each part of each class a column.

    Parameters
    ----------
    samples : Samples
        With ``part`` if classes have several.

    Returns
    -------
    column : ndarray of shape (n_samples,), int
        Column of each sample.
    classes : ndarray of shape (n_columns,), int
        Class of each column.
    """
    part = np.full(len(samples.y), "") if samples.part is None else samples.part
    names = np.char.add(np.char.add(samples.y.astype(str), "/"), part)
    found, column = np.unique(names, return_inverse=True)
    return column, np.array([int(name.split("/")[0]) for name in found])


def compute_moments(
    samples: Samples, column: np.ndarray, weight: np.ndarray, n_columns: int
) -> Moments:
    """Sum over samples.

    Parameters
    ----------
    samples : Samples
        Embeddings; with ``copies`` > 1 colour differences are summed too.
    column : ndarray of shape (n_samples,), int
        From `number_columns`, of all samples of the study.
    weight : ndarray of shape (n_samples,), float64
        Of all samples of the study, so that sums of different folds add up.
    n_columns : int
        Number of columns.

    Returns
    -------
    Moments
    """
    n_features = samples.X.shape[1]
    indicator = np.eye(n_columns)[column] * weight[:, None]
    total = np.zeros((n_columns, n_features))
    square = np.zeros((n_features, n_features), np.float32)
    colour = np.zeros_like(square)
    step = CHUNK // samples.copies * samples.copies
    for start in range(0, len(samples.y), step):
        rows = slice(start, start + step)
        X, root = samples.X[rows], np.sqrt(weight[rows], dtype=np.float64)
        total += indicator[rows].T @ X
        Z = X * root[:, None].astype(np.float32)
        square += Z.T @ Z
        if samples.copies > 1:
            Z = Z.reshape(-1, samples.copies, n_features)
            D = (Z[:, :-1] - Z[:, -1:]).reshape(-1, n_features)
            colour += D.T @ D
    return Moments(indicator.sum(0), total, square, colour)


def fit_moments(
    moments: Moments,
    classes: np.ndarray,
    class_names: Sequence[str],
    colour: float = COLOUR,
) -> Head:
    """Fit the discriminant.

    Parameters
    ----------
    moments : Moments
        Sums over the samples that are fitted.
    classes : ndarray of shape (n_columns,), int
        Class of each column.
    class_names : sequence of str
        One name a class.
    colour : float
        Weight of the colour differences.

    Returns
    -------
    Head
        Not calibrated yet.

    Raises
    ------
    ValueError
        If a class has no sample.

    Notes
    -----
    With means m_c and within-class covariance S of the standardised embeddings the
    logits are x S'⁻¹ m_c - m_c S'⁻¹ m_c / 2, S' = S + colour·C + RIDGE·1, where C is
    the mean outer product of colour differences [1]_: a ridge that is strong along
    colour, akin to erasing the concept [2]_ but by degrees.

    References
    ----------
    .. [1] Hastie, Tibshirani, Friedman (2009), The elements of statistical learning,
       section 4.3.1; Bartlett's nuisance attribute projection is the hard limit.
    .. [2] Belrose et al. (2023), LEACE, arXiv:2306.03819.
    """
    filled = moments.weight > 1e-9
    absent = sorted(set(range(len(class_names))) - set(classes[filled]))
    if absent:
        raise ValueError(f"no sample of class {[class_names[i] for i in absent]}")
    weight, total = moments.weight[filled], moments.total[filled]
    means = total / weight[:, None]
    everything = weight.sum()
    within = moments.square / everything - (means.T * (weight / everything)) @ means
    centre = total.sum(0) / everything
    variance = np.diag(moments.square) / everything - centre**2
    scale = np.sqrt(np.maximum(variance, 0)) + 1e-4
    covariance = (within + colour * moments.colour / everything) / np.outer(
        scale, scale
    )
    covariance[np.diag_indices_from(covariance)] += RIDGE
    standard = means / scale
    W = scipy.linalg.solve(covariance, standard.T, assume_a="pos", overwrite_a=True)
    intercept = -0.5 * np.einsum("cd,dc->c", standard, W)
    coef = W / scale[:, None]
    return Head(
        tuple(class_names),
        coef.astype(np.float32),
        intercept.astype(np.float32),
        classes[filled],
    )


def fit_folds(
    samples: Samples,
    judged: Samples,
    class_names: Sequence[str],
    folds: Sequence[np.ndarray],
    colour: float = COLOUR,
) -> tuple[list[Fit], Fit]:
    """Fit one head a fold without its nebulae, and one on all.

    Parameters
    ----------
    samples : Samples
        What is fitted; samples of no judged nebula are in every fit.
    judged : Samples
        The pictures as they will be asked about.
    class_names : sequence of str
        One name a class.
    folds : sequence of ndarray of int
        Rows of ``judged`` in each fold; together all rows, each once.
    colour : float
        See `fit_moments`.

    Returns
    -------
    fits : list of Fit
        Of each fold, on all samples but those of the fold's nebulae. The temperature
        is chosen on the answers to the other folds by heads that saw neither.
    whole : Fit
        On all samples; its temperature is chosen on all folds' answers.
    """
    column, classes = number_columns(samples)
    weight = compute_sample_weight(samples, balanced=True)
    parts = []
    for rows in folds:
        mine = np.isin(samples.groups, judged.groups[rows])
        fold = samples.select(mine)
        parts.append(compute_moments(fold, column[mine], weight[mine], len(classes)))
    rest = ~np.isin(samples.groups, judged.groups)
    everything = compute_moments(
        samples.select(rest), column[rest], weight[rest], len(classes)
    )
    for part in parts:
        everything = everything.plus(part)

    def fit(moments: Moments) -> Head:
        return fit_moments(moments, classes, class_names, colour)

    share = weigh_nebulae(judged.groups)
    inner = _answer_pairs(judged.X, folds, everything, parts, fit)
    fits, held_out = [], np.empty((len(judged.y), len(class_names)))
    for i, rows in enumerate(folds):
        head = fit(everything.minus(parts[i]))
        held_out[rows] = head.decision_function(judged.X[rows])
        order = np.setdiff1d(np.arange(len(judged.y)), rows)
        temperature = fit_temperature(
            inner[i, order],
            judged.y[order],
            share[order],
            None if judged.accept is None else judged.accept[order],
        )
        fits.append(Fit(head.scale(temperature), RIDGE, temperature))
    temperature = fit_temperature(held_out, judged.y, share, judged.accept)
    return fits, Fit(fit(everything).scale(temperature), RIDGE, temperature)


def _answer_pairs(
    X: np.ndarray,
    folds: Sequence[np.ndarray],
    everything: Moments,
    parts: Sequence[Moments],
    fit: Callable[[Moments], Head],
) -> np.ndarray:
    """Return the logits of each picture by a head without fold i and its own fold.

    One head without folds i and j answers for both, so each pair is fitted once.
    Shape (n_folds, n_images, n_classes); a fold's own answers in its row are nan.
    """
    answers: np.ndarray | None = None
    for i, j in itertools.combinations(range(len(folds)), 2):
        head = fit(everything.minus(parts[i]).minus(parts[j]))
        for out, asked in ((i, folds[j]), (j, folds[i])):
            logits = head.decision_function(X[asked])
            if answers is None:
                answers = np.full((len(folds), len(X), logits.shape[1]), np.nan)
            answers[out, asked] = logits
    assert answers is not None
    return answers

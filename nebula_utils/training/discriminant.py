"""A linear discriminant from sums: class means, and one covariance for all classes.

With few nebulae a class, logistic regression fits the few. A covariance shared by all
classes is learnt from all pictures and says which differences mean nothing: those
between two framings of one nebula, and - added on purpose - those between one crop in
colour and the same crop in grey. All it needs are sums over samples, and sums of
nebulae can be taken away again: so the samples are read once for a whole repeated
cross-validation, whatever the number of folds.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

from nebula_utils.config import OTHER
from nebula_utils.training.fitting import (
    PICTURE,
    Fit,
    Samples,
    compute_sample_weight,
    fit_temperature,
    weigh_nebulae,
)
from nebula_utils.training.heads import Head

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


class Nebulae(NamedTuple):
    """What one nebula (or simulated scene) gives to one column, one a row.

    Attributes
    ----------
    mean : ndarray of shape (n, n_features), float32
        Weighted mean of its embeddings.
    weight : ndarray of shape (n,), float64
        Sum of their weights.
    column : ndarray of shape (n,), int
        Column that they belong to.
    groups : ndarray of shape (n,), str
        Nebula.
    is_typical : ndarray of shape (n,), bool
        Whether it tells how much the nebulae of a type differ: pictures of a nebula
        do, simulated scenes and `other` do not.
    """

    mean: np.ndarray
    weight: np.ndarray
    column: np.ndarray
    groups: np.ndarray
    is_typical: np.ndarray

    def without(self, groups: np.ndarray) -> "Nebulae":
        """Return the rows of other nebulae than these."""
        keep = ~np.isin(self.groups, groups)
        return Nebulae(*(values[keep] for values in self))


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


def average_nebulae(
    samples: Samples, column: np.ndarray, weight: np.ndarray, class_names: Sequence[str]
) -> Nebulae:
    """Average over each nebula's samples in each column.

    Parameters
    ----------
    samples : Samples
        All samples of the study.
    column : ndarray of shape (n_samples,), int
        From `number_columns`.
    weight : ndarray of shape (n_samples,), float64
        From `training.compute_sample_weight`.
    class_names : sequence of str
        One name a class.

    Returns
    -------
    Nebulae
    """
    pairs = np.char.add(np.char.add(column.astype(str), "/"), samples.groups)
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    total = np.bincount(inverse, weight)
    mean = np.empty((len(first), samples.X.shape[1]), np.float32)
    order = np.argsort(inverse, kind="stable")
    for i, rows in enumerate(np.split(order, np.cumsum(np.bincount(inverse))[:-1])):
        mean[i] = weight[rows] @ samples.X[rows] / total[i]
    is_typical = np.array([class_names[label] != OTHER for label in samples.y[first]])
    if samples.kind is not None:
        is_typical &= samples.kind[first] == PICTURE
    return Nebulae(mean, total, column[first], samples.groups[first], is_typical)


def fit_moments(
    moments: Moments,
    classes: np.ndarray,
    class_names: Sequence[str],
    colour: float = COLOUR,
    nebulae: Nebulae | None = None,
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
    nebulae : Nebulae, optional
        The same samples by nebula; with it the intercepts allow for thin classes.

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

    The mean of a class of few nebulae lies too far from everything: on average
    m_c S'⁻¹ m_c is too large by t / n_c, where n_c is the effective number of its
    nebulae and t the trace of S'⁻¹ times their scatter. Half of that is given back to
    the intercept [3]_, without which supernova remnants (7 nebulae) lose to emission
    nebulae (58) even where they are nearer. A thin class's own scatter is known badly
    (its few nebulae shape S'), so t is the median over the types.

    References
    ----------
    .. [1] Hastie, Tibshirani, Friedman (2009), The elements of statistical learning,
       section 4.3.1; Bartlett's nuisance attribute projection is the hard limit.
    .. [2] Belrose et al. (2023), LEACE, arXiv:2306.03819.
    .. [3] Moran & Murphy (1979), A closer look at two alternative methods of
       statistical discrimination, Applied Statistics 28, 223.
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
    factor = scipy.linalg.cho_factor(covariance, overwrite_a=True)
    W = scipy.linalg.cho_solve(factor, standard.T)
    intercept = -0.5 * np.einsum("cd,dc->c", standard, W)
    if nebulae is not None:
        excess = _estimate_excess(nebulae, len(filled), scale, factor)
        intercept += 0.5 * excess[filled]
    coef = W / scale[:, None]
    return Head(
        tuple(class_names),
        coef.astype(np.float32),
        intercept.astype(np.float32),
        classes[filled],
    )


def _estimate_excess(
    nebulae: Nebulae, n_columns: int, scale: np.ndarray, factor: tuple
) -> np.ndarray:
    """Return by how much each column's squared distance is too large on average."""
    scatter = []
    for column in range(n_columns):
        mine = nebulae.mean[nebulae.is_typical & (nebulae.column == column)]
        if len(mine) > 1:
            apart = (mine - mine.mean(0, dtype=np.float64)) / scale
            solved = scipy.linalg.cho_solve(factor, apart.T)
            scatter.append(np.einsum("nd,dn->", apart, solved) / (len(mine) - 1))
    weight = np.bincount(nebulae.column, nebulae.weight, n_columns)
    square = np.bincount(nebulae.column, nebulae.weight**2, n_columns)
    one_over_n = square / np.maximum(weight, 1e-9) ** 2
    return np.median(scatter) * one_over_n if scatter else np.zeros(n_columns)


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
    nebulae = average_nebulae(samples, column, weight, class_names)

    def fit_without(*out: int) -> Head:
        moments, left = everything, nebulae
        for i in out:
            moments = moments.minus(parts[i])
            left = left.without(judged.groups[folds[i]])
        return fit_moments(moments, classes, class_names, colour, left)

    share = weigh_nebulae(judged.groups)
    held_out = np.empty((len(judged.y), len(class_names)))
    # Logits of a picture (axis 1) by a head without fold i (axis 0) and its own fold:
    # one head without folds i and j answers for both. A fold's own are never read.
    inner = np.full((len(folds), *held_out.shape), np.nan)
    for i, j in itertools.combinations(range(len(folds)), 2):
        head = fit_without(i, j)
        inner[i, folds[j]] = head.decision_function(judged.X[folds[j]])
        inner[j, folds[i]] = head.decision_function(judged.X[folds[i]])
    fits = []
    for i, rows in enumerate(folds):
        head = fit_without(i)
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
    return fits, Fit(fit_without().scale(temperature), RIDGE, temperature)

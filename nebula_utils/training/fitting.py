"""Fit heads: as the original tool did, balanced, and with Keras for comparison.

Hyper-parameters and the calibration's temperature are chosen by cross-validation by
nebula *inside* the samples that a fit is given, so that an outer test fold never
takes part in a choice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from nebula_utils.config import RANDOM_STATE
from nebula_utils.dataset.splits import repeated_group_kfold
from nebula_utils.features.quiet import import_tensorflow
from nebula_utils.training.heads import Head

# Inverse strengths of the L2 penalty that cross-validation chooses from.
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1)
INNER_FOLDS = 3
MAX_ITERATIONS = 300
# How the original's retrain.py trained its last layer by default.
ORIGINAL_STEPS = 4000
ORIGINAL_LEARNING_RATE = 0.01
ORIGINAL_BATCH_SIZE = 100
STEPS_A_POINT = 100  # of the learning curves
PICTURE = "picture"  # the kind of samples that are crops of a class's own pictures


class Samples(NamedTuple):
    """Embeddings with what they show.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features), float32
        Embeddings.
    y : ndarray of shape (n_samples,), int
        Classes.
    groups : ndarray of shape (n_samples,), str
        Nebulae; a simulated sample belongs to the nebula of its background.
    kind : ndarray of shape (n_samples,), str, optional
        Where a sample comes from; default: all from pictures as they are.
    shares : dict of str to float, optional
        What each kind weighs in its class, beside the others; default: 1.
    part : ndarray of shape (n_samples,), str, optional
        Which part of a class of several kinds a sample belongs to; default: classes
        are of one kind.
    copies : int
        Every so many rows in turn are one crop in different colours, the last grey.
    accept : ndarray of shape (n_samples, n_classes), bool, optional
        Which answers count as right; default: only ``y``.
    """

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    kind: np.ndarray | None = None
    shares: dict[str, float] | None = None
    part: np.ndarray | None = None
    copies: int = 1
    accept: np.ndarray | None = None

    def without(self, groups: np.ndarray) -> "Samples":
        """Return the samples whose nebula is not among ``groups``."""
        return self.select(~np.isin(self.groups, groups))

    def select(self, mask: np.ndarray) -> "Samples":
        """Return the samples where ``mask`` is true."""
        return self._replace(
            X=self.X[mask],
            y=self.y[mask],
            groups=self.groups[mask],
            kind=None if self.kind is None else self.kind[mask],
            part=None if self.part is None else self.part[mask],
            accept=None if self.accept is None else self.accept[mask],
        )


class Fit(NamedTuple):
    """A fitted head and what was chosen on the way."""

    head: Head
    penalty: float
    temperature: float


def compute_sample_weight(samples: Samples, balanced: bool) -> np.ndarray:
    """Return one weight a sample, with mean 1.

    Parameters
    ----------
    samples : Samples
        What is weighed.
    balanced : bool
        If false, every sample weighs the same. If true, every class does; in a class
        each kind has its share, and in a kind every nebula weighs the same.

    Returns
    -------
    ndarray of shape (n_samples,), float64
    """
    y = samples.y
    if not balanced:
        return np.ones(len(y))
    weight = np.ones(len(y))
    kinds = np.full(len(y), "") if samples.kind is None else samples.kind
    for kind in np.unique(kinds):
        for label in np.unique(y[kinds == kind]):
            members = (kinds == kind) & (y == label)
            _, inverse, counts = np.unique(
                samples.groups[members], return_inverse=True, return_counts=True
            )
            share = (samples.shares or {}).get(kind, 1.0)
            weight[members] = share / len(counts) / counts[inverse]
    for label in np.unique(y):
        weight[y == label] /= weight[y == label].sum()
    return weight * len(y) / weight.sum()


def weigh_nebulae(groups: np.ndarray) -> np.ndarray:
    """Return one over the number of a nebula's pictures, for each picture.

    So are scores weighed, and so calibration is: a head that was balanced is still
    asked to be right about the pictures as they come.
    """
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return 1 / counts[inverse]


def fit_head(
    samples: Samples,
    judged: Samples,
    class_names: Sequence[str],
    balanced: bool = False,
    penalties: Sequence[float] = PENALTIES,
    random_state: int = RANDOM_STATE,
) -> Fit:
    """Fit a logistic head; choose its penalty and temperature by nebula.

    Parameters
    ----------
    samples : Samples
        What is fitted: one or more copies of each picture.
    judged : Samples
        The same pictures as they will be asked about; inner splits of their nebulae
        choose, and samples of a nebula that is judged are not fitted.
    class_names : sequence of str
        One name a class.
    balanced : bool
        See `compute_sample_weight`.
    penalties : sequence of float
        Candidates for the inverse strength of the penalty.
    random_state : int
        Seed of the inner splits.

    Returns
    -------
    Fit
    """
    splits = list(
        repeated_group_kfold(judged.y, judged.groups, INNER_FOLDS, 1, random_state)
    )
    weight = compute_sample_weight(judged, balanced)
    once = weigh_nebulae(judged.groups)
    losses, temperatures = [], []
    for penalty in penalties:
        logits = np.empty((len(judged.y), len(class_names)))
        for _, _, _, test in splits:
            inner = samples.without(judged.groups[test])
            share = compute_sample_weight(inner, balanced)
            head = fit_logistic(inner.X, inner.y, class_names, penalty, share)
            logits[test] = head.decision_function(judged.X[test])
        temperatures.append(fit_temperature(logits, judged.y, once, judged.accept))
        losses.append(_cross_entropy(logits / temperatures[-1], judged.y, weight))
    best = int(np.argmin(losses))
    share = compute_sample_weight(samples, balanced)
    head = fit_logistic(samples.X, samples.y, class_names, penalties[best], share)
    return Fit(head.scale(temperatures[best]), penalties[best], temperatures[best])


def fit_temperature(
    logits: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None = None,
    accept: np.ndarray | None = None,
) -> float:
    """Return the temperature that makes held-out logits best calibrated.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_classes)
        Of samples that the head was not fitted on.
    y : ndarray of shape (n_samples,), int
        True classes.
    weight : ndarray of shape (n_samples,), optional
        Default: all equal.
    accept : ndarray of shape (n_samples, n_classes), bool, optional
        Which answers count as right, as where calibration is scored.

    Returns
    -------
    float
        Between 0.1 and 10; minimises the cross-entropy [1]_.

    References
    ----------
    .. [1] Guo et al. (2017), On calibration of modern neural networks,
       arXiv:1706.04599.
    """
    weight = np.ones(len(y)) if weight is None else weight

    def loss(log_temperature: float) -> float:
        return _cross_entropy(logits / np.exp(log_temperature), y, weight, accept)

    bounds = (np.log(0.1), np.log(10))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def fit_logistic(
    X: np.ndarray,
    y: np.ndarray,
    class_names: Sequence[str],
    penalty: float = 0.03,
    sample_weight: np.ndarray | None = None,
) -> Head:
    """Fit multinomial logistic regression with an L2 penalty.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float32
        Embeddings; standardised here, which the head's arrays then undo.
    y : ndarray of shape (n_samples,), int
        Index of each sample's class in ``class_names``; every class must occur.
    class_names : sequence of str
        One name a class.
    penalty : float
        Inverse strength C of the penalty, scikit-learn's `C`, on standardised
        embeddings.
    sample_weight : ndarray of shape (n_samples,), optional
        Non-negative; only ratios matter. Default: all equal.

    Returns
    -------
    Head

    Raises
    ------
    ValueError
        If a class has no sample.

    Notes
    -----
    scikit-learn's L-BFGS from zero: the same input gives the same head.
    """
    _check_classes(y, class_names)
    n_classes = len(class_names)
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    mean, scale = X.mean(0), X.std(0) + 1e-6
    # Its matrices are small: threads would mostly wait for each other.
    with threadpool_limits(1):
        fitted = LogisticRegression(C=penalty, max_iter=MAX_ITERATIONS).fit(
            (X - mean) / scale, y, weight / weight.mean()
        )
    # With two classes scikit-learn fits one vector, the difference of the two.
    signs = np.array([[-0.5], [0.5]]) if n_classes == 2 else np.eye(n_classes)
    coef = (signs @ fitted.coef_ / scale).T
    intercept = signs @ fitted.intercept_ - mean @ coef
    return Head(
        tuple(class_names), coef.astype(np.float32), intercept.astype(np.float32)
    )


def fit_keras(
    X: np.ndarray,
    y: np.ndarray,
    class_names: Sequence[str],
    validation: tuple[np.ndarray, np.ndarray],
    steps: int = ORIGINAL_STEPS,
    learning_rate: float = ORIGINAL_LEARNING_RATE,
    batch_size: int = ORIGINAL_BATCH_SIZE,
    log_dir: Path | None = None,
    random_state: int = RANDOM_STATE,
) -> tuple[Head, dict[str, list[float]]]:
    """Train a Keras dense layer by gradient descent, as the original's retraining did.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float32
        Embeddings.
    y : ndarray of shape (n_samples,), int
        Classes.
    class_names : sequence of str
        One name a class.
    validation : (X, y)
        Embeddings and classes of other nebulae, for the curves only.
    steps, learning_rate, batch_size : int, float, int
        Of plain stochastic gradient descent; the defaults are the original's.
    log_dir : Path, optional
        Where TensorBoard finds the curves.
    random_state : int
        Seed of the shuffling.

    Returns
    -------
    head : Head
        The dense layer as a head.
    history : dict of str to list of float
        ``loss``, ``accuracy``, ``val_loss`` and ``val_accuracy``, one every
        `STEPS_A_POINT` steps.
    """
    tf = import_tensorflow()
    tf.keras.utils.set_random_seed(random_state)
    n_features, n_classes = X.shape[1], len(class_names)
    dense = tf.keras.layers.Dense(n_classes, kernel_initializer="zeros")
    model = tf.keras.Sequential([tf.keras.Input((n_features,)), dense])
    model.compile(
        tf.keras.optimizers.SGD(learning_rate),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    callbacks = [tf.keras.callbacks.TensorBoard(str(log_dir))] if log_dir else []
    batches = tf.data.Dataset.from_tensor_slices((X, y)).shuffle(len(X), random_state)
    fitted = model.fit(
        batches.batch(batch_size).repeat(),
        epochs=max(1, round(steps / STEPS_A_POINT)),
        steps_per_epoch=min(steps, STEPS_A_POINT),
        validation_data=validation,
        callbacks=callbacks,
        shuffle=False,  # the batches are shuffled already; Keras would warn
        verbose=0,
    )
    coef, intercept = dense.get_weights()
    return Head(tuple(class_names), coef, intercept), fitted.history


def _cross_entropy(
    logits: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    accept: np.ndarray | None = None,
) -> float:
    right = np.eye(logits.shape[1], dtype=bool)[y]
    if accept is not None:
        right = right | accept
    log_p = logsumexp(np.where(right, log_softmax(logits, axis=1), -np.inf), axis=1)
    return float(-(weight * log_p).sum() / weight.sum())


def _check_classes(y: np.ndarray, class_names: Sequence[str]) -> None:
    absent = sorted(set(range(len(class_names))) - set(np.unique(y)))
    if absent:
        raise ValueError(f"no sample of class {[class_names[i] for i in absent]}")

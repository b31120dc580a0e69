"""What heads are compared with: neighbours, linear probes, gradient descent."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nebula_utils.config import RANDOM_STATE
from nebula_utils.features.engines import import_tensorflow
from nebula_utils.training.fitting import fit_head
from nebula_utils.training.heads import LinearHead, make_linear_head
from nebula_utils.training.study import Study, make_splits

# How the original's retrain.py trained its last layer by default.
ORIGINAL_STEPS = 4000
ORIGINAL_LEARNING_RATE = 0.01
ORIGINAL_BATCH_SIZE = 100
STEPS_A_POINT = 100  # of the learning curves


class KerasTrial(NamedTuple):
    """Gradient descent against logistic regression on one split by nebula."""

    history: dict[str, list[float]]  # losses and accuracies, one an epoch
    logistic_loss: float  # of the logistic head on the same test pictures, nats
    agreement: float  # share of the test pictures that both heads call the same
    accuracy: float  # share of right answers
    logistic_accuracy: float
    n_test: int


def share_neighbours(X: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return how often nearest neighbours share a value of ``y``, and chance.

    Parameters
    ----------
    X : ndarray of shape (n_images, n_features), float32
        Embeddings.
    y : ndarray of shape (n_images,)
        Types, palettes, or any other grouping.

    Returns
    -------
    share, chance : float
        In [0, 1]. ``share`` goes by the cosine of the centred embeddings, ``chance``
        is what a neighbour drawn at random would give; both are means over the values
        of ``y``, so that the largest does not decide alone.
    """
    centred = X - X.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True) + 1e-9
    similarity = centred @ centred.T
    np.fill_diagonal(similarity, -np.inf)
    same = y[similarity.argmax(1)] == y
    values, counts = np.unique(y, return_counts=True)
    chance = (counts - 1) / (len(y) - 1)
    return float(np.mean([same[y == v].mean() for v in values])), float(chance.mean())


def probe(
    X: np.ndarray, y: np.ndarray, groups: np.ndarray, n_splits: int = 5
) -> tuple[float, float]:
    """Return how well a linear classifier reads ``y`` off embeddings, and chance.

    Balanced accuracy out of fold, and one over the number of values; no nebula, in
    ``groups``, is on both sides of a split.

    References
    ----------
    .. [1] Alain & Bengio (2016), Understanding intermediate layers using linear
       classifier probes, arXiv:1610.01644.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=1e-3, class_weight="balanced", max_iter=1000),
    )
    folds = StratifiedGroupKFold(n_splits, shuffle=True, random_state=RANDOM_STATE)
    answers = cross_val_predict(model, X, y, groups=groups, cv=folds)
    return float(balanced_accuracy_score(y, answers)), 1 / len(np.unique(y))


def fit_keras(
    X: np.ndarray,
    y: np.ndarray,
    class_names: Sequence[str],
    validation: tuple[np.ndarray, np.ndarray],
    steps: int = ORIGINAL_STEPS,
    log_dir: Path | None = None,
    random_state: int = RANDOM_STATE,
) -> tuple[LinearHead, dict[str, list[float]]]:
    """Train a Keras dense layer by stochastic gradient descent.

    ``X`` and ``y`` are embeddings and classes; ``validation`` has those of other
    nebulae, for the curves only, which TensorBoard finds in ``log_dir``.

    Returns
    -------
    head : LinearHead
        The dense layer as a head.
    history : dict of str to list of float
        ``loss``, ``accuracy``, ``val_loss`` and ``val_accuracy``, one every
        `STEPS_A_POINT` steps.
    """
    tf = import_tensorflow()
    tf.keras.utils.set_random_seed(random_state)
    dense = tf.keras.layers.Dense(len(class_names), kernel_initializer="zeros")
    model = tf.keras.Sequential([tf.keras.Input((X.shape[1],)), dense])
    model.compile(
        tf.keras.optimizers.SGD(ORIGINAL_LEARNING_RATE),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    callbacks = [tf.keras.callbacks.TensorBoard(str(log_dir))] if log_dir else []
    batches = tf.data.Dataset.from_tensor_slices((X, y)).shuffle(len(X), random_state)
    fitted = model.fit(
        batches.batch(ORIGINAL_BATCH_SIZE).repeat(),
        epochs=max(1, round(steps / STEPS_A_POINT)),
        steps_per_epoch=min(steps, STEPS_A_POINT),
        validation_data=validation,
        callbacks=callbacks,
        shuffle=False,  # the batches are shuffled already; Keras would warn
        verbose=0,
    )
    return make_linear_head(class_names, *dense.get_weights()), fitted.history


def compare_with_keras(
    study: Study,
    n_splits: int,
    random_state: int = RANDOM_STATE,
    steps: int = ORIGINAL_STEPS,
    log_dir: Path | None = None,
) -> KerasTrial:
    """Train a Keras dense layer on the first fold, and compare it with logistic.

    ``study`` is of a recipe that fits every picture once; ``n_splits`` and
    ``random_state`` are of its cross-validation, ``steps`` and ``log_dir`` as for
    `fit_keras`.
    """
    data, training = study.dataset, study.training
    _, _, train, test = make_splits(data, n_splits, 1, random_state)[0]
    X, y = study.embed()[test, 0], data.y[test]
    left = np.unique(data.groups[test])
    samples = training.types.without(left)
    keras, history = fit_keras(
        samples.X, samples.y, data.class_names, (X, y), steps, log_dir, random_state
    )
    logistic = fit_head(training, study.recipe, data.class_names, left, len(train))
    y_proba, y_logistic = keras.predict_proba(X), logistic.predict_proba(X)
    one, two = y_proba.argmax(1), y_logistic.argmax(1)
    loss = -np.log(y_logistic[np.arange(len(y)), y])
    compared = (loss, one == two, one == y, two == y)
    loss, agreement, right, logistic_right = (float(each.mean()) for each in compared)
    return KerasTrial(history, loss, agreement, right, logistic_right, len(y))

"""What embeddings know before anything is trained: neighbours and linear probes."""

import numpy as np

from nebula_utils.config import RANDOM_STATE


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

    Parameters
    ----------
    X : ndarray of shape (n_images, n_features), float32
        Embeddings.
    y : ndarray of shape (n_images,)
        What to read: types, palettes.
    groups : ndarray of shape (n_images,), str
        The nebula of each picture; no nebula is on both sides of a split.
    n_splits : int
        Folds.

    Returns
    -------
    accuracy, chance : float
        Balanced accuracy out of fold, and one over the number of values.

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

"""Heads on frozen embeddings, as scikit-learn's estimators are: fit, predict, save.

A head answers pictures that are embedded as one view or as several. One softmax layer
is the original tool's retrained last layer; the exported head asks two such layers,
one whether the picture shows a nebula and one which. Only NumPy is imported here, as
`nebula classify` must start quickly; what fits is imported when something is fitted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nebula_utils.config import OTHER
from nebula_utils.errors import ModelError
from nebula_utils.files import DAMAGED, write_atomic

FORMAT_VERSION = 5  # of an exported classifier; 5 has heads of one or two steps
MAX_ITERATIONS = 300
TOLERANCE = 1e-3  # of the gradient; answers differ from 1e-5's by less than 0.005
SMALLEST = 1e-12  # probability whose logarithm is taken


class _Estimator:
    """What scikit-learn asks of a classifier, without importing it.

    Parameters
    ----------
    C : float
        Inverse strength of the L2 penalty, scikit-learn's ``C``, on standardised
        embeddings; it goes with the sum of the sample weights.
    class_names : tuple of str, optional
        The labels in ``y`` in the order of the answers; default: sorted.
    temperature : float
        What log probabilities are divided by, > 0 (calibration).
    """

    _names: tuple[str, ...] = ("C", "class_names", "temperature")
    classes_: np.ndarray

    def __init__(
        self,
        C: float = 0.01,
        class_names: tuple[str, ...] | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.C = C
        self.class_names = class_names
        self.temperature = temperature

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters of the constructor by name."""
        return {name: getattr(self, name) for name in self._names}

    def set_params(self, **params: Any) -> "_Estimator":
        """Change parameters of the constructor."""
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that this is a classifier."""
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        targets = TargetTags(required=True)
        return Tags("classifier", targets, None, ClassifierTags())

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the most probable class of each picture, shape (n,)."""
        return self.classes_[self.predict_proba(X).argmax(-1)]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, (n, n_classes), ordered as ``classes_``.

        ``X`` are embeddings of one view a picture, (n, n_features), or of several,
        (n, n_views, n_features).
        """
        X = np.asarray(X, np.float64)
        return temper(self._answer(X[:, None] if X.ndim == 2 else X), self.temperature)

    def save(self, path: Path) -> None:
        """Write the head to an ``.npz`` file, no pickle inside; see `load_head`."""
        with write_atomic(path) as temporary:
            np.savez(temporary, **self.list_arrays())  # type: ignore[arg-type]

    def list_arrays(self) -> dict[str, np.ndarray]:
        """Return everything that `make_head` needs."""
        raise NotImplementedError

    def _answer(self, X: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class LinearHead(_Estimator):
    """One softmax layer; probabilities of several views are averaged.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    coef_ : ndarray of shape (n_features, n_classes), float32
        The matrix W of softmax(X W + b).
    intercept_ : ndarray of shape (n_classes,), float32
        The vector b.
    """

    coef_: np.ndarray
    intercept_: np.ndarray

    def fit(
        self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> "LinearHead":
        """Fit multinomial logistic regression by L-BFGS from zero.

        Parameters
        ----------
        X : ndarray of shape (n, n_features) or (n, n_views, n_features), float32
            Embeddings; each view is a sample and shares its picture's weight.
        y : ndarray of shape (n,)
            Labels; every class must occur.
        sample_weight : ndarray of shape (n,), optional
            Default: 1 each.

        Raises
        ------
        ValueError
            If a class has no sample, or there is a sample of an unknown class.
        """
        y = np.asarray(y)
        weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight)
        if X.ndim == 3:
            n_views = X.shape[1]
            X = X.reshape(-1, X.shape[2])
            y, weight = np.repeat(y, n_views), np.repeat(weight / n_views, n_views)
        present = np.unique(y)
        names = present if self.class_names is None else np.array(self.class_names)
        if len(absent := np.setdiff1d(names, present)):
            raise ValueError(f"no sample of class {absent.tolist()}")
        if len(unknown := np.setdiff1d(present, names)):
            raise ValueError(f"unknown classes {unknown.tolist()}")
        self.classes_ = names
        index = {name: i for i, name in enumerate(names.tolist())}
        codes = np.array([index[name] for name in y.tolist()])
        self.coef_, self.intercept_ = _fit_logistic(
            X, codes, len(index), self.C, weight
        )
        return self

    def set_arrays(self, coef: np.ndarray, intercept: np.ndarray) -> "LinearHead":
        """Take W and b from elsewhere; ``class_names`` say what they are."""
        self.classes_ = np.array(self.class_names)
        n_classes = len(self.classes_)
        if coef.shape[1:] != (n_classes,) or intercept.shape != (n_classes,):
            raise ValueError(f"{coef.shape} is no matrix of {n_classes} classes")
        self.coef_, self.intercept_ = coef, intercept
        return self

    def _answer(self, X: np.ndarray) -> np.ndarray:
        return softmax(X @ self.coef_ + self.intercept_).mean(1)

    def weigh_classes(self, x: np.ndarray) -> np.ndarray:
        """Return each class's gradient of its log probability, (n_features, n_classes).

        At an embedding ``x`` of shape (n_features,), of one view or the mean of
        several; before the temperature, and up to what is the same for all classes.
        """
        return self.coef_

    def list_arrays(self) -> dict[str, np.ndarray]:
        """Return everything that `make_head` needs."""
        return {
            "class_names": self.classes_.astype(str),
            "types_coef": self.coef_,
            "types_intercept": self.intercept_,
            "C": np.array(self.C),
            "temperature": np.array(self.temperature),
        }


class TwoStepHead(_Estimator):
    """One layer says whether it is a nebula, another which type it is then.

    P(type) = P(nebula) · P(type | nebula). The first view answers the first step, the
    mean of the probabilities over all views the second: a crop may lose the sky by
    which a nebula is told from a galaxy, but shows its texture.

    Parameters
    ----------
    C, class_names, temperature
        As for `_Estimator`.
    other : str or int
        The label of what is not a nebula.

    Attributes
    ----------
    nebula_ : LinearHead
        On all classes; only its answer for ``other`` counts.
    types_ : LinearHead
        On the types.
    """

    _names = ("C", "class_names", "temperature", "other")
    nebula_: LinearHead
    types_: LinearHead

    def __init__(
        self,
        C: float = 0.01,
        class_names: tuple[str, ...] | None = None,
        temperature: float = 1.0,
        other: str | int = OTHER,
    ) -> None:
        super().__init__(C, class_names, temperature)
        self.other = other

    def fit(
        self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> "TwoStepHead":
        """Fit both steps as `LinearHead.fit` does, the first on the first views."""
        first = X if X.ndim == 2 else X[:, 0]
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        is_type = np.asarray(y) != self.other
        nebula = LinearHead(self.C, self.class_names).fit(first, y, weight)
        types = tuple(n for n in nebula.classes_.tolist() if n != self.other)
        return self.set_steps(
            nebula,
            LinearHead(self.C, types).fit(X[is_type], y[is_type], weight[is_type]),
        )

    def set_steps(self, nebula: LinearHead, types: LinearHead) -> "TwoStepHead":
        """Take both steps as they were fitted, each on samples of its own."""
        self.nebula_, self.types_ = nebula, types
        self.classes_ = nebula.classes_
        return self

    @property
    def _is_type(self) -> np.ndarray:
        return self.classes_ != self.other

    def _answer(self, X: np.ndarray) -> np.ndarray:
        nebula = self.nebula_.predict_proba(X[:, 0])[:, self._is_type].sum(1)
        proba = np.empty((len(X), len(self.classes_)))
        proba[:, ~self._is_type] = 1 - nebula[:, None]
        proba[:, self._is_type] = nebula[:, None] * self.types_.predict_proba(X)
        return proba

    def weigh_classes(self, x: np.ndarray) -> np.ndarray:
        """Return the gradient of each class's log probability; see `LinearHead`."""
        p = self.nebula_.predict_proba(x[None])[0]
        gradients = self.nebula_.coef_ - (self.nebula_.coef_ @ p)[:, None]
        is_type = self._is_type
        share = p[is_type] / max(p[is_type].sum(), SMALLEST)
        q = self.types_.predict_proba(x[None])[0]
        types = self.types_.coef_ - (self.types_.coef_ @ q)[:, None]
        found = gradients.copy()
        found[:, is_type] = types + (gradients[:, is_type] @ share)[:, None]
        return found

    def list_arrays(self) -> dict[str, np.ndarray]:
        """Return everything that `make_head` needs."""
        return {
            **self.types_.list_arrays(),
            "class_names": self.classes_.astype(str),
            "nebula_coef": self.nebula_.coef_,
            "nebula_intercept": self.nebula_.intercept_,
            "temperature": np.array(self.temperature),
            "other": np.array(self.other),
        }


Head = LinearHead | TwoStepHead


def make_linear_head(
    class_names: Sequence[str], coef: np.ndarray, intercept: np.ndarray
) -> LinearHead:
    """Return the head of a matrix and a vector that were fitted elsewhere."""
    return LinearHead(class_names=tuple(class_names)).set_arrays(coef, intercept)


def make_head(arrays: Any) -> Head:
    """Return the head whose ``list_arrays`` gave these arrays.

    Raises
    ------
    KeyError, ValueError
        If one is missing, or of another shape than the others.
    """
    names = tuple(arrays["class_names"].tolist())
    C, temperature = float(arrays["C"]), float(arrays["temperature"])
    types = arrays["types_coef"], arrays["types_intercept"]
    if "nebula_coef" not in arrays:
        return LinearHead(C, names, temperature).set_arrays(*types)
    other = str(arrays["other"])
    nebula = arrays["nebula_coef"], arrays["nebula_intercept"]
    return TwoStepHead(C, names, temperature, other).set_steps(
        LinearHead(C, names).set_arrays(*nebula),
        LinearHead(C, tuple(n for n in names if n != other)).set_arrays(*types),
    )


def load_head(path: Path) -> Head:
    """Read a head that its ``save`` wrote.

    Raises
    ------
    ModelError
        If the file is missing, damaged, or an older version's.
    """
    again = "run `make reproduce` again"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "coef" in arrays:
                raise ModelError(f"{path} is an older version's: {again}")
            return make_head(arrays)
    except FileNotFoundError as error:
        raise ModelError(f"no head at {path}: run `make reproduce` first") from error
    except DAMAGED as error:
        raise ModelError(f"{path} is damaged ({error}): {again}") from error


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return exp(logits), each row of the last axis scaled to sum to 1."""
    exponential = np.exp(logits - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def temper(proba: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities, (..., n_classes), with logarithms over a temperature > 0.

    Above 1 they come nearer to each other, below 1 they part.
    """
    return softmax(np.log(np.maximum(proba, SMALLEST)) / temperature)


def _fit_logistic(
    X: np.ndarray, y: np.ndarray, n_classes: int, C: float, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if n_classes == 1:  # there is nothing to tell apart
        return np.zeros((X.shape[1], 1), np.float32), np.zeros(1, np.float32)
    from sklearn.linear_model import LogisticRegression

    mean, scale = X.mean(0), X.std(0) + 1e-6
    fitted = LogisticRegression(C=C, max_iter=MAX_ITERATIONS, tol=TOLERANCE).fit(
        (X - mean) / scale, y, weight
    )
    # With two classes scikit-learn fits one vector, the difference of the two.
    signs = np.array([[-0.5], [0.5]]) if n_classes == 2 else np.eye(n_classes)
    coef = (signs @ fitted.coef_ / scale).T
    intercept = signs @ fitted.intercept_ - mean @ coef
    return coef.astype(np.float32), intercept.astype(np.float32)

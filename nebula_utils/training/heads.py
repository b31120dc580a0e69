"""Linear heads on frozen embeddings: predict, save, load.

Every head of this study, the original's retrained last layer included, is in the end
one matrix and one vector: softmax(X W + b). So one class holds them all, whatever
fitted them (`training` does), and an exported head is two arrays in an ``.npz``. Only
NumPy is imported here, as `nebula classify` must start quickly.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nebula_utils.errors import ModelError
from nebula_utils.files import DAMAGED, write_atomic

FORMAT_VERSION = 4  # of an exported classifier; 4 says when an answer is sure


@dataclass(frozen=True)
class Head:
    """A linear classifier on embeddings.

    Attributes
    ----------
    class_names : tuple of str
        One name a class.
    coef : ndarray of shape (n_features, n_columns), float32
        The matrix W.
    intercept : ndarray of shape (n_columns,), float32
        The vector b.
    columns : ndarray of shape (n_columns,), int, optional
        The class of each column: a class of several kinds (galaxies, clusters and
        everyday photos are all `other`) has several, whose probabilities add up.
        Default: one column a class.
    temperature : float
        What the classes' logits are divided by, > 0 (calibration).
    """

    class_names: tuple[str, ...]
    coef: np.ndarray
    intercept: np.ndarray
    columns: np.ndarray | None = None
    temperature: float = 1.0

    def weigh_classes(self, x: np.ndarray) -> np.ndarray:
        """Return each class's weights at an embedding, (n_features, n_classes).

        Parameters
        ----------
        x : ndarray of shape (n_features,)
            Where a class has several columns, their softmax-weighted mean here, which
            is the gradient of the class's logit.
        """
        if self.columns is None:
            return self.coef
        logits = x @ self.coef + self.intercept
        groups = [
            np.flatnonzero(self.columns == c) for c in range(len(self.class_names))
        ]
        return np.stack([self.coef[:, g] @ softmax(logits[g]) for g in groups], 1)

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return the logits of the classes, shape (..., n_classes)."""
        logits = X @ self.coef + self.intercept
        if self.columns is not None:
            classes = range(len(self.class_names))
            logits = np.stack(
                [logsumexp(logits[..., self.columns == c]) for c in classes], -1
            )
        return logits / self.temperature

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return probabilities, shape (..., n_classes), that sum to 1.

        Parameters
        ----------
        X : ndarray of shape (..., n_features)
            Embeddings.
        """
        return softmax(self.decision_function(X))

    def scale(self, temperature: float) -> "Head":
        """Return the head with its logits divided by a temperature > 0 once more."""
        return replace(self, temperature=self.temperature * temperature)

    def save(self, path: Path) -> None:
        """Write the head to an ``.npz`` file, no pickle inside."""
        columns = np.arange(len(self.class_names))
        with write_atomic(path) as temporary:
            np.savez(
                temporary,
                class_names=np.array(self.class_names),
                coef=self.coef,
                intercept=self.intercept,
                columns=columns if self.columns is None else self.columns,
                temperature=np.array(self.temperature),
            )


def logsumexp(logits: np.ndarray) -> np.ndarray:
    """Return log of the sum of exp(logits) over the last axis."""
    largest = logits.max(-1, keepdims=True)
    return np.log(np.exp(logits - largest).sum(-1)) + largest[..., 0]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return exp(logits), each row of the last axis scaled to sum to 1."""
    exponential = np.exp(logits - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def load_head(path: Path) -> Head:
    """Read a head that `Head.save` wrote.

    Raises
    ------
    ModelError
        If the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = tuple(str(name) for name in arrays["class_names"])
            columns = arrays["columns"]
            single = np.array_equal(columns, np.arange(len(names)))
            return Head(
                names,
                arrays["coef"],
                arrays["intercept"],
                None if single else columns,
                float(arrays["temperature"]),
            )
    except FileNotFoundError as error:
        raise ModelError(f"no head at {path}: run `make reproduce` first") from error
    except DAMAGED as error:
        raise ModelError(
            f"{path} is damaged ({error}): run `make reproduce` again"
        ) from error

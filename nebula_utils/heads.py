"""Linear heads on frozen embeddings: predict, save, load.

Every head of this study, the original's retrained last layer included, is in the end
one matrix and one vector: softmax(X W + b). So one class holds them all, whatever
fitted them (`training` does), and an exported head is two arrays in an ``.npz``. Only
NumPy is imported here, as `nebula classify` must start quickly.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nebula_utils.errors import ModelError
from nebula_utils.files import write_atomic


@dataclass(frozen=True)
class Head:
    """A linear classifier on embeddings.

    Attributes
    ----------
    class_names : tuple of str
        One name a class.
    coef : ndarray of shape (n_features, n_classes), float32
        The matrix W.
    intercept : ndarray of shape (n_classes,), float32
        The vector b.
    """

    class_names: tuple[str, ...]
    coef: np.ndarray
    intercept: np.ndarray

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return the logits X W + b, shape (..., n_classes)."""
        return X @ self.coef + self.intercept

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return probabilities, shape (..., n_classes), that sum to 1.

        Parameters
        ----------
        X : ndarray of shape (..., n_features)
            Embeddings.
        """
        return softmax(self.decision_function(X))

    def scale(self, temperature: float) -> "Head":
        """Return the head with its logits divided by a temperature > 0."""
        return Head(
            self.class_names,
            (self.coef / temperature).astype(np.float32),
            (self.intercept / temperature).astype(np.float32),
        )

    def save(self, path: Path) -> None:
        """Write the head to an ``.npz`` file, no pickle inside."""
        with write_atomic(path) as temporary:
            np.savez(
                temporary,
                class_names=np.array(self.class_names),
                coef=self.coef,
                intercept=self.intercept,
            )


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
            return Head(names, arrays["coef"], arrays["intercept"])
    except FileNotFoundError as error:
        raise ModelError(f"no head at {path}: run `make reproduce` first") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{path} is damaged ({error}): run `make reproduce` again"
        ) from error

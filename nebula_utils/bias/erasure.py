"""Remove what a linear head could know of a concept from embeddings (LEACE).

Here the concept is the palette of a picture: after the erasure no linear head can tell
it better than by guessing, and the embeddings have moved as little as possible. An
alternative to the discriminant's colour term, for the ablation.
"""

from dataclasses import dataclass, replace

import numpy as np

from nebula_utils.training.heads import Head

# Directions of less variance than this share of the largest are not looked at.
SMALLEST = 1e-6


@dataclass(frozen=True)
class Eraser:
    """An affine map that forgets a concept.

    Attributes
    ----------
    centre : ndarray of shape (n_features,), float64
        Weighted mean of the embeddings it was fitted on.
    out, into : ndarray of shape (n_features, rank), float64
        ``x - (x - centre) @ into @ out.T`` is what is left of x.
    """

    centre: np.ndarray
    out: np.ndarray
    into: np.ndarray

    def apply(self, X: np.ndarray) -> np.ndarray:
        """Return the embeddings without the concept, float32, of X's shape."""
        return (X - (X - self.centre) @ self.into @ self.out.T).astype(np.float32)

    def merge(self, head: Head) -> Head:
        """Return the head that answers for X as ``head`` does for ``apply(X)``."""
        moved = self.out.T @ head.coef
        return replace(
            head,
            coef=(head.coef - self.into @ moved).astype(np.float32),
            intercept=(head.intercept + self.centre @ self.into @ moved).astype(
                np.float32
            ),
        )


def fit_eraser(X: np.ndarray, concept: np.ndarray, weight: np.ndarray) -> Eraser:
    """Fit the eraser of a concept.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float32
        Embeddings.
    concept : ndarray of shape (n_samples,), str
        What is to be forgotten, e.g. each picture's palette.
    weight : ndarray of shape (n_samples,), float64
        Of each sample.

    Returns
    -------
    Eraser

    References
    ----------
    .. [1] Belrose et al. (2023), LEACE: perfect linear concept erasure in closed form,
       arXiv:2306.03819, theorem 4.2.
    """
    share = weight / weight.sum()
    centre = share @ X
    values = np.unique(concept)
    indicator = (concept[:, None] == values).astype(np.float64)
    indicator -= share @ indicator
    centred = (X - centre) * np.sqrt(share)[:, None]
    # Cov(X) = V S² Vᵀ, so whitening is V S⁻¹ Vᵀ and its inverse V S Vᵀ.
    _, scale, V = np.linalg.svd(centred, full_matrices=False)
    kept = scale**2 > SMALLEST * scale[0] ** 2
    scale, V = scale[kept], V[kept].T
    shared = (V / scale).T @ (centred.T @ (indicator * np.sqrt(share)[:, None]))
    directions, strength, _ = np.linalg.svd(shared, full_matrices=False)
    directions = directions[:, strength > 1e-8]
    return Eraser(centre, (V * scale) @ directions, (V / scale) @ directions)

"""Heads: scikit-learn's estimators, known answers, files without pickle."""

from pathlib import Path

import numpy as np
import pytest

from nebula_utils.errors import ModelError
from nebula_utils.training.heads import (
    LinearHead,
    TwoStepHead,
    load_head,
    make_linear_head,
    temper,
)

NAMES = ("emission", "dark", "other")  # not in the order of the alphabet


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Give three blobs of 40 samples in 16 dimensions, and their labels."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 40)
    X = rng.normal(size=(120, 16)) + 2 * np.eye(16)[y]
    return X.astype(np.float32), np.array(NAMES)[y]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_linear_head_equals_scikit_learn(blobs, n_classes: int) -> None:
    """W and b, standardisation undone, give scikit-learn's own probabilities."""
    from sklearn.linear_model import LogisticRegression

    X, y = blobs
    keep = np.isin(y, NAMES[:n_classes])
    X, y, weight = X[keep], y[keep], np.random.default_rng(1).uniform(1, 2, keep.sum())
    head = LinearHead(0.1, NAMES[:n_classes]).fit(X, y, weight)
    Z = (X - X.mean(0)) / X.std(0)
    reference = LogisticRegression(C=0.1, max_iter=300).fit(Z, y, weight)
    order = [reference.classes_.tolist().index(name) for name in head.classes_]
    expected = reference.predict_proba(Z)[:, order]
    np.testing.assert_allclose(head.predict_proba(X), expected, atol=1e-2)


@pytest.mark.parametrize("head", [LinearHead(0.1), TwoStepHead(0.1, other=2)])
def test_heads_are_estimators(blobs, head) -> None:
    """scikit-learn clones, cross-validates and scores them like its own."""
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_predict

    X, y = blobs
    codes = np.array([NAMES.index(name) for name in y])
    views = np.stack([X, X], 1)
    y_proba = cross_val_predict(head, views, codes, cv=4, method="predict_proba")
    np.testing.assert_allclose(y_proba.sum(1), 1)
    assert (y_proba.argmax(1) == codes).mean() > 0.75
    assert clone(head).get_params() == head.get_params()
    assert (head.fit(views, codes).predict(views) == codes).mean() > 0.85


def make_two_steps() -> TwoStepHead:
    """Let feature 0 tell nebulae, and feature 1 emission from dark."""
    nebula = make_linear_head(NAMES, np.eye(2, 3) @ np.diag([2, 0, 0]), np.zeros(3))
    types = make_linear_head(NAMES[:2], np.array([[0, 0], [3, 0]]), np.array([1, 0]))
    return TwoStepHead(class_names=NAMES, temperature=2.0).set_steps(nebula, types)


def test_two_steps_multiply_and_only_the_first_view_tells_nebulae() -> None:
    """P(type) = P(nebula, first view) · mean over views of P(type), then tempered."""
    X = np.array([[[1.0, 0.5], [-9.0, -1.0]]])
    share = np.exp([2, 0, 0]) / np.exp([2, 0, 0]).sum()
    emission = np.mean([1 / (1 + np.exp(-(3 * x + 1))) for x in (0.5, -1.0)])
    nebula = share[0] + share[1]
    raw = np.array([nebula * emission, nebula * (1 - emission), share[2]])
    expected = np.sqrt(raw) / np.sqrt(raw).sum()
    found = make_two_steps().predict_proba(X)
    np.testing.assert_allclose(found[0], expected, atol=1e-9)


@pytest.mark.parametrize("kind", ["linear", "two steps"])
def test_weights_are_the_gradient_of_the_log_probability(kind: str) -> None:
    """Up to one vector for all classes, which contrasts between classes drop."""
    head = make_two_steps()
    head.temperature = 1.0
    one = head.nebula_ if kind == "linear" else head
    x, step = np.array([0.3, -0.2]), 1e-6
    before = np.log(one.predict_proba(x[None])[0])
    numeric = np.array(
        [
            (np.log(one.predict_proba((x + step * e)[None])[0]) - before) / step
            for e in np.eye(2)
        ]
    )
    found = one.weigh_classes(x)
    np.testing.assert_allclose(
        found - found.mean(1, keepdims=True),
        numeric - numeric.mean(1, keepdims=True),
        atol=1e-4,
    )


def test_a_class_without_a_sample_is_named(blobs) -> None:
    """An absent or an unknown class is an error that names it."""
    X, y = blobs
    with pytest.raises(ValueError, match="planetary"):
        LinearHead(class_names=(*NAMES, "planetary")).fit(X, y)
    with pytest.raises(ValueError, match="other"):
        LinearHead(class_names=NAMES[:2]).fit(X, y)


def test_views_share_the_weight_of_their_picture(blobs) -> None:
    """A picture of which one view is shown twice is fitted as if it had one."""
    X, y = blobs
    once = LinearHead(0.1).fit(X, y)
    twice = LinearHead(0.1).fit(np.stack([X, X], 1), y)
    np.testing.assert_allclose(once.coef_, twice.coef_, atol=1e-3)


def test_temperature_keeps_the_order_and_flattens() -> None:
    """Dividing log probabilities by two takes square roots."""
    np.testing.assert_allclose(temper(np.array([0.64, 0.36]), 2), [8 / 14, 6 / 14])


@pytest.mark.parametrize("kind", ["linear", "two steps"])
def test_save_and_load_give_equal_bits(kind: str, tmp_path: Path) -> None:
    """A head read back answers alike, with its temperature and without a pickle."""
    head = make_two_steps()
    one = head if kind == "two steps" else head.types_
    one.save(tmp_path / "head.npz")
    again = load_head(tmp_path / "head.npz")
    X = np.random.default_rng(0).normal(size=(5, 3, 2))
    assert np.array_equal(again.predict_proba(X), one.predict_proba(X))
    assert again.classes_.tolist() == one.classes_.tolist()


def test_damaged_older_and_missing_heads_are_refused(tmp_path: Path) -> None:
    """Each gives the documented error, which says what to do."""
    path = tmp_path / "head.npz"
    with pytest.raises(ModelError, match="no head"):
        load_head(path)
    path.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ModelError, match="damaged"):
        load_head(path)
    np.savez(path, coef=np.zeros((2, 2)), intercept=np.zeros(2))
    with pytest.raises(ModelError, match="older version"):
        load_head(path)
    arrays = make_two_steps().list_arrays()
    np.savez(path, **{**arrays, "nebula_coef": np.zeros((2, 2))})
    with pytest.raises(ModelError, match="damaged"):
        load_head(path)

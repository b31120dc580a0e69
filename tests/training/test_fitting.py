"""Fitting heads: choices stay inside the samples, and every way agrees."""

import numpy as np
import pytest

from nebula_utils.errors import ModelError
from nebula_utils.training.fitting import (
    Samples,
    compute_sample_weight,
    fit_head,
    fit_keras,
    fit_logistic,
    fit_temperature,
)
from nebula_utils.training.heads import Head, load_head

NAMES = ("dark", "emission", "reflection")


@pytest.fixture
def samples():
    """Give three blobs of 40 samples in 16 dimensions."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 40)
    X = rng.normal(size=(120, 16)) + 2 * np.eye(16)[y]
    return Samples(X.astype(np.float32), y, np.arange(120).astype(str))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_head_equals_scikit_learn(samples, n_classes):
    """The head's arrays give the probabilities of the model they come from."""
    from sklearn.linear_model import LogisticRegression

    keep = samples.y < n_classes
    X, y = samples.X[keep], samples.y[keep]
    head = fit_logistic(X, y, NAMES[:n_classes], penalty=0.1)
    Z = (X - X.mean(0)) / (X.std(0) + 1e-6)
    expected = LogisticRegression(C=0.1, max_iter=300).fit(Z, y).predict_proba(Z)
    np.testing.assert_allclose(head.predict_proba(X), expected, atol=1e-4)


def test_absent_class_is_an_error(samples):
    """A class without samples is named."""
    with pytest.raises(ValueError, match="reflection"):
        fit_logistic(samples.X[:80], samples.y[:80], NAMES)


def test_balanced_weights_give_each_class_and_nebula_its_share():
    """Each class sums to the same weight; within it, each nebula does."""
    y = np.array([0, 0, 0, 1])
    samples = Samples(np.zeros((4, 1)), y, np.array(["a", "a", "b", "c"]))
    weight = compute_sample_weight(samples, balanced=True)
    assert weight.tolist() == pytest.approx([0.5, 0.5, 1.0, 2.0])


def test_temperature_undoes_exaggeration():
    """Logits that were multiplied by three get about three times the temperature."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (2000, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = np.array([rng.choice(3, p=row) for row in p])
    assert fit_temperature(3 * logits, y) == pytest.approx(3, rel=0.1)


def test_fit_chooses_and_predicts(samples):
    """The chosen head separates what can be separated."""
    fit = fit_head(samples, samples, NAMES, balanced=True)
    accuracy = (fit.head.predict_proba(samples.X).argmax(1) == samples.y).mean()
    assert accuracy > 0.85


def test_samples_of_a_nebula_can_be_left_out(samples):
    """`without` removes every sample of the named nebulae and no other."""
    rest = samples.without(np.array(["3", "7"]))
    assert len(rest.y) == 118 and not set(rest.groups) & {"3", "7"}


def test_save_and_load_give_equal_probabilities(samples, tmp_path):
    """A head read back gives the same bits, and its file holds no pickle."""
    head = fit_logistic(samples.X, samples.y, NAMES)
    head.save(tmp_path / "head.npz")
    again = load_head(tmp_path / "head.npz")
    assert again.class_names == NAMES
    assert np.array_equal(again.predict_proba(samples.X), head.predict_proba(samples.X))


def test_damaged_head_is_refused(tmp_path):
    """A file that is no head gives the documented error."""
    (tmp_path / "head.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ModelError, match="damaged"):
        load_head(tmp_path / "head.npz")


def test_temperature_scaling_keeps_the_answer(samples):
    """Dividing the logits changes probabilities but not their order."""
    head = fit_logistic(samples.X, samples.y, NAMES)
    cooler = head.scale(2.0)
    assert isinstance(cooler, Head)
    before, after = head.predict_proba(samples.X), cooler.predict_proba(samples.X)
    assert np.array_equal(before.argmax(1), after.argmax(1))
    assert after.max() < before.max()


@pytest.mark.slow
def test_keras_reaches_the_same_answer(samples, tmp_path):
    """Gradient descent as in the original agrees with the convex solution."""
    train, test = np.arange(120) % 3 > 0, np.arange(120) % 3 == 0
    X, y = samples.X, samples.y
    keras, history = fit_keras(
        X[train], y[train], NAMES, (X[test], y[test]), steps=1000, log_dir=tmp_path
    )
    logistic = fit_logistic(X[train], y[train], NAMES, penalty=1.0)
    agree = keras.predict_proba(X[test]).argmax(1) == logistic.predict_proba(
        X[test]
    ).argmax(1)
    assert agree.mean() > 0.9
    assert history["loss"][-1] < history["loss"][0]
    assert list(tmp_path.rglob("events*"))

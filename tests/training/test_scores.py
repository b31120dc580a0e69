"""Scores by nebula: exact values on small cases."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from nebula_utils.training.scores import (
    Predictions,
    compare_heads,
    compute_balanced_accuracy,
    compute_confusion,
    compute_ece,
    compute_flip_rate,
    compute_macro_f1,
    compute_nebula_auroc,
    compute_recall,
    compute_worst_group_recall,
    make_score,
    make_weights,
    score_head,
    score_sure,
)

NAMES = ("dark", "emission", "other")


def predict(answers, groups=None, y_true=(0, 0, 1, 1, 2, 2), p=0.8):
    """Give each picture probability ``p`` for its answer."""
    y_proba = np.full((1, len(answers), 3), (1 - p) / 2)
    y_proba[0, np.arange(len(answers)), answers] = p
    groups = np.arange(len(answers)).astype(str) if groups is None else np.array(groups)
    return Predictions(np.array(y_true), y_proba, groups, NAMES)


def value_weights(p):
    """Return the one set of weights that gives the value."""
    return make_weights(p.groups, p.y_true, 0)


def test_perfect_prediction_scores_one():
    """A perfect prediction has recall, F1 and AUROC of exactly 1."""
    p = predict([0, 0, 1, 1, 2, 2])
    w = value_weights(p)
    assert compute_balanced_accuracy(p, w) == 1
    assert compute_macro_f1(p, w) == 1
    assert compute_nebula_auroc(p, w) == 1


def test_each_nebula_counts_once():
    """Three right pictures of one nebula don't outweigh a wrong one of another."""
    p = predict([0, 0, 0, 1], ["a", "a", "a", "b"], (0, 0, 0, 0))
    assert compute_recall(p, value_weights(p))[0, 0] == pytest.approx(0.5)


def test_f1_and_auroc_agree_with_scikit_learn():
    """On random answers the two agree with scikit-learn's, ties included."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    proba = rng.dirichlet([1, 1, 1], 60).round(1)
    proba /= proba.sum(1, keepdims=True)
    p = Predictions(y, proba[None], np.arange(60).astype(str), NAMES)
    w = value_weights(p)
    expected = f1_score(y, proba.argmax(1), average="macro")
    assert compute_macro_f1(p, w)[0] == pytest.approx(expected)
    expected = roc_auc_score(y != 2, 1 - proba[:, 2])
    assert compute_nebula_auroc(p, w)[0] == pytest.approx(expected)


def test_shuffled_labels_score_near_chance():
    """Answers that know nothing reach a third with three classes."""
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1, 2], 300)
    p = predict(rng.permutation(y), y_true=y)
    assert compute_balanced_accuracy(p, value_weights(p))[0] == pytest.approx(
        1 / 3, abs=0.05
    )


def test_second_accepted_type_counts_as_right():
    """An answer that a second type allows is right; the same without is wrong."""
    p = predict([1], y_true=[0])
    accepting = Predictions(
        p.y_true, p.y_proba, p.groups, NAMES, np.array([[True, True, False]])
    )
    assert not p.is_right.any() and accepting.is_right.all()


def test_flips_count_nebulae_only():
    """One of four nebulae flips; that `other` flips too does not matter."""
    before, after = predict([0, 0, 1, 1, 2, 2]), predict([0, 0, 0, 1, 0, 0])
    rate = compute_flip_rate(before, after.y_proba, value_weights(before))
    assert rate[0] == pytest.approx(0.25)


def test_ece_of_overconfident_answers():
    """Saying 0.8 and being right half the time is an error of 0.3."""
    p = predict([0, 1, 1, 0, 2, 0], p=0.8)
    assert compute_ece(p, value_weights(p))[0] == pytest.approx(0.3)


def test_worst_group_is_found():
    """The recall of the worst type x palette group is reported."""
    y = np.repeat([0, 1], 10)
    answers = y.copy()
    answers[:4] = 1
    palettes = np.array((["red"] * 5 + ["mono"] * 5) * 2)
    p = predict(answers, y_true=y)
    worst = compute_worst_group_recall(p, palettes, value_weights(p))
    assert worst[0] == pytest.approx(0.2)


def test_intervals_hold_the_value_and_repeat():
    """The interval contains the value, and the same seed gives the same interval."""
    rng = np.random.default_rng(2)
    y = np.repeat([0, 1, 2], 30)
    p = predict(np.where(rng.random(90) < 0.7, y, (y + 1) % 3), y_true=y)
    weights = make_weights(p.groups, p.y_true)
    score = make_score(compute_balanced_accuracy(p, weights), p.groups)
    assert score["low"] < score["value"] < score["high"]
    again = make_weights(p.groups, p.y_true)
    assert np.array_equal(weights, again)


def test_paired_comparison_is_tighter_than_two_intervals():
    """A head that mends one class is surely better, though the intervals overlap."""
    y = np.repeat([0, 1, 2], 20)
    worse = y.copy()
    worse[:8] = 1
    better = worse.copy()
    better[:5] = 0
    difference = compare_heads(predict(worse, y_true=y), predict(better, y_true=y))
    assert difference["value"] == pytest.approx(5 / 60, abs=1e-5)
    assert difference["low"] > 0


def test_comparison_refuses_other_pictures():
    """Comparing answers about different pictures is an error."""
    with pytest.raises(ValueError, match="same pictures"):
        compare_heads(predict([0], y_true=[0]), predict([0], y_true=[1]))


def test_confusion_rows_are_truth():
    """Row 0, column 1 counts the dark pictures called emission."""
    p = predict([1, 0, 1, 1, 2, 2])
    assert compute_confusion(p)[0].tolist() == [1, 1, 0]


def test_probabilities_must_sum_to_one():
    """Predictions whose probabilities don't sum to 1 are refused."""
    with pytest.raises(ValueError, match="sum to 1"):
        Predictions(np.array([0]), np.ones((1, 1, 3)), np.array(["a"]), NAMES)


def test_score_head_has_the_keys_of_the_interface():
    """Every key that metrics.json promises is there, each with an interval."""
    p = predict([0, 1, 1, 1, 2, 2])
    scores = score_head(p, {"grey": p.y_proba, "red": p.y_proba}, np.array(["red"] * 6))
    assert set(scores) == {
        "balanced_accuracy",
        "balanced_accuracy_random_split",
        "macro_f1",
        "recall",
        "grey_balanced_accuracy",
        "strict_balanced_accuracy",
        "type_recall",
        "grey_type_recall",
        "type_flip_rate",
        "flip_rate",
        "framing_flip_rate",
        "sure",
        "worst_group_recall",
        "ece",
        "nebula_auroc",
    }
    assert scores["flip_rate"]["grey"]["value"] == 0
    assert set(scores["ece"]) == {"value", "low", "high", "n_images", "n_nebulae"}


def test_flips_may_be_asked_of_nebulae_only():
    """Answers to the nebulae alone give the same rates; framings have a mean."""
    p = predict([0, 1, 1, 1, 2, 2])
    whole = predict([1, 1, 1, 0, 0, 2]).y_proba
    of_nebulae = whole[:, :4]
    palettes = np.array(["red"] * 6)
    changed = {"grey": whole, "red": of_nebulae}
    framed = {"smaller": of_nebulae, "turned": p.y_proba[:, :4]}
    found = score_head(p, changed, palettes, framed)
    assert found["flip_rate"]["red"] == found["flip_rate"]["grey"]
    rates = {k: s["value"] for k, s in found["framing_flip_rate"].items()}
    assert rates == {"smaller": 0.5, "turned": 0, "mean": 0.25}


def test_a_type_must_be_named_among_types():
    """An answer `other` is renormalised away, and pictures of `other` do not count."""
    names = ("dark", "emission", "other")
    y = np.array([0, 0, 1, 1, 2])
    y_proba = np.array(
        [[0.3, 0.1, 0.6], [0.1, 0.3, 0.6], [0.2, 0.8, 0], [0.1, 0.2, 0.7], [0, 0, 1]]
    )[None]
    p = Predictions(y, y_proba, np.array(list("abcde")), names)
    types = p.among_types()
    assert types.class_names == ("dark", "emission")
    np.testing.assert_array_equal(types.y_pred[0], [0, 1, 1, 1])
    np.testing.assert_allclose(types.y_proba.sum(-1), 1)
    value = compute_balanced_accuracy(types, make_weights(types.groups, types.y_true))
    assert value[0] == 0.75


def test_strict_answers_have_no_second_type():
    """A second accepted type is right, but not strictly."""
    accept = np.array([[True, True], [False, True]])
    y_proba = np.array([[0.2, 0.8], [0.2, 0.8]])[None]
    groups = np.array(["a", "b"])
    p = Predictions(np.array([0, 1]), y_proba, groups, ("dark", "emission"), accept)
    assert p.is_right.tolist() == [[True, True]]
    assert replace(p, accept=None).is_right.tolist() == [[False, True]]


def test_sure_answers_are_counted_by_nebula():
    """Three of four nebulae are sure, two of these right."""
    y_proba = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.55, 0.45]])[None]
    p = Predictions(
        np.array([0, 0, 0, 1]), y_proba, np.array(list("abcd")), ("dark", "emission")
    )
    found = score_sure(p, 0.6)
    assert found["share"]["value"] == 0.75
    assert found["accuracy"]["value"] == pytest.approx(2 / 3, abs=1e-5)


def test_intervals_cover_the_truth():
    """Of 95 % intervals by nebula, about so many hold the true accuracy, 0.7.

    Pictures of one nebula are right or wrong together: resampling pictures would
    cover far less.
    """
    covered = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        right = np.repeat(rng.random(60) < 0.7, 4)
        y = np.repeat([0, 1], 120)
        y_proba = np.where(right, 0.9, 0.1)[:, None] * np.eye(2)[y]
        y_proba += (1 - y_proba.sum(1, keepdims=True)) * np.eye(2)[1 - y]
        groups = np.repeat([f"N {i}" for i in range(60)], 4)
        p = Predictions(y, y_proba[None], groups, ("dark", "emission"))
        weights = make_weights(groups, y, 200, random_state=seed)
        score = make_score(compute_balanced_accuracy(p, weights), groups)
        covered.append(score["low"] <= 0.7 <= score["high"])
    assert 0.88 <= np.mean(covered) <= 0.99

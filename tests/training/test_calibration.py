"""Probabilities mean what they say, and sets cover what they promise."""

import numpy as np
import pandas as pd
import pytest

from nebula_utils.dataset.manifest import make_dataset
from nebula_utils.training.calibration import (
    compute_reliability,
    compute_threshold,
    fit_temperature,
    fit_temperatures,
    list_doubtful,
    score_coverage,
)
from nebula_utils.training.heads import softmax, temper
from nebula_utils.training.scores import Predictions
from nebula_utils.training.study import BALANCED, Study


def make_predictions(n: int, sharpness: float, exaggerate: float = 1.0) -> Predictions:
    """Give answers whose probabilities are true by construction, then exaggerated."""
    rng = np.random.default_rng(1)
    proba = softmax(rng.normal(0, sharpness, (n, 3)))
    y = np.array([rng.choice(3, p=p) for p in proba])
    told = temper(proba, 1 / exaggerate)[None]
    return Predictions(y, told, np.arange(n).astype(str), ("a", "b", "c"))


def test_temperature_undoes_exaggeration() -> None:
    """Log probabilities that were multiplied by three get about three."""
    p = make_predictions(2000, 2.0, exaggerate=3.0)
    found = fit_temperature(
        p.y_proba[0], np.eye(3, dtype=bool)[p.y_true], np.ones(2000)
    )
    assert found == pytest.approx(3, rel=0.1)


def test_an_accepted_second_class_counts_as_right() -> None:
    """Where both likely classes are right, nothing was exaggerated."""
    y_proba = np.tile([0.5, 0.45, 0.05], (200, 1))
    accept = np.zeros((200, 3), bool)
    accept[:, 0] = True
    alone = fit_temperature(y_proba, accept, np.ones(200))
    accept[::2] = [False, True, False]
    split = fit_temperature(y_proba, accept, np.ones(200))
    assert alone == pytest.approx(0.1, abs=0.01) and split > alone


def test_a_fold_takes_no_part_in_its_own_temperature() -> None:
    """Answers of one fold that are all wrong change the others' temperature alone."""
    p = make_predictions(900, 2.0)
    tests = np.split(np.arange(900), 3)
    accept = np.eye(3, dtype=bool)[p.y_true]
    before = fit_temperatures(p.y_proba[0], accept, p.groups, tests)
    wrong = accept.copy()
    wrong[tests[0]] = np.roll(accept[tests[0]], 1, axis=1)
    after = fit_temperatures(p.y_proba[0], wrong, p.groups, tests)
    assert after[0] == before[0]
    assert after[1] > 1.3 * before[1] and after[2] > 1.3 * before[2]


def test_conformal_sets_cover_what_they_promise() -> None:
    """A threshold from one half of the nebulae covers 90 % of the other half."""
    p = make_predictions(2000, 2.0)
    half = np.arange(2000) < 1000
    threshold = compute_threshold(p.select(half), 0.9)
    scores = score_coverage(p.select(~half), threshold)
    assert scores["coverage"]["value"] == pytest.approx(0.9, abs=0.03)
    assert set(scores["coverage_by_type"]) == {"a", "b", "c"}
    assert 1 <= scores["set_size"]["value"] < 3


def test_coverage_of_a_type_is_its_own() -> None:
    """A type whose truth is never in the set has 0, whatever the others have."""
    y_proba = np.tile([0.9, 0.08, 0.02], (10, 1))[None]
    y = np.array([0] * 8 + [1] * 2)
    p = Predictions(y, y_proba, np.arange(10).astype(str), ("a", "b", "c"))
    found = score_coverage(p, 0.5)
    by_type = {name: s["value"] for name, s in found["coverage_by_type"].items()}
    assert by_type == {"a": 1, "b": 0} and found["coverage"]["value"] == 0.8
    assert found["coverage_by_type"]["b"]["n_nebulae"] == 2


def test_reliability_of_honest_answers_is_the_diagonal() -> None:
    """Where probabilities are true, accuracy follows confidence."""
    found = compute_reliability(make_predictions(4000, 2.0), 5)
    assert np.abs(np.subtract(found["confidence"], found["accuracy"])).max() < 0.06
    assert np.sum(found["weight"]) == pytest.approx(1)


def test_doubtful_labels_are_ranked_as_cleanlab_ranks_them(
    manifest: pd.DataFrame, fake_backbone
) -> None:
    """The order is cleanlab's, and a label that was swapped comes first."""
    from cleanlab.filter import find_label_issues

    rows = manifest.assign(group=manifest["nebula"], palette="mixed")
    dataset = make_dataset(rows, min_nebulae=3)
    y_proba = np.random.default_rng(0).dirichlet(np.full(7, 3), (1, len(dataset.y)))
    swapped = 5
    y_proba[0, swapped] = 1e-6
    y_proba[0, swapped, 6] = 1 - 6e-6
    made = Study(dataset, BALANCED, fake_backbone, None, {"as_is": y_proba})
    table = list_doubtful(made, 56)
    assert table["row"][0] == swapped and table["answer"][0] == "other"
    theirs = find_label_issues(
        made.dataset.y,
        y_proba[0],
        return_indices_ranked_by="self_confidence",
        filter_by="predicted_neq_given",
    )
    ours = [row for row in table["row"] if row in set(theirs)]
    assert ours == theirs.tolist()

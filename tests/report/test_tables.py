"""Tables to read: what they call better is better."""

import types

import numpy as np
import pytest

from nebula_utils.report.tables import tabulate_comparison
from nebula_utils.training.scores import Predictions


def answer(n_wrong, certainty):
    """Return answers to forty pictures of as many nebulae, equally sure of each."""
    y = np.repeat([0, 1], 20)
    said = y.copy()
    said[:n_wrong] = 1
    proba = np.where(np.eye(2)[said] > 0, certainty, 1 - certainty)[None]
    groups = np.array([f"N {number}" for number in range(len(y))])
    predictions = Predictions(y, proba, groups, ("dark", "emission"))
    return types.SimpleNamespace(predict_under=lambda _: predictions)


@pytest.mark.parametrize(
    ("a", "b", "accuracy", "calibration"),
    [
        ((10, 0.75), (0, 1.0), "better", "not clear"),
        ((0, 1.0), (10, 0.75), "worse", "not clear"),
        ((0, 1.0), (0, 0.7), "not clear", "worse"),
        ((0, 0.7), (0, 1.0), "not clear", "better"),
    ],
)
def test_less_calibration_error_is_better(a, b, accuracy, calibration):
    """A higher error was once called a gain."""
    table = tabulate_comparison(answer(*a), answer(*b))
    verdicts = table["second head"]
    assert verdicts["balanced accuracy"] == verdicts["macro-F1"] == accuracy
    assert verdicts["calibration error"] == calibration

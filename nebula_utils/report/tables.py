"""Scores as tables to read: one column a head, one row a question."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from nebula_utils.bias.analysis import Answers
from nebula_utils.report.drawing import CHANGE_NAMES
from nebula_utils.report.writing import format_score
from nebula_utils.training import scores
from nebula_utils.training.scores import Metric, Score

Pick = Callable[[Mapping[str, Any]], Score | None]

ROWS: dict[str, Pick] = {
    "balanced accuracy": lambda head: head["balanced_accuracy"],
    "… with a random split": lambda head: head["balanced_accuracy_random_split"],
    "… without colour": lambda head: head["grey_balanced_accuracy"],
    "macro-F1": lambda head: head["macro_f1"],
    "flips without colour": lambda head: head["flip_rate"]["grey"],
    "worst type × palette recall": lambda head: head["worst_group_recall"],
    "calibration error": lambda head: head["ece"],
    "nebula or not, AUROC": lambda head: head["nebula_auroc"],
}


def tabulate_scores(scored: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the main scores of several heads, one column a head."""
    return pd.DataFrame(
        {
            name: {title: format_score(pick(head)) for title, pick in ROWS.items()}
            for name, head in scored.items()
        }
    )


def tabulate_flips(scored: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return each counterfactual's flip rate, one column a head."""
    return pd.DataFrame(
        {
            name: {
                CHANGE_NAMES.get(colour, colour): format_score(score)
                for colour, score in head["flip_rate"].items()
            }
            for name, head in scored.items()
        }
    )


def tabulate_comparison(a: Answers, b: Answers) -> pd.DataFrame:
    """Return how much better ``b`` is than ``a``, with paired intervals.

    Parameters
    ----------
    a, b : Answers
        To the same pictures.

    Returns
    -------
    DataFrame
        One row a metric: the difference b - a, its interval, and whether that leaves
        out zero.
    """
    grey = (a.predict_under("grey"), b.predict_under("grey"))
    as_is = (a.predictions, b.predictions)
    metrics: dict[str, tuple[tuple, Metric]] = {
        "balanced accuracy": (as_is, scores.compute_balanced_accuracy),
        "… without colour": (grey, scores.compute_balanced_accuracy),
        "macro-F1": (as_is, scores.compute_macro_f1),
        "calibration error": (as_is, scores.compute_ece),
    }
    rows = {}
    for name, (pair, metric) in metrics.items():
        score = scores.compare_heads(pair[0], pair[1], metric)
        low, high = score["low"], score["high"]
        clear = low is not None and high is not None and low * high > 0
        rows[name] = {
            "difference": format_score(score),
            "clear of zero": "yes" if clear else "no",
        }
    return pd.DataFrame(rows).T

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


# Metric → (which answers, how it is computed, 1 where more is better or else -1).
COMPARED: dict[str, tuple[str, Metric, int]] = {
    "balanced accuracy": ("as_is", scores.compute_balanced_accuracy, 1),
    "… without colour": ("grey", scores.compute_balanced_accuracy, 1),
    "macro-F1": ("as_is", scores.compute_macro_f1, 1),
    "calibration error": ("as_is", scores.compute_ece, -1),
}


def tabulate_comparison(a: Answers, b: Answers) -> pd.DataFrame:
    """Return how ``b`` differs from ``a``, with paired intervals.

    Parameters
    ----------
    a, b : Answers
        To the same pictures.

    Returns
    -------
    DataFrame
        One row a metric: the difference b - a with its interval, and whether that
        makes ``b`` "better" or "worse"; "not clear" if the interval holds zero.
    """
    rows = {}
    for name, (colour, metric, sign) in COMPARED.items():
        pair = (a.predict_under(colour), b.predict_under(colour))
        score = scores.compare_heads(*pair, metric)
        verdict = "not clear"
        if score["low"] is not None and score["low"] * score["high"] > 0:
            verdict = "better" if sign * score["value"] > 0 else "worse"
        rows[name] = {"difference": format_score(score), "second head": verdict}
    return pd.DataFrame(rows).T

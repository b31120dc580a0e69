"""The script that chose the head: its measure has known answers, and it can skip."""

import importlib.util
import types

import numpy as np
import pytest

from nebula_utils.config import REPOSITORY
from nebula_utils.training.scores import Predictions

NAMES = ("dark", "emission", "other")


@pytest.fixture(scope="module")
def script() -> types.ModuleType:
    """Load the script without running it."""
    path = REPOSITORY / "scripts" / "choose_head.py"
    spec = importlib.util.spec_from_file_location("choose_head", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def predict(answers: list[int], p: float = 0.9) -> Predictions:
    """Give six pictures of six nebulae these answers, each with probability ``p``."""
    y_proba = np.full((1, 6, 3), (1 - p) / 2)
    y_proba[0, np.arange(6), answers] = p
    groups = np.array(list("abcdef"))
    return Predictions(np.array([0, 0, 1, 1, 2, 2]), y_proba, groups, NAMES)


def test_the_measure_is_the_mean_of_colour_and_grey(script) -> None:
    """Three of four types right as they are, two in grey, where one answer flips."""
    sets = np.array(["strangers"] * 4 + ["strangers", "photos"])
    answers = {
        "as_is": predict([0, 0, 1, 0, 2, 0]),
        "grey": predict([0, 1, 1, 0, 2, 2]),
        "set": sets,
    }
    found = script.measure(answers)
    assert found["as_is"] == 0.75 and found["grey"] == 0.5 and found["flips"] == 0.25
    assert found["values"][0] == pytest.approx(0.625)
    assert found["other"] == 1  # the wrong one is of a set that does not constrain
    found = {**found, "framing": 0.2}
    row = script.describe("x", found, found)
    assert (
        row.startswith("| x | 0.625 | 0.750 | 0.500 | 25% | 20% |") and "| no |" in row
    )


def test_certainty_counts_what_is_sure_by_set(script) -> None:
    """All answers are sure at 0.85; of one set half are right."""
    answers = {
        "as_is": predict([0, 0, 1, 0, 2, 0]),
        "set": np.array(["photos"] * 2 + ["strangers"] * 4),
        "is_new": np.array([True] * 3 + [False] * 3),
    }
    found = script.measure_certainty(answers, 0.85)
    assert found["coverage"] == 1 and found["accuracy"] == pytest.approx(
        4 / 6, abs=1e-5
    )
    rights = {name: one["right"] for name, one in found["sets"].items()}
    assert rights == {"photos": 1, "strangers": 0.5, "new nebulae": 1}
    assert script.measure_certainty(answers, 0.95)["coverage"] == 0


def test_without_the_outside_sets_it_skips(script, monkeypatch, tmp_path) -> None:
    """Nothing is measured or written where ``../shared`` is not there."""
    monkeypatch.setattr(script, "REPOSITORY", tmp_path / "repository")
    monkeypatch.setattr(script, "load_dataset", lambda source: None)
    monkeypatch.setattr(script, "load_backbone", lambda: pytest.fail("went on"))
    assert script.main([]) == 0

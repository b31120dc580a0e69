"""A fresh run's scores are the committed ones, as far as another processor allows."""

import copy
import json
import os
from pathlib import Path

import pytest
from metrics_tolerance import compare_metrics

from nebula_utils.config import REPOSITORY

COMMITTED = REPOSITORY / "reports" / "metrics.json"


@pytest.fixture
def metrics():
    """Read the committed metrics, to be changed by a test."""
    return json.loads(COMMITTED.read_text("utf-8"))


def list_wrong(committed, fresh):
    """Return the places that differ too far."""
    return [d.where for d in compare_metrics(committed, fresh) if d.too_far]


def test_fresh_scores_are_the_committed_ones():
    """`make test` runs the notebooks; no number in reports/ may be older than they."""
    folder = os.environ.get("NEBULA_FRESH_REPORTS")
    if not folder:
        pytest.skip("needs a fresh run of the notebooks: `make test` makes one")
    fresh = json.loads((Path(folder) / "metrics.json").read_text("utf-8"))
    committed = json.loads(COMMITTED.read_text("utf-8"))
    assert list_wrong(committed, fresh) == []


def test_a_flipped_picture_is_allowed(metrics):
    """One of 563 may fall to the other side of a border on another processor."""
    fresh = copy.deepcopy(metrics)
    score = fresh["heads"]["robust"]["flip_rate"]["grey"]
    score["value"] += 1 / score["n_images"]
    score["high"] += 0.01
    assert len(compare_metrics(metrics, fresh)) == 2
    assert list_wrong(metrics, fresh) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda fresh: fresh["heads"]["robust"]["macro_f1"].update(value=0.5),
        lambda fresh: fresh["heads"]["robust"]["macro_f1"].update(value=None),
        lambda fresh: fresh["heads"]["robust"]["macro_f1"].update(n_images=1),
        lambda fresh: fresh["heads"].pop("plain"),
        lambda fresh: fresh["heads"]["plain"].update(new=1),
        lambda fresh: fresh["data"].update(source="photos"),
        lambda fresh: fresh["data"].update(n_images=564),
        lambda fresh: fresh["protocol"].update(k=4),
        lambda fresh: fresh["external"]["photos"].pop("plain"),
    ],
)
def test_a_wrong_score_count_or_name_is_not(metrics, change):
    """The room is for digits, not for another study."""
    fresh = copy.deepcopy(metrics)
    change(fresh)
    assert len(list_wrong(metrics, fresh)) == 1


def test_an_outside_set_that_is_not_here_is_not_compared(metrics):
    """Not every machine has the folder of outside photos."""
    fresh = copy.deepcopy(metrics)
    fresh["external"]["photos"] = None
    assert compare_metrics(metrics, fresh) == []
    fresh["external"] = None
    assert compare_metrics(metrics, fresh) == []

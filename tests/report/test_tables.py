"""Tables say what the scores say, favour whom the numbers favour, and warn."""

import dataclasses

import numpy as np
import pytest

from nebula_utils.errors import NebulaError
from nebula_utils.report import tables
from nebula_utils.report.drawing import HEADS
from nebula_utils.report.results import make_study, write_model_card
from nebula_utils.training.scores import Predictions, score_head
from nebula_utils.training.study import ROBUST


def make_score(value, n_nebulae=8):
    """Return a score as `scores.make_score` does."""
    about = {"low": 0.1, "high": 0.9, "n_images": 9, "n_nebulae": n_nebulae}
    return {"value": value, **about}


@pytest.fixture(scope="module")
def predictions():
    """Sixty answers of which a part is wrong, in two repeats."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 20)
    y_proba = rng.dirichlet([1, 1, 1], (2, 60)) * 0.6 + np.eye(3)[y] * 0.4
    groups = np.array([f"N {i}" for i in range(60)])
    return Predictions(y, y_proba, groups, ("dark", "emission", "other"))


@pytest.fixture(scope="module")
def metrics(predictions):
    """metrics.json of a tiny study, three heads alike."""
    palettes = np.array(["red", "blue"] * 30)
    grey = {"grey": predictions.y_proba[:, :, [1, 0, 2]]}
    framed = {"smaller": predictions.y_proba}
    head = score_head(predictions, grey, palettes, framed, predictions, 0.6)
    classes = {name: {"images": 20, "nebulae": 20} for name in predictions.class_names}
    data = {"source": "s", "n_images": 60, "n_nebulae": 60, "classes": classes}
    data["left_out"] = {"planetary": "only 2 nebulae"}
    study = make_study(data, (5, 3, 0), "fake", 224)
    heads = dict.fromkeys(HEADS, head)
    held = {"LDN 1622": {"robust": {"grey": {"dark": 0.7}, "as_is": {"dark": 0.65}}}}
    external = {"pooled": heads, "strangers": heads, "photos": heads}
    found = {"heads": heads, "dark_emission": None, "held_out": held}
    return {**study, **found, "external": external}


def test_format_score():
    """A score reads as value and interval; an unknown one as a dash; few as a star."""
    score = {**make_score(0.7234), "low": 0.65, "high": 0.789}
    assert tables.format_score(score) == "0.72 [0.65, 0.79]"
    assert tables.format_score({**score, "low": None}) == "0.72"
    assert tables.format_score({**score, "value": None}) == "–"
    assert tables.format_score(None) == "–"
    assert tables.format_score({**score, "n_nebulae": 4}).endswith("*")


def test_every_row_finds_its_score(metrics):
    """No row of the table is a dash where the head was scored in full."""
    table = tables.tabulate_scores(metrics["heads"])
    assert list(table.columns) == list(HEADS)
    assert not (table == "–").any(axis=None)


def test_flips_of_colour_and_of_framing_stand_in_one_table(metrics):
    """Under the names that people read."""
    table = tables.tabulate_flips(metrics["heads"])
    assert list(table.index) == ["greyscale", "half as large", "mean of the framings"]


def test_less_calibration_error_is_favoured(predictions):
    """A positive difference of an error is no gain: a better head has less of it."""
    y = predictions.y_true
    sure = dataclasses.replace(
        predictions, y_proba=0.98 * np.eye(3)[y][None] + 0.02 / 3
    )
    wrong = 0.98 * np.eye(3)[(y + 1) % 3][None] + 0.02 / 3
    bad = dataclasses.replace(predictions, y_proba=wrong)
    table = tables.tabulate_comparison(
        {"as_is": bad, "grey": bad}, {"as_is": sure, "grey": sure}
    )
    assert list(table["favours"]) == ["second"] * 4
    assert table.loc["calibration error", "difference"].startswith("-")
    same = tables.tabulate_comparison(
        {"as_is": sure, "grey": sure}, {"as_is": sure, "grey": sure}
    )
    assert set(same["favours"]) == {"neither, clearly"}


def test_absent_outside_sets_have_no_row(metrics):
    """A folder that is not there is not scored, and not invented."""
    table = tables.tabulate_outside({"photos": metrics["heads"], "gone": None})
    assert {place for place, _ in table.index} == {"photos"}


def test_goals_stand_beside_both_studies(metrics):
    """Every row has its goals; the second study shows dashes until it has run."""
    lines = tables.make_goal_table([metrics, None])
    assert all(line.count("|") == 6 for line in lines)
    assert "| 0.70 ✓ · 0.65 ✓ |" in "\n".join(lines)
    assert lines[-1] == "| types | 5 | 2 | 6 | – |"


def test_blocks_are_replaced_and_the_rest_stays(metrics):
    """Only what stands between the markers changes; twice is as good as once."""
    readme = "before\n<!-- metrics:begin -->\nstale\n<!-- metrics:end -->\nafter\n"
    lines = tables.make_main_table(metrics)
    text = tables.fill_block(readme, "metrics", lines)
    assert "stale" not in text and text.startswith("before\n")
    assert "Left out: planetary (only 2 nebulae)." in text
    assert tables.fill_block(text, "metrics", lines) == text
    with pytest.raises(NebulaError, match="add them"):
        tables.fill_block("text", "metrics", lines)


def test_quoted_benchmarks_have_goals():
    """Rows without a goal stay in the report."""
    report = "# title\nmachine\n\n| a | b |\n|---|---|\n| x | yes |\n| y | – |\n"
    assert tables.quote_benchmarks(report)[-1] == "| x | yes |"


def test_model_card_has_the_numbers(metrics, tmp_path):
    """Each class with its counts and recall, what is not known, and no gap left."""
    scored = metrics["heads"]["robust"]
    nebula = {"nebula": "M 1", "label": "planetary", "shape": "circle"}
    located = [{**nebula, "share": 0.5, "chance": 0.25, "others": 0.375}]
    write_model_card(tmp_path / "MODEL_CARD.md", metrics, scored, ROBUST, located)
    text = (tmp_path / "MODEL_CARD.md").read_text("utf-8")
    assert "| not a nebula | 20 | 20 |" in text
    assert "not known to the model: planetary (only 2 nebulae)" in text
    assert "{" not in text
    assert "evidence for the right type 0.50" in text and "have 0.38" in text
    assert "Two logistic regressions" in text and "12 views" in text

"""metrics.json holds one study's numbers, whole, in order, and nothing else."""

import json

import pytest

from nebula_utils.config import REPOSITORY
from nebula_utils.errors import NebulaError
from nebula_utils.report import writing
from nebula_utils.report.findings import FINDINGS


def make_score(value):
    """Return a score as `evaluate.make_score` does."""
    return {"value": value, "low": 0.1, "high": 0.9, "n_images": 9, "n_nebulae": 8}


def make_head(value):
    """Return one head's scores, all alike."""
    score = make_score(value)
    return {
        **dict.fromkeys(
            (
                *("balanced_accuracy", "balanced_accuracy_random_split", "macro_f1"),
                *("grey_balanced_accuracy", "worst_group_recall", "ece"),
                "nebula_auroc",
            ),
            score,
        ),
        "recall": {"dark": score, "emission": score},
        "flip_rate": {"grey": score, "red": score},
    }


@pytest.fixture
def study():
    """What identifies a tiny study."""
    data = {
        "source": "photos",
        "n_images": 9,
        "n_nebulae": 8,
        "classes": {
            "dark": {"images": 5, "nebulae": 4},
            "emission": {"images": 4, "nebulae": 4},
        },
        "left_out": {"planetary": "only 2 nebulae"},
    }
    return writing.make_study(data, 5, 3, 0, "fake", 224)


@pytest.fixture
def heads():
    """Both heads' scores."""
    return {"plain": make_head(0.5), "robust": make_head(0.7)}


def test_format_score():
    """A score reads as value and interval; an unknown one as a dash."""
    score = {**make_score(0.7234), "low": 0.65, "high": 0.789}
    assert writing.format_score(score) == "0.72 [0.65, 0.79]"
    assert writing.format_score({**score, "low": None}) == "0.72"
    assert writing.format_score({**score, "value": None}) == "–"
    assert writing.format_score(None) == "–"


def test_metrics_have_the_keys_of_the_interface(tmp_path, study, heads):
    """The file has the five sections, and data and protocol as documented."""
    writing.write_part(tmp_path, "heads", heads, study)
    metrics = writing.write_metrics(tmp_path, study)
    sections = {"data", "protocol", "heads", "dark_emission", "external"} | {"held_out"}
    assert set(metrics) == sections
    assert set(metrics["protocol"]) == {"split", "k", "repeats", "random_state"}
    assert metrics["heads"] == heads and metrics["external"] == {"photos": None}
    assert json.loads((tmp_path / "metrics.json").read_text("utf-8")) == metrics


def test_two_runs_give_equal_bytes(tmp_path, study, heads):
    """The order in which parts are written does not show."""
    for folder, order in (("a", HEADS_FIRST), ("b", HEADS_FIRST[::-1])):
        for section in order:
            writing.write_part(tmp_path / folder, section, heads, study)
        writing.write_metrics(tmp_path / folder, study)
    one, two = ((tmp_path / name / "metrics.json").read_bytes() for name in "ab")
    assert one == two


def test_parts_of_another_study_are_left_out(tmp_path, study, heads):
    """Numbers of two studies never stand in one file."""
    other = writing.make_study(study["data"], 5, 3, 0, "fake", 128)
    writing.write_part(tmp_path, "heads", heads, other)
    assert writing.merge_parts(tmp_path, study)["heads"] is None


def test_unknown_section_is_refused(tmp_path, study):
    """A misspelt section can't get lost silently."""
    with pytest.raises(NebulaError, match="no section"):
        writing.write_part(tmp_path, "head", {}, study)


def test_damaged_part_is_an_error(tmp_path, study):
    """A damaged part says what to do."""
    path = tmp_path / "parts" / "heads.json"
    path.parent.mkdir()
    path.write_text("{", encoding="utf-8")
    with pytest.raises(NebulaError, match="make reproduce"):
        writing.merge_parts(tmp_path, study)


def test_readme_keeps_its_text_and_gets_the_numbers(tmp_path, study, heads):
    """Only what stands between the markers changes; twice is as good as once."""
    writing.write_part(tmp_path, "heads", heads, study)
    metrics = writing.merge_parts(tmp_path, study)
    blocks = (f"<!-- {n}:begin -->\nstale\n<!-- {n}:end -->\n" for n in writing.BLOCKS)
    readme = f"before\n{''.join(blocks)}after\n"
    text = writing.render_readme(metrics, readme)
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "0.70 [0.10, 0.90]" in text and "stale" not in text
    assert writing.render_readme(metrics, text) == text


def test_readme_without_markers_is_refused(study):
    """A README that lost its markers is not silently left with old numbers."""
    with pytest.raises(NebulaError, match="metrics:begin"):
        writing.render_readme({**study, "heads": None, "dark_emission": None}, "text")


def test_readme_quotes_the_benchmarks():
    """Rows with a goal are quoted, reached or not; twice is as good as once."""
    table = "| a | b | 5 × | ≥ 2 × | no |\n| c | d | 3 × | – | – |"
    report = f"# Benchmarks\n\nLinux, 2 cores.\n\n{table}\n"
    markers = "<!-- benchmarks:begin -->\nstale\n<!-- benchmarks:end -->\n"
    text = writing.render_benchmarks(report, f"before\n{markers}after\n")
    quoted = "\nLinux, 2 cores.\n\n| a | b | 5 × | ≥ 2 × | no |\n\n"
    assert text == f"before\n{markers.replace('stale', quoted[:-1])}after\n"
    assert writing.render_benchmarks(report, text) == text


def test_readme_agrees_with_the_committed_benchmarks():
    """The README's performance section is the report's, not an older one's."""
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    report = REPOSITORY / "reports" / "benchmarks.md"
    text = report.read_text("utf-8") if report.is_file() else NOT_MEASURED
    assert writing.render_benchmarks(text, readme) == readme


def test_model_card_says_what_is_known_and_what_not(tmp_path, study, heads):
    """The card names counts, scores and the types that the model doesn't know."""
    about = {
        "backbone": "fake",
        "input_size": 224,
        "threshold": 0.12,
        "coverage": make_score(0.9),
        "confident": make_score(0.4),
    }
    path = tmp_path / "MODEL_CARD.md"
    writing.write_model_card(path, {**study, "heads": heads}, about)
    text = path.read_text(encoding="utf-8")
    assert "| dark | 4 | 5 | 0.70 [0.10, 0.90] |" in text
    assert "not known to the model: planetary (only 2 nebulae)" in text


@pytest.mark.parametrize("name", list(FINDINGS))
def test_findings_are_one_sentence_with_a_number(name, study, heads):
    """Every notebook's finding has a number and ends as a sentence."""
    printed = "of the same type: 0.60\nof the same palette: 0.40\nCramér's V 0.43"
    finding = FINDINGS[name]({**study, "heads": heads}, printed)
    assert any(sign.isdigit() for sign in finding) and finding.endswith(".")


@pytest.mark.parametrize(("value", "verb"), [("0.43", "is"), ("0.05", "is not")])
def test_the_palette_is_tied_only_beyond_chance(value, verb, study, heads):
    """The number chooses the words."""
    printed = f"Cramér's V {value} (chance: below 0.08) in 563 pictures"
    finding = FINDINGS["02_dataset"]({**study, "heads": heads}, printed)
    assert f"The palette {verb} tied to the type (Cramér's V {value}" in finding


def test_features_claim_only_what_was_printed(study, heads):
    """Without the numbers no claim about neighbours is made."""
    finding = FINDINGS["03_features"]({**study, "heads": heads}, "nothing")
    assert finding == "this run did not look at neighbours."


HEADS_FIRST = ("heads", "dark_emission")
NOT_MEASURED = "# Benchmarks\n\nNot measured yet: run `make bench`.\n"

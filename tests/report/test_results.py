"""metrics.json holds one study's numbers, whole, in order, and nothing else."""

import json

import pytest

from nebula_utils.errors import NebulaError
from nebula_utils.report import results

DATA = {
    "source": "photos",
    "n_images": 9,
    "n_nebulae": 8,
    "classes": {
        "dark": {"images": 5, "nebulae": 4},
        "emission": {"images": 4, "nebulae": 4},
    },
    "left_out": {"planetary": "only 2 nebulae"},
}


@pytest.fixture
def study():
    """What identifies a tiny study."""
    return results.make_study(DATA, (5, 3, 0), "fake", 224)


def test_metrics_have_the_keys_of_the_interface(tmp_path, study):
    """The file has the sections, data and protocol as documented, and its schema."""
    results.write_part(tmp_path, "heads", {"plain": {}}, study)
    metrics = results.write_metrics(tmp_path, study)
    assert {"schema", "data", "protocol", *results.SECTIONS} == set(metrics)
    assert metrics["heads"] == {"plain": {}}
    assert metrics["external"] == {"photos": None}
    assert metrics["protocol"]["k"] == 5
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics


def test_the_order_of_writing_does_not_count(tmp_path, study):
    """Two runs that write their sections in other orders give equal files."""
    for folder, order in (("a", ("heads", "held_out")), ("b", ("held_out", "heads"))):
        for section in order:
            results.write_part(tmp_path / folder, section, {"x": 1}, study)
        results.write_metrics(tmp_path / folder, study)
    one, two = ((tmp_path / f / "metrics.json").read_bytes() for f in "ab")
    assert one == two


def test_parts_of_another_study_are_left_out(tmp_path, study):
    """Numbers of two studies never stand in one file."""
    other = results.make_study(DATA, (5, 3, 0), "fake", 128)
    results.write_part(tmp_path, "heads", {"plain": {}}, other)
    assert results.write_metrics(tmp_path, study)["heads"] is None


def test_unknown_sections_are_refused(tmp_path, study):
    """A misspelt section would be lost without a word."""
    with pytest.raises(NebulaError, match="no section"):
        results.write_part(tmp_path, "head", {}, study)


def test_damaged_parts_say_what_to_do(tmp_path, study):
    """A message for people, not a traceback of json."""
    path = results.write_part(tmp_path, "heads", {}, study)
    path.write_text("{")
    with pytest.raises(NebulaError, match="make reproduce"):
        results.write_metrics(tmp_path, study)

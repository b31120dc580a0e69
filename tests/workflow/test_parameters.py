"""New notebook parameters are checked before anything runs."""

import nbformat
import pytest

from nebula_utils.errors import PipelineError
from nebula_utils.workflow.pipeline import assign_parameters, read_parameters

DEFAULTS = {
    "CLASSES": ["dark", "emission"],
    "N_FOLDS": 5,
    "RATE": 0.1,
    "SOURCE": "stellarium",
    "FAST": False,
    "LIMIT": None,
}


def _assign(**given):
    return assign_parameters(given, {"04_training": DEFAULTS}, {})["04_training"]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("CLASSES", '["dark"]', ["dark"]),
        ("CLASSES", "[dark, other]", ["dark", "other"]),
        ("N_FOLDS", "3", 3),
        ("RATE", "1", 1.0),
        ("RATE", "0.25", 0.25),
        ("SOURCE", "photos ../my pictures", "photos ../my pictures"),
        ("SOURCE", "224", "224"),
        ("SOURCE", "2024-01-01", "2024-01-01"),
        ("SOURCE", '"224"', "224"),
        ("FAST", "true", True),
        ("LIMIT", "7", 7),
    ],
)
def test_values_take_the_default_s_type(name, text, value):
    """What is typed becomes what the notebook expects."""
    new = _assign(**{name: text})
    assert new == {name: value}
    assert type(new[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("N_FOLDS", "many"),
        ("N_FOLDS", "2.5"),
        ("N_FOLDS", "true"),
        ("FAST", "1"),
        ("CLASSES", "dark"),
        ("CLASSES", "[1, 2]"),
        ("RATE", "null"),
    ],
)
def test_another_type_is_refused(name, text):
    """The message names the parameter and shows a good value."""
    with pytest.raises(PipelineError, match=f"parameter {name}: .*a value like"):
        _assign(**{name: text})


def test_an_unknown_name_gets_the_nearest_one():
    """A slip of the finger must not run the default study."""
    with pytest.raises(PipelineError, match="unknown parameter n_fold.*N_FOLDS"):
        _assign(n_fold="3")


def test_a_parameter_of_an_unselected_notebook_is_explained():
    """It exists, but not where the user runs."""
    with pytest.raises(PipelineError, match="parameter of 02_dataset"):
        assign_parameters(
            {"MIN_SIDE": "9"},
            {"04_training": DEFAULTS},
            {"02_dataset": {"MIN_SIDE": 8}},
        )


def test_a_value_goes_to_every_notebook_that_has_it():
    """And to no other."""
    selected = {"01_a": {"SEED": 0}, "02_b": {"SEED": 0, "K": 1}, "03_c": {"K": 2}}
    assigned = assign_parameters({"SEED": "4"}, selected, {})
    assert assigned == {"01_a": {"SEED": 4}, "02_b": {"SEED": 4}, "03_c": {}}


def _write_notebook(path, source):
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


def test_defaults_are_read_from_the_tagged_cell(tmp_path):
    """Annotations, comments and lists over several lines are fine."""
    source = 'A: int = 3  # px\nB = [\n    "x",\n    "y",\n]\nC = -1.5\n'
    path = _write_notebook(tmp_path / "01_a.ipynb", source)
    assert read_parameters(path) == {"A": 3, "B": ["x", "y"], "C": -1.5}


@pytest.mark.parametrize("source", ["A = open('x')", "import os", "A = B = 1", "A ="])
def test_a_parameters_cell_with_more_than_literals_is_refused(tmp_path, source):
    """Papermill runs that cell before the new values: it must do nothing."""
    path = _write_notebook(tmp_path / "01_a.ipynb", source)
    with pytest.raises(PipelineError, match="may only assign literals"):
        read_parameters(path)


def test_a_file_that_is_no_notebook_is_refused(tmp_path):
    """With its name."""
    path = tmp_path / "01_a.ipynb"
    path.write_text("no notebook")
    with pytest.raises(PipelineError, match="01_a.ipynb can't be read"):
        read_parameters(path)

"""A sweep checks all its runs first, does each once, and compares them at the end."""

import nbformat
import pandas as pd
import pytest

from nebula_utils import config
from nebula_utils.errors import PipelineError
from nebula_utils.workflow import cli, sweep

PARAMETERS = 'INPUT_SIZE = 224\nSOURCE = "stellarium"\nREPORTS = "../reports"'
SCORE = """\
import json
from pathlib import Path
assert INPUT_SIZE != 160, "no such size"
score = {"value": INPUT_SIZE / 1000, "low": 0.1, "high": 0.3}
(Path(REPORTS) / "metrics.json").write_text(json.dumps({"heads": {"plain": score}}))"""
GRID = """\
notebooks: [04]
grid: {INPUT_SIZE: [128, 192]}
metrics: [heads.plain]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One tiny notebook that scores its input size, and dislikes 160."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    cells = [
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(SCORE),
    ]
    path = notebooks / "04_training.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    monkeypatch.setattr(config, "NOTEBOOKS", notebooks)
    return tmp_path


def _write(folder, text):
    path = folder / "sizes.yaml"
    path.write_text(text)
    return path


def _plan(folder, text):
    grid = sweep.read_grid(_write(folder, text))
    return sweep.plan_sweep(grid, folder / "out")


def test_every_combination_is_a_run_with_its_own_folder(folder):
    """In the grid's order, the last parameter varying fastest."""
    text = GRID.replace("192]}", "192], SOURCE: [photos, 1]}")
    runs = _plan(folder, text)
    assert [list(run.values.values()) for run in runs] == [
        [128, "photos"],
        [128, 1],
        [192, "photos"],
        [192, 1],
    ]
    assert len({run.folder for run in runs}) == 4
    assert runs[1].steps[0].overrides == {
        "INPUT_SIZE": 128,
        "SOURCE": "1",
        "REPORTS": str(runs[1].folder),
    }
    assert runs[0].folder.name.startswith("INPUT_SIZE-128_SOURCE-photos-")


def test_fixed_parameters_are_part_of_a_runs_name(folder):
    """Else two sweeps of one name would take each other's results."""
    other = GRID + "parameters: {SOURCE: photos}\n"
    assert _plan(folder, GRID)[0].folder != _plan(folder, other)[0].folder


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("INPUT_SIZE", "INPUT_SISE", "unknown parameter INPUT_SISE: did you mean INPU"),
        ("192]", "big]", "parameter INPUT_SIZE: 'big' won't do"),
        ("[04]", "[09]", "no notebook '09'"),
        ("metrics", "metric", "unknown part 'metric': did you mean metrics"),
        ("[128, 192]", "128", "INPUT_SIZE needs a list of values"),
        ("[128, 192]", "[128, 128]", "INPUT_SIZE has a value twice"),
        ("notebooks: [04]", "", "has no part 'notebooks'"),
        ("grid: {", "name: ../up\ngrid: {", "the name '../up' is no folder name"),
        ("grid", "parameters: {INPUT_SIZE: 1}\ngrid", "is both fixed and varied"),
        ("grid", "grid: [", "can't read"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(folder, old, new, message):
    """With what is wrong in it."""
    with pytest.raises(PipelineError) as caught:
        _plan(folder, GRID.replace(old, new))
    assert message in str(caught.value)


def test_a_sweep_lists_what_failed_and_keeps_what_is_done(folder, capsys):
    """On a cluster, then without: the failed run is tried again, the other is kept."""
    pytest.importorskip("distributed")
    path = _write(folder, GRID.replace("128", "160"))
    words = ["sweep", str(path), "--out", str(folder / "out")]
    assert cli.main([*words, "--scheduler", "local", "--workers", "1"]) == 1
    first = pd.read_csv(folder / "out" / "table.csv")
    assert first["status"].tolist() == ["failed", "done"]
    assert cli.main(words) == 1
    table = pd.read_csv(folder / "out" / "table.csv")
    assert table["status"].tolist() == ["failed", "kept"]
    assert table["heads.plain"].fillna(0).tolist() == [0, 0.192]
    for text in (table["error"][0], (folder / "out" / "table.md").read_text()):
        assert "04_training failed in cell In [3]" in text
        assert "AssertionError: no such size" in text
    names = [str(folder / "out" / n) for n in ("table.csv", "table.md", "figure.png")]
    shown = capsys.readouterr()
    assert shown.out.split() == 2 * names and "failed: " in shown.err


def test_the_example_grid_is_valid():
    """The original's input sizes, over notebook 04 as it is now."""
    path = config.REPOSITORY / "benchmarks" / "grids" / "input_size.yaml"
    runs = sweep.plan_sweep(sweep.read_grid(path))
    assert [run.values["INPUT_SIZE"] for run in runs] == [128, 160, 192, 224]

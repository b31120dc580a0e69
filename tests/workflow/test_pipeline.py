"""Notebooks run in order, only when needed, and say what went wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest

from nebula_utils import config
from nebula_utils.errors import PipelineError
from nebula_utils.files import hold_lock
from nebula_utils.workflow import pipeline, provenance

FIRST = """\
from pathlib import Path
out = Path(REPORTS)
out.mkdir(exist_ok=True)
(out / "first.txt").write_text(str(N))"""
SECOND = """\
from pathlib import Path
text = (Path(REPORTS) / "first.txt").read_text()
(Path(REPORTS) / "second.txt").write_text(text + "!")"""


def _write(path, parameters, *sources):
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two tiny notebooks, the second reading what the first writes."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    monkeypatch.setattr(config, "NOTEBOOKS", notebooks)
    _write(notebooks / "01_first.ipynb", 'N = 1\nREPORTS = "../reports"', FIRST)
    _write(notebooks / "02_second.ipynb", 'REPORTS = "../reports"', SECOND)
    return notebooks


def _run(folder, *names, out=None, force=False, **given):
    reports = out or folder.parent / "reports"
    steps = pipeline.plan_run(names, given, out)
    runs = pipeline.run_steps(steps, reports, force=force)
    return [run.name for run in runs if not run.skipped]


@pytest.fixture
def fake_papermill(monkeypatch):
    """Run the cells in this process: fast, and enough for what is asked here."""

    def execute(step, executed):
        cells = nbformat.read(step.notebook, as_version=4).cells
        names = {name: value for name, value in step.parameters.items()}
        names["REPORTS"] = str(step.notebook.parent / names["REPORTS"])
        exec("\n".join(cell.source for cell in cells[1:]), names)
        nbformat.write(nbformat.v4.new_notebook(), executed)

    def prepare(step, executed):
        executed.parent.mkdir(parents=True, exist_ok=True)
        execute(step, executed)

    monkeypatch.setattr(pipeline, "_execute", prepare)
    monkeypatch.setattr(
        pipeline, "export_html", lambda path: path.with_suffix(".html").touch()
    )


@pytest.mark.parametrize("name", ["02", "2", "02_second", "notebooks/02_second.ipynb"])
def test_notebooks_are_found_by_number_and_name(folder, name):
    """However one writes it."""
    (found,) = pipeline.find_notebooks([name])
    assert found.stem == "02_second"


def test_a_missing_notebook_is_named_with_those_there_are(folder):
    """And nothing runs."""
    with pytest.raises(PipelineError, match="no notebook '07'.*01_first, 02_second"):
        pipeline.plan_run(["01", "07"])


def test_an_empty_folder_is_an_error(tmp_path, monkeypatch):
    """A run of nothing must not look like a success."""
    monkeypatch.setattr(config, "NOTEBOOKS", tmp_path)
    with pytest.raises(PipelineError, match="no numbered notebooks"):
        pipeline.plan_run()


def test_the_order_is_that_of_the_file_names(folder):
    """Whatever the order of the arguments."""
    steps = pipeline.plan_run(["02", "01"])
    assert [step.name for step in steps] == ["01_first", "02_second"]


def test_out_replaces_the_reports_parameter(folder, tmp_path):
    """Everything a notebook writes goes to the other folder."""
    steps = pipeline.plan_run(out=tmp_path / "elsewhere")
    for step in steps:
        assert step.overrides == {"REPORTS": str(tmp_path / "elsewhere")}


def test_a_second_run_does_nothing(folder, fake_papermill):
    """Nothing changed, so nothing is needed."""
    assert _run(folder) == ["01_first", "02_second"]
    assert _run(folder) == []
    assert _run(folder, force=True) == ["01_first", "02_second"]


def test_a_changed_parameter_runs_what_follows_too(folder, fake_papermill):
    """The second notebook has no N, but reads what the first made of it."""
    _run(folder)
    assert _run(folder, N="2") == ["01_first", "02_second"]
    assert (folder.parent / "reports" / "second.txt").read_text() == "2!"


def test_a_changed_last_notebook_runs_alone(folder, fake_papermill):
    """The first one's results stand."""
    _run(folder)
    _write(folder / "02_second.ipynb", 'REPORTS = "../reports"', SECOND, "1 + 1")
    assert _run(folder) == ["02_second"]


def test_stored_outputs_are_no_input(folder, fake_papermill):
    """A notebook that was opened and run by hand is still the same notebook."""
    _run(folder)
    notebook = nbformat.read(folder / "01_first.ipynb", as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="1")]
    nbformat.write(notebook, folder / "01_first.ipynb")
    assert _run(folder) == []


@pytest.mark.parametrize("name", ["second.txt", "runs/02_second.html"])
def test_a_lost_result_is_made_again(folder, fake_papermill, name):
    """By the notebook that wrote it, alone."""
    _run(folder)
    (folder.parent / "reports" / name).unlink()
    assert _run(folder) == ["02_second"]


def test_a_result_changed_by_hand_is_made_again(folder, fake_papermill):
    """A report must not show a number that no run gave."""
    _run(folder)
    (folder.parent / "reports" / "second.txt").write_text("9")
    assert _run(folder) == ["02_second"]


def test_new_weights_run_everything(folder, fake_papermill):
    """Weights are an input like the others."""
    _run(folder)
    steps = pipeline.plan_run()
    runs = pipeline.run_steps(steps, folder.parent / "reports", {"net": "0" * 64})
    assert not any(run.skipped for run in runs)


def test_new_data_run_everything(folder, fake_papermill, tmp_path, monkeypatch):
    """So are the tables in data/."""
    monkeypatch.setattr(provenance.config, "DATA", tmp_path)
    _run(folder)
    (tmp_path / "catalogue.csv").write_text("name\n")
    assert _run(folder) == ["01_first", "02_second"]


def test_new_photographs_run_everything(folder, fake_papermill, tmp_path):
    """A folder that a parameter names is an input with all its files."""
    (tmp_path / "mine").mkdir()
    text = 'SOURCE = "photos ../mine"\nREPORTS = "../reports"\nN = 1'
    _write(folder / "01_first.ipynb", text, FIRST)
    _run(folder)
    assert _run(folder) == []
    (tmp_path / "mine" / "new.jpg").write_bytes(b"x")
    assert _run(folder) == ["01_first", "02_second"]


def test_a_damaged_record_runs_everything(folder, fake_papermill):
    """Rather once too often than stopping for ever."""
    _run(folder)
    (folder.parent / "reports" / "runs" / "record.json").write_text("{")
    assert _run(folder) == ["01_first", "02_second"]


def test_two_runs_into_one_folder_wait_for_each_other(folder, fake_papermill):
    """Else each would take the other's files for its own."""
    runs = folder.parent / "reports" / "runs"
    with ThreadPoolExecutor(1) as pool, hold_lock(runs):
        second = pool.submit(_run, folder)
        time.sleep(0.3)
        assert not second.done() and not (runs / "record.json").exists()
    assert second.result() == ["01_first", "02_second"]


def test_a_real_run_writes_copies_and_pages(folder):
    """Through papermill, on this Python, with new parameters."""
    out = folder.parent / "other place ü"
    assert _run(folder, out=out, N="7") == ["01_first", "02_second"]
    assert (out / "second.txt").read_text() == "7!"
    assert not (folder.parent / "reports").exists()
    copy = nbformat.read(out / "runs" / "01_first.ipynb", as_version=4)
    assert any("N = 7" in cell.source for cell in copy.cells)
    assert "<html" in (out / "runs" / "02_second.html").read_text("utf-8")


def test_the_kernel_is_this_very_python(folder, monkeypatch):
    """Nothing is registered, no other Python's is taken; our environment stays ours."""

    def fail(*_):  # an export thread reads it meanwhile
        raise AssertionError("the process's environment was changed")

    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    for name in ("clear", "update"):
        monkeypatch.setattr(os.environ, name, fail)
    source = "import sys, os; print(sys.executable, os.environ['PYTHONHASHSEED'])"
    _write(folder / "01_first.ipynb", "", source)
    _run(folder, "01")
    path = folder.parent / "reports" / "runs" / "01_first.ipynb"
    (output,) = nbformat.read(path, as_version=4).cells[1].outputs
    assert output.text.split() == [sys.executable, "0"]
    assert "PYTHONHASHSEED" not in os.environ


def test_a_failing_cell_is_shown(folder):
    """Notebook, cell, first line, error, and where the copy is; others stay."""
    source = "# Divide.\nx = 1 / 0\n"
    _write(folder / "01_first.ipynb", "A = 1", "A + 1", source, "A + 2")
    with pytest.raises(PipelineError) as caught:
        _run(folder)
    copy = folder.parent / "reports" / "runs" / "01_first.ipynb"
    for part in ("01_first", "In [3]", "# Divide.", "ZeroDivisionError", str(copy)):
        assert part in str(caught.value)
    assert "ZeroDivisionError" in copy.read_text("utf-8")
    assert not copy.with_name("02_second.ipynb").exists()


def test_a_failed_notebook_runs_again(folder):
    """A failure is not remembered as a result."""
    _write(folder / "01_first.ipynb", "A = 1", "raise OSError('full')")
    for _ in range(2):
        with pytest.raises(PipelineError, match="OSError: full"):
            _run(folder, "01")


def test_a_dead_kernel_is_an_error(folder):
    """Out of memory, for instance, kills the kernel without a Python error."""
    _write(folder / "01_first.ipynb", "A = 1", "import os; os._exit(9)")
    with pytest.raises(PipelineError, match="01_first: the kernel failed"):
        _run(folder, "01")


def test_an_interruption_leaves_earlier_results(folder):
    """Ctrl-C in the second notebook: the first stands, no half copy is left."""
    waiting = folder.parent / "waiting"
    source = f"open({str(waiting)!r}, 'w').close(); import time; time.sleep(60)"
    _write(folder / "02_second.ipynb", "A = 1", source)
    out = folder.parent / "reports"
    code = (
        "from pathlib import Path; from nebula_utils import config; "
        "from nebula_utils.workflow import cli; "
        f"config.NOTEBOOKS = Path({str(folder)!r}); "
        f"raise SystemExit(cli.main(['run', '--out', {str(out)!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a shell ignores SIGINT, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(600):
        if waiting.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    assert "interrupted" in message and "Traceback" not in message
    assert (out / "first.txt").read_text() == "1"
    kept = json.loads((out / "runs" / "record.json").read_text())["notebooks"]
    assert list(kept) == ["01_first"]
    assert not list((out / "runs").glob("*02_second*"))

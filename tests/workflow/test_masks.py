"""What nbval masks in the notebooks: the digits of scores, and nothing else."""

import subprocess
import sys

import nbformat
import pytest

from nebula_utils.config import REPOSITORY

TABLE = """\
import pandas as pd
pd.DataFrame({{"plain": ["{} [0.59, 0.75]"], "n": [{}]}}, index=["{}"])"""
# What a cell printed when it was committed, and what it prints now.
SAME = {
    "digits": (
        'print("by nebula: 0.66 [0.59, 0.75]")',
        'print("by nebula: 0.67 [0.58, 0.76]")',
    ),
    "sign and width": ('print("a   0.07  b")', 'print("a  -0.012  b")'),
    "share": ('print("same on 94% of 113")', 'print("same on 100% of 113")'),
    "table": (TABLE.format("0.66", 10, "dark"), TABLE.format("-0.1", 10, "dark")),
}
OTHER = {
    "count": ('print("dark 10 nebulae")', 'print("dark 11 nebulae")'),
    "name": ('print("NGC 2359 is emission")', 'print("NGC 2359 is dark")'),
    "order": ('print("dark 0.6\\nred 0.5")', 'print("red 0.5\\ndark 0.6")'),
    "no score": ('print("dark 0.66")', 'print("dark none")'),
    "count in a table": (
        TABLE.format("0.66", 10, "dark"),
        TABLE.format("0.66", 9, "dark"),
    ),
    "name in a table": (
        TABLE.format("0.66", 10, "dark"),
        TABLE.format("0.66", 10, "emission"),
    ),
}


def run_nbval(*words):
    """Run nbval as `make nbval` does; return what it tells."""
    config = REPOSITORY / "tests" / "nbval_sanitize.cfg"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v"]
    command += ["--nbval-lax", "--nbval-sanitize-with", str(config), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.stdout


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """Compare all cells with what they printed once: name → passed."""
    from nbclient import NotebookClient

    path = tmp_path_factory.mktemp("masks") / "cells.ipynb"
    pairs = [*SAME.values(), *OTHER.values()]
    check = "# NBVAL_CHECK_OUTPUT\n"
    cells = [nbformat.v4.new_code_cell(check + before) for before, _ in pairs]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, kernel_name="python3").execute()
    for cell, (_, now) in zip(notebook.cells, pairs, strict=True):
        cell.source = check + now
    nbformat.write(notebook, path)
    told = run_nbval(str(path))
    lines = [line.split() for line in told.splitlines() if "::Cell " in line]
    found = [line[2] for line in lines if line[2] in ("PASSED", "FAILED")]
    assert len(found) == len(pairs), told
    return dict(zip([*SAME, *OTHER], found, strict=True))


@pytest.mark.parametrize("name", SAME)
def test_another_processors_digits_pass(verdicts, name):
    """A checked cell stands or falls with what is exact in it."""
    assert verdicts[name] == "PASSED"


@pytest.mark.parametrize("name", OTHER)
def test_a_wrong_count_name_or_order_fails(verdicts, name):
    """Masking digits must not mask what they belong to."""
    assert verdicts[name] == "FAILED"

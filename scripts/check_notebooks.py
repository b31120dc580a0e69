"""Run copies of the notebooks and compare their checked cells with what is committed.

    python scripts/check_notebooks.py [01 04 …]

The copies lie in .check/, and so does what they write, so that a test leaves reports/
as it is; `tests/workflow/test_metrics.py` compares .check/reports/metrics.json with
the committed one.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from nebula_utils import config
from nebula_utils.workflow.pipeline import OUT_PARAMETER, find_notebooks

CHECK = config.REPOSITORY / ".check"  # beside notebooks/, as paths in them are relative
SANITIZE = config.REPOSITORY / "tests" / "nbval_sanitize.cfg"
CELL_TIMEOUT = 900  # s


def copy_notebook(path: Path) -> Path:
    """Copy a notebook with its outputs, to write its results beside the copy."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = re.sub(
                rf"^({OUT_PARAMETER} = ).*$", r'\1"reports"', cell.source, flags=re.M
            )
    copy = CHECK / path.name
    nbformat.write(notebook, copy)
    return copy


def main() -> int:
    """Copy and compare the named notebooks, or all."""
    shutil.rmtree(CHECK, ignore_errors=True)
    CHECK.mkdir()
    copies = [copy_notebook(path) for path in find_notebooks(sys.argv[1:])]
    # In order and in one process: later notebooks read what earlier ones wrote.
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist"]
    command += ["-p", "no:cacheprovider", "--nbval-lax", f"--rootdir={CHECK.parent}"]
    command += ["--nbval-sanitize-with", str(SANITIZE)]
    command += ["--nbval-cell-timeout", str(CELL_TIMEOUT)]
    return subprocess.run([*command, *map(str, copies)]).returncode


if __name__ == "__main__":
    sys.exit(main())

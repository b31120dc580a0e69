"""Run the notebooks in place, as they are committed; fill in findings and README.

    python scripts/run_notebooks.py [01 04 …]

Unlike `nebula run`, which writes executed copies under reports/, this writes the
outputs into notebooks/ themselves. Findings and the README's numbers are taken from
the run, so that no number in a text is older than the results.
"""

import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from nebula_utils import config
from nebula_utils.files import write_atomic
from nebula_utils.report.results import read_json
from nebula_utils.report.tables import fill_block, make_goal_table, make_main_table
from nebula_utils.workflow.pipeline import KERNEL_ENVIRONMENT, find_notebooks

WIDGET = "application/vnd.jupyter.widget-view+json"
_FINDING = re.compile(r"(<!-- finding:begin -->\n).*?(\n<!-- finding:end -->)", re.S)


def run_in_place(path: Path) -> None:
    """Execute a notebook and write it back, outputs only."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=50"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    # Widgets' states are large, and their names hold addresses of this run.
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                output["data"] = {"text/plain": "(the page, where a kernel runs)"}
    notebook.metadata["language_info"] = {"name": "python"}
    fill_finding(notebook)
    write_text(path, nbformat.writes(notebook) + "\n")


def fill_finding(notebook: nbformat.NotebookNode) -> None:
    """Put what the notebook prints as its finding into the title cell."""
    printed = "".join(
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream"
    )
    found = re.findall(r"^Finding: (.+)$", printed, re.M)
    if found:
        title = notebook.cells[0]
        title.source = _FINDING.sub(
            lambda match: f"{match[1]}**Finding:** {found[-1]}{match[2]}", title.source
        )


def fill_readme() -> None:
    """Put the numbers of metrics.json and of the larger study into the README."""
    readme = config.REPOSITORY / "README.md"
    default = read_json(config.REPORTS / "metrics.json")
    larger = config.REPORTS / "archives" / "metrics.json"
    studies = [default, read_json(larger) if larger.is_file() else None]
    text = readme.read_text("utf-8")
    text = fill_block(text, "metrics", make_main_table(default))
    write_text(readme, fill_block(text, "goals", make_goal_table(studies)))


def write_text(path: Path, text: str) -> None:
    """Replace a file whole."""
    with write_atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main() -> None:
    """Run the named notebooks, or all."""
    os.environ.update(KERNEL_ENVIRONMENT)
    for path in find_notebooks(sys.argv[1:]):
        run_in_place(path)
    fill_readme()


if __name__ == "__main__":
    main()

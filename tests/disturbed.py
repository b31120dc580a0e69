"""Commands to disturb: small ones, started as processes, and what they leave behind.

A `Work` is one command with all that it reads and writes. Results are compared with
those of an undisturbed run in the same place, so that no path in them differs.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
from PIL import Image

PATIENCE = 180  # s for one command, on a machine with other work
N_PICTURES = 80
PARAMETERS = 'SIZE = 1\nREPORTS = "../reports"'
FIRST = """\
import json, time
from pathlib import Path
from nebula_utils.files import write_atomic
for step in range(4):
    time.sleep(0.1)
    with write_atomic(Path(REPORTS) / f"step-{step}.txt") as temporary:
        temporary.write_text(str(SIZE * step))"""
SECOND = """\
steps = sorted(Path(REPORTS).glob("step-?.txt"))
numbers = [int(path.read_text()) for path in steps]
score = {"value": sum(numbers) / 100, "low": 0.0, "high": 1.0}
with write_atomic(Path(REPORTS) / "metrics.json") as temporary:
    temporary.write_text(json.dumps({"heads": {"plain": score}}))
numbers"""


@dataclass(frozen=True)
class Work:
    """A command, the folder of what it only reads, and that of what it writes."""

    words: Sequence[str]
    inputs: Path
    state: Path

    @property
    def cache(self) -> Path:
        """``$NEBULA_CACHE``."""
        return self.state / "cache"

    def start(self) -> subprocess.Popen:
        """Start the command in a session of its own."""
        here = Path(__file__).parent
        environment = {
            **os.environ,
            "NEBULA_CACHE": str(self.cache),
            "TINY_NOTEBOOKS": str(self.inputs / "notebooks"),
            "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]),
            "NO_PROXY": "127.0.0.1",
        }
        return subprocess.Popen(
            [sys.executable, str(here / "tiny_nebula.py"), *self.words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> tuple[int, str]:
        """Run the command to its end; return its status and what it told."""
        process = self.start()
        _, told = process.communicate(timeout=PATIENCE)
        return process.returncode, told

    def clear(self) -> None:
        """Forget everything that it wrote."""
        for item in self.state.iterdir():
            shutil.rmtree(item)

    def read_results(self) -> dict[str, Any]:
        """Return the content of each file of results, but for times and dates."""
        found = {}
        for path in sorted(self.state.rglob("*")):
            name = path.relative_to(self.state)
            hidden = any(part.startswith(".") for part in name.parts)
            if path.is_file() and not hidden and "features" not in name.parts:
                read = READERS.get(path.name) or READERS.get(path.suffix)
                found[str(name)] = read(path) if read else path.read_bytes()
        return found


def make_inputs(folder: Path) -> None:
    """Write small JPEGs and two tiny notebooks."""
    rng = np.random.default_rng(11)
    (folder / "pictures").mkdir(parents=True)
    for number in range(N_PICTURES):
        pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number:03d}.jpg")
    (folder / "notebooks").mkdir()
    _write_notebook(folder / "notebooks" / "01_first.ipynb", FIRST, SECOND)
    more = "from pathlib import Path"
    last = "(Path(REPORTS) / 'last.txt').write_text((Path(REPORTS) / 'metrics.json')"
    _write_notebook(
        folder / "notebooks" / "02_second.ipynb", more, f"{last}.read_text())"
    )


def make_work(name: str, folder: Path, address: str) -> Work:
    """Return one of the works; ``address`` is that of a hips2fits service."""
    inputs, state = folder / "inputs", folder / name
    state.mkdir(exist_ok=True)
    out = str(state / "out")
    words = {
        "extract": ["extract", str(inputs / "pictures"), "--out", f"{out}/f.npz"],
        "fetch": "fetch hips --limit 24 --surveys DSS2-color DSS2-red --size-px 64 "
        f"--connections 2 --server {address}".split(),
        "run": ["run", "--out", out],
    }
    return Work(words[name], inputs, state)


def list_processes(process: subprocess.Popen) -> list[psutil.Process]:
    """Return a process and all that it started, kernels included."""
    try:
        root = psutil.Process(process.pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kill -9 each, and wait until it is gone."""
    for one in processes:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(processes, timeout=10)


def measure(work: Work) -> tuple[float, float]:
    """Run a work; return the seconds to the first file that it wrote, and to its end.

    Raises
    ------
    AssertionError
        If it fails.
    """
    start = time.monotonic()
    first = None
    process = work.start()
    while process.poll() is None:
        if first is None and any(path.is_file() for path in work.state.rglob("*")):
            first = time.monotonic() - start
        time.sleep(0.02)
    end = time.monotonic() - start
    _, told = process.communicate()
    assert process.returncode == 0, told
    return first or end, end


def _write_notebook(path: Path, *sources: str) -> None:
    tagged = {"tags": ["parameters"]}
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata=tagged)]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def _read_notebook(path: Path) -> Any:
    cells = nbformat.read(path, as_version=4).cells
    return [(cell.source, cell.execution_count, cell.outputs) for cell in cells]


def _read_json_without(*names: str) -> Callable[[Path], Any]:
    """Give a reader of JSON that leaves out some names, however deep."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in names}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return lambda path: strip(json.loads(path.read_text()))


def _read_page(path: Path) -> str:
    """Read an HTML page without the identifiers that change with each execution."""
    return re.sub(r'(id="?(?:cell-id=)?)[0-9a-f-]+', r"\1", path.read_text("utf-8"))


READERS: dict[str, Callable[[Path], Any]] = {
    ".ipynb": _read_notebook,
    ".html": _read_page,
    "record.json": _read_json_without("seconds", "digest", "checksum"),
    "provenance.json": _read_json_without("written", "wall_seconds", "git"),
}

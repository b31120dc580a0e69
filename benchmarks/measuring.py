"""Time things in turns, and judge the ratios against their goals."""

import contextlib
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from tqdm import tqdm

from nebula_utils.config import cache_dir

log = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
N_CORES = (
    len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else os.cpu_count() or 1
)
NOTHING = "–"
TIMES = "×"
SECONDS = "seconds"

# Does something once; may return figures of its own beside the seconds it took.
Step = Callable[[], Mapping[str, float] | None]


class Options(NamedTuple):
    """How much to measure.

    Attributes
    ----------
    rounds : int
        How often everything is timed.
    n_photos : int
        2-megapixel photos.
    scratch : Path
        An empty folder, removed at the end.
    """

    rounds: int
    n_photos: int
    scratch: Path


class Row(NamedTuple):
    """One line of the report.

    Attributes
    ----------
    work, baseline : str
        What was measured, and against what.
    measured, goal : str
        As people read them.
    reached : str
        ``"yes"``, ``"no"``, or a dash where there is no goal.
    """

    work: str
    baseline: str
    measured: str
    goal: str
    reached: str


class Times:
    """What each step took in each round."""

    def __init__(self) -> None:
        self.found: dict[str, list[dict[str, float]]] = {}
        self.failed: dict[str, str] = {}

    def get(self, step: str, figure: str = SECONDS) -> list[float]:
        """Return one figure of a step, one value a round.

        Raises
        ------
        RuntimeError
            If the step failed; the message is the step's.
        """
        if step in self.failed:
            raise RuntimeError(self.failed[step])
        return [found[figure] for found in self.found[step]]

    def median(self, step: str, figure: str = SECONDS) -> float:
        """Return the median of one figure of a step."""
        return statistics.median(self.get(step, figure))

    def ratio(
        self, slow: str, fast: str, figure: str = SECONDS, of_fast: str = SECONDS
    ) -> float:
        """Return how many times faster: the median over rounds of their ratios."""
        pairs = zip(self.get(slow, figure), self.get(fast, of_fast), strict=True)
        return statistics.median(a / b for a, b in pairs)


def take_turns(steps: Mapping[str, Step], rounds: int, title: str) -> Times:
    """Run the steps in turns; one that fails is left out of the following rounds."""
    times = Times()
    with tqdm(total=rounds * len(steps), desc=title, disable=None) as bar:
        for name in [*steps] * rounds:
            bar.set_postfix_str(name)
            if name not in times.failed:
                _run_step(name, steps[name], times)
            bar.update()
    return times


def _run_step(name: str, step: Step, times: Times) -> None:
    start = time.perf_counter()
    try:
        figures = step() or {}
    except Exception as error:  # whatever it was, the other steps still count
        log.warning("%s failed: %s", name, error)
        times.failed[name] = f"{type(error).__name__}: {error}"
        return
    seconds = time.perf_counter() - start
    times.found.setdefault(name, []).append({SECONDS: seconds, **figures})


def judge(
    work: str,
    baseline: str,
    compute: Callable[[], float],
    goal: float | None = None,
    unit: str = TIMES,
    digits: int = 1,
    at_most: bool = False,
) -> Row:
    """Compute a figure and compare it with its goal.

    Parameters
    ----------
    work, baseline : str
        What it is, and what it is compared with.
    compute : callable
        Gives the figure; if it fails, the row says so.
    goal : float, optional
        What it should reach.
    unit : str
        What is written behind the figure.
    digits : int
        How many decimals of it are written.
    at_most : bool
        Whether the goal must not be exceeded, instead of at least reached.

    Returns
    -------
    Row
    """
    sign = "≤" if at_most else "≥"
    wanted = NOTHING if goal is None else f"{sign} {goal:,g} {unit}".rstrip()
    try:
        value = compute()
    except Exception as error:  # one row must not cost the others
        return fail(work, baseline, error, wanted)
    if goal is None:
        reached = NOTHING
    else:
        reached = "yes" if (value <= goal if at_most else value >= goal) else "no"
    measured = f"{value:,.{digits}f} {unit}".rstrip()
    return Row(work, baseline, measured, wanted, reached)


def fail(work: str, baseline: str, error: Exception, goal: str = NOTHING) -> Row:
    """Return the row of something that could not be measured."""
    words = " ".join(str(error).split()).replace("|", "/")[:120]
    return Row(work, baseline, f"failed: {words}", goal, "no")


def run_python(arguments: Sequence[object], cache: Path | None = None) -> str:
    """Run a Python process; return what it printed.

    Raises
    ------
    RuntimeError
        If it failed, with the last line of what it said.
    """
    environment = dict(os.environ)
    if cache is not None:
        environment["NEBULA_CACHE"] = str(cache)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise RuntimeError(f"{Path(str(arguments[0])).name}: {said[0]}")
    return done.stdout


def run_script(
    name: str, *arguments: object, cache: Path | None = None
) -> dict[str, float]:
    """Run a script of this folder; return the JSON of its last line."""
    printed = run_python([HERE / name, *arguments], cache)
    return json.loads(printed.splitlines()[-1])


def make_cache(folder: Path) -> Path:
    """Make a cache with the weights in it, but no features."""
    folder.mkdir(parents=True)
    for name in ("backbones", "downloads"):
        (folder / name).symlink_to((cache_dir() / name).resolve())
    return folder


@contextlib.contextmanager
def use_cache(folder: Path) -> Iterator[None]:
    """Let this process use another cache while the block runs."""
    with mock.patch.dict(os.environ, NEBULA_CACHE=str(folder)):
        yield

"""Run notebooks for every combination of a grid of parameters, each in its own folder.

A grid is a YAML file::

    name: input_size
    notebooks: ["04"]
    parameters: {REPEATS: 1}
    grid: {INPUT_SIZE: [128, 160, 192, 224]}
    metrics: [heads.plain.balanced_accuracy]

Each run is a `pipeline` run into ``reports/sweeps/NAME/RUN/``, so a run is done again
only if something that it depends on has changed.
"""

import difflib
import functools
import hashlib
import itertools
import json
import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nebula_utils import config
from nebula_utils.errors import NebulaError, PipelineError
from nebula_utils.workflow.pipeline import OUT_PARAMETER, Step, plan_run, run_steps

log = logging.getLogger(__name__)

METRICS = (
    "heads.plain.balanced_accuracy",
    "heads.plain.flip_rate.grey",
    "heads.robust.balanced_accuracy",
    "heads.robust.flip_rate.grey",
)
_ONE_AT_A_TIME = threading.Lock()  # a run changes its process's environment


@dataclass(frozen=True)
class Grid:
    """What to run: notebooks, fixed parameters, and those that vary.

    Attributes
    ----------
    name : str
        Of the folder of results.
    notebooks : list of str
        As for `pipeline.find_notebooks`.
    grid : dict of str to list
        Parameter → its values; every combination is one run.
    parameters : dict
        Parameter → the value that it has in all runs.
    metrics : list of str
        Places in ``metrics.json``, e.g. ``heads.plain.balanced_accuracy``; the first
        is the one that the figure's title speaks of.
    """

    name: str
    notebooks: list[str]
    grid: dict[str, list[Any]]
    parameters: dict[str, Any] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=lambda: list(METRICS))


@dataclass(frozen=True)
class SweepRun:
    """One combination, checked: its own values, its folder, its notebooks."""

    values: dict[str, Any]
    folder: Path
    steps: list[Step]


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes
    ----------
    status : str
        ``"done"``, ``"kept"`` (it was done before) or ``"failed"``.
    seconds : float
        Wall time of its notebooks when they last ran.
    error : str
        Notebook, cell and message; empty if none failed.
    """

    status: str
    seconds: float
    error: str = ""


def read_grid(path: Path) -> Grid:
    """Read a grid and check its form; `plan_sweep` checks what it names.

    Parameters
    ----------
    path : Path
        The YAML file; its stem is the name if it gives none.

    Returns
    -------
    Grid

    Raises
    ------
    PipelineError
        If it can't be read, or a part is missing, unknown or of the wrong form.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PipelineError(f"can't read {path}: {error}") from None
    if not isinstance(content, dict):
        raise PipelineError(f"{path} must have the parts notebooks and grid")
    content = {"name": path.stem, **content}
    _check_parts(path, content)
    content["notebooks"] = [str(name) for name in content["notebooks"]]
    return Grid(**content)


def plan_sweep(
    grid: Grid, out: Path | None = None, folder: Path | None = None
) -> list[SweepRun]:
    """Check every run of a grid before the first one starts.

    Parameters
    ----------
    grid : Grid
        From `read_grid`.
    out : Path, optional
        Where the runs' folders go; default: ``reports/sweeps/NAME``.
    folder : Path, optional
        Where the notebooks are; default: ``notebooks/``.

    Returns
    -------
    list of SweepRun
        In the grid's order, the last parameter varying fastest.

    Raises
    ------
    PipelineError
        For a missing notebook, an unknown parameter (with the nearest name) or a
        value of the wrong type; if no notebook takes `pipeline.OUT_PARAMETER`, as
        all runs would write to the same place.
    """
    out = (out or config.REPORTS / "sweeps" / grid.name).resolve()
    runs = []
    for combination in itertools.product(*grid.grid.values()):
        values = dict(zip(grid.grid, combination, strict=True))
        given = {**grid.parameters, **values}
        place = out / _name_run(values, given, grid.notebooks)
        texts = {name: _write_literal(value) for name, value in given.items()}
        steps = plan_run(grid.notebooks, texts, place, folder)
        if not any(OUT_PARAMETER in step.parameters for step in steps):
            raise PipelineError(
                f"{', '.join(step.name for step in steps)} has no parameter "
                f"{OUT_PARAMETER}: its results can't be told apart"
            )
        runs.append(SweepRun(values, place, steps))
    return runs


def run_sweep(
    runs: Sequence[SweepRun],
    scheduler: str | None = None,
    n_workers: int | None = None,
) -> list[Outcome]:
    """Do every run; one that fails does not stop the others.

    Parameters
    ----------
    runs : sequence of SweepRun
        From `plan_sweep`.
    scheduler : str, optional
        As for `cluster.run_tasks`; default: one after the other, here.
    n_workers : int, optional
        Worker processes of the scheduler ``"local"``.

    Returns
    -------
    list of Outcome
        In the order of the runs.

    Raises
    ------
    ClusterError
        If the scheduler can't be reached.
    """
    if scheduler is None:
        return [_run_here(run, f"[{i}/{len(runs)}]") for i, run in enumerate(runs, 1)]
    from nebula_utils.features.cluster import run_tasks

    found = run_tasks(do_run, runs, scheduler, n_workers, unit="run")
    return [
        # A string: its worker died, again and again.
        Outcome("failed", 0.0, outcome) if isinstance(outcome, str) else outcome
        for outcome in (found[i] for i in range(len(runs)))
    ]


def do_run(run: SweepRun) -> Outcome:
    """Execute a run's notebooks, unless they are done.

    Parameters
    ----------
    run : SweepRun
        From `plan_sweep`.

    Returns
    -------
    Outcome
        Errors are part of it.
    """
    started = time.monotonic()
    try:
        with _ONE_AT_A_TIME:
            done = run_steps(run.steps, run.folder, _hash_weights(run.steps))
    except (NebulaError, OSError) as error:
        return Outcome("failed", time.monotonic() - started, str(error))
    kept = all(step.skipped for step in done)
    seconds = sum(step.seconds for step in done)
    return Outcome("kept" if kept else "done", seconds)


def _run_here(run: SweepRun, number: str) -> Outcome:
    log.info("%s %s", number, run.folder.name)
    return do_run(run)


@functools.cache
def _hash_backbone(name: str) -> str:
    from nebula_utils.features import backbone

    return backbone.compute_weights_sha256(backbone.resolve_backbone(name))


def _hash_weights(steps: Sequence[Step]) -> dict[str, str]:
    names = {step.parameters.get("BACKBONE") for step in steps} - {None}
    return {name: _hash_backbone(name) for name in sorted(map(str, names))}


def _check_parts(path: Path, content: Mapping[str, Any]) -> None:
    forms: dict[str, tuple[type, str]] = {
        "name": (str, "a word"),
        "notebooks": (list, "a list"),
        "grid": (dict, "a mapping"),
        "parameters": (dict, "a mapping"),
        "metrics": (list, "a list"),
    }
    for part, value in content.items():
        if part not in forms:
            near = difflib.get_close_matches(str(part), forms, n=1)
            advice = f"did you mean {near[0]}?" if near else f"there are {[*forms]}"
            raise PipelineError(f"{path}: unknown part {part!r}: {advice}")
        form, kind = forms[part]
        if not isinstance(value, form) or not value:
            raise PipelineError(f"{path}: {part} must be {kind} that is not empty")
    for part in ("notebooks", "grid"):
        if part not in content:
            raise PipelineError(f"{path} has no part {part!r}")
    if not re.fullmatch(r"[\w-][\w.-]*", content["name"]):
        raise PipelineError(f"{path}: the name {content['name']!r} is no folder name")
    for name, values in content["grid"].items():
        if not isinstance(values, list) or not values:
            raise PipelineError(f"{path}: grid: {name} needs a list of values")
        if len({json.dumps(value) for value in values}) < len(values):
            raise PipelineError(f"{path}: grid: {name} has a value twice")
        if name in content.get("parameters", {}):
            raise PipelineError(f"{path}: {name} is both fixed and varied")


def _name_run(
    values: Mapping[str, Any], given: Mapping[str, Any], notebooks: Sequence[str]
) -> str:
    words = [f"{name}-{value}" for name, value in values.items()]
    readable = re.sub(r"[^A-Za-z0-9.+-]+", "_", "_".join(words)).strip("._")[:60]
    text = json.dumps([dict(given), list(notebooks)], sort_keys=True, default=str)
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _write_literal(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)

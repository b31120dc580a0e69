"""Run the notebooks in order through papermill, and only those that need it."""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client import AsyncKernelManager

from nebula_utils import config
from nebula_utils.errors import PipelineError
from nebula_utils.files import hold_lock, is_write_error, write_atomic
from nebula_utils.workflow.parameters import assign_parameters, read_parameters
from nebula_utils.workflow.provenance import RUNS, Record, make_inputs_key

logger = logging.getLogger(__name__)

# Where a notebook writes to; `--out` overrides it.
OUT_PARAMETER = "REPORTS"

# What keeps two runs equal, TensorFlow's start-up talk out of the outputs, and the
# kernel the one of this very Python.
KERNEL_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_DETERMINISTIC_OPS": "1",
    "JUPYTER_PREFER_ENV_PATH": "1",
}


@dataclass(frozen=True)
class Step:
    """One notebook to run: its file, new values, and all values as used."""

    notebook: Path
    overrides: dict[str, Any]
    parameters: dict[str, Any]

    @property
    def name(self) -> str:
        """The file name without its ending, e.g. ``04_training``."""
        return self.notebook.stem


@dataclass(frozen=True)
class Run:
    """What came of a step; ``seconds`` is the wall time of its last execution."""

    name: str
    seconds: float
    skipped: bool


def find_notebooks(names: Sequence[str] = ()) -> list[Path]:
    """Return the named notebooks in the order of their file names.

    Parameters
    ----------
    names : sequence of str
        Each a number (``04``, ``4``), a stem (``04_training``) or a file name; none
        means all.

    Raises
    ------
    PipelineError
        If a name fits no notebook, or there are none at all.
    """
    there = sorted(config.NOTEBOOKS.glob("[0-9]*.ipynb"))
    if not there:
        raise PipelineError(f"there are no numbered notebooks in {config.NOTEBOOKS}")
    chosen = set()
    for name in names:
        stem = Path(name).name.removesuffix(".ipynb")
        number = stem.zfill(2) + "_"
        fitting = [p for p in there if p.stem == stem or p.stem.startswith(number)]
        if not fitting:
            known = ", ".join(path.stem for path in there)
            raise PipelineError(f"no notebook {name!r}: there are {known}")
        chosen.update(fitting)
    return sorted(chosen) if names else there


def plan_run(
    names: Sequence[str] = (),
    parameters: Mapping[str, str] | None = None,
    out: Path | None = None,
) -> list[Step]:
    """Choose the notebooks and check every parameter, before anything runs.

    Parameters
    ----------
    names : sequence of str
        See `find_notebooks`.
    parameters : mapping, optional
        Parameter name → value as typed; goes to each chosen notebook that has it.
    out : Path, optional
        Folder for everything that is written, instead of ``reports/``.

    Raises
    ------
    PipelineError
        For a missing notebook, an unknown parameter or a value of the wrong type.
    """
    chosen = find_notebooks(names)
    known = {path.stem: read_parameters(path) for path in find_notebooks()}
    defaults = {path.stem: known.pop(path.stem) for path in chosen}
    assigned = assign_parameters(parameters or {}, defaults, others=known)
    if out is not None:
        for name in defaults:
            if OUT_PARAMETER in defaults[name]:
                assigned[name][OUT_PARAMETER] = str(out.resolve())
    return [
        Step(path, assigned[path.stem], defaults[path.stem] | assigned[path.stem])
        for path in chosen
    ]


def run_steps(
    steps: Sequence[Step],
    out: Path = config.REPORTS,
    weights: Mapping[str, str] | None = None,
    force: bool = False,
) -> list[Run]:
    """Execute notebooks in order; skip those whose inputs have not changed.

    Parameters
    ----------
    steps : sequence of Step
        From `plan_run`.
    out : Path
        Executed copies and HTML go to its folder ``runs``.
    weights : mapping, optional
        Backbone name → SHA-256 of its weights: an input like the others.
    force : bool, default=False
        Run them all.

    Raises
    ------
    PipelineError
        If a cell fails. The executed copy up to it is written; later notebooks are
        not run; the results of earlier ones stay.

    Notes
    -----
    A notebook's inputs are its source and parameters, the package's source, the
    locked package versions, ``data/``, the weights, and whatever the notebooks
    before it had as inputs. It is also run again if a file that it wrote is gone or
    was changed since by something else than a notebook.
    """
    with hold_lock(out / RUNS), ThreadPoolExecutor(1) as exporter:
        record = Record(out)
        runs, exports = [], []
        for number, step in enumerate(steps, start=1):
            key = make_inputs_key(step.notebook, step.parameters, weights or {}, record)
            executed = out / RUNS / f"{step.name}.ipynb"
            skipped = not force and record.is_current(step.name, key)
            where = f"[{number}/{len(steps)}] {step.name}"
            if skipped:
                logger.info("%s: nothing changed, kept", where)
            else:
                logger.info("%s: running", where)
                with record.follow(step.name, key):
                    _execute(step, executed)
                exports.append(exporter.submit(export_html, executed))
            seconds = record.notebooks[step.name]["seconds"]
            runs.append(Run(step.name, seconds, skipped))
        for export in exports:
            export.result()
    return runs


def export_html(executed: Path) -> None:
    """Write an executed notebook as a web page beside it, pictures included."""
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter().from_filename(str(executed))
    with write_atomic(executed.with_suffix(".html")) as temporary:
        temporary.write_text(page, encoding="utf-8")


class _KernelManager(AsyncKernelManager):
    """Start kernels with an environment of their own; ours stays as it is."""

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
        await super().start_kernel(**options, env={**os.environ, **KERNEL_ENVIRONMENT})


def _execute(step: Step, executed: Path) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    failure: Exception | None = None
    with write_atomic(executed) as temporary:
        try:
            papermill.execute_notebook(
                str(step.notebook),
                str(temporary),
                parameters=step.overrides,
                kernel_name="python3",
                language="python",
                cwd=str(step.notebook.parent),
                progress_bar=sys.stderr.isatty(),
                # The kernel's own talk would go to our stderr.
                extra_arguments=["--IPKernelApp.log_level=50"],
                kernel_manager_class=_KernelManager,
            )
        except Exception as error:  # a dead kernel has no common class
            failure = error
            if is_write_error(error):
                raise
            if temporary.stat().st_size == 0:  # keep the copy of an earlier run
                raise PipelineError(f"{step.name} can't be run: {error}") from error
    if isinstance(failure, PapermillExecutionError):
        if failure.ename == "KeyboardInterrupt":
            raise KeyboardInterrupt
        raise PipelineError(_explain_failure(step, failure, executed)) from failure
    if failure is not None:
        raise PipelineError(
            f"{step.name}: the kernel failed ({type(failure).__name__}: {failure}); "
            f"the copy so far: {executed}"
        ) from failure


def _explain_failure(step: Step, failure: Any, executed: Path) -> str:
    export_html(executed)
    lines = [line for line in failure.source.splitlines() if line.strip()]
    message = str(failure.evalue).strip()
    return (
        f"{step.name} failed in cell In [{failure.exec_count}]\n"
        f"    {lines[0] if lines else ''}\n"
        f"{failure.ename}: {message}\n"
        f"The executed copy with the whole traceback: {executed}"
    )

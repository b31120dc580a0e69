"""Check the notebooks' parameters, and run those notebooks that need it, in order."""

import ast
import difflib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jupyter_client import AsyncKernelManager

from nebula_utils import config
from nebula_utils.errors import PipelineError
from nebula_utils.files import hold_lock, is_write_error, write_atomic
from nebula_utils.workflow.provenance import RUNS, Record, make_inputs_key

logger = logging.getLogger(__name__)

Defaults = Mapping[str, Mapping[str, Any]]  # notebook → parameter → default

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
        """The file name without its ending."""
        return self.notebook.stem


@dataclass(frozen=True)
class Run:
    """What came of a step; ``seconds`` is the wall time of its last execution."""

    name: str
    seconds: float
    skipped: bool


def find_notebooks(names: Sequence[str] = ()) -> list[Path]:
    """Return the named notebooks, default all, in the order of their file names.

    A name is a number (``04``, ``4``), a stem (``04_training``) or a file name.

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

    See `find_notebooks` and `assign_parameters`; ``out`` is the folder for everything
    that is written, instead of ``reports/``.

    Raises
    ------
    PipelineError
        For a missing notebook, an unknown parameter or a value of the wrong type.
    """
    chosen = find_notebooks(names)
    known = {path.stem: read_parameters(path) for path in find_notebooks()}
    defaults = {path.stem: known.pop(path.stem) for path in chosen}
    assigned = assign_parameters(parameters or {}, defaults, known)
    if out is not None:
        for name in defaults:
            if OUT_PARAMETER in defaults[name]:
                assigned[name][OUT_PARAMETER] = str(out.resolve())
    return [
        Step(path, assigned[path.stem], defaults[path.stem] | assigned[path.stem])
        for path in chosen
    ]


def read_parameters(notebook: Path) -> dict[str, Any]:
    """Return the defaults in a notebook's cell tagged ``parameters``, in order.

    Raises
    ------
    PipelineError
        If the file is no notebook, or the cell holds more than literals: papermill
        always runs it before the new values, so it must do nothing.
    """
    import nbformat  # slow: not for every command

    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise PipelineError(
            f"{notebook} can't be read as a notebook: {error}"
        ) from None
    for cell in cells:
        if "parameters" in cell.metadata.get("tags", []):
            return _evaluate_assignments(cell.source, notebook)
    return {}


def assign_parameters(
    given: Mapping[str, str], selected: Defaults, others: Defaults
) -> dict[str, dict[str, Any]]:
    """Sort new values to the notebooks that have such a parameter, and check them.

    Parameters
    ----------
    given : mapping
        Parameter name → value as typed: a YAML or JSON literal.
    selected, others : mapping
        Notebooks that will run, and the others (for a better message).

    Raises
    ------
    PipelineError
        If no selected notebook has it, or a value is of another type than the default.
    """
    assigned: dict[str, dict[str, Any]] = {name: {} for name in selected}
    for name, text in given.items():
        owners = [notebook for notebook in selected if name in selected[notebook]]
        if not owners:
            raise PipelineError(_explain_unknown(name, selected, others))
        for notebook in owners:
            default = selected[notebook][name]
            assigned[notebook][name] = _parse_value(name, text, default)
    return assigned


def run_steps(
    steps: Sequence[Step],
    out: Path = config.REPORTS,
    weights: Mapping[str, str] | None = None,
    force: bool = False,
) -> list[Run]:
    """Execute notebooks in order; skip those whose inputs have not changed.

    A notebook's inputs are its source and parameters, the package's source, the locked
    package versions, ``data/``, the weights, and whatever the notebooks before it had
    as inputs. It is also run again if a file that it wrote is gone or was changed since
    by something else than a notebook, and where ``force`` says so.

    Parameters
    ----------
    out : Path
        Executed copies and HTML go to its folder ``runs``.
    weights : mapping, optional
        Backbone name → SHA-256 of its weights.

    Raises
    ------
    PipelineError
        If a cell fails. The executed copy up to it is written; later notebooks are not
        run; the results of earlier ones stay.
    """
    with hold_lock(out / RUNS), ThreadPoolExecutor(1) as exporter:
        record = Record(out)
        runs, exports = [], []
        for number, step in enumerate(steps, start=1):
            key = make_inputs_key(step.notebook, step.parameters, weights or {}, record)
            executed = out / RUNS / f"{step.name}.ipynb"
            skipped = not force and record.is_current(step.name, key)
            state = "nothing changed, kept" if skipped else "running"
            logger.info("[%d/%d] %s: %s", number, len(steps), step.name, state)
            if not skipped:
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


def _evaluate_assignments(source: str, notebook: Path) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    try:
        for statement in ast.parse(source).body:
            match statement:
                case (
                    ast.Assign(targets=[ast.Name(id=name)], value=value)
                    | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                ):
                    defaults[name] = ast.literal_eval(value)
                case ast.Expr(value=ast.Constant()):
                    pass  # a docstring
                case _:
                    raise ValueError(f"line {statement.lineno} does something else")
    except (SyntaxError, ValueError) as error:
        raise PipelineError(
            f"{notebook.stem}: its parameters cell may only assign literals to "
            f"names, such as SEED = 0 ({error})"
        ) from None
    return defaults


def _explain_unknown(name: str, selected: Defaults, others: Defaults) -> str:
    elsewhere = [notebook for notebook in others if name in others[notebook]]
    if elsewhere:
        return (
            f"{name} is a parameter of {', '.join(elsewhere)}, which is not among the "
            f"notebooks to run ({', '.join(selected)})"
        )
    known = {known.lower(): known for each in selected.values() for known in each}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    if near:
        return f"unknown parameter {name}: did you mean {known[near[0]]}?"
    there = ", ".join(sorted(known.values())) or "none"
    return f"unknown parameter {name}: there are {there}"


def _parse_value(name: str, text: str, default: Any) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if default is None:
        return value
    if isinstance(default, str):
        # 224, yes and 2024-01-01 are good strings, whatever YAML takes them for.
        return value if isinstance(value, str) else text
    if isinstance(default, float) and type(value) is int:
        return float(value)
    items = {type(item) for item in default} if isinstance(default, list) else set()
    if type(value) is type(default) and (
        not items or all(type(item) in items for item in value)
    ):
        return value
    shown = yaml.safe_dump(default, default_flow_style=True).split("\n")[0]
    raise PipelineError(
        f"parameter {name}: {text!r} won't do, a value like {shown} is expected"
    )

"""Read the notebooks' `parameters` cells and check new values before anything runs."""

import ast
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nebula_utils.errors import PipelineError

Defaults = Mapping[str, Mapping[str, Any]]  # notebook → parameter → default


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
    given: Mapping[str, str], selected: Defaults, others: Defaults | None = None
) -> dict[str, dict[str, Any]]:
    """Sort new values to the notebooks that have such a parameter, and check them.

    Parameters
    ----------
    given : mapping
        Parameter name → value as typed: a YAML or JSON literal.
    selected : mapping
        Name of each notebook that will run → its parameters with their defaults.
    others : mapping, optional
        The same of the notebooks that will not run; only for a better message.

    Returns
    -------
    dict
        Name of each selected notebook → its new values, of the defaults' types.

    Raises
    ------
    PipelineError
        If no selected notebook has such a parameter, or a value is of another type
        than the default.
    """
    assigned: dict[str, dict[str, Any]] = {name: {} for name in selected}
    for name, text in given.items():
        owners = [notebook for notebook in selected if name in selected[notebook]]
        if not owners:
            raise PipelineError(_explain_unknown(name, selected, others or {}))
        for notebook in owners:
            default = selected[notebook][name]
            assigned[notebook][name] = _parse_value(name, text, default)
    return assigned


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

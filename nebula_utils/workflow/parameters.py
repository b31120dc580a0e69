"""Read the notebooks' `parameters` cells and check new values before anything runs."""

import ast
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nebula_utils.errors import PipelineError


def read_parameters(notebook: Path) -> dict[str, Any]:
    """Return a notebook's parameters with their defaults, in order.

    Parameters
    ----------
    notebook : Path
        A notebook whose cell tagged ``parameters``, if it has one, assigns Python
        literals to names.

    Returns
    -------
    dict
        Parameter name → default; empty without such a cell.

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
    given: Mapping[str, str],
    selected: Mapping[str, Mapping[str, Any]],
    others: Mapping[str, Mapping[str, Any]] | None = None,
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
            assigned[notebook][name] = _parse_value(
                name, text, selected[notebook][name]
            )
    return assigned


def _evaluate_assignments(source: str, notebook: Path) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    try:
        for statement in ast.parse(source).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    defaults[name] = ast.literal_eval(value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
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


def _explain_unknown(
    name: str,
    selected: Mapping[str, Mapping[str, Any]],
    others: Mapping[str, Mapping[str, Any]],
) -> str:
    elsewhere = [notebook for notebook in others if name in others[notebook]]
    if elsewhere:
        return (
            f"{name} is a parameter of {', '.join(elsewhere)}, which is not among the "
            f"notebooks to run ({', '.join(selected)})"
        )
    known = sorted({known for defaults in selected.values() for known in defaults})
    if not known:
        return f"unknown parameter {name}: {', '.join(selected)} has no parameters"
    by_lower_case = {known_name.lower(): known_name for known_name in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    if near:
        return f"unknown parameter {name}: did you mean {by_lower_case[near[0]]}?"
    return f"unknown parameter {name}: there are {', '.join(known)}"


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
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if type(value) is not type(default) or not _has_items_like(value, default):
        raise PipelineError(
            f"parameter {name}: {text!r} won't do, a value like {_show(default)} "
            "is expected"
        )
    return value


def _has_items_like(value: Any, default: Any) -> bool:
    if not isinstance(default, list) or not default:
        return True
    kinds = {type(item) for item in default}
    return all(type(item) in kinds for item in value)


def _show(default: Any) -> str:
    if isinstance(default, list | tuple):
        return repr("[" + ", ".join(str(item) for item in default) + "]")
    return yaml.safe_dump(default, default_flow_style=True).split("\n")[0]

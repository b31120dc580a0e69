"""Compare the runs of a sweep: one table and one figure."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from nebula_utils.files import write_atomic
from nebula_utils.report.drawing import (
    draw_score,
    get_figure,
    make_axes,
    name_rows,
    save_figure,
    write_title,
)
from nebula_utils.report.writing import PARTS, format_score
from nebula_utils.workflow.sweep import Grid, Outcome, SweepRun

STYLES = (
    {"color": "#0b3c6f", "marker": "s"},
    {"color": "#b5651d", "marker": "^"},
    {"color": "#6a9a5b", "marker": "v"},
    {"color": "#8a8a8a", "marker": "o"},
)


def write_comparison(
    grid: Grid, runs: Sequence[SweepRun], outcomes: Sequence[Outcome], out: Path
) -> list[Path]:
    """Write ``table.csv``, ``table.md`` and, if there is a score, ``figure.png``.

    Parameters
    ----------
    grid : Grid
        Says what varies and which metrics count.
    runs : sequence of SweepRun
        All runs.
    outcomes : sequence of Outcome
        What came of them.
    out : Path
        The sweep's folder.

    Returns
    -------
    list of Path
        What was written.
    """
    scores = [
        _read_scores(run, o, grid.metrics)
        for run, o in zip(runs, outcomes, strict=True)
    ]
    table = tabulate_runs(grid, runs, outcomes, scores)
    written = [out / "table.csv", out / "table.md"]
    with write_atomic(written[0]) as temporary:
        table.to_csv(temporary, index=False)
    with write_atomic(written[1]) as temporary:
        text = render_markdown(grid, runs, outcomes, scores)
        temporary.write_text(text, encoding="utf-8")
    if any(score for found in scores for score in found.values()):
        ax = plot_sweep(grid, runs, scores)
        written.append(save_figure(ax, out / "figure.png"))
        _close(ax)
    return written


def tabulate_runs(
    grid: Grid,
    runs: Sequence[SweepRun],
    outcomes: Sequence[Outcome],
    scores: Sequence[Mapping[str, Any]],
) -> pd.DataFrame:
    """Return one row a run: its values, each metric with its interval, its fate.

    Parameters
    ----------
    grid, runs, outcomes
        As for `write_comparison`.
    scores : sequence of mapping
        Of each run: metric → score, or None if the run has none.

    Returns
    -------
    DataFrame
    """
    rows = []
    for run, outcome, found in zip(runs, outcomes, scores, strict=True):
        row = {"run": run.folder.name, **run.values}
        for metric in grid.metrics:
            score = found[metric] or {}
            row[metric] = score.get("value")
            row[f"{metric}.low"] = score.get("low")
            row[f"{metric}.high"] = score.get("high")
        row |= {"status": outcome.status, "seconds": round(outcome.seconds, 1)}
        rows.append(row | {"error": outcome.error})
    return pd.DataFrame(rows)


def render_markdown(
    grid: Grid,
    runs: Sequence[SweepRun],
    outcomes: Sequence[Outcome],
    scores: Sequence[Mapping[str, Any]],
) -> str:
    """Return the comparison to read: a table, and the failed runs below it.

    Parameters
    ----------
    grid, runs, outcomes, scores
        As for `tabulate_runs`.
    """
    head = [*grid.grid, *grid.metrics, "s", "run"]
    lines = [f"# Sweep {grid.name}", "", _join(head), _join(["---"] * len(head))]
    for run, outcome, found in zip(runs, outcomes, scores, strict=True):
        place = f"[{outcome.status}]({run.folder.name}/)"
        cells = [str(value) for value in run.values.values()]
        cells += [format_score(found[metric]) for metric in grid.metrics]
        lines.append(_join([*cells, f"{outcome.seconds:.0f}", place]))
    fixed = ", ".join(f"{name} {value}" for name, value in grid.parameters.items())
    lines += ["", f"Notebooks {', '.join(grid.notebooks)}; {fixed or 'defaults'}."]
    for run, outcome in zip(runs, outcomes, strict=True):
        if outcome.error:
            lines += ["", f"**{run.folder.name} failed:**", ""]
            lines += [f"    {line}" for line in outcome.error.splitlines()]
    return "\n".join(lines) + "\n"


def plot_sweep(
    grid: Grid,
    runs: Sequence[SweepRun],
    scores: Sequence[Mapping[str, Any]],
    ax: Axes | None = None,
) -> Axes:
    """Draw each run's scores as dots with their intervals.

    Parameters
    ----------
    grid, runs, scores
        As for `tabulate_runs`; runs without scores have an empty row.
    ax : Axes, optional
        Where to draw; default: a new figure.

    Returns
    -------
    Axes
    """
    ax = make_axes(ax, (8, 0.5 * len(runs) + 2))
    n = len(grid.metrics)
    for k, metric in enumerate(grid.metrics):
        label: str | None = metric
        for row, found in enumerate(scores):
            if found[metric]:
                place = row + 0.6 * ((k + 0.5) / n - 0.5)
                draw_score(ax, found[metric], place, STYLES[k % len(STYLES)], label)
                label = None
    name_rows(ax, [_describe(run) for run in runs])
    ax.set_xlabel("score")
    ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    subtitle = f"sweep {grid.name}: {len(runs)} runs; 95 % intervals by nebula"
    return write_title(ax, _say_finding(grid, runs, scores), subtitle)


def _say_finding(
    grid: Grid, runs: Sequence[SweepRun], scores: Sequence[Mapping[str, Any]]
) -> str:
    metric = grid.metrics[0]
    valued = {
        i: found[metric]["value"]
        for i, found in enumerate(scores)
        if found[metric] and found[metric]["value"] is not None
    }
    if not valued:
        return f"No run gave {metric}"
    low, high = (pick(valued, key=valued.__getitem__) for pick in (min, max))
    if len(valued) == 1 or valued[low] == valued[high]:
        return f"{metric}: {valued[high]:.2f}"
    return (
        f"{metric} from {valued[low]:.2f} ({_describe(runs[low])}) "
        f"to {valued[high]:.2f} ({_describe(runs[high])})"
    )


def _describe(run: SweepRun) -> str:
    return ", ".join(f"{name} {value}" for name, value in run.values.items())


def _read_scores(
    run: SweepRun, outcome: Outcome, metrics: Sequence[str]
) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if not outcome.error:
        # Notebook 04 alone writes its part, 05 joins them to metrics.json.
        for path in sorted((run.folder / PARTS).glob("*.json")):
            content |= _read(path)
        content |= {k: v for k, v in _read(run.folder / "metrics.json").items() if v}
    return {metric: _find_score(content, metric) for metric in metrics}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _find_score(content: Any, metric: str) -> dict[str, Any] | None:
    for key in metric.split("."):
        content = content.get(key) if isinstance(content, dict) else None
    if isinstance(content, int | float):
        return {"value": content, "low": None, "high": None}
    return content if isinstance(content, dict) and "value" in content else None


def _join(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _close(ax: Axes) -> None:
    from matplotlib import pyplot as plt

    plt.close(get_figure(ax))

"""Scores as tables: in notebooks one column a head, in the README as Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from nebula_utils.config import CLASS_NAMES
from nebula_utils.errors import NebulaError
from nebula_utils.report.drawing import CHANGE_NAMES, CLASS_LABELS, HEADS
from nebula_utils.training import scores
from nebula_utils.training.scores import MIN_GROUP, Metric, Predictions, Score

Scores = Mapping[str, Any]

# What a row asks → how to find it among a head's scores.
ROWS: dict[str, tuple[str, ...]] = {
    "balanced accuracy": ("balanced_accuracy",),
    "… with one right type a picture": ("strict_balanced_accuracy",),
    "… with a random split": ("balanced_accuracy_random_split",),
    "… without colour": ("grey_balanced_accuracy",),
    "recall of the types, among types": ("type_recall",),
    "… without colour ": ("grey_type_recall",),
    "flips without colour": ("flip_rate", "grey"),
    "worst type × palette recall": ("worst_group_recall",),
    "macro-F1": ("macro_f1",),
    "calibration error (0 is best)": ("ece",),
    "nebula or not, AUROC": ("nebula_auroc",),
    "sure answers": ("sure", "share"),
    "… of which right": ("sure", "accuracy"),
}
OUTSIDE_ROWS: dict[str, tuple[str, ...]] = {
    "types, recall": ("type_recall",),
    "… in grey": ("grey_type_recall",),
    "type flips": ("type_flip_rate",),
    "nebula AUROC": ("nebula_auroc",),
    "recall of other": ("recall", "other"),
    "calibration error": ("ece",),
    "sure": ("sure", "share"),
    "… of which right": ("sure", "accuracy"),
}
# Main numbers of the README, for all classes and for dark or emission.
MAIN = (
    "balanced accuracy",
    "… without colour",
    "… with a random split",
    "flips without colour",
    "worst type × palette recall",
)
# What is measured, the goals with the default pictures and with the archives' too, and
# where the exported head's scores stand in metrics.json.
_STRANGERS, _POOLED = "external/strangers/robust", "external/pooled/robust"
_LDN = "held_out/LDN 1622/robust"
GOALS = (
    ("outside sets pooled: recall of types, by nebula; in grey", "0.82 · 0.79",
     "0.84 · 0.81", f"{_POOLED}/type_recall", f"{_POOLED}/grey_type_recall"),
    ("strangers alone: the same", "0.82 · 0.79", "0.85 · 0.82",
     f"{_STRANGERS}/type_recall", f"{_STRANGERS}/grey_type_recall"),
    ("flips: without colour (pooled); by framing (k-fold)", "≤ 0.08 · ≤ 0.12",
     "≤ 0.06 · ≤ 0.10", f"{_POOLED}/type_flip_rate",
     "heads/robust/framing_flip_rate/mean"),
    ("nebula or not, strangers: AUROC; recall of other", "0.99 · 0.93",
     "0.993 · 0.95", f"{_STRANGERS}/nebula_auroc", f"{_STRANGERS}/recall/other"),
    ("dark against emission, the original's photos", "0.88", "0.92",
     "external/photos/robust/dark_emission"),
    ("LDN 1622, P(dark): in grey; in colour", "0.6 · 0.6", "0.7 · 0.7",
     f"{_LDN}/grey/dark", f"{_LDN}/as_is/dark"),
    ("“sure” on the outside sets: right; how many", "0.90 · 0.55", "0.92 · 0.65",
     f"{_POOLED}/sure/accuracy", f"{_POOLED}/sure/share"),
    ("calibration error on strangers", "≤ 0.06", "≤ 0.05", f"{_STRANGERS}/ece"),
)  # fmt: skip


def format_score(score: Score | None) -> str:
    """Return a score as people read it: ``0.72 [0.65, 0.79]``.

    A star warns that fewer than five nebulae carry it.
    """
    if score is None or score["value"] is None:
        return "–"
    text = f"{score['value']:.2f}"
    if score["low"] is not None and score["high"] is not None:
        text += f" [{score['low']:.2f}, {score['high']:.2f}]"
    return text + ("*" if (score["n_nebulae"] or 0) < MIN_GROUP else "")


def find_score(scored: Scores | None, keys: Sequence[str]) -> Score | None:
    """Return the score at nested keys; None where one is missing."""
    found: Any = scored
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def tabulate_scores(scored: Mapping[str, Scores]) -> pd.DataFrame:
    """Return the main scores of several heads, one column a head."""
    return pd.DataFrame({n: _format_rows(head, ROWS) for n, head in scored.items()})


def _format_rows(head: Scores, rows: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {row: format_score(find_score(head, keys)) for row, keys in rows.items()}


def tabulate_flips(scored: Mapping[str, Scores]) -> pd.DataFrame:
    """Return each change's flip rate, of colour and of framing, one column a head."""
    return pd.DataFrame(
        {
            name: {
                CHANGE_NAMES.get(change, change): format_score(score)
                for key in ("flip_rate", "framing_flip_rate")
                for change, score in head[key].items()
            }
            for name, head in scored.items()
        }
    )


def tabulate_outside(external: Mapping[str, Any]) -> pd.DataFrame:
    """Return the outside sets' scores, a row a set and head; absent sets have none."""
    found = {
        (place, head): _format_rows(one, OUTSIDE_ROWS)
        for place, heads in external.items()
        for head, one in (heads or {}).items()
    }
    return pd.DataFrame.from_dict(found, orient="index")


def tabulate_explanations(
    distance: pd.DataFrame, located: pd.DataFrame
) -> pd.DataFrame:
    """Return by type how much colour answers take, and where their evidence lies.

    ``distance`` and ``located`` are from `bias.measure_flip_distances` and
    `bias.measure_localisation`. A row has: pictures, the share whose answer no turn of
    the hues flips, the median turn (degrees) of those that flip, the share that grey
    flips; evidence on the nebula, as much as the other pictures' evidence would put
    there, and the part of the picture that it covers, means.
    """
    rows = {}
    for name, part in distance.groupby("label", sort=False):
        turns = part["hue"][part["hue"] < float("inf")]
        on = located[located["label"] == name] if len(located) else located
        rows[name] = {
            "pictures": len(part),
            "no hue flips": round(1 - len(turns) / len(part), 2),
            "median turn, °": turns.median() if len(turns) else float("nan"),
            "grey flips": round(float((part["saturation"] >= 0).mean()), 2),
            "evidence on it": round(on["share"].mean(), 2) if len(on) else None,
            "others' evidence": round(on["others"].mean(), 2) if len(on) else None,
            "it covers": round(on["chance"].mean(), 2) if len(on) else None,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def tabulate_comparison(
    a: Mapping[str, Predictions], b: Mapping[str, Predictions]
) -> pd.DataFrame:
    """Return how the scores of ``b`` differ from those of ``a``, pictures paired.

    Both are ``"as_is"`` and ``"grey"`` answers to the same pictures. A row a metric has
    the difference b - a with its interval, and which head that favours, where the
    interval leaves out zero. Less calibration error is better.
    """
    metrics: dict[str, tuple[str, Metric, int]] = {
        "balanced accuracy": ("as_is", scores.compute_balanced_accuracy, 1),
        "… without colour": ("grey", scores.compute_balanced_accuracy, 1),
        "macro-F1": ("as_is", scores.compute_macro_f1, 1),
        "calibration error": ("as_is", scores.compute_ece, -1),
    }
    rows = {}
    for name, (under, metric, sign) in metrics.items():
        score = scores.compare_heads(a[under], b[under], metric)
        low, high = score["low"], score["high"]
        favours = "neither, clearly"
        if low is not None and high is not None and low * high > 0:
            favours = "second" if sign * low > 0 else "first"
        rows[name] = {"difference": format_score(score), "favours": favours}
    return pd.DataFrame(rows).T


def make_main_table(metrics: Mapping[str, Any]) -> list[str]:
    """Return the README's main numbers as the lines of a Markdown table."""
    data, protocol = metrics["data"], metrics["protocol"]
    # JSON keeps its keys sorted; people read the house order.
    names = [CLASS_LABELS[name] for name in CLASS_NAMES if name in data["classes"]]
    lines = [
        f"{data['n_images']} pictures of {data['n_nebulae']} objects "
        f"({', '.join(names)}); {protocol['repeats']} × {protocol['k']}-fold "
        "cross-validation by nebula; 95 % intervals by resampling nebulae.",
        "",
        f"| | {' | '.join(HEADS)} |",
        "|---|" + "---|" * len(HEADS),
    ]
    sections = {"heads": "all classes", "dark_emission": "dark or emission"}
    for section, title in sections.items():
        heads = metrics[section]
        for row in MAIN if heads else ():
            found = [format_score(find_score(heads.get(h), ROWS[row])) for h in HEADS]
            lines.append(f"| {title}: {row} | {' | '.join(found)} |")
    for name, reason in data["left_out"].items():
        lines += ["", f"Left out: {CLASS_LABELS[name]} ({reason})."]
    return lines


def make_goal_table(studies: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """Return how far two studies get to the goals, as lines of a Markdown table.

    These are metrics.json of the default pictures, and with the archives' or None; "–"
    stands for what was not measured. The value, not what is shown of it, decides
    whether a goal is reached.
    """

    def tell(study: Mapping[str, Any] | None, paths: Sequence[str], goals: str) -> str:
        found = [find_score(study, path.split("/")) for path in paths]
        wanted = goals.split(" · ")
        return " · ".join(map(_tell_reached, found, wanted))

    lines = [
        "| | goal | default pictures (✓ reached) | goal, with archives "
        "| with archives (✓ reached) |",
        "|---|---|---|---|---|",
    ]
    for name, goal, larger, *paths in GOALS:
        first, second = (
            tell(study, paths, goals)
            for study, goals in zip(studies, (goal, larger), strict=True)
        )
        lines.append(f"| {name} | {goal} | {first} | {larger} | {second} |")
    types = [
        "–" if one is None else str(len(set(one["data"]["classes"]) - {"other"}))
        for one in studies
    ]
    return [*lines, f"| types | 5 | {types[0]} | 6 | {types[1]} |"]


def _tell_reached(found: Score | float | None, goal: str) -> str:
    """Return a figure with a mark whether it reaches a goal such as "≤ 0.06"."""
    value = found if isinstance(found, float) or found is None else found["value"]
    text = f"{value:.2f}" if isinstance(found, float) else format_score(found)
    if value is None:
        return text
    limit = float(goal.removeprefix("≤ "))
    reached = value <= limit if goal.startswith("≤") else value >= limit
    return f"{text} {'✓' if reached else '✗'}"


def fill_block(text: str, name: str, lines: Sequence[str]) -> str:
    """Put lines between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->`` of a text.

    Raises
    ------
    NebulaError
        If the markers are missing.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    found = re.search(f"({begin}\n).*?({end})", text, re.DOTALL)
    if found is None:
        raise NebulaError(f"the README has no lines {begin} and {end}: add them")
    block = "\n".join(["", *lines, "", ""])
    return text[: found.end(1)] + block + text[found.start(2) :]


def quote_benchmarks(report: str) -> list[str]:
    """Return what the README quotes of reports/benchmarks.md: rows that have a goal."""
    _, *lines = report.strip().splitlines()  # its title is not quoted

    def has_no_goal(line: str) -> bool:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        return len(cells) > 1 and cells[-1] == "–"

    return "\n".join(line for line in lines if not has_no_goal(line)).split("\n")

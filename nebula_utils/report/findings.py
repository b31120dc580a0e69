"""Each notebook's finding in one sentence, from the numbers of a run."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from nebula_utils.report.style import CLASS_LABELS
from nebula_utils.report.writing import format_score

Metrics = Mapping[str, Any]


def _say_catalogue(metrics: Metrics, printed: str) -> str:
    data = metrics["data"]
    types = {k: v for k, v in data["classes"].items() if k != "other"}
    thin = min(types, key=lambda name: types[name]["nebulae"])
    n = sum(count["nebulae"] for count in types.values())
    left_out = " and ".join(CLASS_LABELS[name] for name in data["left_out"])
    missing = f"; {left_out} is too thin to study" if left_out else ""
    return (
        f"{n} nebulae of {len(types)} types have usable pictures; the thinnest type "
        f"studied is {CLASS_LABELS[thin]} with {types[thin]['nebulae']} "
        f"nebulae{missing}."
    )


def _say_dataset(metrics: Metrics, printed: str) -> str:
    plain = metrics["heads"]["plain"]
    tied = re.search(r"Cramér's V ([\d.]+) \(chance: below ([\d.]+)\)", printed)
    colour = ""
    if tied:
        verb = "is" if float(tied[1]) > float(tied[2]) else "is not"
        colour = f" The palette {verb} tied to the type (Cramér's V {tied[1]}; "
        colour += f"chance: below {tied[2]})."
    return (
        "Split by nebula the plain head's balanced accuracy is "
        f"{format_score(plain['balanced_accuracy'])}; a random split would have "
        f"claimed {format_score(plain['balanced_accuracy_random_split'])}.{colour}"
    )


def _say_features(metrics: Metrics, printed: str) -> str:
    found = dict(re.findall(r"of the same (type|palette): +([\d.]+)", printed))
    shares = [f"of the same {what} in {float(x):.0%}" for what, x in found.items()]
    if not shares:
        return "this run did not look at neighbours."
    return (
        "In the embeddings of the frozen network a picture's nearest neighbour is "
        f"{' and '.join(shares)} of the cases (means over types and palettes)."
    )


def _say_training(metrics: Metrics, printed: str) -> str:
    plain, robust = (metrics["heads"][name] for name in ("plain", "robust"))
    return (
        "By nebula, balanced accuracy over "
        f"{len(metrics['data']['classes'])} classes is "
        f"{format_score(plain['balanced_accuracy'])} for the head trained as the "
        f"original's and {format_score(robust['balanced_accuracy'])} for the robust "
        "one."
    )


def _say_colour(metrics: Metrics, printed: str) -> str:
    flips = [metrics["heads"][name]["flip_rate"]["grey"] for name in _BOTH]
    before, after = (format_score(score) for score in flips)
    return (
        f"Taking the colour away changes {before} of the plain head's answers; "
        f"training that can't rely on colour brings that to {after}."
    )


_BOTH = ("plain", "robust")
FINDINGS: dict[str, Callable[[Metrics, str], str]] = {
    "01_catalogue": _say_catalogue,
    "02_dataset": _say_dataset,
    "03_features": _say_features,
    "04_training": _say_training,
    "05_colour_bias": _say_colour,
}

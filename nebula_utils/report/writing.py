"""Write what a study found: metrics.json, the model card, the README's numbers.

A notebook writes the parts of metrics.json that it computed; `merge_parts` joins those
of one and the same study, so that numbers of two studies never stand in one file.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nebula_utils.config import CLASS_NAMES
from nebula_utils.errors import NebulaError
from nebula_utils.files import write_atomic
from nebula_utils.training.scores import Score

log = logging.getLogger(__name__)

PARTS = "parts"
SECTIONS = ("heads", "dark_emission", "external", "held_out")
HEADS = ("plain", "robust")
SPLIT = "repeated stratified k-fold by nebula"
# What stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` in the README.
BLOCKS = ("metrics", "goals")
BENCHMARKS = "benchmarks"  # one more, but from another file
PHOTOS, SIX_TYPES = "photos", "stellarium-26.3"  # names of the outside sets


def format_score(score: Score | None) -> str:
    """Return a score as people read it: ``0.72 [0.65, 0.79]``."""
    if score is None or score["value"] is None:
        return "–"
    text = f"{score['value']:.2f}"
    if score["low"] is None or score["high"] is None:
        return text
    return f"{text} [{score['low']:.2f}, {score['high']:.2f}]"


def make_study(
    data: Mapping[str, Any],
    k: int,
    repeats: int,
    random_state: int,
    backbone: str,
    input_size: int,
) -> dict[str, Any]:
    """Return what identifies a study; its data and protocol stand in metrics.json.

    Parameters
    ----------
    data : mapping
        `Dataset.describe`.
    k, repeats, random_state : int
        Of the cross-validation.
    backbone : str
        Name of the feature extractor.
    input_size : int
        Side of its input, px.

    Returns
    -------
    dict
    """
    protocol = {
        "split": SPLIT,
        "k": k,
        "repeats": repeats,
        "random_state": random_state,
    }
    features = {"backbone": backbone, "input_size": input_size}
    return {"data": dict(data), "protocol": protocol, "features": features}


def write_part(
    reports: Path, section: str, content: Any, study: Mapping[str, Any]
) -> Path:
    """Write one section of metrics.json, with the study that it belongs to.

    Parameters
    ----------
    reports : Path
        Where reports go; the part lies in its folder ``parts``.
    section : str
        One of `SECTIONS`.
    content : object
        What metrics.json shall have there.
    study : mapping
        From `make_study`.

    Returns
    -------
    Path

    Raises
    ------
    NebulaError
        If there is no such section.
    """
    if section not in SECTIONS:
        raise NebulaError(f"metrics.json has no section {section!r}: use {SECTIONS}")
    path = reports / PARTS / f"{section}.json"
    return _write_json(path, {"study": study, section: content})


def merge_parts(reports: Path, study: Mapping[str, Any]) -> dict[str, Any]:
    """Join the parts that belong to a study.

    Parameters
    ----------
    reports : Path
        Where the notebooks wrote their parts.
    study : mapping
        From `make_study`; parts of another study are left out.

    Returns
    -------
    dict
        What metrics.json holds; a section that nobody wrote is None.
    """
    study = json.loads(json.dumps(study))
    metrics: dict[str, Any] = {key: study[key] for key in ("data", "protocol")}
    metrics |= {"heads": None, "dark_emission": None}
    metrics |= {"external": {"photos": None}, "held_out": None}
    for section in SECTIONS:
        path = reports / PARTS / f"{section}.json"
        if not path.is_file():
            continue
        part = read_json(path)
        if part["study"] == study:
            metrics[section] = part[section]
        else:
            log.warning("%s is of another study: left out", path.name)
    return metrics


def write_metrics(reports: Path, study: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the parts into ``metrics.json``, whole or not at all, and return it."""
    metrics = merge_parts(reports, study)
    _write_json(reports / "metrics.json", metrics)
    return metrics


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file.

    Raises
    ------
    NebulaError
        If it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NebulaError(
            f"{path} can't be read ({error}): run `make reproduce`"
        ) from error


def render_readme(metrics: Mapping[str, Any], readme: str) -> str:
    """Put the numbers of a run between the README's markers.

    Parameters
    ----------
    metrics : mapping
        metrics.json.
    readme : str
        The README's text; everything outside the markers stays as it is.

    Returns
    -------
    str

    Raises
    ------
    NebulaError
        If the markers are missing.
    """
    lines = {"metrics": make_table(metrics), "goals": make_goals(metrics)}
    for name in BLOCKS:
        readme = _fill_block(readme, name, lines[name])
    return readme


def render_benchmarks(report: str, readme: str) -> str:
    """Quote the benchmarks' report between the README's markers.

    Parameters
    ----------
    report : str
        reports/benchmarks.md, as ``make bench`` writes it.
    readme : str
        The README's text; everything outside the markers stays as it is.

    Returns
    -------
    str
        With the report's machine and with those rows that have a goal.

    Raises
    ------
    NebulaError
        If the markers are missing.
    """
    _, *lines = report.strip().splitlines()  # its title is not quoted

    def has_no_goal(line: str) -> bool:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        return len(cells) > 1 and cells[-1] == "–"

    kept = [line for line in lines if not has_no_goal(line)]
    return _fill_block(readme, BENCHMARKS, "\n".join(kept).strip().splitlines())


def _fill_block(readme: str, name: str, lines: Sequence[str]) -> str:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    found = re.search(f"({begin}\n).*?({end})", readme, re.DOTALL)
    if found is None:
        raise NebulaError(f"the README has no lines {begin} and {end}: add them")
    text = "\n".join(["", *lines, "", ""])
    return readme[: found.end(1)] + text + readme[found.start(2) :]


def make_goals(metrics: Mapping[str, Any]) -> list[str]:
    """Return the goals of the robust head, and how far it gets on each mirror.

    Parameters
    ----------
    metrics : mapping
        metrics.json; outside sets that were not there are shown as "–".

    Returns
    -------
    list of str
        A Markdown table, a line each.
    """
    external = metrics.get("external") or {}
    sets = [(external.get(name) or {}).get("robust") for name in (PHOTOS, SIX_TYPES)]
    sets.insert(0, (metrics["heads"] or {}).get("robust"))
    grey, coloured = _find_held_out(metrics)

    def find(*keys: str) -> list[str]:
        found = []
        for score in sets:
            for key in keys:
                score = None if score is None else score.get(key)
            found.append(format_score(score))
        return found

    recall, without = find("nebula_recall"), find("grey_nebula_recall")
    flips, sure = find("flip_rate", "grey"), find("ece")
    auroc = [find("nebula_auroc")[0], "–", "–"]
    rows = [
        ("types of nebula, macro recall", "≥ 0.88", recall[0], "–", recall[2]),
        ("the same without colour", "≥ 0.86", without[0], "–", without[2]),
        ("answers that flip without colour", "≤ 0.04", *flips),
        ("dark against emission, balanced accuracy", "≥ 0.93", "–", recall[1], "–"),
        ("LDN 1622, P(dark) grey; in colour", "both ≥ 0.6", f"{grey}; {coloured}"),
        ("nebula against anything else, AUROC", "≥ 0.99", *auroc),
        ("expected calibration error", "≤ 0.05", *sure),
    ]
    head = "| | goal | k-fold by nebula | the original's photos | newer Stellarium |"
    lines = [head, "|---|---|---|---|---|"]
    return lines + [f"| {' | '.join([*row, '–', '–'][:5])} |" for row in rows]


def _find_held_out(metrics: Mapping[str, Any]) -> tuple[str, str]:
    asked = ((metrics.get("held_out") or {}).get("LDN 1622") or {}).get("robust") or {}
    found = [asked.get(name, {}).get("dark") for name in ("grey", "as_is")]
    first, second = ("–" if p is None else f"{p:.2f}" for p in found)
    return first, second


def make_table(metrics: Mapping[str, Any]) -> list[str]:
    """Return the main numbers as the lines of a Markdown table."""
    data, protocol = metrics["data"], metrics["protocol"]
    # JSON keeps its keys sorted; people read the house order.
    classes = [name for name in CLASS_NAMES if name in data["classes"]]
    names = ", ".join(name.replace("_", " ") for name in classes)
    lines = [
        f"{data['n_images']} pictures of {data['n_nebulae']} objects ({names}); "
        f"{protocol['repeats']} × {protocol['k']}-fold cross-validation by nebula; "
        "95 % intervals by resampling nebulae.",
        "",
        "| | plain head | robust head |",
        "|---|---|---|",
    ]
    for section, title in (
        ("heads", "all classes"),
        ("dark_emission", "dark or emission"),
    ):
        if metrics[section] is not None:
            lines += _make_rows(metrics[section], title)
    for name, reason in data["left_out"].items():
        lines += ["", f"Left out: {name.replace('_', ' ')} ({reason})."]
    return lines


def write_model_card(
    path: Path, metrics: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Write what a user of the exported classifier should know.

    Parameters
    ----------
    path : Path
        ``MODEL_CARD.md``.
    metrics : mapping
        With ``data``, ``protocol`` and ``heads``, as metrics.json has them.
    about : mapping
        ``backbone`` (name), ``input_size`` (px), ``threshold`` of the conformal set,
        and its ``coverage`` and ``confident`` scores.
    """
    data, robust = metrics["data"], metrics["heads"]["robust"]
    counts = [
        f"| {name.replace('_', ' ')} | {count['nebulae']} | {count['images']} "
        f"| {format_score(robust['recall'][name])} |"
        for name, count in data["classes"].items()
    ]
    left_out = [
        f"- not known to the model: {name.replace('_', ' ')} ({reason})"
        for name, reason in data["left_out"].items()
    ]
    text = _CARD.format(
        backbone=about["backbone"],
        input_size=about["input_size"],
        source=data["source"],
        n_images=data["n_images"],
        n_nebulae=data["n_nebulae"],
        counts="\n".join(counts),
        left_out="\n".join([*left_out, ""]),
        balanced=format_score(robust["balanced_accuracy"]),
        grey=format_score(robust["grey_balanced_accuracy"]),
        flips=format_score(robust["flip_rate"]["grey"]),
        ece=format_score(robust["ece"]),
        threshold=about["threshold"],
        coverage=format_score(about["coverage"]),
        confident=format_score(about["confident"]),
    )
    with write_atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _make_rows(heads: Mapping[str, Any], title: str) -> list[str]:
    def row(name: str, scores: Sequence[Score | None]) -> str:
        return f"| {title}: {name} | {' | '.join(map(format_score, scores))} |"

    both = [heads[name] for name in HEADS]
    return [
        row("balanced accuracy", [head["balanced_accuracy"] for head in both]),
        row("… without colour", [head["grey_balanced_accuracy"] for head in both]),
        row(
            "… had the split been random",
            [head["balanced_accuracy_random_split"] for head in both],
        ),
        row(
            "answers that flip without colour",
            [head["flip_rate"]["grey"] for head in both],
        ),
        row("worst type × palette recall", [h["worst_group_recall"] for h in both]),
    ]


def _write_json(path: Path, content: Mapping[str, Any]) -> Path:
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    with write_atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


_CARD = """# Model card: nebula classifier, robust head

Written by notebook 04; every number is from the same run.

**What it is.** A linear head on frozen `{backbone}` embeddings ({input_size} px), \
fitted so that no colour can be relied on (random crops in random colours, grey ones, \
simulated dust), asked of crops in colour and in grey, and calibrated by a temperature \
that was chosen by nebula.

**What it is for.** Sorting photographs of nebulae by type, teaching, and showing what \
such a classifier looks at. Not for measuring or cataloguing objects: the type of a \
nebula is a matter of spectra, not of pictures.

**Trained on.** {n_images} pictures of {n_nebulae} objects, source {source}. \
LDN 1622 is held out.

| class | nebulae | pictures | recall, by nebula |
|---|---|---|---|
{counts}

**How good.** Balanced accuracy {balanced}; without colour {grey}; \
{flips} of the answers flip without colour; calibration error {ece}. 95 % intervals, \
nebulae resampled, cross-validated by nebula.

**"Not sure".** Classes with a probability of at least {threshold:.3f} form the \
prediction set. It holds the truth for {coverage} of the nebulae (on the answers that \
set the threshold); the answer counts as sure where the set is one class that is more \
likely than not, for {confident}.

**Limits.**
{left_out}- few nebulae in the thin classes: look at the intervals, not the values
- most training pictures come from few photographers with their own colours and crops
- a picture with two kinds of nebula gets one label
- pictures from spectrographs, drawings and simulations were never seen
"""

"""metrics.json: what a run found, in sections that the notebooks write one by one.

A notebook writes the section that it computed; `merge_parts` joins those of one and the
same study, so that numbers of two studies never stand in one file.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nebula_utils.errors import NebulaError
from nebula_utils.files import write_atomic

log = logging.getLogger(__name__)

SCHEMA = 2  # 2: three heads, answers among types, framing, certainty, pooled outside
PARTS = "parts"
SECTIONS = ("heads", "dark_emission", "external", "held_out", "photographers")
HEADS = ("plain", "balanced", "robust")
SPLIT = "repeated stratified k-fold by nebula"


def make_study(
    data: Mapping[str, Any], plan: tuple[int, int, int], backbone: str, input_size: int
) -> dict[str, Any]:
    """Return what identifies a study; its data and protocol stand in metrics.json.

    Parameters
    ----------
    data : mapping
        `Dataset.describe`.
    plan : (k, repeats, random_state)
        Of the cross-validation.
    backbone : str
        Name of the feature extractor.
    input_size : int
        Side of its input, px.

    Returns
    -------
    dict
    """
    k, repeats, random_state = plan
    protocol = {"split": SPLIT, "k": k, "repeats": repeats}
    features = {"backbone": backbone, "input_size": input_size}
    protocol["random_state"] = random_state
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
    metrics: dict[str, Any] = {"schema": SCHEMA, **dict.fromkeys(SECTIONS)}
    metrics |= {key: study[key] for key in ("data", "protocol")}
    metrics["external"] = {"photos": None}
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


def _write_json(path: Path, content: Mapping[str, Any]) -> Path:
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    with write_atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path

"""Write down where a run's numbers come from: code, packages, data, parameters."""

import datetime
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from nebula_utils import config
from nebula_utils.files import compute_sha256, write_atomic

PROVENANCE = "provenance.json"
SEED_NAME = re.compile(r"(^|_)(SEED|RANDOM_STATE)S?(_|$)")


def describe_git(repository: Path = config.REPOSITORY) -> dict[str, Any]:
    """Return the revision that stands in a working tree.

    Parameters
    ----------
    repository : Path
        A git working tree.

    Returns
    -------
    dict
        ``revision`` (40 hexadecimal digits, or None outside git) and ``dirty``
        (True if a tracked file outside ``reports/``, which every run rewrites,
        differs from it; None outside git).
    """
    revision = _git(repository, "rev-parse", "HEAD")
    if revision is None:
        return {"revision": None, "dirty": None}
    changed = _git(repository, "status", "--porcelain", "-uno", "--", ".", ":!reports")
    return {"revision": revision, "dirty": changed != ""}


def collect_versions() -> dict[str, str]:
    """Return every installed package's version, by lower-case name."""
    found = {
        dist.metadata["Name"].lower().replace("_", "-"): dist.version
        for dist in metadata.distributions()
    }
    return dict(sorted(found.items()))


def hash_data(folder: Path = config.DATA) -> dict[str, str]:
    """Return the SHA-256 of each CSV file of a folder, by file name."""
    return {path.name: compute_sha256(path) for path in sorted(folder.glob("*.csv"))}


def hash_weights(parameters: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the SHA-256 of the weights of each ``BACKBONE`` among parameters."""
    names = {chosen.get("BACKBONE") for chosen in parameters} - {None}
    if not names:
        return {}
    from nebula_utils.features import backbone

    return {
        name: backbone.compute_weights_sha256(backbone.resolve_backbone(name))
        for name in sorted(map(str, names))
    }


def build_provenance(
    parameters: Mapping[str, Mapping[str, Any]],
    wall_seconds: Mapping[str, float],
    weights: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Collect what a reader needs to repeat a run, or to tell two runs apart.

    Parameters
    ----------
    parameters : mapping
        Notebook name → its parameters as they were used.
    wall_seconds : mapping
        Notebook name → wall time of its last execution, in seconds.
    weights : mapping, optional
        Backbone name → SHA-256 of its weights.

    Returns
    -------
    dict
        Ready to be written as JSON.
    """
    seeds = {
        f"{notebook}.{name}": value
        for notebook, chosen in parameters.items()
        for name, value in chosen.items()
        if SEED_NAME.search(name)
    }
    return {
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git": describe_git(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": collect_versions(),
        "data_sha256": hash_data(),
        "weights_sha256": dict(weights or {}),
        "parameters": {name: dict(chosen) for name, chosen in parameters.items()},
        "seeds": seeds,
        "wall_seconds": {name: round(s, 2) for name, s in wall_seconds.items()},
    }


def write_provenance(
    out: Path,
    parameters: Mapping[str, Mapping[str, Any]],
    wall_seconds: Mapping[str, float],
    weights: Mapping[str, str] | None = None,
) -> None:
    """Write ``provenance.json``; what it tells of other notebooks stays.

    Parameters
    ----------
    out : Path
        The folder of results, usually ``reports/``.
    parameters, wall_seconds, weights
        As for `build_provenance`.

    Raises
    ------
    CacheError
        If the folder can't be written.
    """
    earlier = _read(out)
    provenance = build_provenance(
        earlier.get("parameters", {}) | dict(parameters),
        earlier.get("wall_seconds", {}) | dict(wall_seconds),
        weights,
    )
    with write_atomic(out / PROVENANCE) as temporary:
        text = json.dumps(provenance, indent=2, ensure_ascii=False, default=str)
        temporary.write_text(text + "\n", encoding="utf-8")


def is_told(out: Path, wall_seconds: Mapping[str, float]) -> bool:
    """Tell whether ``provenance.json`` is of these very executions."""
    told = _read(out).get("wall_seconds", {})
    return all(told.get(name) == round(s, 2) for name, s in wall_seconds.items())


def _read(out: Path) -> dict[str, Any]:
    try:
        content = json.loads((out / PROVENANCE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _git(repository: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

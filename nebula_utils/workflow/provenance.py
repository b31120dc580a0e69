"""Remember what each notebook read and wrote, and where the numbers come from."""

import contextlib
import datetime
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from nebula_utils import config
from nebula_utils.files import (
    PACKAGE,
    compute_sha256,
    make_key,
    seal,
    unseal,
    write_json,
)

SEED_NAME = re.compile(r"(^|_)(SEED|RANDOM_STATE)S?(_|$)")
RUNS = "runs"  # folder of executed copies, in that of the results


class Record:
    """What earlier runs into one folder left behind.

    Of each notebook the ``key`` of its inputs, ``outputs`` that it wrote (paths
    relative to the folder) and ``seconds`` it took; and of each output its SHA-256 as
    the last notebook left it (``files``).
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._path = out / RUNS / "record.json"
        self.notebooks: dict[str, dict[str, Any]] = {}
        self.files: dict[str, str] = {}
        # Without a readable record nothing is known, so everything runs.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            stored = unseal(json.loads(self._path.read_text("utf-8")))
            self.notebooks, self.files = stored["notebooks"], stored["files"]

    def is_current(self, name: str, key: str) -> bool:
        """Tell whether a notebook's results are there, untouched, from these inputs."""
        entry = self.notebooks.get(name)
        if entry is None or entry.get("key") != key:
            return False
        copies = [self.out / RUNS / f"{name}{end}" for end in (".ipynb", ".html")]
        # A file that a later notebook took away is no longer in `files`.
        written = [path for path in entry["outputs"] if path in self.files]
        there = [*copies, *(self.out / path for path in written)]
        return all(path.is_file() for path in there) and all(
            compute_sha256(self.out / path) == self.files[path] for path in written
        )

    @contextlib.contextmanager
    def follow(self, name: str, key: str) -> Iterator[None]:
        """Note what a notebook writes meanwhile, once it has ended well."""
        # An interrupted or failed notebook must not pass for a finished one.
        if self.notebooks.pop(name, None) is not None:
            self._save()
        before, started = self._list_outputs(), time.monotonic()
        yield
        seconds, after = time.monotonic() - started, self._list_outputs()
        written = [path for path in after if after[path] != before.get(path)]
        self.files |= {path: compute_sha256(self.out / path) for path in written}
        for gone in before.keys() - after.keys():
            self.files.pop(gone, None)
        self.notebooks[name] = {"key": key, "outputs": written, "seconds": seconds}
        self._save()

    def _list_outputs(self) -> dict[str, tuple[int, int]]:
        """Return size and time of each file in the folder but executed copies."""
        return {
            path.relative_to(self.out).as_posix(): _stat(path)
            for path in sorted(self.out.rglob("*"))
            if path.is_file() and path.relative_to(self.out).parts[0] != RUNS
        }

    def _save(self) -> None:
        write_json(self._path, seal({"notebooks": self.notebooks, "files": self.files}))


def make_inputs_key(
    notebook: Path,
    parameters: Mapping[str, Any],
    weights: Mapping[str, str],
    record: Record,
) -> str:
    """Return a digest of all that a notebook's results depend on.

    That is the text of its cells, its parameters and the files of a folder that one
    names, the package's code, data and weights (their SHA-256 by backbone), and the
    inputs of the notebooks before it.
    """
    import nbformat

    files = [*PACKAGE.rglob("*.py"), *config.DATA.glob("*")]
    files += [config.REPOSITORY / "requirements.lock"]
    return make_key(
        [(c.cell_type, c.source) for c in nbformat.read(notebook, as_version=4).cells],
        dict(parameters),
        _list_named_folders(notebook.parent, parameters, record.out),
        dict(weights),
        [(path.name, path) for path in sorted(files) if path.is_file()],
        {n: e["key"] for n, e in record.notebooks.items() if n < notebook.stem},
    )


def _list_named_folders(
    start: Path, parameters: Mapping[str, Any], out: Path
) -> list[tuple[str, tuple[int, int]]]:
    # One's own photographs are an input too: `photos DIR` in any parameter, also one
    # that maps names to folders.
    values: list[Any] = []
    for value in parameters.values():
        values += value.values() if isinstance(value, Mapping) else [value]
    texts = [value for value in values if isinstance(value, str)]
    words = {word for text in texts for word in [text, *re.split(r"[+:= ]+", text)]}
    folders = [start / word for word in sorted(words) if "/" in word]
    return [
        (str(path), _stat(path))
        for folder in folders
        if folder.is_dir() and folder.resolve() not in (out.resolve(), config.REPORTS)
        for path in sorted(folder.rglob("*"))
    ]


def _stat(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def describe_git(repository: Path = config.REPOSITORY) -> dict[str, Any]:
    """Return the revision that stands in a working tree, and whether it is ``dirty``.

    Files in ``reports/`` don't count, as every run rewrites them; outside git both are
    None.
    """
    revision = _git(repository, "rev-parse", "HEAD")
    if revision is None:
        return {"revision": None, "dirty": None}
    changed = _git(repository, "status", "--porcelain", "-uno", "--", ".", ":!reports")
    return {"revision": revision, "dirty": changed != ""}


def _git(repository: Path, *words: str) -> str | None:
    command = ["git", "-C", str(repository), *words]
    try:
        return subprocess.check_output(
            command, text=True, timeout=60, stderr=subprocess.DEVNULL
        ).strip()
    except (OSError, subprocess.SubprocessError):
        return None


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


def write_provenance(
    out: Path,
    parameters: Mapping[str, Mapping[str, Any]],
    wall_seconds: Mapping[str, float],
    weights: Mapping[str, str],
) -> None:
    """Write ``provenance.json``; what it tells of other notebooks stays.

    Nothing is written if it already tells of these very executions: parameters as used
    and wall time in s by notebook, SHA-256 of the weights by backbone.
    """
    path = out / "provenance.json"
    earlier: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        earlier = json.loads(path.read_text("utf-8"))
    seconds = {name: round(value, 2) for name, value in wall_seconds.items()}
    told = earlier.get("wall_seconds", {})
    if seconds.items() <= told.items():
        return
    chosen = earlier.get("parameters", {}) | dict(parameters)
    packages = {
        found.metadata["Name"].lower().replace("_", "-"): found.version
        for found in metadata.distributions()
    }
    content = {
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git": describe_git(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items())),
        "data_sha256": {
            table.name: compute_sha256(table)
            for table in sorted(config.DATA.glob("*.csv"))
        },
        "weights_sha256": dict(weights),
        "parameters": chosen,
        "seeds": {
            f"{notebook}.{name}": value
            for notebook, values in chosen.items()
            for name, value in values.items()
            if SEED_NAME.search(name)
        },
        "wall_seconds": told | seconds,
    }
    write_json(path, content)

"""Remember what each notebook read and wrote, to tell which must run again."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nebula_utils import config
from nebula_utils.files import compute_sha256, seal, unseal, write_atomic

Listing = dict[str, tuple[int, int]]


class Record:
    """What earlier runs into one folder left behind.

    Attributes
    ----------
    notebooks : dict
        Notebook name → ``digest`` of its inputs, ``outputs`` that it wrote (paths
        relative to the folder), ``seconds`` it took.
    files : dict
        Relative path → SHA-256 of each output as the last notebook left it.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.notebooks: dict[str, dict[str, Any]] = {}
        self.files: dict[str, str] = {}

    @classmethod
    def load(cls, out: Path) -> "Record":
        """Read the record of a folder; without a readable one nothing is known."""
        record = cls(out)
        try:
            stored = unseal(json.loads(record._path.read_text("utf-8")))
            record.notebooks, record.files = stored["notebooks"], stored["files"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # so everything runs
        return record

    def is_current(self, name: str, digest: str) -> bool:
        """Tell whether a notebook's results are there, untouched, from these inputs.

        Parameters
        ----------
        name : str
            The notebook.
        digest : str
            Of its inputs now, from `hash_inputs`.
        """
        entry = self.notebooks.get(name)
        copies = [self.out / "runs" / f"{name}{end}" for end in (".ipynb", ".html")]
        if entry is None or entry["digest"] != digest:
            return False
        # A file that a later notebook took away is no longer in `files`.
        written = [path for path in entry["outputs"] if path in self.files]
        return all(copy.is_file() for copy in copies) and all(
            (self.out / path).is_file()
            and compute_sha256(self.out / path) == self.files[path]
            for path in written
        )

    def list_outputs(self) -> Listing:
        """Return size and time of each file in the folder but executed copies."""
        found = {}
        for path in sorted(self.out.rglob("*")):
            name = path.relative_to(self.out)
            if path.is_file() and name.parts[0] != "runs":
                about = path.stat()
                found[name.as_posix()] = (about.st_size, about.st_mtime_ns)
        return found

    def forget(self, name: str) -> None:
        """Strike a notebook out before it runs."""
        if self.notebooks.pop(name, None) is not None:
            self._save()

    def remember(self, name: str, digest: str, before: Listing, seconds: float) -> None:
        """Note a finished notebook and the files it wrote.

        Parameters
        ----------
        name : str
            The notebook.
        digest : str
            Of its inputs, from `hash_inputs`.
        before : dict
            From `list_outputs`, before it ran.
        seconds : float
            Wall time it took.
        """
        after = self.list_outputs()
        written = [path for path in after if after[path] != before.get(path)]
        self.files.update({path: compute_sha256(self.out / path) for path in written})
        for gone in before.keys() - after.keys():
            self.files.pop(gone, None)
        self.notebooks[name] = {
            "digest": digest,
            "outputs": written,
            "seconds": seconds,
        }
        self._save()

    @property
    def _path(self) -> Path:
        return self.out / "runs" / "record.json"

    def _save(self) -> None:
        stored = {"notebooks": self.notebooks, "files": self.files}
        with write_atomic(self._path) as temporary:
            text = json.dumps(seal(stored), indent=1) + "\n"
            temporary.write_text(text, encoding="utf-8")


def hash_common_inputs(weights: Mapping[str, str]) -> str:
    """Return a digest of what every notebook depends on.

    Parameters
    ----------
    weights : mapping
        Backbone name → SHA-256 of its weights.

    Returns
    -------
    str
        Changes with the package's source, the locked versions, the files of
        ``data/`` and the weights.
    """
    digest = hashlib.sha256(json.dumps(dict(weights), sort_keys=True).encode())
    package = Path(__file__).parent.parent
    files = [*package.rglob("*.py"), *config.DATA.glob("*")]
    for path in sorted([*files, config.REPOSITORY / "requirements.lock"]):
        if path.is_file():
            digest.update(f"{path.name} {compute_sha256(path)}\n".encode())
    return digest.hexdigest()


def hash_inputs(
    notebook: Path, parameters: Mapping[str, Any], common: str, record: Record
) -> str:
    """Return a digest of all that a notebook's results depend on.

    Parameters
    ----------
    notebook : Path
        Its cells' text counts, stored outputs do not.
    parameters : mapping
        As used; the files of a folder that one names count too.
    common : str
        From `hash_common_inputs`.
    record : Record
        The inputs of the notebooks before this one are inputs of this one.
    """
    import nbformat

    cells = nbformat.read(notebook, as_version=4).cells
    earlier = {
        name: entry["digest"]
        for name, entry in record.notebooks.items()
        if name < notebook.stem
    }
    inputs = [
        common,
        [(cell.cell_type, cell.source) for cell in cells],
        dict(parameters),
        _list_named_folders(notebook.parent, parameters, record.out),
        earlier,
    ]
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _list_named_folders(
    start: Path, parameters: Mapping[str, Any], out: Path
) -> list[tuple[str, int, int]]:
    # One's own photographs are an input too: `photos DIR` in any parameter.
    words = {
        word
        for value in parameters.values()
        if isinstance(value, str)
        for word in [value, *re.split(r"[+:= ]+", value)]
    }
    folders = [start / word for word in sorted(words) if "/" in word]
    found = []
    for folder in folders:
        if not folder.is_dir() or folder.resolve() in (out.resolve(), config.REPORTS):
            continue
        for path in sorted(folder.rglob("*")):
            about = path.stat()
            found.append((str(path), about.st_size, about.st_mtime_ns))
    return found

"""Features in parts: what a cluster's workers write, and the one file made of them.

A part holds the features of a few hundred pictures that follow each other in the list.
It is written whole or not at all, has a checksum, and remembers what each picture's
bytes were, so that a restart can tell what is done from what must be done (again).
"""

import contextlib
import hashlib
import io
import json
import logging
import posixpath
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from nebula_utils.errors import CacheError
from nebula_utils.features.backbone import Backbone
from nebula_utils.features.extraction import extract_features
from nebula_utils.features.views import Preprocessing
from nebula_utils.files import DAMAGED, compute_sha256, write_atomic

log = logging.getLogger(__name__)

DOWNLOADS = 16  # at once: an object store answers late, but many
UNREADABLE = ""  # stands for the hash of a file that is not there
MEMBERS = ("features", "path", "kept", "reasons", "contents")


@dataclass(frozen=True)
class PartTask:
    """Which part to compute: its place in the list, its pictures, its network.

    Attributes
    ----------
    number : int
        0 for the first part.
    paths : tuple of str
        Files, or addresses that fsspec opens.
    network : str
        Fingerprint of the backbone.
    preprocessing : str
        `Preprocessing.key`.
    """

    number: int
    paths: tuple[str, ...]
    network: str
    preprocessing: str

    @property
    def name(self) -> str:
        """File name; other pictures, weights or preprocessing give another one."""
        text = json.dumps([self.paths, self.network, self.preprocessing])
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return f"part-{self.number:06d}-{digest[:20]}.npz"


@dataclass(frozen=True)
class Part:
    """The features of one part's pictures.

    Attributes
    ----------
    features : ndarray of shape (n, d), float32
        One row a picture that could be used, in the task's order.
    path : ndarray of shape (n,), str
        As the task names them.
    kept : ndarray of shape (n,), int
        Their places in the task.
    reasons : ndarray of shape (m,), str
        Why the others could not be used, in the task's order.
    contents : ndarray of shape (n + m,), str
        SHA-256 of each picture's bytes, in the task's order; empty if unreadable.
    """

    features: np.ndarray
    path: np.ndarray
    kept: np.ndarray
    reasons: np.ndarray
    contents: np.ndarray

    @property
    def failed(self) -> dict[int, str]:
        """Place in the task and reason of each picture that could not be used."""
        places = np.setdiff1d(np.arange(len(self.contents)), self.kept)
        return dict(zip(places.tolist(), self.reasons.tolist(), strict=True))


class PartStore:
    """A folder that all workers see: on a shared disk, or in an object store.

    Parameters
    ----------
    url : str
        A local folder, or an address for fsspec such as ``s3://bucket/features``.
    """

    def __init__(self, url: str) -> None:
        self.files, self.root = fsspec.core.url_to_fs(url)

    def read(self, task: PartTask) -> Part | None:
        """Return a part, or None if it is not there or damaged (which is logged)."""
        place = self._place(task)
        try:
            part = _decode(self.files.cat_file(place))
        except FileNotFoundError:
            return None
        except DAMAGED as error:
            log.warning("%s is damaged (%s): computed again", place, error)
            return None
        return part

    def write(self, task: PartTask, part: Part) -> None:
        """Put a part in place, whole or not at all.

        Raises
        ------
        CacheError
            If the folder can't be written.
        """
        data = _encode(part)
        if isinstance(self.files, LocalFileSystem):
            with write_atomic(Path(self._place(task))) as temporary:
                temporary.write_bytes(data)
            return
        # An object store shows an object once it is complete, never before.
        try:
            self.files.pipe_file(self._place(task), data)
        except OSError as error:
            raise CacheError(f"can't write {self._place(task)}: {error}") from error

    def _place(self, task: PartTask) -> str:
        return posixpath.join(self.root, task.name)


def make_tasks(
    paths: Sequence[str], network: str, preprocessing: str, part_size: int
) -> list[PartTask]:
    """Cut a list of pictures into parts.

    Parameters
    ----------
    paths : sequence of str
        Files or addresses.
    network : str
        Fingerprint of the backbone.
    preprocessing : str
        `Preprocessing.key`.
    part_size : int
        Pictures in a part.

    Returns
    -------
    list of PartTask
    """
    starts = range(0, len(paths), part_size)
    return [
        PartTask(
            number, tuple(paths[start : start + part_size]), network, preprocessing
        )
        for number, start in enumerate(starts)
    ]


def compute_part(
    task: PartTask,
    store: PartStore,
    get_backbone: Callable[[], Backbone],
    batch_size: int,
) -> Part:
    """Return a part: as it is in the store, if it still holds, else computed.

    Parameters
    ----------
    task : PartTask
        Which pictures.
    store : PartStore
        Where parts are.
    get_backbone : callable
        Gives the feature extractor with the task's fingerprint; called if needed.
    batch_size : int
        Pictures in one forward pass.

    Returns
    -------
    Part
        It is in the store when this returns.

    Raises
    ------
    CacheError
        If it can't be written.
    OSError
        If a picture's server fails; a picture that is not there is only noted.
    """
    with _bring_here(task.paths) as files:
        contents = np.array([_hash(file) for file in files])
        part = store.read(task)
        if part is not None and np.array_equal(part.contents, contents):
            return part
        found = extract_features(
            files,
            get_backbone(),
            Preprocessing(),
            use_cache=False,
            batch_size=batch_size,
        )
    part = Part(
        features=found.X[:, 0],
        path=np.array([task.paths[i] for i in found.kept], np.str_),
        kept=found.kept,
        reasons=np.array(
            [reason for _, reason in sorted(found.failed.items())], np.str_
        ),
        contents=contents,
    )
    store.write(task, part)
    return part


def merge_parts(
    tasks: Sequence[PartTask],
    n_rows: Sequence[int],
    names: Sequence[str],
    store: PartStore,
    out: Path,
    n_features: int,
    backbone: str,
) -> None:
    """Write the parts as one file, the very one that one machine would write.

    Parameters
    ----------
    tasks : sequence of PartTask
        All parts, in order.
    n_rows : sequence of int
        How many pictures of each could be used.
    names : sequence of str
        What to write as ``path`` for each picture of the list.
    store : PartStore
        Where they are.
    out : Path
        The ``.npz``: ``features``, ``path``, ``backbone``, ``preprocessing``.
    n_features : int
        Length of one embedding.
    backbone : str
        What to write as ``backbone``.

    Raises
    ------
    CacheError
        If a part is gone or damaged, or ``out`` can't be written.

    Notes
    -----
    One part is in memory at a time, and the list of paths.
    """
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)),
        "fortran_order": False,
        "shape": (sum(n_rows), n_features),
    }
    kept: list[str] = []
    start = 0
    with write_atomic(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("features.npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for task, expected in zip(tasks, n_rows, strict=True):
                part = store.read(task)
                if part is None or len(part.features) != expected:
                    raise CacheError(
                        f"{task.name} was removed or changed meanwhile: run the same "
                        "command again"
                    )
                stream.write(np.ascontiguousarray(part.features).data)
                kept += [names[start + place] for place in part.kept]
                start += len(task.paths)
        for name, array in (
            ("path", np.array(kept)),
            ("backbone", np.array(backbone)),
            ("preprocessing", np.array(tasks[0].preprocessing)),
        ):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


@contextlib.contextmanager
def _bring_here(paths: Sequence[str]) -> Iterator[list[Path]]:
    """Give local files for all paths; what an address holds is there for the block."""
    with (
        tempfile.TemporaryDirectory(prefix="nebula-") as folder,
        ThreadPoolExecutor(DOWNLOADS) as pool,
    ):
        numbered = (Path(folder) / str(number) for number in range(len(paths)))
        yield list(pool.map(_bring_file, paths, numbered))


def _bring_file(path: str, copy: Path) -> Path:
    if "://" not in path:
        return Path(path)
    copy = copy.with_suffix(Path(path).suffix)
    with contextlib.suppress(FileNotFoundError), fsspec.open(path, "rb") as stream:
        copy.write_bytes(stream.read())
    return copy  # if it is not there, it is told as any other


def _hash(file: Path) -> str:
    try:
        return compute_sha256(file)
    except (OSError, ValueError):
        return UNREADABLE


def _encode(part: Part) -> bytes:
    arrays: dict[str, Any] = {name: getattr(part, name) for name in MEMBERS}
    stream = io.BytesIO()
    np.savez(stream, checksum=np.array(_compute_checksum(arrays)), **arrays)
    return stream.getvalue()


def _decode(data: bytes) -> Part:
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in MEMBERS}
        if _compute_checksum(arrays) != str(stored["checksum"]):
            raise ValueError("its checksum is wrong")
    return Part(**arrays)


def _compute_checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in MEMBERS:
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

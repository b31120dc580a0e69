"""Turn pictures into embeddings, once: one decode, all views, and a store of them.

A picture's bytes, the view, the network with its engine, and the code of all this
together name an embedding for good. Who has them all finds it in the store, whoever put
it there: this process, another one, or a worker of a cluster (`survey`).
"""

import contextlib
import functools
import hashlib
import io
import itertools
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import (
    Callable,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from nebula_utils.config import cache_dir
from nebula_utils.errors import CacheError, ImageError
from nebula_utils.features.backbone import Backbone
from nebula_utils.features.engines import count_cores
from nebula_utils.features.views import Preprocessing
from nebula_utils.files import DAMAGED, compute_sha256, make_key, write_atomic
from nebula_utils.images import reading

if TYPE_CHECKING:  # SciPy, which they need, is slow to import
    from nebula_utils.features.augmentation import DustyCrops, RandomCrops, ZoomedOut

log = logging.getLogger(__name__)

SHARD_VIEWS = 512  # embeddings in one file of the store: two seconds of work
FORWARD_BATCH = 8  # views in one forward pass: as fast as 32, in a quarter of the room
AHEAD = 2  # batches that each thread may be ahead of what is stored
HASHED_AT_ONCE = 512  # files

T = TypeVar("T")
U = TypeVar("U")
Views: TypeAlias = "Preprocessing | RandomCrops | DustyCrops | ZoomedOut"
# Of files, by their place in the list: hashes, and why others can't be read.
Hashes = tuple[dict[int, str], dict[int, str]]


class Features(NamedTuple):
    """Embeddings of the pictures that could be read.

    `X` has shape (n_kept, n_views, n_features), float32; `kept` is the place of each
    row's picture in the input; `failed` gives place and reason of the others.
    """

    X: np.ndarray
    kept: np.ndarray
    failed: dict[int, str]


class _Job(NamedTuple):
    """A picture, and which of its views to make."""

    content: str
    path: Path
    columns: list[int]


def extract_features(
    paths: Sequence[Path | str],
    backbone: Backbone,
    views: Views = Preprocessing(),  # noqa: B008 - frozen, so safe as a default
    store: str | None = None,
    hashes: Hashes | None = None,
    whole_shard: bool = False,
) -> Features:
    """Embed pictures with a frozen backbone, or read what was embedded before.

    Parameters
    ----------
    paths : sequence of Path or str
        Image files.
    backbone : Backbone
        Feature extractor.
    views : Preprocessing, RandomCrops, DustyCrops or ZoomedOut
        Which views to embed.
    store : str, optional
        Folder, or address for fsspec, where embeddings are kept; default:
        ``$NEBULA_CACHE/features``.
    hashes : (dict of int to str, dict of int to str), optional
        What `hash_files` gives, if it is known.
    whole_shard : bool
        Whether these pictures are a shard: then they are looked up as such only,
        which needs no list of all that is stored.

    Returns
    -------
    Features
        In input order; files that can't be used are left out and named.

    Raises
    ------
    CacheError
        If the store can't be written.
    """
    contents, unreadable = hashes or hash_files(paths)
    labels = _label(views)
    X = np.empty((len(paths), len(labels), backbone.n_features), np.float32)
    shards = FeatureStore(_make_parts(backbone, views), store, whole_shard)
    rows: dict[str, list[int]] = {}  # copies of a picture have one content
    for i, content in contents.items():
        rows.setdefault(content, []).append(i)
    reasons, missing = _read_stored(X, rows, labels, shards)
    jobs = [
        _Job(content, Path(paths[rows[content][0]]), columns)
        for content, columns in missing.items()
    ]
    shard: dict[str, np.ndarray | str] = {}
    for job, outcome in _compute(jobs, views, backbone):
        if isinstance(outcome, str):
            reasons[job.content] = outcome
        else:
            X[np.ix_(rows[job.content], job.columns)] = outcome
        for k, column in enumerate(job.columns):
            name = shards.name(job.content, labels[column])
            shard[name] = outcome if isinstance(outcome, str) else outcome[k]
        if len(shard) >= SHARD_VIEWS or job is jobs[-1]:
            shards.write(shard, backbone.n_features)
            shard = {}
    for column, label in enumerate(labels):  # one may come twice
        if labels.index(label) != column:
            X[:, column] = X[:, labels.index(label)]
    failed = unreadable | {i: reasons[c] for i, c in contents.items() if c in reasons}
    kept = np.array([i for i in range(len(paths)) if i not in failed], int)
    for row, i in enumerate(kept):  # in place: another copy may be too much
        if row != i:
            X[row] = X[i]
    return Features(X[: len(kept)], kept, failed)


def embed_views(
    batch: Sequence[Sequence[np.ndarray]], backbone: Backbone
) -> np.ndarray:
    """Embed the views of several pictures: (n_images, n_views, n_features), float32."""
    flat = [view for views in batch for view in views]
    return _embed(flat, backbone).reshape(len(batch), -1, backbone.n_features)


def hash_files(paths: Sequence[Path | str]) -> Hashes:
    """Return the SHA-256 of each file by its place, and why others can't be read."""
    # Not all at once: what a pool remembers of a call is larger than its result.
    found = enumerate(_map_ahead(_hash_file, paths, count_cores(), HASHED_AT_ONCE))
    hashes: Hashes = {}, {}
    for index, (content, reason) in found:
        hashes[bool(reason)][index] = reason or content
    return hashes


def _hash_file(path: Path | str) -> tuple[str, str]:
    try:
        found = os.stat(path)
        state = (found.st_size, found.st_mtime_ns, found.st_ino)
        return _hash_unchanged(str(path), state), ""
    except FileNotFoundError:
        return "", "no such file: check its name and folder"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return "", f"the file can't be read: {reason}"


@functools.lru_cache(20_000)
def _hash_unchanged(path: str, state: tuple[int, ...]) -> str:
    """Hash a file once a process, unless it was written meanwhile."""
    return compute_sha256(Path(path))


def _make_parts(backbone: Backbone, views: Views) -> tuple[Any, ...]:
    """Return what decides an embedding beside the picture and the view."""
    code = [sys.modules[kind.__module__] for kind in (Preprocessing, type(views))]
    if isinstance(views, Preprocessing):  # whichever others there are
        return backbone.sha256, replace(views, views=()), views.min_side, code
    return backbone.sha256, views, code


def _label(views: Views) -> list[Hashable]:
    if isinstance(views, Preprocessing):
        return list(views.views)
    return list(range(views.n_views))


def _read_stored(
    X: np.ndarray,
    rows: Mapping[str, list[int]],
    labels: Sequence[Hashable],
    store: "FeatureStore",
) -> tuple[dict[str, str], dict[str, list[int]]]:
    """Fill rows of X; return, by content, known failures and the columns that miss."""
    wanted = {
        store.name(content, label): (content, labels.index(label))
        for content in rows
        for label in dict.fromkeys(labels)
    }
    reasons: dict[str, str] = {}
    for name, found in store.read(wanted.keys()):
        content, column = wanted.pop(name)
        if isinstance(found, str):
            reasons[content] = found
        else:
            X[rows[content], column] = found
    missing: dict[str, list[int]] = {}
    for content, column in wanted.values():
        missing.setdefault(content, []).append(column)
    return reasons, missing


def _compute(
    jobs: Sequence[_Job], views: Views, backbone: Backbone
) -> Iterator[tuple[_Job, np.ndarray | str]]:
    """Yield each job's embeddings, or why there are none, in order.

    Every thread decodes, makes views and embeds them in turn, so that all cores are
    busy whichever of these takes longest.
    """
    if not jobs:
        return
    from tqdm import tqdm

    own = threading.local()

    def embed(batch: list[_Job]) -> list[tuple[_Job, np.ndarray | str]]:
        if not hasattr(own, "backbone"):
            own.backbone = backbone.fork()
        made = [_make_views(job, views) for job in batch]
        flat = [view for some in made if not isinstance(some, str) for view in some]
        X = iter(_embed(flat, own.backbone))
        return [
            (job, some if isinstance(some, str) else np.stack([next(X) for _ in some]))
            for job, some in zip(batch, made, strict=True)
        ]

    with tqdm(total=len(jobs), desc="embedding", unit="image", disable=None) as bar:
        for batch in _map_ahead(embed, _make_batches(jobs), count_cores(), AHEAD):
            yield from batch
            bar.update(len(batch))


def _make_batches(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Put jobs together that fill one forward pass."""
    batch: list[_Job] = []
    for job in jobs:
        batch.append(job)
        if sum(len(one.columns) for one in batch) >= FORWARD_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _make_views(job: _Job, views: Views) -> list[np.ndarray] | str:
    """Make the views of a job, or say why not; a content's SHA-256 is its seed."""
    try:
        image = reading.read_image(job.path, views.min_side)
        if isinstance(views, Preprocessing):
            few = replace(views, views=tuple(views.views[i] for i in job.columns))
            return few.make_views(image)
        made = views.make_views(image, int(job.content[:12], 16))
        return [made[i] for i in job.columns]
    except ImageError as error:
        return str(error)


def _embed(views: Sequence[np.ndarray], backbone: Backbone) -> np.ndarray:
    X = np.empty((len(views), backbone.n_features), np.float32)
    sizes = np.array([len(view) for view in views])
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes == size)
        for start in range(0, len(members), FORWARD_BATCH):
            rows = members[start : start + FORWARD_BATCH]
            X[rows] = backbone.embed(np.stack([views[row] for row in rows]))
    return X


def _map_ahead(
    function: Callable[[T], U], items: Iterable[T], n_threads: int, ahead: int
) -> Iterator[U]:
    """Call a function on items in threads, in order, never far ahead of the reader."""
    waiting = iter(items)
    with ThreadPoolExecutor(n_threads) as pool:
        futures = deque(
            pool.submit(function, item)
            for item in itertools.islice(waiting, n_threads * (1 + ahead))
        )
        while futures:
            yield futures.popleft().result()
            for item in itertools.islice(waiting, 1):
                futures.append(pool.submit(function, item))


class FeatureStore:
    """Embeddings by name, in a folder or an object store; `parts` decide which.

    A shard is an ``.npz`` with the names, the embeddings of the pictures that could be
    used, and the reasons why others could not. Its file name is a digest of the names,
    so that several processes may fill one store at once: they write the same shard, or
    another one. The zip format's own checksums tell when it is damaged. With
    `whole_shard`, what is asked for is looked for as one shard only.
    """

    def __init__(
        self, parts: tuple[Any, ...], url: str | None = None, whole_shard: bool = False
    ) -> None:
        import fsspec

        place = f"{url or cache_dir() / 'features'}/{make_key(*parts)[:24]}"
        self._is_local = "://" not in place
        if self._is_local:  # whatever it is called, "a::b" too
            self._files, self.folder = fsspec.filesystem("file"), os.path.abspath(place)
        else:
            self._files, self.folder = fsspec.core.url_to_fs(place)
        self._whole_shard = whole_shard

    def name(self, content: str, view: Hashable) -> str:
        """Return the name of the embedding of a picture's view."""
        return hashlib.sha256(f"{content} {view!r}".encode()).hexdigest()[:32]

    def read(self, wanted: Set[str]) -> Iterator[tuple[str, np.ndarray | str]]:
        """Yield those that are there: the embedding, or why there can be none.

        No name comes twice. A damaged shard is reported and removed.
        """
        waiting = set(wanted)
        for shard in self._list(wanted):
            if not waiting:
                return
            try:
                found = self._read_shard(shard, waiting)
            except FileNotFoundError:
                continue
            except DAMAGED as error:
                log.warning("%s is damaged (%s): computed again", shard, error)
                with contextlib.suppress(OSError):  # a store that is only read
                    self._files.rm_file(shard)
                continue
            waiting -= found.keys()
            yield from found.items()

    def _list(self, wanted: Set[str]) -> list[str]:
        if self._whole_shard:
            return [f"{self.folder}/{_name_shard(wanted)}"]
        try:
            places = self._files.ls(self.folder, detail=False)
        except FileNotFoundError:
            return []
        return sorted(p for p in places if p.rpartition("/")[2].startswith("shard-"))

    def write(self, found: Mapping[str, np.ndarray | str], n_features: int) -> None:
        """Add a shard of embeddings, or of reasons why there is none, by name."""
        rows = [x for x in found.values() if not isinstance(x, str)]
        arrays: dict[str, Any] = {
            "names": np.array(list(found), "S32"),
            "reasons": np.array(
                [x if isinstance(x, str) else "" for x in found.values()]
            ),
            "X": np.array(rows, np.float32).reshape(-1, n_features),
        }
        shard = f"{self.folder}/{_name_shard(found.keys())}"
        if self._is_local:
            with write_atomic(Path(shard)) as temporary:
                np.savez(temporary, **arrays)
            return
        content = io.BytesIO()
        np.savez(content, **arrays)
        try:  # an object store shows an object once it is complete, never before
            self._files.makedirs(self.folder, exist_ok=True)
            self._files.pipe_file(shard, content.getvalue())
        except OSError as error:
            raise CacheError(f"can't write {shard}: {error}") from error

    def _read_shard(self, shard: str, wanted: set[str]) -> dict[str, np.ndarray | str]:
        with (
            self._files.open(shard, "rb") as stream,
            np.load(stream, allow_pickle=False) as arrays,
        ):
            names = [name.decode() for name in arrays["names"].tolist()]
            if wanted.isdisjoint(names):
                return {}
            reasons, X = arrays["reasons"].tolist(), iter(arrays["X"])
        everything = {
            name: reason or next(X) for name, reason in zip(names, reasons, strict=True)
        }
        return {name: everything[name] for name in names if name in wanted}


def _name_shard(names: Set[str]) -> str:
    digest = hashlib.sha256(" ".join(sorted(names)).encode()).hexdigest()
    return f"shard-{digest[:24]}.npz"

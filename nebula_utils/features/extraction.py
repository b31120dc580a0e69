"""Turn pictures into embeddings, once: one decode, all views, and a store of them.

A picture's bytes, the view, the network with its engine, and the code of all this
together name an embedding for good. Who has them all finds it in the store, whoever put
it there: this process, another one, or a worker of a cluster (`cluster`).
"""

import csv
import functools
import itertools
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from nebula_utils.config import DEFAULT_BACKBONE, PICTURE_SUFFIXES
from nebula_utils.errors import ImageError, SourceError
from nebula_utils.features.backbone import Backbone, load_backbone
from nebula_utils.features.engines import FLOAT32, count_cores
from nebula_utils.features.store import FeatureStore
from nebula_utils.features.views import Preprocessing, choose_views, read_views
from nebula_utils.files import compute_sha256, write_atomic

if TYPE_CHECKING:  # SciPy, which they need, is slow to import
    from nebula_utils.features.augmentation import (
        DustyCrops,
        RandomCrops,
        SimulatedScenes,
        ZoomedOut,
    )

log = logging.getLogger(__name__)

SHARD_VIEWS = 512  # embeddings in one file of the store: two seconds of work
FORWARD_BATCH = 8  # views in one forward pass: as fast as 32, in a quarter of the room
AHEAD = 2  # batches that each thread may be ahead of what is stored
HASHED_AT_ONCE = 512  # files

T = TypeVar("T")
U = TypeVar("U")
Views: TypeAlias = "Preprocessing | RandomCrops | DustyCrops | ZoomedOut"
SceneViews: TypeAlias = "Views | SimulatedScenes"
# Of files, by their place in the list: hashes, and why others can't be read.
Hashes = tuple[dict[int, str], dict[int, str]]


class Features(NamedTuple):
    """Embeddings of the pictures that could be read.

    Attributes
    ----------
    X : ndarray of shape (n_kept, n_views, n_features), float32
        One embedding a view.
    kept : ndarray of shape (n_kept,), int
        Index of each row's picture in the input.
    failed : dict of int to str
        Index and reason of each picture that could not be used.
    """

    X: np.ndarray
    kept: np.ndarray
    failed: dict[int, str]


class _Job(NamedTuple):
    """A picture, which of its views to make, and how."""

    content: str
    columns: list[int]
    make: Callable[[list[int]], list[np.ndarray]]


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
    views : Preprocessing, RandomCrops or DustyCrops
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
    failed = dict(unreadable)
    jobs = {
        content: functools.partial(read_views, Path(paths[i]), content, views)
        for i, content in reversed(contents.items())
    }
    labels = _label(views)
    X = np.empty((len(paths), len(labels), backbone.n_features), np.float32)
    shards = FeatureStore(_make_parts(backbone, views), store, whole_shard)
    reasons = _fill(X, contents, jobs, labels, backbone, shards)
    failed |= {i: reasons[c] for i, c in contents.items() if c in reasons}
    kept = np.array([i for i in range(len(paths)) if i not in failed], int)
    for row, i in enumerate(kept):  # in place: another copy may be too much
        if row != i:
            X[row] = X[i]
    return Features(X[: len(kept)], kept, failed)


def extract_simulated(
    seeds: Sequence[int], backbone: Backbone, scenes: "SimulatedScenes"
) -> np.ndarray:
    """Embed simulated scenes, one a seed, or read what was embedded before.

    Returns
    -------
    ndarray of shape (n_scenes, n_views, n_features), float32
    """
    contents = {i: f"scene {seed}" for i, seed in enumerate(seeds)}
    jobs = {
        contents[i]: functools.partial(choose_views, scenes.simulate_views, seed)
        for i, seed in enumerate(seeds)
    }
    X = np.empty((len(seeds), scenes.n_views, backbone.n_features), np.float32)
    shards = FeatureStore(_make_parts(backbone, scenes))
    _fill(X, contents, jobs, _label(scenes), backbone, shards)
    return X


def extract_to_npz(
    source: Path,
    out: Path,
    backbone: str = DEFAULT_BACKBONE,
    engine: str = FLOAT32,
    scheduler: str | None = None,
    n_workers: int | None = None,
    store: str | None = None,
) -> list[tuple[str, str]]:
    """Embed a folder of pictures, or those that a manifest lists, into one file.

    Parameters
    ----------
    source : Path
        A folder, searched through, or a CSV file with a column ``path`` or ``file``,
        relative to the CSV's own folder.
    out : Path
        The ``.npz`` to write: ``features`` float32 (n, d), ``path`` (n,), ``backbone``
        and ``preprocessing``.
    backbone, engine : str
        As for `backbone.load_backbone`.
    scheduler : str, optional
        Have a Dask cluster fill the store first; see `cluster.fill_store`.
    n_workers : int, optional
        Worker processes of a cluster on this machine; default: one a core.
    store : str, optional
        As for `extract_features`; all workers must see it.

    Returns
    -------
    list of (path, reason)
        The files that could not be used.

    Raises
    ------
    SourceError
        If the source has no picture at all that can be used.
    """
    paths, hashes = list_pictures(source), None
    loaded = load_backbone(backbone, engine)
    if scheduler and paths:
        from nebula_utils.features.cluster import fill_store

        hashes = fill_store(
            paths, loaded, (backbone, engine), scheduler, n_workers, store
        )
    found = extract_features(paths, loaded, store=store, hashes=hashes)
    failed = [(str(paths[i]), reason) for i, reason in sorted(found.failed.items())]
    if not len(found.kept):
        first = f" ({failed[0][0]}: {failed[0][1]})" if failed else ""
        raise SourceError(f"no picture in {source} can be used{first}")
    with write_atomic(out) as temporary:
        np.savez(
            temporary,
            features=found.X[:, 0],
            path=np.array([str(paths[i]) for i in found.kept]),
            backbone=np.array(f"{loaded.name} {loaded.sha256}"),
            preprocessing=np.array(Preprocessing().key),
        )
    return failed


def list_pictures(source: Path) -> list[Path | str]:
    """Return the pictures of a folder, or those that a manifest lists, in order.

    Parameters
    ----------
    source : Path
        As for `extract_to_npz`. Addresses such as ``s3://bucket/m1.jpg``, which only a
        cluster reads, stay as they are.

    Raises
    ------
    SourceError
        If the CSV can't be read or has no such column.
    """
    if source.is_dir():
        hidden = (".", "__MACOSX")
        return sorted(
            file
            for file in source.rglob("*")
            if (file.is_file() or file.is_symlink() and not file.exists())
            and file.suffix.lower() in PICTURE_SUFFIXES
            and not any(part.startswith(hidden) for part in file.parts[-2:])
        )
    try:
        with open(source, newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"can't read {source}: {error}") from error
    column = next((c for c in ("path", "file") if rows and c in rows[0]), None)
    if column is None:
        raise SourceError(f"{source} has no rows with a column 'path' or 'file'")
    names = [row[column] for row in rows]
    return [name if "://" in name else source.parent / name for name in names]


def embed_views(
    batch: Sequence[Sequence[np.ndarray]], backbone: Backbone
) -> np.ndarray:
    """Embed the views of several pictures: (n_images, n_views, n_features), float32."""
    flat = [view for views in batch for view in views]
    return _embed(flat, backbone).reshape(len(batch), -1, backbone.n_features)


def hash_files(paths: Sequence[Path | str]) -> Hashes:
    """Return the SHA-256 of each file by its place, and why others can't be read."""
    contents: dict[int, str] = {}
    failed: dict[int, str] = {}
    # Not all at once: what a pool remembers of a call is larger than its result.
    for index, (content, reason) in enumerate(
        _map_ahead(_hash_file, paths, count_cores(), HASHED_AT_ONCE)
    ):
        if reason:
            failed[index] = reason
        else:
            contents[index] = content
    return contents, failed


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


def _make_parts(backbone: Backbone, views: SceneViews) -> tuple[Any, ...]:
    """Return what decides an embedding beside the picture and the view."""
    code = [sys.modules[kind.__module__] for kind in (Preprocessing, type(views))]
    if isinstance(views, Preprocessing):  # whichever others there are
        return backbone.sha256, replace(views, views=()), views.min_side, code
    return backbone.sha256, views, code


def _label(views: SceneViews) -> list[Hashable]:
    if isinstance(views, Preprocessing):
        return list(views.views)
    return list(range(views.n_views))


def _fill(
    X: np.ndarray,
    contents: Mapping[int, str],
    jobs: Mapping[str, Callable[[list[int]], list[np.ndarray]]],
    labels: Sequence[Hashable],
    backbone: Backbone,
    store: FeatureStore,
) -> dict[str, str]:
    """Fill X's rows from the store, else compute; return failures by content."""
    rows: dict[str, list[int]] = {}  # copies of a picture have one content
    for i, content in contents.items():
        rows.setdefault(content, []).append(i)
    first = {label: labels.index(label) for label in labels}  # one may come twice
    wanted = {
        store.name(content, label): (content, column)
        for content in rows
        for label, column in first.items()
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
    waiting = [_Job(content, cols, jobs[content]) for content, cols in missing.items()]
    shard: dict[str, np.ndarray | str] = {}
    for job, outcome in _compute(waiting, backbone):
        if isinstance(outcome, str):
            reasons[job.content] = outcome
        else:
            X[np.ix_(rows[job.content], job.columns)] = outcome
        for k, column in enumerate(job.columns):
            name = store.name(job.content, labels[column])
            shard[name] = outcome if isinstance(outcome, str) else outcome[k]
        if len(shard) >= SHARD_VIEWS:
            store.write(shard, backbone.n_features)
            shard = {}
    if shard:
        store.write(shard, backbone.n_features)
    for column, label in enumerate(labels):
        if column != first[label]:
            X[:, column] = X[:, first[label]]
    return reasons


def _compute(
    jobs: Sequence[_Job], backbone: Backbone
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
        made = [_try(job) for job in batch]
        X = _embed(
            [view for views in made if not isinstance(views, str) for view in views],
            own.backbone,
        )
        start, found = 0, []
        for job, views in zip(batch, made, strict=True):
            stop = start if isinstance(views, str) else start + len(views)
            found.append((job, views if isinstance(views, str) else X[start:stop]))
            start = stop
        return found

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


def _try(job: _Job) -> list[np.ndarray] | str:
    try:
        return job.make(job.columns)
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

"""Embed a folder of pictures, or a manifest's, into one file; if asked, on a cluster.

On a cluster Dask hands tasks to workers, and again when a worker dies. What a task
embeds lies in the store before the task counts as done: whatever happens, the same
command goes on from there.
"""

import contextlib
import csv
import functools
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nebula_utils.config import DEFAULT_BACKBONE, PICTURE_SUFFIXES, cache_dir
from nebula_utils.errors import BackboneError, ClusterError, NebulaError, SourceError
from nebula_utils.features.backbone import load_backbone
from nebula_utils.features.engines import FLOAT32
from nebula_utils.features.extraction import Hashes, extract_features, hash_files
from nebula_utils.features.views import Preprocessing
from nebula_utils.files import write_atomic

LOCAL = "local"
TASK_SIZE = 256  # pictures, at most a shard: seconds of work, 1 MB of features
RETRIES = 2  # of a task that raises; a worker's death has Dask's own count, 3
WORKERS_TIMEOUT = 600.0  # s that a queue may take to start the first worker
DOWNLOADS = 16  # at once: an object store answers late, but many


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
        Have a Dask cluster fill the store first: ``"local"`` for worker processes on
        this machine, or an address such as ``tcp://10.0.0.1:8786``.
    n_workers : int, optional
        Worker processes of ``"local"``; default: one a core.
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
    ClusterError
        If the cluster can't be reached, or a task failed for good.
    """
    paths, hashes = list_pictures(source), None
    loaded = load_backbone(backbone, engine)
    if scheduler and paths:
        network = (backbone, engine, loaded.sha256)
        hashes = fill_store(paths, network, scheduler, n_workers, store)
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

    `source` is as for `extract_to_npz`. Addresses such as ``s3://bucket/m1.jpg``, which
    only a cluster reads, stay as they are. A CSV that can't be read or has no such
    column is a SourceError.
    """
    if source.is_dir():
        hidden = (".", "__MACOSX")
        return sorted(
            file
            for file in source.rglob("*")
            if (file.is_file() or file.is_symlink() and not file.exists())
            and file.name.lower().endswith(PICTURE_SUFFIXES)
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


def fill_store(
    paths: Sequence[Path | str],
    network: tuple[str, str, str],
    scheduler: str = LOCAL,
    n_workers: int | None = None,
    store: str | None = None,
) -> Hashes:
    """Have pictures embedded on a Dask cluster; return `extract_features`'s hashes.

    `network` is backbone, engine and fingerprint, which every worker's must equal.
    """
    names = [_make_absolute(str(path)) for path in paths]
    starts = range(0, len(names), TASK_SIZE)
    tasks = [names[start : start + TASK_SIZE] for start in starts]
    place = _make_absolute(store or str(cache_dir() / "features"))
    embed = functools.partial(embed_shard, network=network, store=place)
    contents: dict[int, str] = {}
    failed: dict[int, str] = {}
    broken: dict[int, BaseException] = {}
    for i, outcome in _run_tasks(embed, tasks, scheduler, n_workers):
        if isinstance(outcome, BaseException):
            broken[i] = outcome
            continue
        for mine, theirs in zip((contents, failed), outcome, strict=True):
            mine |= {starts[i] + k: text for k, text in theirs.items()}
    if broken:
        first = min(broken)
        some, error = tasks[first], broken[first]
        raise ClusterError(
            f"{len(broken)} of {len(tasks)} tasks failed on every try; the first holds "
            f"{len(some)} pictures, {some[0]} to {some[-1]}: {type(error).__name__}: "
            f"{error}\nThe features of the others are stored: the same command tries "
            "only the rest again"
        )
    return dict(sorted(contents.items())), failed


def embed_shard(
    paths: Sequence[str], network: tuple[str, str, str], store: str
) -> Hashes:
    """Put the features of some pictures into the store, on a worker."""
    name, engine, expected = network
    backbone = _load_once(name, engine)
    if backbone.sha256 != expected:
        raise BackboneError(
            f"a worker's {name} or its version of nebula_utils is not the one of the "
            "machine that asks: install the same version and weights on both"
        )
    with (
        tempfile.TemporaryDirectory(prefix="nebula-") as folder,
        ThreadPoolExecutor(DOWNLOADS) as pool,
    ):
        copies = (Path(folder) / str(number) for number in range(len(paths)))
        files = list(pool.map(_bring_here, paths, copies))
        hashes = hash_files(files)
        extract_features(files, backbone, store=store, hashes=hashes, whole_shard=True)
    return hashes


def _run_tasks(
    function: functools.partial[Hashes],
    tasks: Sequence[Sequence[str]],
    scheduler: str,
    n_workers: int | None,
) -> Iterator[tuple[int, Any]]:
    """Yield each task's place and its outcome, or the error that it ended with.

    What a NebulaError says holds for all tasks: it is raised.
    """
    with (
        _connect(scheduler, n_workers) as client,
        tqdm(total=len(tasks), unit="task", desc=scheduler, disable=None) as bar,
    ):
        from distributed import as_completed

        futures = client.map(function, tasks, pure=False, retries=RETRIES)
        places = {future.key: i for i, future in enumerate(futures)}
        try:
            for future in as_completed(futures):
                if future.status not in ("finished", "error"):
                    raise OSError(f"its tasks are {future.status}")
                error = future.exception() if future.status == "error" else None
                if isinstance(error, NebulaError):
                    raise error
                yield places[future.key], error or future.result()
                bar.update()
        except (OSError, CancelledError) as error:
            raise ClusterError(
                f"the scheduler {scheduler} was lost ({error}); what is done stays: "
                "run the same command again when the cluster is well"
            ) from error


@contextlib.contextmanager
def _connect(scheduler: str, n_workers: int | None) -> Iterator[Any]:
    """Give a client of a Dask cluster, whose first worker is there."""
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            f"a cluster needs Dask ({error}): pip install 'nebula-utils[cluster]'"
        ) from None
    cores = os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        try:
            address: Any = scheduler
            if scheduler == LOCAL:
                # Each process has its own network and its share of the cores.
                threads = max(1, cores // (n_workers or cores))
                address = distributed.LocalCluster(
                    n_workers=n_workers or cores,
                    threads_per_worker=1,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                    env={"TF_NUM_INTRAOP_THREADS": str(threads)},
                )
                stack.enter_context(address)
            client = stack.enter_context(distributed.Client(address))
            client.wait_for_workers(1, timeout=WORKERS_TIMEOUT)
        except (OSError, TimeoutError, ValueError) as error:
            raise ClusterError(
                f"no Dask cluster at {scheduler}: {error}; start `dask scheduler` and "
                "`dask worker` first, or use --scheduler local"
            ) from error
        yield client


@functools.lru_cache(maxsize=1)
def _load_once(name: str, engine: str) -> Any:
    return load_backbone(name, engine)


def _make_absolute(path: str) -> str:
    # Workers need not have our working folder.
    return path if "://" in path else os.path.abspath(path)


def _bring_here(path: str, copy: Path) -> Path:
    """Return a local file of a path; what an address holds is copied."""
    if "://" not in path:
        return Path(path)
    import fsspec

    with contextlib.suppress(FileNotFoundError), fsspec.open(path, "rb") as stream:
        copy.write_bytes(stream.read())
    return copy  # if it is not there, it is told as any other

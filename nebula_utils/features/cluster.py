"""Have a Dask cluster fill the store of features, whatever happens to the cluster.

Dask's scheduler hands tasks to workers, and hands them out again when a worker dies.
What is added here: a task's result lies in the store before the task counts as done, a
lost scheduler is looked for again, and a task that fails for good is named.
"""

import contextlib
import functools
import itertools
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from nebula_utils.config import cache_dir
from nebula_utils.errors import BackboneError, ClusterError, NebulaError
from nebula_utils.features.backbone import Backbone, load_backbone
from nebula_utils.features.extraction import Hashes, extract_features, hash_files

log = logging.getLogger(__name__)

LOCAL = "local"
TASK_SIZE = 256  # pictures: seconds of work, 1 MB of features
IN_FLIGHT = 2000  # tasks at the scheduler at once, so that its memory stays small
RETRIES = 2  # of a task that raises; a worker's death has Dask's own count, 3
CONNECTIONS = 5  # to the scheduler, one after the other, before giving up
WORKERS_TIMEOUT = 600.0  # s that a queue may take to start the first worker
DOWNLOADS = 16  # at once: an object store answers late, but many

Loader = Callable[..., Backbone]


class Job(NamedTuple):
    """What every worker needs to know, whatever its task."""

    network: tuple[str, ...]
    sha256: str
    store: str
    load: Loader


def fill_store(
    paths: Sequence[Path | str],
    backbone: Backbone,
    network: tuple[str, ...],
    scheduler: str = LOCAL,
    n_workers: int | None = None,
    store: str | None = None,
    task_size: int = TASK_SIZE,
    load: Loader = load_backbone,
) -> Hashes:
    """Have pictures embedded on a Dask cluster, each as a whole.

    Parameters
    ----------
    paths : sequence of Path or str
        Files that all workers see, or addresses that fsspec opens.
    backbone, network : Backbone, tuple of str
        The extractor as this machine has it, and what ``load`` made it of.
    scheduler : str
        ``"local"`` for worker processes on this machine, or an address such as
        ``tcp://10.0.0.1:8786``.
    n_workers : int, optional
        Worker processes of ``"local"``; default: one a core.
    store : str, optional
        As for `extraction.extract_features`; all workers see it and can write.
    task_size : int
        Pictures in a task, at most `extraction.SHARD_VIEWS`.
    load : callable
        ``network`` → extractor; importable on the workers.

    Returns
    -------
    (dict of int to str, dict of int to str)
        For `extraction.extract_features`, which then finds all features in the store.

    Raises
    ------
    ClusterError
        If the cluster can't be reached, or a task failed for good. What is done
        stays; the same call continues with the others.
    BackboneError
        If a worker has other weights or another version than this machine.
    """
    names = [_make_absolute(str(path)) for path in paths]
    starts = range(0, len(names), task_size)
    tasks = [names[start : start + task_size] for start in starts]
    place = _make_absolute(store or str(cache_dir() / "features"))
    embed = functools.partial(
        embed_shard, job=Job(network, backbone.sha256, place, load)
    )
    outcomes = _run_tasks(embed, tasks, scheduler, n_workers)
    broken = {i: s for i, s in outcomes.items() if isinstance(s, str)}
    if broken:
        raise ClusterError(_explain_broken(broken, tasks))
    contents: dict[int, str] = {}
    failed: dict[int, str] = {}
    for i, start in enumerate(starts):
        for mine, theirs in zip((contents, failed), outcomes[i], strict=True):
            mine |= {start + place: text for place, text in theirs.items()}
    return contents, failed


def embed_shard(paths: Sequence[str], job: Job) -> Hashes:
    """Put the features of some pictures into the store, on a worker."""
    backbone = _load_once(job.network, job.load)
    if backbone.sha256 != job.sha256:
        raise BackboneError(
            f"a worker's {job.network[0]} or its version of nebula_utils is not the "
            "one of the machine that asks: install the same version and weights on both"
        )
    with _bring_here(paths) as files:
        hashes = hash_files(files)
        extract_features(
            files, backbone, store=job.store, hashes=hashes, whole_shard=True
        )
    return hashes


def _run_tasks(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    scheduler: str = LOCAL,
    n_workers: int | None = None,
) -> dict[int, Any]:
    """Call a function on each task on a cluster, whatever happens to the cluster.

    Returns
    -------
    dict
        Index of each task → what the function returned, or the error as a str if it
        failed on every try, or its worker died on every try.

    Raises
    ------
    ClusterError
        If the scheduler can't be reached (any more).
    NebulaError
        As raised by the function: what such an error says holds for all tasks.
    """
    outcomes: dict[int, Any] = {}
    lost: Exception | None = None
    with tqdm(total=len(tasks), unit="task", desc=scheduler, disable=None) as progress:
        for _ in range(CONNECTIONS):
            waiting = [i for i in range(len(tasks)) if i not in outcomes]
            if not waiting:
                return outcomes
            with _connect(scheduler, n_workers) as client:
                try:
                    for i, outcome in _stream(client, function, tasks, waiting):
                        outcomes[i] = outcome
                        progress.update()
                except OSError as error:
                    lost = error
                    log.warning("the scheduler was lost (%s): looking for it", error)
    if len(outcomes) == len(tasks):
        return outcomes
    raise ClusterError(
        f"the scheduler {scheduler} was lost {CONNECTIONS} times ({lost}); what is "
        "done stays: run the same command again when the cluster is well"
    )


@contextlib.contextmanager
def _connect(scheduler: str, n_workers: int | None = None) -> Iterator[Any]:
    """Give a client of a Dask cluster, whose first worker is there."""
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            f"a cluster needs Dask ({error}): pip install 'nebula-utils[cluster]'"
        ) from None
    with contextlib.ExitStack() as stack:
        # Dask leaves settings for its workers in our own environment.
        stack.callback(_restore_environment, dict(os.environ))
        try:
            address: Any = scheduler
            if scheduler == LOCAL:
                address = stack.enter_context(_start_local(distributed, n_workers))
            client = stack.enter_context(distributed.Client(address))
            client.wait_for_workers(1, timeout=WORKERS_TIMEOUT)
        except (OSError, TimeoutError, ValueError) as error:
            raise ClusterError(
                f"no Dask cluster at {scheduler}: {error}; start `dask scheduler` and "
                "`dask worker` first, or use --scheduler local"
            ) from error
        yield client


def _restore_environment(saved: dict[str, str]) -> None:
    for name in set(os.environ) - set(saved):
        del os.environ[name]
    os.environ.update(saved)


def _make_absolute(path: str) -> str:
    # Workers need not have our working folder.
    return path if "://" in path else os.path.abspath(path)


def _start_local(distributed: Any, n_workers: int | None) -> Any:
    n_workers = n_workers or os.cpu_count() or 1
    threads = max(1, (os.cpu_count() or 1) // n_workers)
    return distributed.LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=True,  # each with its own network; one can die without the others
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
        # Else each worker would want all cores.
        env={"TF_NUM_INTRAOP_THREADS": str(threads)},
    )


def _stream(
    client: Any,
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    waiting: list[int],
) -> Iterator[tuple[int, Any]]:
    """Yield (index, result or error) as tasks end; OSError if the scheduler is lost."""
    from distributed import as_completed

    queue = iter(waiting)
    index: dict[str, int] = {}

    def submit(i: int) -> Any:
        future = client.submit(function, tasks[i], pure=False, retries=RETRIES)
        index[future.key] = i
        return future

    ending = as_completed([submit(i) for i in itertools.islice(queue, IN_FLIGHT)])
    for future in ending:
        if future.status not in ("finished", "error"):
            raise OSError(f"its tasks are {future.status}")
        error = future.exception() if future.status == "error" else None
        if isinstance(error, NebulaError):
            raise error
        i = index.pop(future.key)
        yield i, f"{type(error).__name__}: {error}" if error else future.result()
        for following in itertools.islice(queue, 1):
            ending.add(submit(following))


_LOAD_LOCK = threading.Lock()  # a worker may have several threads


def _load_once(network: tuple[str, ...], load: Loader) -> Backbone:
    with _LOAD_LOCK:
        return _load_cached(network, load)


@functools.lru_cache(maxsize=1)
def _load_cached(network: tuple[str, ...], load: Loader) -> Backbone:
    return load(*network)


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
    import fsspec

    with contextlib.suppress(FileNotFoundError), fsspec.open(path, "rb") as stream:
        copy.write_bytes(stream.read())
    return copy  # if it is not there, it is told as any other


def _explain_broken(broken: dict[int, str], tasks: Sequence[Sequence[str]]) -> str:
    first = min(broken)
    paths = tasks[first]
    return (
        f"{len(broken)} of {len(tasks)} tasks failed on every try; the first holds "
        f"{len(paths)} pictures, {paths[0]} to {paths[-1]}: {broken[first]}\n"
        "The features of the others are stored: the same command tries only the rest "
        "again"
    )

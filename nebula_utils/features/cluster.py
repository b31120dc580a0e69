"""Do the work of one machine on a Dask cluster, with the same results bit by bit.

Dask's scheduler hands tasks to workers, and hands them out again when a worker dies.
What is added here: a task's result lies in a file before the task counts as done, a
lost scheduler is looked for again, and a task that fails for good is named.
"""

import contextlib
import functools
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from nebula_utils.config import DEFAULT_BACKBONE
from nebula_utils.errors import BackboneError, ClusterError, NebulaError, SourceError
from nebula_utils.features.engines import load_extractor
from nebula_utils.features.extraction import FORWARD_BATCH, list_pictures
from nebula_utils.features.parts import (
    PartStore,
    PartTask,
    compute_part,
    make_tasks,
    merge_parts,
)
from nebula_utils.features.views import Preprocessing

log = logging.getLogger(__name__)

LOCAL = "local"
PART_SIZE = 256  # pictures: seconds of work, 1 MB of features
IN_FLIGHT = 2000  # tasks at the scheduler at once, so that its memory stays small
RETRIES = 2  # of a task that raises; a worker's death has Dask's own count, 3
CONNECTIONS = 5  # to the scheduler, one after the other, before giving up
WORKERS_TIMEOUT = 600.0  # s that a queue may take to start the first worker

T = TypeVar("T")
Loader = Callable[[str], Any]


@dataclass(frozen=True)
class Job:
    """What every worker needs to know, whatever its part."""

    store: PartStore
    backbone: str
    load: Loader
    batch_size: int


@dataclass(frozen=True)
class Summary:
    """What a worker says of a part that lies in the store."""

    n_rows: int
    failed: dict[int, str]


def extract_on_cluster(
    paths: Sequence[Path | str],
    parts: str,
    backbone: str = DEFAULT_BACKBONE,
    scheduler: str = LOCAL,
    n_workers: int | None = None,
    batch_size: int = FORWARD_BATCH,
    part_size: int = PART_SIZE,
    out: Path | None = None,
    load: Loader = load_extractor,
) -> list[tuple[str, str]]:
    """Embed pictures on a Dask cluster, into parts and then into one file.

    Parameters
    ----------
    paths : sequence of Path or str
        Files that all workers see, or addresses that fsspec opens.
    parts : str
        Folder or address that all workers see and can write.
    backbone : str
        As for `runtime.load_extractor`; each worker loads it once.
    scheduler : str
        ``"local"`` for worker processes on this machine, or an address such as
        ``tcp://10.0.0.1:8786``.
    n_workers : int, optional
        Worker processes of ``"local"``; default: one a core.
    batch_size : int
        Pictures in one forward pass; changes memory and time, not the result.
    part_size : int
        Pictures in a part.
    out : Path, optional
        The ``.npz`` to write, equal to what `features.extract_to_npz` writes;
        default: leave it at the parts.
    load : callable
        Name → backbone; importable on the workers.

    Returns
    -------
    list of (path, reason)
        The files that could not be used, in input order.

    Raises
    ------
    ClusterError
        If the cluster can't be reached, or a part failed for good. Finished parts
        stay; the same call continues with the others.
    SourceError
        If no picture at all can be used.
    BackboneError
        If a worker has other weights than this machine.
    """
    import_distributed()  # says what is missing before TensorFlow is loaded
    loaded = load(backbone)
    names = [str(path) for path in paths]
    tasks = make_tasks(
        [_make_absolute(name) for name in names],
        loaded.sha256,
        Preprocessing().key,
        part_size,
    )
    store = PartStore(_make_absolute(parts))
    job = Job(store, backbone, load, batch_size)
    summaries = run_tasks(
        functools.partial(embed_part, job=job), tasks, scheduler, n_workers
    )
    broken = {i: s for i, s in summaries.items() if isinstance(s, str)}
    if broken:
        raise ClusterError(_explain_broken(broken, tasks, parts))
    done = [summaries[i] for i in range(len(tasks))]
    failed = [
        (names[task.number * part_size + place], reason)
        for task, summary in zip(tasks, done, strict=True)
        for place, reason in summary.failed.items()
    ]
    if not any(summary.n_rows for summary in done):
        first = f" ({failed[0][0]}: {failed[0][1]})" if failed else ""
        raise SourceError(f"none of the {len(names)} pictures can be used{first}")
    if out is not None:
        name = f"{loaded.name} {loaded.sha256}"
        rows = [summary.n_rows for summary in done]
        merge_parts(tasks, rows, names, store, out, loaded.n_features, name)
    return failed


def extract_source(
    source: Path, out: Path, parts: str | None = None, **options: Any
) -> list[tuple[str, str]]:
    """Embed a folder or a manifest's pictures on a cluster into one file.

    Parameters
    ----------
    source, out : Path
        As for `features.extract_to_npz`.
    parts : str, optional
        Where parts go; default: ``out`` with ``.parts`` behind it. They stay there.
    **options
        As for `extract_on_cluster`.

    Returns
    -------
    list of (path, reason)
        The files that could not be used.

    Raises
    ------
    ClusterError, SourceError, BackboneError
        As `extract_on_cluster`.
    """
    paths = list_pictures(source)
    if not paths:
        raise SourceError(f"no picture in {source} can be used")
    return extract_on_cluster(paths, parts or f"{out}.parts", out=out, **options)


def embed_part(task: PartTask, job: Job) -> Summary:
    """Compute one part, on a worker; see `parts.compute_part`.

    Parameters
    ----------
    task : PartTask
        Which pictures.
    job : Job
        The rest.

    Returns
    -------
    Summary

    Raises
    ------
    BackboneError
        If this worker has other weights or another preprocessing than the client.
    """
    part = compute_part(
        task, job.store, functools.partial(_get_backbone, task, job), job.batch_size
    )
    return Summary(len(part.features), part.failed)


def _get_backbone(task: PartTask, job: Job) -> Any:
    backbone = _load_once(job.backbone, job.load)
    if (backbone.sha256, Preprocessing().key) != (task.network, task.preprocessing):
        raise BackboneError(
            f"a worker's {job.backbone} or its version of nebula_utils is not the one "
            "of the machine that asks: install the same version and weights on both"
        )
    return backbone


def run_tasks(
    function: Callable[[T], Any],
    tasks: Sequence[T],
    scheduler: str = LOCAL,
    n_workers: int | None = None,
    unit: str = "part",
) -> dict[int, Any]:
    """Call a function on each task on a cluster, whatever happens to the cluster.

    Parameters
    ----------
    function : callable
        Importable on the workers. It may be called twice for a task.
    tasks : sequence
        Its arguments.
    scheduler, n_workers
        As for `extract_on_cluster`.
    unit : str
        What a task is called in the progress bar.

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
    progress = tqdm(total=len(tasks), unit=unit, desc=scheduler, disable=None)
    with progress:
        for _ in range(CONNECTIONS):
            waiting = [i for i in range(len(tasks)) if i not in outcomes]
            if not waiting:
                return outcomes
            with connect(scheduler, n_workers) as client:
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
def connect(scheduler: str, n_workers: int | None = None) -> Iterator[Any]:
    """Give a client of a Dask cluster, whose first worker is there.

    Parameters
    ----------
    scheduler, n_workers
        As for `extract_on_cluster`.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ClusterError
        If Dask is not installed, or the scheduler or a worker can't be had.
    """
    distributed = import_distributed()
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


def import_distributed() -> Any:
    """Import Dask's scheduler library.

    Raises
    ------
    ClusterError
        If it is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            f"a cluster needs Dask ({error}): pip install 'nebula-utils[cluster]'"
        ) from None
    return distributed


def _restore_environment(saved: dict[str, str]) -> None:
    os.environ.clear()
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
        # Else each worker's TensorFlow would want all cores.
        env={"TF_NUM_INTRAOP_THREADS": str(threads)},
    )


def _stream(
    client: Any, function: Callable[[T], Any], tasks: Sequence[T], waiting: list[int]
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


def _load_once(name: str, load: Loader) -> Any:
    with _LOAD_LOCK:
        return _load_cached(name, load)


@functools.lru_cache(maxsize=1)
def _load_cached(name: str, load: Loader) -> Any:
    return load(name)


def _explain_broken(
    broken: dict[int, str], tasks: Sequence[PartTask], parts: str
) -> str:
    first = min(broken)
    paths = tasks[first].paths
    return (
        f"{len(broken)} of {len(tasks)} parts failed on every try; the first holds "
        f"{len(paths)} pictures, {paths[0]} to {paths[-1]}: {broken[first]}\n"
        f"The other parts are done and stay in {parts}: the same command tries only "
        "the rest again"
    )

"""Turn pictures into embeddings, once: views, batches, and a cache that can be trusted.

One picture is decoded once and gives one or more *views*: a crop, at an input size of
the network, in some colours. A `Preprocessing` lists the views; its key, the backbone's
fingerprint and the picture's bytes together name an embedding for good, which is why a
second run does no forward pass.
"""

import contextlib
import csv
import hashlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from nebula_utils.config import DEFAULT_BACKBONE, PICTURE_SUFFIXES, cache_dir
from nebula_utils.errors import ImageError, SourceError
from nebula_utils.features.engines import load_extractor
from nebula_utils.features.views import Preprocessing
from nebula_utils.files import DAMAGED, compute_sha256, write_atomic
from nebula_utils.images import reading

log = logging.getLogger(__name__)

IMAGES_A_PART = 64  # pictures in one file of the cache
HASHED_AT_ONCE = 512  # files
FORWARD_BATCH = 32  # views in one forward pass
DECODERS = 2  # threads that decode while the network works

# Makes the views of one picture, or says why it can't be used.
Job = Callable[[], list[np.ndarray] | str]


class Extractor(Protocol):
    """What embedding needs of a backbone: TensorFlow's and LiteRT's both have it."""

    @property
    def n_features(self) -> int:
        """Length of one embedding."""

    @property
    def sha256(self) -> str:
        """Fingerprint of the network; part of every feature cache's key."""

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Embed a batch; see `backbone.Backbone.embed`."""


class ViewMaker(Protocol):
    """What makes views of a picture: `Preprocessing` and the makers in `augment`."""

    @property
    def key(self) -> str:
        """The maker in one line; equal keys give equal pixels."""

    @property
    def n_views(self) -> int:
        """How many views there are."""

    @property
    def min_side(self) -> int:
        """Shorter side, px, below which decoding at reduced size costs detail."""

    def make_views(self, image: np.ndarray, seed: int = 0) -> list[np.ndarray]:
        """Return the views of one picture, float32 in [0, 1]."""


class SceneMaker(Protocol):
    """What makes views of nothing but a seed: `augment.SimulatedScenes`."""

    @property
    def key(self) -> str:
        """The maker in one line; equal keys give equal pixels."""

    @property
    def n_views(self) -> int:
        """How many views there are."""

    def simulate_views(self, seed: int) -> list[np.ndarray]:
        """Return the views of one simulated scene, float32 in [0, 1]."""


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


def extract_features(
    paths: Sequence[Path | str],
    backbone: Extractor,
    maker: ViewMaker = Preprocessing(),  # noqa: B008 - frozen, so safe as a default
    use_cache: bool = True,
    batch_size: int = FORWARD_BATCH,
) -> Features:
    """Embed pictures with a frozen backbone, or read what was embedded before.

    Parameters
    ----------
    paths : sequence of Path or str
        Image files.
    backbone : Extractor
        Loaded feature extractor; its weights are not changed.
    maker : Preprocessing or a maker of `augment`
        Which views to embed.
    use_cache : bool
        Whether to read and write ``$NEBULA_CACHE/features``.
    batch_size : int
        Views in one forward pass; changes memory and time, not the result.

    Returns
    -------
    Features
        In input order; files that can't be used are left out and named.

    Raises
    ------
    CacheError
        If the cache can't be written.

    Notes
    -----
    An embedding does not depend on which other pictures are asked for: networks give
    the same bits in batches of any size from two up, and a single view is doubled.
    """
    keys, failed = _hash_files(paths)
    jobs = {
        key: partial(_read_views, paths[i], key, maker)
        for i, key in reversed(keys.items())
    }
    rows = _list_rows(keys)
    X = np.empty((len(paths), maker.n_views, backbone.n_features), np.float32)
    unusable = _embed_cached(jobs, rows, X, backbone, maker, use_cache, batch_size)
    failed |= {i: unusable[key] for i, key in keys.items() if key in unusable}
    kept = np.array([i for i in range(len(paths)) if i not in failed], int)
    for row, i in enumerate(kept):  # in place: another copy may be too much
        X[row] = X[i]
    return Features(X[: len(kept)], kept, failed)


def extract_simulated(
    seeds: Sequence[int], backbone: Extractor, maker: SceneMaker, use_cache: bool = True
) -> np.ndarray:
    """Embed simulated scenes, or read what was embedded before.

    Parameters
    ----------
    seeds : sequence of int
        One a scene.
    backbone : Extractor
        Loaded feature extractor.
    maker : augment.SimulatedScenes
        Which scenes.
    use_cache : bool
        Whether to read and write ``$NEBULA_CACHE/features``.

    Returns
    -------
    ndarray of shape (n_scenes, n_views, n_features), float32
    """
    keys = {
        i: hashlib.sha256(f"scene {seed}".encode()).hexdigest()
        for i, seed in enumerate(seeds)
    }
    jobs = {key: partial(maker.simulate_views, seeds[i]) for i, key in keys.items()}
    X = np.empty((len(seeds), maker.n_views, backbone.n_features), np.float32)
    _embed_cached(jobs, _list_rows(keys), X, backbone, maker, use_cache, FORWARD_BATCH)
    return X


def extract_to_npz(
    source: Path,
    out: Path,
    backbone: str = DEFAULT_BACKBONE,
    batch_size: int = FORWARD_BATCH,
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
    backbone : str
        As for `runtime.load_extractor`.
    batch_size : int
        Views in one forward pass; changes memory and time, not the result.

    Returns
    -------
    list of (path, reason)
        The files that could not be used.

    Raises
    ------
    SourceError
        If the source has no picture at all that can be used.
    """
    paths = list_pictures(source)
    recipe = Preprocessing()
    loaded = load_extractor(backbone)
    found = extract_features(paths, loaded, recipe, batch_size=batch_size)
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
            preprocessing=np.array(recipe.key),
        )
    return failed


class FeatureCache:
    """Embeddings on disk, in parts that are written whole or not at all.

    Parameters
    ----------
    backbone : Extractor
        Its fingerprint is part of the folder's name.
    maker : Preprocessing or a maker of `augment`
        Its key is part of the folder's name.

    Notes
    -----
    A part is an ``.npz`` with the pictures' hashes, their embeddings and a checksum.
    Two processes may fill one cache at once: parts never change once they are there,
    and a picture that stands in two has the same embedding in both.
    """

    def __init__(self, backbone: Extractor, maker: ViewMaker | SceneMaker) -> None:
        name = hashlib.sha256(f"{backbone.sha256} {maker.key}".encode()).hexdigest()
        self.folder = cache_dir() / "features" / name[:20]
        self.shape = (maker.n_views, backbone.n_features)

    def read_parts(self, wanted: set[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the embeddings of those of the wanted pictures that are there.

        Part by part, no picture twice. A damaged part is reported and removed.
        """
        waiting = set(wanted)
        for file in sorted(self.folder.glob("part-*.npz")):
            try:
                found = self._read_part(file, waiting)
            except FileNotFoundError:  # another process found it damaged, too
                continue
            except DAMAGED as error:
                log.warning("%s is damaged (%s): computed again", file, error)
                with contextlib.suppress(OSError):  # a cache that is only read
                    file.unlink(missing_ok=True)
                continue
            waiting -= found.keys()
            yield found

    def write(self, part: dict[str, np.ndarray]) -> None:
        """Add embeddings, one array of shape (n_views, n_features) a picture."""
        keys = np.array(list(part), "S64")
        X = np.stack(list(part.values())).astype(np.float32)
        checksum = _checksum(keys, X)
        with write_atomic(self.folder / f"part-{checksum[:20]}.npz") as temporary:
            np.savez(temporary, keys=keys, X=X, checksum=np.array(checksum))

    def _read_part(self, file: Path, wanted: set[str]) -> dict[str, np.ndarray]:
        with np.load(file, allow_pickle=False) as part:
            keys = [key.decode() for key in part["keys"]]
            if wanted.isdisjoint(keys):
                return {}
            X = part["X"]
            if _checksum(part["keys"], X) != str(part["checksum"]):
                raise ValueError("its checksum is wrong")
        if X.shape[1:] != self.shape:
            raise ValueError(f"its embeddings have shape {X.shape[1:]}")
        return {key: x for key, x in zip(keys, X, strict=True) if key in wanted}


def list_pictures(source: Path) -> list[Path | str]:
    """Return the pictures of a folder, or those that a manifest lists, in order.

    Parameters
    ----------
    source : Path
        A folder, searched through, or a CSV file with a column ``path`` or ``file``,
        relative to the CSV's own folder.

    Returns
    -------
    list of Path or str
        Files; addresses such as ``s3://bucket/m1.jpg``, which only a cluster reads,
        stay as they are.

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
            if (file.is_file() or _leads_nowhere(file))
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
    batch: Sequence[Sequence[np.ndarray]], backbone: Extractor
) -> np.ndarray:
    """Embed the views of several pictures.

    Parameters
    ----------
    batch : sequence of sequence of ndarray of shape (size, size, 3), float32
        The views of each picture, as `Preprocessing.make_views` gives them.
    backbone : Extractor
        Loaded feature extractor.

    Returns
    -------
    ndarray of shape (n_images, n_views, n_features), float32
    """
    n_views = len(batch[0])
    X = np.empty((len(batch) * n_views, backbone.n_features), np.float32)
    flat = [view for views in batch for view in views]
    sizes = np.array([len(view) for view in flat])
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes == size)
        for start in range(0, len(members), FORWARD_BATCH):
            rows = members[start : start + FORWARD_BATCH]
            stack = np.stack([flat[row] for row in rows])
            if len(rows) == 1:  # alone, a view would get other last bits
                stack = np.repeat(stack, 2, axis=0)
            X[rows] = backbone.embed(stack)[: len(rows)]
    return X.reshape(len(batch), n_views, backbone.n_features)


def _leads_nowhere(file: Path) -> bool:
    """Tell whether this is a link to a file that is not there: to be listed, too."""
    return file.is_symlink() and not file.exists()


def _hash_files(
    paths: Sequence[Path | str],
) -> tuple[dict[int, str], dict[int, str]]:
    keys: dict[int, str] = {}
    failed: dict[int, str] = {}
    waiting = iter(paths)
    # Not all at once: what a pool remembers of a call is larger than its result.
    chunks = iter(lambda: list(itertools.islice(waiting, HASHED_AT_ONCE)), [])
    with ThreadPoolExecutor(DECODERS) as pool:
        outcomes = (pool.map(_hash_file, chunk) for chunk in chunks)
        for index, (key, reason) in enumerate(itertools.chain.from_iterable(outcomes)):
            if reason:
                failed[index] = reason
            else:
                keys[index] = key
    return keys, failed


def _hash_file(path: Path | str) -> tuple[str, str]:
    try:
        return compute_sha256(Path(path)), ""
    except FileNotFoundError:
        return "", "no such file: check its name and folder"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return "", f"the file can't be read: {reason}"


def _list_rows(keys: Mapping[int, str]) -> dict[str, list[int]]:
    """Return the places of each key; copies of a picture have one key."""
    rows: dict[str, list[int]] = {}
    for i, key in keys.items():
        rows.setdefault(key, []).append(i)
    return rows


def _embed_cached(
    jobs: Mapping[str, Job],
    rows: Mapping[str, list[int]],
    X: np.ndarray,
    backbone: Extractor,
    maker: ViewMaker | SceneMaker,
    use_cache: bool,
    batch_size: int,
) -> dict[str, str]:
    """Fill X's rows; return failures by key. Only jobs not in the cache are run."""
    cache = FeatureCache(backbone, maker) if use_cache else None
    missing = dict(jobs)
    for stored in cache.read_parts(set(jobs)) if cache else ():
        for key, x in stored.items():
            X[rows[key]] = x
            del missing[key]
    unusable: dict[str, str] = {}
    part: dict[str, np.ndarray] = {}
    a_batch = max(2, batch_size // maker.n_views)
    for key, outcome in _embed_jobs(missing, backbone, a_batch):
        if isinstance(outcome, str):
            unusable[key] = outcome
            continue
        part[key] = X[rows[key]] = outcome
        if cache and len(part) == IMAGES_A_PART:
            cache.write(part)
            part = {}
    if cache and part:
        cache.write(part)
    return unusable


def _embed_jobs(
    jobs: Mapping[str, Job], backbone: Extractor, a_batch: int
) -> Iterator[tuple[str, np.ndarray | str]]:
    """Yield (key, embedding or reason) of each job, making views ahead in threads."""
    if not jobs:
        return
    ready: list[tuple[str, list[np.ndarray]]] = []
    progress = tqdm(total=len(jobs), desc="embedding", unit="image", disable=None)
    with ThreadPoolExecutor(DECODERS) as pool, progress:
        waiting = iter(jobs.values())
        ahead = deque(
            pool.submit(job) for job in itertools.islice(waiting, 4 * a_batch)
        )
        for key in jobs:
            views = ahead.popleft().result()
            for job in itertools.islice(waiting, 1):
                ahead.append(pool.submit(job))
            progress.update()
            if isinstance(views, str):
                yield key, views
                continue
            ready.append((key, views))
            if len(ready) == a_batch:
                yield from _embed_ready(ready, backbone)
                ready = []
        if ready:
            yield from _embed_ready(ready, backbone)


def _embed_ready(
    ready: list[tuple[str, list[np.ndarray]]], backbone: Extractor
) -> Iterator[tuple[str, np.ndarray]]:
    X = embed_views([views for _, views in ready], backbone)
    yield from zip([key for key, _ in ready], X, strict=True)


def _read_views(path: Path | str, key: str, maker: ViewMaker) -> list[np.ndarray] | str:
    try:
        image = reading.read_image(Path(path), maker.min_side)
        return maker.make_views(image, seed=int(key[:12], 16))
    except ImageError as error:
        return str(error)


def _checksum(keys: np.ndarray, X: np.ndarray) -> str:
    digest = hashlib.sha256(keys.tobytes())
    digest.update(np.ascontiguousarray(X).data)
    return digest.hexdigest()

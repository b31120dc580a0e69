"""Embeddings on disk or in an object store, in shards that are written whole."""

import hashlib
import io
import logging
import posixpath
from collections.abc import Hashable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np

from nebula_utils.config import cache_dir
from nebula_utils.errors import CacheError
from nebula_utils.files import DAMAGED, make_key, write_atomic

log = logging.getLogger(__name__)


class FeatureStore:
    """Embeddings by name; a name says which picture and which view it is of.

    Parameters
    ----------
    parts : tuple
        What else decides an embedding, as `files.make_key` takes it.
    url : str, optional
        Folder, or address for fsspec such as ``s3://bucket/features``; default:
        ``$NEBULA_CACHE/features``.
    whole_shard : bool
        Whether what is asked for was written as one shard; no other is looked at.

    Notes
    -----
    A shard is an ``.npz`` with the names, the embeddings of the pictures that could be
    used, and the reasons why others could not. Its file name is a digest of the names,
    so that several processes may fill one store at once: they write the same shard, or
    another one. The zip format's own checksums tell when it is damaged.
    """

    def __init__(
        self, parts: tuple[Any, ...], url: str | None = None, whole_shard: bool = False
    ) -> None:
        folder = f"{url or cache_dir() / 'features'}/{make_key(*parts)[:24]}"
        self._whole_shard = whole_shard
        self._files: Any = None
        if "://" in folder:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(folder)
        self.folder = Path(folder)

    def name(self, content: str, view: Hashable) -> str:
        """Return the name of the embedding of a picture's view."""
        return hashlib.sha256(f"{content} {view!r}".encode()).hexdigest()[:32]

    def read(self, wanted: Set[str]) -> Iterator[tuple[str, np.ndarray | str]]:
        """Yield those that are there: the embedding, or why there can be none.

        No name comes twice. A damaged shard is reported and removed.
        """
        waiting = set(wanted)
        for shard in [_name_shard(wanted)] if self._whole_shard else self._list():
            if not waiting:
                return
            try:
                found = self._read_shard(shard, waiting)
            except FileNotFoundError:
                continue
            except DAMAGED as error:
                log.warning(
                    "%s is damaged (%s): computed again", self.folder / shard, error
                )
                self._remove(shard)
                continue
            waiting -= found.keys()
            yield from found.items()

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
        shard = _name_shard(found.keys())
        if self._files is None:
            with write_atomic(self.folder / shard) as temporary:
                np.savez(temporary, **arrays)
            return
        content = io.BytesIO()
        np.savez(content, **arrays)
        try:  # an object store shows an object once it is complete, never before
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(self._place(shard), content.getvalue())
        except OSError as error:
            raise CacheError(f"can't write {self._place(shard)}: {error}") from error

    def _list(self) -> list[str]:
        if self._files is None:
            return sorted(file.name for file in self.folder.glob("shard-*.npz"))
        return sorted(
            posixpath.basename(place)
            for place in self._files.glob(self._place("shard-*.npz"))
        )

    def _read_shard(self, shard: str, wanted: set[str]) -> dict[str, np.ndarray | str]:
        source: Any = self.folder / shard
        if self._files is not None:
            source = io.BytesIO(self._files.cat_file(self._place(shard)))
        with np.load(source, allow_pickle=False) as arrays:
            names = [name.decode() for name in arrays["names"].tolist()]
            if wanted.isdisjoint(names):
                return {}
            reasons, X = arrays["reasons"].tolist(), iter(arrays["X"])
        everything = {
            name: reason or next(X) for name, reason in zip(names, reasons, strict=True)
        }
        return {name: everything[name] for name in names if name in wanted}

    def _remove(self, shard: str) -> None:
        try:
            if self._files is None:
                (self.folder / shard).unlink(missing_ok=True)
            else:
                self._files.rm_file(self._place(shard))
        except OSError:  # a store that is only read
            pass

    def _place(self, shard: str) -> str:
        return posixpath.join(self._root, shard)


def _name_shard(names: Set[str]) -> str:
    digest = hashlib.sha256(" ".join(sorted(names)).encode()).hexdigest()
    return f"shard-{digest[:24]}.npz"

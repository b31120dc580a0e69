"""Keep the fetched cutouts: their folder, the record of each, one run at a time.

The record is ``manifest.jsonl``, one JSON object a line, only ever appended to: a kill
at any moment leaves at worst half a last line, which the next run cuts off.
"""

import contextlib
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nebula_utils.config import cache_dir
from nebula_utils.errors import CacheError, SourceError
from nebula_utils.files import (
    compute_sha256,
    explain_write_error,
    seal,
    unseal,
    write_atomic,
)

# What is asked for only once: the picture is there, or the sky is empty there.
FINAL = ("ok", "blank", "off_survey")
MIN_CONTRAST = 6  # grey levels between the 0.5 and 99.5 percentiles
MAX_EMPTY = 0.5  # share of 8 × 8 px blocks that are flat black or flat white

_log = logging.getLogger(__name__)
Record = dict[str, Any]


def find_folder(folder: Path | str | None = None) -> Path:
    """Return the folder of the source: the one given, or ``hips`` in the cache."""
    return Path(folder) if folder else cache_dir() / "hips"


def classify_tile(image: np.ndarray) -> tuple[str, str]:
    """Tell a picture of the sky from an empty tile.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
        The decoded cutout.

    Returns
    -------
    status : {"ok", "blank", "off_survey"}
        ``off_survey`` if more than half of the picture is flat black or flat white
        (where a survey has no pixels), ``blank`` if it has no contrast at all.
    reason : str
        What was found, empty if the tile is usable.
    """
    empty = _compute_empty_share(image)
    if empty > MAX_EMPTY:
        return "off_survey", f"{empty:.0%} of the picture is empty"
    low, high = np.percentile(image.mean(axis=2), [0.5, 99.5])
    if high - low < MIN_CONTRAST:
        return "blank", f"contrast of {high - low:.0f} of 255 grey levels"
    return "ok", ""


def _compute_empty_share(image: np.ndarray) -> float:
    # The sky has grain even where it is darkest; a tile without pixels has none.
    # Whole JPEG blocks are looked at: a saturated star's centre is white, too.
    height, width = (side // 8 * 8 for side in image.shape[:2])
    if not height or not width:
        return 0.0
    blocks = image[:height, :width].reshape(height // 8, 8, width // 8, 8, 3)
    low, high = blocks.min(axis=(1, 3, 4)), blocks.max(axis=(1, 3, 4))
    flat = (high - low <= 1) & ((high <= 2) | (low >= 253))
    return float(flat.mean())


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder while the block runs.

    The operating system lifts the lock when the process ends, however it ends.

    Raises
    ------
    SourceError
        If another run holds the lock.
    CacheError
        If the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = open(folder / ".lock", "a+b", buffering=0)
    except OSError as error:
        raise CacheError(explain_write_error(error, folder)) from error
    with stream:
        try:
            _lock(stream.fileno())
        except OSError as error:
            stream.seek(0)
            holder = stream.read().decode().strip() or "unknown"
            raise SourceError(
                f"another run (process {holder}) fetches into {folder}: wait until it "
                "ends, or set NEBULA_CACHE to another folder"
            ) from error
        try:
            stream.truncate(0)
            stream.write(str(os.getpid()).encode())
        except OSError as error:
            raise CacheError(explain_write_error(error, folder)) from error
        yield


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        # A byte far behind the process number, which others want to read.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Store:
    """The cutouts in a folder and the latest record of each, by image id.

    Parameters
    ----------
    folder : Path
        Where pictures and ``manifest.jsonl`` stand; need not exist.

    Attributes
    ----------
    records : dict of str to dict
        The last record of every image id.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "manifest.jsonl"
        self.records: dict[str, Record] = {}
        self._lock = threading.Lock()
        for record in self._read_records():
            self.records[record["image_id"]] = record

    def _read_records(self) -> Iterator[Record]:
        try:
            lines = self.manifest.read_bytes().splitlines()
        except FileNotFoundError:
            return
        for number, line in enumerate(lines, start=1):
            try:
                record = unseal(json.loads(line))
                record["image_id"], record["status"], record["file"]
            except (ValueError, TypeError, KeyError) as error:
                _log.warning(
                    "%s, line %d is damaged (%s): left out",
                    *(self.manifest, number, error),
                )
            else:
                yield record

    def repair(self) -> None:
        """Remove what a kill left behind: half a last line, half-written pictures.

        Only call it under `lock_folder`.
        """
        if self.manifest.exists():
            with open(self.manifest, "r+b") as stream:
                content = stream.read()
                whole = content.rfind(b"\n") + 1
                if whole < len(content):
                    _log.info("cut off half a record at the end of %s", self.manifest)
                    stream.truncate(whole)
        for leftover in self.folder.glob("*/.*.jpg"):
            leftover.unlink(missing_ok=True)

    def append(self, record: Record) -> None:
        """Add a record; safe between threads.

        Raises
        ------
        CacheError
            If it can't be written, for instance because the disk is full.
        """
        line = json.dumps(seal(record), ensure_ascii=False) + "\n"
        with self._lock:
            try:
                self._append_bytes(line.encode())
            except OSError as error:
                raise CacheError(explain_write_error(error, self.manifest)) from error
            self.records[record["image_id"]] = record

    def _append_bytes(self, line: bytes) -> None:
        # Without a buffer: one write, and half a line never stays on a full disk.
        with open(self.manifest, "ab", buffering=0) as stream:
            start = stream.seek(0, os.SEEK_END)
            try:
                if stream.write(line) < len(line):
                    raise OSError(28, "No space left on device")
            except OSError:
                stream.truncate(start)
                raise

    def write_picture(self, file: Path, body: bytes) -> None:
        """Write a picture whole or not at all; ``file`` is relative to the folder.

        Raises
        ------
        CacheError
            If it can't be written.
        """
        with write_atomic(self.folder / file) as temporary:
            temporary.write_bytes(body)

    def find_picture(self, file: Path) -> str | None:
        """Return the SHA-256 of a picture in the folder, None if it is missing."""
        try:
            return compute_sha256(self.folder / file)
        except FileNotFoundError:
            return None

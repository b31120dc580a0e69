"""Write files whole or not at all, and tell whether two are the same."""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nebula_utils.config import cache_dir
from nebula_utils.errors import CacheError

# What NumPy, zipfile and json raise on bytes that are no longer what was written; a
# flipped bit may make zipfile see encryption or a method that it does not know.
DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
CHECKSUM = "checksum"

# There is no way to read the mask but to set it; done once, as threads share it.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


@contextlib.contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` on success.

    Parameters
    ----------
    path : Path
        Where the finished file shall stand; its folder is made if needed.

    Yields
    ------
    Path
        A temporary name in the same folder, with the same suffix. What stands
        there when the block ends replaces ``path`` in one step; after an error
        or an interruption it is removed and ``path`` is as it was before.

    Raises
    ------
    CacheError
        If the folder can't be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem[:80]}.", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
    except OSError as error:
        raise CacheError(explain_write_error(error, path)) from error
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; give ours the mode that open() would.
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
    except OSError as error:
        if is_write_error(error):
            raise CacheError(explain_write_error(error, path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def compute_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with a checksum of itself; see `unseal`."""
    plain = json.loads(json.dumps(content))  # keys are text, tuples are lists
    return {**plain, CHECKSUM: _hash_json(plain)}


def unseal(content: Any) -> dict[str, Any]:
    """Return what was sealed, without its checksum.

    Parameters
    ----------
    content : object
        As ``json.loads`` gave it back.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If it was never sealed (an older version's), or is not what was sealed.
    """
    if not isinstance(content, dict) or CHECKSUM not in content:
        raise ValueError("it has no checksum")
    found = {key: value for key, value in content.items() if key != CHECKSUM}
    if content[CHECKSUM] != _hash_json(found):
        raise ValueError("its checksum is wrong")
    return found


def is_write_error(error: BaseException) -> bool:
    """Tell whether an error says that the disk is full or the folder only read."""
    known = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
    return isinstance(error, OSError) and error.errno in known


def explain_write_error(error: OSError, path: Path) -> str:
    """Say why a file can't be written, and what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "the disk is full: free some space"
    else:
        advice = f"{error.strerror}: make the folder writable"
    way_out = "choose another folder"
    if path.is_relative_to(cache_dir()):
        way_out = "set NEBULA_CACHE to another folder"
    return f"can't write {path} ({advice}, or {way_out})"


def _hash_json(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

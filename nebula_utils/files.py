"""Write files whole or not at all, lock folders, and keep the one cache of results."""

import ast
import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import logging
import os
import secrets
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from nebula_utils.config import cache_dir
from nebula_utils.errors import CacheError

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parent
# Packages that are imported under another name than they are installed by.
INSTALLED_AS = {"PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image"}

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


@contextlib.contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` on success.

    It has the same suffix; the folder is made if needed. What stands there when the
    block ends replaces ``path`` in one step; after an error or an interruption it is
    removed and ``path`` is as it was before.

    Raises
    ------
    CacheError
        If the folder can't be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = f".{path.stem[:80]}.{secrets.token_hex(6)}{path.suffix}"
        temporary = path.with_name(name)
        # With the mode that open() would give, which tempfile's private files lack.
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise CacheError(explain_write_error(error, path)) from error
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if is_write_error(error):
            raise CacheError(explain_write_error(error, path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; wait while one is in there.

    The folder is made if needed; the operating system lifts the lock when the process
    ends.

    Raises
    ------
    CacheError
        If the folder can't be written.
    """
    import filelock

    lock = filelock.FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            log.warning("waiting for another process that works in %s", folder)
            lock.acquire()
    except OSError as error:
        raise CacheError(explain_write_error(error, folder)) from error
    try:
        yield
    finally:
        lock.release()


def load_or_compute(
    name: str, parts: tuple[Any, ...], compute: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return what was computed before from the same parts, or compute and keep it.

    Parameters
    ----------
    name : str
        Folder in the cache, for people who look there.
    parts : tuple
        Everything that decides the result, as `make_key` takes it: the inputs, the
        settings, and the modules that hold the code.
    compute : callable
        Gives a mapping of names to arrays, without Python objects; they are equal, bit
        for bit, whether computed or read.

    Raises
    ------
    CacheError
        If the cache can't be written.
    """
    key = make_key(*parts)
    path = cache_dir() / name / key[:2] / f"{key[2:32]}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except FileNotFoundError:
        pass
    except DAMAGED as error:
        log.warning("%s is damaged (%s): computed again", path, error)
    result = dict(compute())
    with write_atomic(path) as temporary:
        np.savez(temporary, **result)  # type: ignore[arg-type]
    return result


def make_key(*parts: Any) -> str:
    """Return a digest, 64 hexadecimal digits, of everything that decides a result.

    Numbers, texts, arrays, tables, dataclasses, and collections of these count by their
    value; a `Path` by the content of the file; a module by the source of it and of all
    of ours that it imports, and by the versions of the packages that these import.

    Raises
    ------
    TypeError
        If a part is of another kind, whose text might leave something out.
    """
    digest = hashlib.sha256()
    for piece in _spell(parts):
        digest.update(f"{len(piece)}:".encode())
        digest.update(piece)
    return digest.hexdigest()


def _spell(part: Any) -> Iterator[bytes]:
    """Yield a part as bytes that no other part has."""
    if part is None or isinstance(part, bool | int | float | complex | str | bytes):
        yield f"{type(part).__name__} {part!r}".encode()
    elif isinstance(part, Path):
        yield f"file {compute_sha256(part)}".encode()
    elif isinstance(part, ModuleType):
        yield f"code {_hash_code(Path(str(part.__file__)))}".encode()
    elif isinstance(part, np.ndarray | np.generic):
        array = np.asarray(part)
        if array.dtype == object or array.dtype.kind == "T":
            yield from _spell(array.tolist())
        else:
            yield f"array {array.dtype.str} {array.shape}".encode()
            yield np.ascontiguousarray(array).tobytes()
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        yield f"dataclass {type(part).__qualname__}".encode()
        for field in dataclasses.fields(part):
            yield from _spell((field.name, getattr(part, field.name)))
    elif isinstance(part, Mapping):
        yield f"mapping {len(part)}".encode()
        for name in sorted(part, key=repr):
            yield from _spell((name, part[name]))
    elif isinstance(part, Set):
        yield from _spell(sorted(part, key=repr))
    elif isinstance(part, list | tuple):
        yield f"sequence {len(part)}".encode()
        for item in part:
            yield from _spell(item)
    elif hasattr(part, "to_csv"):  # a table, without importing pandas
        yield b"table " + part.to_csv().encode()
    else:
        raise TypeError(f"can't tell what decides a {type(part).__name__}")


@functools.cache
def _hash_code(file: Path) -> str:
    ours, others = list_code(file)
    found = {str(os.path.relpath(path, PACKAGE)): compute_sha256(path) for path in ours}
    text = json.dumps([found, {name: _find_version(name) for name in others}])
    return hashlib.sha256(text.encode()).hexdigest()


def list_code(file: Path) -> tuple[list[Path], list[str]]:
    """Return a module's file with all of ours that it imports, and other packages.

    Imports are read from the source, so that those inside functions count too.
    """
    ours: set[Path] = set()
    others: set[str] = set()
    waiting = [file.resolve()]
    while waiting:
        path = waiting.pop()
        if path in ours:
            continue
        ours.add(path)
        for node in ast.walk(ast.parse(path.read_bytes())):
            for name in _list_imports(node):
                waiting += _find_modules(name)
                others.add(name.partition(".")[0])
    return sorted(ours), sorted(others - {PACKAGE.name})


def _list_imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _find_modules(name: str) -> list[Path]:
    """Return our files behind an imported name; a name inside a module is not one."""
    first, *rest = name.split(".")
    if first != PACKAGE.name:
        return []
    place = PACKAGE.joinpath(*rest)
    files = [place.with_suffix(".py")] if rest else []
    return [file for file in [*files, place / "__init__.py"] if file.is_file()]


@functools.cache
def _find_version(name: str) -> str | None:
    import importlib.metadata

    try:
        return importlib.metadata.version(INSTALLED_AS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return None  # the standard library, or a name inside one of ours


def compute_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> Path:
    """Write a JSON file, whole or not at all, its keys sorted; return the path."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    with write_atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with a checksum of itself; see `unseal`."""
    plain = json.loads(json.dumps(content))  # keys are text, tuples are lists
    return {**plain, CHECKSUM: _hash_json(plain)}


def unseal(content: Any) -> dict[str, Any]:
    """Return what was sealed, as ``json.loads`` gave it back, without its checksum.

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

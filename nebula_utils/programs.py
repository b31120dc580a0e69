"""Run other programs with a progress bar, and keep other processes out meanwhile."""

import contextlib
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

_log = logging.getLogger(__name__)


class ProgramError(Exception):
    """A program can't be run or failed; the text is its reason, for a message."""


@contextlib.contextmanager
def wait_for_lock(folder: Path) -> Iterator[None]:
    """Wait until no other process works in the folder, and keep them out.

    The operating system lifts the lock when the process and the programs that it
    started have ended, however they end.

    Raises
    ------
    OSError
        If the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+b") as stream:
        if not _try_lock(stream.fileno()):
            _log.info("waiting for another process that works in %s", folder)
            while not _try_lock(stream.fileno()):
                time.sleep(0.5)
        # What `run_program` starts may outlive a killed process: it keeps the lock.
        os.set_inheritable(stream.fileno(), True)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def run_program(
    command: list[str],
    cwd: Path | None = None,
    watch: Path | None = None,
    total: int | None = None,
) -> str:
    """Run a program to its end; it speaks English and asks nothing.

    Parameters
    ----------
    command : list of str
        The program and its arguments; no shell is involved.
    cwd : Path, optional
        The folder to run it in.
    watch : Path, optional
        A folder whose growth a bar shows, on terminals only.
    total : int, optional
        The size in bytes that the folder will reach.

    Returns
    -------
    str
        What it wrote to its standard output.

    Raises
    ------
    ProgramError
        If it can't be started or ends with another status than 0.
    """
    environment = os.environ | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL,
                stdout=out, stderr=err, close_fds=False,
            )  # fmt: skip
        except OSError as error:
            raise ProgramError(f"{command[0]}: {error.strerror}") from error
        try:
            if watch:
                _show_growth(process, watch, total)
            status = process.wait()
        finally:
            if process.poll() is None:  # interrupted
                process.terminate()
                process.wait()
        out.seek(0)
        err.seek(0)
        if status:
            raise ProgramError(f"{command[0]}: {_shorten(err.read(), status)}")
        return out.read().decode(errors="replace")


def _show_growth(process: subprocess.Popen, folder: Path, total: int | None) -> None:
    before = _measure(folder)
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="Stellarium", disable=None
    ) as bar:
        bar.update(before if total else 0)
        while process.poll() is None:
            time.sleep(0.1 if bar.disable else 0.3)
            if not bar.disable:
                bar.update(max(0, _measure(folder) - bar.n))


def _measure(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # renamed or gone since it was listed
            size += path.stat().st_size
    return size


def _shorten(message: bytes, status: int) -> str:
    lines = message.decode(errors="replace").strip().splitlines()
    told = [line for line in lines if line.startswith(("E:", "fatal:", "error:"))]
    return " ".join((told or lines or [f"exit status {status}"])[-2:]).strip()

"""Disks that are full or only read: real ones, as far as one may mount them."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

DISK_BYTES = 4 << 20


class Disk:
    """A small disk of its own, mounted on a folder."""

    def __init__(self, folder: Path) -> None:
        self.ballast = folder / ".ballast"

    def fill(self, room: int) -> None:
        """Leave so many bytes."""
        self.empty()
        usage = os.statvfs(self.ballast.parent)
        free = usage.f_bavail * usage.f_frsize
        self.ballast.write_bytes(bytes(max(0, free - room)))

    def empty(self) -> None:
        """Make room again."""
        self.ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def mount_disk(folder: Path) -> Iterator[Disk]:
    """Mount a small disk in memory on a folder; skip the test where one may not."""
    options = f"size={DISK_BYTES},mode=755"
    with _mount(folder, "-t", "tmpfs", "-o", options, "tests"):
        yield Disk(folder)


@contextlib.contextmanager
def protect(folder: Path) -> Iterator[None]:
    """Let nothing below the folder be written while the block runs."""
    if os.geteuid() == 0:  # whom permissions don't stop
        with _mount(folder, "--bind", str(folder)):
            _call("mount", "-o", "remount,bind,ro", str(folder))
            yield
        return
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for one in folders:
        one.chmod(0o555)
    try:
        yield
    finally:
        for one in folders:
            one.chmod(0o755)


@contextlib.contextmanager
def _mount(folder: Path, *words: str) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    _call("mount", *words, str(folder))
    try:
        yield
    finally:
        _call("umount", "--lazy", str(folder))


def _call(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"may not mount a disk: {getattr(error, 'stderr', error)}")

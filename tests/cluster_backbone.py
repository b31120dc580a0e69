"""A network that worker processes can load: fast, and deadly on request."""

import functools
import os
import signal
import time
from pathlib import Path

import numpy as np
from synthetic import FakeBackbone

from nebula_utils.features import cluster, extraction

KILLING = (1.0, 0.0, 1.0)  # a picture that begins with magenta kills, see below


class DeadlyBackbone(FakeBackbone):
    """Die like a worker that is out of memory, as often as files are in a folder."""

    def __init__(self, folder: Path | None, seconds: float = 0) -> None:
        super().__init__()
        self.lives = folder
        self.seconds = seconds  # that a forward pass takes

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Kill the process if a magenta picture is there and a life is left."""
        if self.lives and any(np.array_equal(x[0, 0], KILLING) for x in images):
            for life in self.lives.iterdir():
                life.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        # One by one: a matrix product's last bits depend on the number of rows.
        embed = super().embed
        return np.concatenate([embed(x[None]) for x in images])


def load(name: str, engine: str = "") -> DeadlyBackbone:
    """Load a network that kills once for each file in folder ``name``."""
    return DeadlyBackbone(Path(name) if Path(name).is_dir() else None)


def load_slow(name: str, engine: str = "") -> DeadlyBackbone:
    """Load a network that leaves time for accidents."""
    return DeadlyBackbone(None, seconds=0.1)


def load_other(name: str, engine: str = "") -> DeadlyBackbone:
    """Load a network whose fingerprint differs in every process."""
    backbone = DeadlyBackbone(None)
    backbone.sha256 = f"{os.getpid()}"
    return backbone


def install() -> None:
    """Let this process and the workers it starts use the network of these tests."""
    extraction.load_backbone = load
    cluster.fill_store = functools.partial(cluster.fill_store, load=load)

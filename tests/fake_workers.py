"""A network that worker processes can load: fast, and deadly on request."""

import os
import signal
import time
from pathlib import Path

import numpy as np
from synthetic import FakeBackbone

from nebula_utils.features import survey

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
    """Load a network that kills once for each file in folder ``name``, or another."""
    if name == "other":
        network = DeadlyBackbone(None)
        network.sha256 = f"{os.getpid()}"  # another fingerprint in every process
        return network
    folder = Path(name) if Path(name).is_dir() else None
    return DeadlyBackbone(folder, seconds=0.1 if name == "slow" else 0)


def dask_setup(worker: object) -> None:
    """Let this process use the network of these tests; Dask's workers call it."""
    survey.load_backbone = load

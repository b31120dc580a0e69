"""The command `nebula` with a small network and small notebooks, else as it is.

``python tests/tiny_nebula.py WORD …`` takes the words of `nebula`. ``TINY_NOTEBOOKS``
names the folder of notebooks.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from synthetic import FakeBackbone

from nebula_utils import config
from nebula_utils.features import extraction, survey
from nebula_utils.workflow import cli

SHARD_VIEWS = 4


class SlowBackbone(FakeBackbone):
    """Take as long for a picture as a real network does."""

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Wait a little, then embed."""
        time.sleep(0.01 * len(images))
        return super().embed(images)


def main() -> int:
    """Do what the command line says."""
    survey.load_backbone = lambda *_: SlowBackbone()
    extraction.SHARD_VIEWS = SHARD_VIEWS
    config.NOTEBOOKS = Path(os.environ["TINY_NOTEBOOKS"])
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())

"""Does `nebula extract` scale: memory flat and time linear in the number of pictures.

Each size is a process of its own with an empty cache, on small JPEGs that differ in a
comment, so that none is taken for another. Run it on an idle machine:
``python benchmarks/bench_scaling.py [--sizes 1000 10000]``
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nebula_utils.config import cache_dir
from nebula_utils.features.engines import load_extractor

SIZES = (1000, 10_000)
SIDE = 256  # px
GOAL_MEMORY = 1500  # MB, feature file aside
GOAL_TIME = 1.10  # of proportional


# A child's largest memory counts its parent's, which may have TensorFlow loaded: this
# small process stands between them, and tells the peak of what it started.
LAUNCHER = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


class Row(NamedTuple):
    """What one size costs.

    Attributes
    ----------
    n_images : int
        Pictures in the folder.
    seconds : float
        Wall time of the process.
    peak : float
        Its largest resident memory, MB.
    feature_file : float
        Size of what it wrote, MB.
    """

    n_images: int
    seconds: float
    peak: float
    feature_file: float


def make_pictures(folder: Path, n_images: int) -> None:
    """Write small JPEGs whose bytes all differ, though few pictures do."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (8, 8, 8, 3), np.uint8)
    size = (SIDE, SIDE)
    pictures = [Image.fromarray(one).resize(size) for one in coarse]
    encoded = [_encode(picture) for picture in pictures]
    for number in range(n_images):
        comment = f"{number:08d}".encode()
        marker = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        content = encoded[number % len(encoded)]
        path = folder / f"{number:08d}.jpg"
        path.write_bytes(content[:2] + marker + content[2:])


def _encode(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def measure(n_images: int, backbones: Path) -> Row:
    """Extract features of new pictures in a process that finds only the networks."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch) / "pictures", Path(scratch) / "features.npz"
        folder.mkdir()
        make_pictures(folder, n_images)
        command = [sys.executable, "-m", "nebula_utils", "extract", str(folder)]
        command += ["--out", str(out)]
        cache = Path(scratch) / "cache"
        cache.mkdir()
        (cache / "backbones").symlink_to(backbones)
        environment = {**os.environ, "NEBULA_CACHE": str(cache)}
        start = time.perf_counter()
        launched = [sys.executable, "-c", LAUNCHER, *command]
        done = subprocess.run(
            launched, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        seconds = time.perf_counter() - start
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kB elsewhere
        peak = int(done.stdout) * unit / 1e6
        return Row(n_images, seconds, peak, out.stat().st_size / 1e6)


def measure_scaling(sizes: Sequence[int] = SIZES) -> list[Row]:
    """Measure each size, the smallest first.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of pictures.

    Returns
    -------
    list of Row
    """
    load_extractor()  # made now if need be: not part of what is measured
    backbones = (cache_dir() / "backbones").resolve()
    return [measure(n_images, backbones) for n_images in sorted(sizes)]


def format_table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a Markdown table, each row compared with the first."""
    first = rows[0]
    yield "| pictures | s | s a picture, of the first row's | peak MB | file MB |"
    yield "|---|---|---|---|---|"
    for row in rows:
        share = row.seconds / row.n_images / (first.seconds / first.n_images)
        cells = [f"{row.n_images:,}", f"{row.seconds:.1f}", f"{share:.2f}"]
        cells += [f"{row.peak:.0f}", f"{row.feature_file:.1f}"]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=list(SIZES),
        metavar="N",
        help="numbers of pictures; default: 1000 10000",
    )
    args = parser.parse_args()
    load = os.getloadavg()[0]
    rows = measure_scaling(args.sizes)
    print(f"load before: {load:.1f}; goals: {GOAL_MEMORY} MB, {GOAL_TIME} ×\n")
    print("\n".join(format_table(rows)))


if __name__ == "__main__":
    main()

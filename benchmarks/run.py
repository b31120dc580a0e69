"""Run the benchmarks and write reports/benchmarks.md: ratios, each to a named baseline.

    make bench

Baseline and candidate are timed in turns in the same run, medians of five or more; the
figures are ratios, as seconds say more about the machine than about the code.
"""

import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_classify import make_jpeg
from PIL import Image
from tqdm import tqdm

from nebula_utils import config, images
from nebula_utils.backbone import fetch_frozen_graph, load_backbone
from nebula_utils.classifier import load_classifier
from nebula_utils.features import Recipe, extract_features
from nebula_utils.files import write_atomic
from nebula_utils.quiet import import_tensorflow
from nebula_utils.training import fit_keras, fit_logistic

ROUNDS = 5
N_PHOTOS = 40

Pair = tuple[str, str, Callable[[], object], Callable[[], object]]


def compare(baseline: Callable[[], object], ours: Callable[[], object]) -> float:
    """Return how many times faster ours is: the median ratio of interleaved pairs."""
    ratios = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        baseline()
        middle = time.perf_counter()
        ours()
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return statistics.median(ratios)


def make_photos(folder: Path) -> list[Path]:
    """Write different 2-megapixel JPEGs."""
    picture = Image.open(io.BytesIO(make_jpeg()))
    paths = []
    for i in range(N_PHOTOS):
        path = folder / f"photo_{i:03d}.jpg"
        picture.rotate(9 * i, expand=False).save(path, quality=90)
        paths.append(path)
    return paths


def run_original_bottlenecks(paths: list[Path]) -> Callable[[], object]:
    """Give the original's way: full decode, one picture at a time, the frozen graph."""
    tf = import_tensorflow()
    graph_def = tf.compat.v1.GraphDef()
    graph_def.ParseFromString(fetch_frozen_graph().read_bytes())
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    session = tf.compat.v1.Session(graph=graph)

    def run() -> None:
        for path in paths:
            full = images.read_image(path)
            small = Image.fromarray(full).resize((224, 224), Image.Resampling.BILINEAR)
            x = (np.asarray(small, np.float32) - 127.5) / 127.5
            pool = "MobilenetV1/Logits/AvgPool_1a/AvgPool:0"
            session.run(pool, {"input:0": x[None]})

    return run


def list_pairs(folder: Path) -> list[Pair]:
    """List what is compared: what, the baseline's name, baseline, ours."""
    paths = make_photos(folder)
    backbone = load_backbone()
    classifier = load_classifier(config.MODEL)
    data = paths[0].read_bytes()
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 630)
    X = (rng.random((630, 1024)) + 0.1 * y[:, None]).astype(np.float32)
    names = ("dark", "emission")
    cached = Recipe()
    extract_features(paths, backbone, cached)
    command = [sys.executable, "-m", "nebula_utils", "classify", str(paths[0])]
    heavy = "from nebula_utils.backbone import load_backbone as b; b().embed"
    load = [sys.executable, "-c", f"{heavy}(__import__('numpy').zeros((2,224,224,3)))"]
    return [
        (
            f"features of {N_PHOTOS} two-megapixel JPEGs, cold",
            "the original's bottleneck stage: full decode, one by one, frozen graph",
            run_original_bottlenecks(paths),
            lambda: extract_features(paths, backbone, cached, use_cache=False),
        ),
        (
            f"features of {N_PHOTOS} two-megapixel JPEGs, warm",
            "the same, cold",
            lambda: extract_features(paths, backbone, cached, use_cache=False),
            lambda: extract_features(paths, backbone, cached),
        ),
        (
            "head on 630 embeddings",
            "4,000 steps of gradient descent in Keras, features in memory",
            lambda: fit_keras(X, y, names, (X[:50], y[:50])),
            lambda: fit_logistic(X, y, names),
        ),
        (
            "one upload, warm, strip included",
            "a new process that loads TensorFlow and the network",
            lambda: subprocess.run(load, check=True, capture_output=True),
            lambda: classifier.classify(data),
        ),
        (
            "one `nebula classify` process",
            "a new process that loads TensorFlow and the network",
            lambda: subprocess.run(load, check=True, capture_output=True),
            lambda: subprocess.run(command, check=True, capture_output=True),
        ),
    ]


def main() -> None:
    """Measure and write the report."""
    with tempfile.TemporaryDirectory() as scratch:
        pairs = list_pairs(Path(scratch))
        found = [
            (what, baseline, compare(slow, ours))
            for what, baseline, slow, ours in tqdm(pairs, "measuring", disable=None)
        ]
    lines = [
        "# Benchmarks",
        "",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}; load before: {os.getloadavg()[0]:.1f}. "
        f"Medians of {ROUNDS} interleaved pairs, written by `make bench`.",
        "",
        "| work | baseline | times faster |",
        "|---|---|---|",
        *(
            f"| {what} | {baseline} | {ratio:.1f} × |"
            for what, baseline, ratio in found
        ),
        "",
    ]
    with write_atomic(config.REPORTS / "benchmarks.md") as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

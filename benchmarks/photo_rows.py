"""Rows about folders of photos: whole processes, features, the warm cache, the head."""

import contextlib
import io
import itertools
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from measuring import (
    N_CORES,
    Options,
    Row,
    Step,
    Times,
    judge,
    make_cache,
    run_script,
    take_turns,
    use_cache,
)
from original import STEPS, list_photos, read_all
from scipy.special import log_softmax
from synthetic import make_photos

from nebula_utils.features.backbone import (
    FAST_BACKBONE,
    fetch_frozen_graph,
    load_backbone,
)
from nebula_utils.features.engines import load_extractor
from nebula_utils.features.extraction import extract_features
from nebula_utils.images import reading
from nebula_utils.training.fitting import fit_logistic

ORIGINAL = "the original's way"
STAGE = "the original's bottleneck stage"


class Photos:
    """The photos, and what can be done with them."""

    def __init__(self, options: Options) -> None:
        self.scratch = options.scratch
        self.folder = options.scratch / "photos"
        self.paths = make_photos(self.folder, options.n_photos)
        self.graph = fetch_frozen_graph()
        self.network = load_extractor()  # converted, too, if it was not yet
        self.fast = load_backbone(FAST_BACKBONE)
        self.numbers = itertools.count()
        self.texts = self.cache = self.scratch

    def run_original(self) -> dict[str, float]:
        """Run the original's process, with new text files."""
        self.texts = self.scratch / f"texts-{next(self.numbers)}"
        given = (self.folder, "--graph", self.graph, "--texts", self.texts)
        return run_script("original.py", *given)

    def run_keras(self) -> dict[str, float]:
        """Run Keras's process."""
        return run_script("keras_way.py", self.folder)

    def run_ours(self) -> dict[str, float]:
        """Run our process, with a cache that has no features."""
        cache = self._new_cache()
        out = cache / "features.npz"
        return run_script("ours.py", self.folder, out, cache=cache)

    def extract_cold(self) -> dict[str, float]:
        """Embed in this process; return how well the cores were used, too."""
        self.cache = self._new_cache()
        return extract(self.paths, self.network, self.cache)

    def extract_fast(self) -> dict[str, float]:
        """Embed in bfloat16."""
        return extract(self.paths, self.fast, self._new_cache())

    def extract_warm(self) -> dict[str, float]:
        """Read what `extract_cold` has written; count passes and decoded photos."""
        forward = mock.patch.object(
            self.network, "embed", side_effect=self.network.embed
        )
        decode = mock.patch.object(
            reading, "read_image", side_effect=reading.read_image
        )
        with forward as passes, decode as decoded:
            found = extract(self.paths, self.network, self.cache)
        return {**found, "done": passes.call_count + decoded.call_count}

    def fit_head(self) -> dict[str, float]:
        """Fit our head on the vectors that the original has written."""
        classes = list_photos(self.folder)
        X, y = read_all(classes, self.texts)
        start = time.perf_counter()
        head = fit_logistic(X, y, tuple(classes))
        seconds = time.perf_counter() - start
        logits = head.decision_function(X.astype(np.float64))
        loss = -log_softmax(logits, axis=1)[np.arange(len(y)), y].mean()
        return {"seconds": seconds, "loss": float(loss)}

    def _new_cache(self) -> Path:
        return make_cache(self.scratch / f"cache-{next(self.numbers)}")


def extract(paths: Sequence[Path], network, cache: Path) -> dict[str, float]:
    """Embed photos; return seconds, and wall time over CPU time a core."""
    # The bar of the embedding would stand between those of the rounds.
    with use_cache(cache), contextlib.redirect_stderr(io.StringIO()):
        start, cpu = time.perf_counter(), time.process_time()
        found = extract_features(paths, network)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    if found.failed:
        raise RuntimeError(f"{len(found.failed)} photos were left out")
    return {"seconds": wall, "idle": wall * N_CORES / cpu}


def list_steps(photos: Photos, names: Collection[str]) -> dict[str, Step]:
    """List what has to run for these rows."""
    steps: dict[str, Step] = {}
    if {"photos", "features", "head"} & set(names):
        steps["original"] = photos.run_original
    if "head" in names:
        steps["head"] = photos.fit_head
    if "photos" in names:
        steps |= {"keras": photos.run_keras, "ours": photos.run_ours}
    if {"features", "warm"} & set(names):
        steps["cold"] = photos.extract_cold
    if "warm" in names:
        steps["warm"] = photos.extract_warm
    if "features" in names:
        steps["bfloat16"] = photos.extract_fast
    return steps


def measure(options: Options, names: Collection[str]) -> list[Row]:
    """Measure the rows of these names."""
    photos = Photos(options)
    times = take_turns(list_steps(photos, names), options.rounds, "photos")
    n = f"{options.n_photos} photos"
    rows = []
    if "photos" in names:
        rows += judge_processes(times, n)
    if "features" in names:
        rows += judge_features(times, n)
    if "warm" in names:
        rows += judge_warm(times, n)
    if "head" in names:
        rows += judge_head(times)
    return rows


def judge_processes(times: Times, n: str) -> list[Row]:
    """Return the rows of whole processes."""
    work = f"{n} → trained head, cold, whole process"
    keras = "Keras `predict` once + logistic regression, whole process"
    return [
        judge(
            work,
            f"{ORIGINAL}, whole process",
            lambda: times.ratio("original", "ours"),
            15,
        ),
        judge(work, keras, lambda: times.ratio("keras", "ours"), 2, digits=2),
    ]


def judge_features(times: Times, n: str) -> list[Row]:
    """Return the rows of cold features."""
    work = f"features of {n}, cold"

    def ratio(step: str) -> float:
        return times.ratio("original", step, "bottlenecks")

    return [
        judge(work, STAGE, lambda: ratio("cold"), 3.5, digits=2),
        judge(
            f"{work}: wall time",
            "its CPU time ÷ cores",
            lambda: times.median("cold", "idle"),
            1.15,
            digits=2,
            at_most=True,
        ),
        judge(
            f"{work}, bfloat16 (an option)", STAGE, lambda: ratio("bfloat16"), digits=2
        ),
    ]


def judge_warm(times: Times, n: str) -> list[Row]:
    """Return the rows of the cache."""
    work = f"features of {n}, warm (cached)"
    return [
        judge(work, "the same, cold", lambda: times.ratio("cold", "warm")),
        judge(
            f"{work}: forward passes and decoded photos",
            "none",
            lambda: max(times.get("warm", "done")),
            0,
            "",
            0,
            at_most=True,
        ),
    ]


def judge_head(times: Times) -> list[Row]:
    """Return the rows of the head."""
    work, steps = "head on the original's features", f"the original's {STEPS:,} steps"

    def tell(step: str) -> str:
        try:
            return f"{times.median(step, 'loss'):.3g}"
        except RuntimeError:
            return "failed"

    return [
        judge(
            f"{work}, training",
            steps,
            lambda: times.ratio("original", "head", "training"),
            100,
        ),
        judge(
            f"{work}, training cross-entropy ({tell('head')})",
            f"after {steps} ({tell('original')})",
            lambda: times.ratio("head", "original", "loss", "loss"),
            1,
            digits=2,
            at_most=True,
        ),
    ]

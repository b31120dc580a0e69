"""How long an answer takes: from bytes to result, and from process start to answer.

Run it on an idle machine: ``python benchmarks/bench_classify.py [MODEL]``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from synthetic import make_jpeg

from nebula_utils import config
from nebula_utils.classifier.classifier import Classifier, load_classifier
from nebula_utils.features.views import Preprocessing
from nebula_utils.images import reading

REPEATS = 30
GOAL_WARM = 0.150  # s, median
GOAL_PROCESS = 1.5  # s


def measure(act: Callable[[], object], repeats: int = REPEATS) -> dict[str, float]:
    """Return the median wall time and the mean CPU time of a call, in seconds."""
    act()
    walls, before = [], os.times()
    for _ in range(repeats):
        start = time.perf_counter()
        act()
        walls.append(time.perf_counter() - start)
    after = os.times()
    spent = sum(after[:4]) - sum(before[:4])  # this process and its children
    return {
        "median": statistics.median(walls),
        "best": min(walls),
        "cpu": spent / repeats,
    }


def measure_parts(classifier: Classifier, data: bytes) -> dict[str, dict[str, float]]:
    """Return what each part of an answer costs."""
    names = ("as_is", *classifier.counterfactuals)
    views = tuple(
        dict.fromkeys(
            view._replace(colour=c) for c in names for view in classifier.views
        )
    )
    recipe = Preprocessing(views)
    image = reading.read_image(data, 512)
    batch = recipe.make_views(image)
    return {
        "decode": measure(lambda: reading.read_image(data, 512)),
        f"make {len(views)} views": measure(lambda: recipe.make_views(image)),
        f"embed {len(views)} views": measure(lambda: classifier._embed(batch)),
        "embed 1 view": measure(lambda: classifier._embed(batch[:1])),
        "strip for the page": measure(lambda: classifier.make_strip(image)),
        "map for the page": measure(lambda: classifier.map_evidence(image)),
    }


def measure_process(model: Path, data: bytes) -> dict[str, float]:
    """Return how long ``nebula classify one.jpg`` takes."""
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".jpg") as stream:
        stream.write(data)
        stream.flush()
        command = [sys.executable, "-m", "nebula_utils", "classify", stream.name]
        command += ["--model", str(model)]
        return measure(
            lambda: subprocess.run(command, check=True, capture_output=True), 5
        )


def main() -> None:
    """Measure and print a table, and a line of JSON to keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, default=config.MODEL)
    args = parser.parse_args()
    data, classifier = make_jpeg(), load_classifier(args.model)
    found = {"bytes to result": measure(lambda: classifier.classify(data))}
    found |= measure_parts(classifier, data)
    found["nebula classify one.jpg"] = measure_process(args.model, data)
    print(f"{len(data) / 1e6:.1f} MB JPEG; load {os.getloadavg()[0]:.1f}")
    print(f"goals: warm {GOAL_WARM} s, process {GOAL_PROCESS} s")
    print(f"{'':<26}{'median s':>10}{'best s':>10}{'CPU s':>10}")
    for name, times in found.items():
        columns = "".join(f"{times[key]:>10.3f}" for key in ("median", "best", "cpu"))
        print(f"{name:<26}{columns}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()

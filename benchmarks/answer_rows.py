"""Rows about answers: one upload of the page, one `nebula classify` process."""

import statistics
import time
from collections.abc import Collection

from bench_classify import GOAL_PROCESS, GOAL_WARM
from measuring import Options, Row, Times, judge, run_python, run_script, take_turns
from synthetic import make_jpeg

from nebula_utils.classifier.classifier import load_classifier
from nebula_utils.features.backbone import fetch_frozen_graph

N_UPLOADS = 10  # of which a round takes the median
BASELINE = "a new process with TensorFlow and the frozen graph, as the original's"


def measure(options: Options, names: Collection[str]) -> list[Row]:
    """Measure the rows of these names; they need reports/model."""
    classifier = load_classifier()  # says what to do if it is not there
    data, graph = make_jpeg(), fetch_frozen_graph()
    photo = options.scratch / "upload.jpg"
    photo.write_bytes(data)

    def upload() -> dict[str, float]:
        walls = []
        for _ in range(N_UPLOADS):
            start = time.perf_counter()
            classifier.make_strip(classifier.classify(data).picture)
            walls.append(time.perf_counter() - start)
        return {"seconds": statistics.median(walls)}

    def start_original() -> None:
        run_script("original.py", photo, "--graph", graph, "--upload")

    def start_ours() -> None:
        run_python(["-m", "nebula_utils", "classify", photo])

    upload()  # the first one makes the interpreters
    steps = {"original": start_original}
    if "upload" in names:
        steps["upload"] = upload
    if "process" in names:
        steps["process"] = start_ours
    times = take_turns(steps, options.rounds, "answers")
    return judge_answers(times, names)


def judge_answers(times: Times, names: Collection[str]) -> list[Row]:
    """Return the rows of these names."""
    rows = []
    if "upload" in names:
        work = "one upload, warm, strip included"
        rows += [
            judge(work, BASELINE, lambda: times.ratio("original", "upload"), 50),
            judge(
                f"{work}: time",
                "none",
                lambda: 1e3 * times.median("upload"),
                1e3 * GOAL_WARM,
                "ms",
                0,
                at_most=True,
            ),
        ]
    if "process" in names:
        work = "one `nebula classify` process"
        rows += [
            judge(work, BASELINE, lambda: times.ratio("original", "process")),
            judge(
                f"{work}: time",
                "none",
                lambda: times.median("process"),
                GOAL_PROCESS,
                "s",
                2,
                at_most=True,
            ),
        ]
    return rows

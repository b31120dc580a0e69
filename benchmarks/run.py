"""Measure the speed of everything against named baselines; write the report.

A baseline and what is compared with it are timed in turns, in the same run; a figure is
the median over the rounds of their ratios, as seconds say more about the machine than
about the code.
"""

import argparse
import logging
import os
import platform
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import work
from tqdm import tqdm

from nebula_utils import config
from nebula_utils.features.engines import count_cores
from nebula_utils.files import write_atomic
from nebula_utils.report.tables import fill_block, quote_benchmarks


class Row(NamedTuple):
    """A figure: ``a`` over ``b``, or ``a`` alone, of functions of `work`."""

    work: str
    baseline: str
    a: str
    b: str = ""
    goal: float | None = None
    unit: str = "×"
    at_most: bool = False


TRAIN = "{n} photos → trained head, cold, whole process"
COLD = "features of {n} photos, cold"
FORWARD = "forward passes alone"
KERAS = "Keras `predict` on the same photos"
SMALL = "`nebula extract` of {k} small pictures"
ANSWER = "one upload, warm, strip included"
PROCESS = "one `nebula classify` process"
ORIGINAL = "the original's way, whole process"
NEW_PROCESS = "a new process with TensorFlow and the frozen graph, as the original's"

ROWS = [
    Row(TRAIN, ORIGINAL, "original", "ours", 10),
    Row(f"{TRAIN}, fast engine", ORIGINAL, "original", "ours-fast", 15),
    Row(TRAIN, "Keras `predict`, logistic regression", "keras", "ours", 2),
    Row(COLD, KERAS, "keras:features", "cold", 3.5),
    Row(f"{COLD}, fast engine", KERAS, "keras:features", "cold-fast", 6),
    Row(COLD, "the original's bottleneck stage", "original:bottlenecks", "cold"),
    Row(COLD, "the floor: decoding alone + forward alone", "cold", "floor", 1.1)
    ._replace(at_most=True),
    Row(f"{COLD}, fast engine", "its floor", "cold-fast", "floor-fast", 1.1)
    ._replace(at_most=True),
    Row("the floor: decoding alone", "the floor", "floor:decoding"),
    Row("the floor, fast engine: decoding alone", "its floor", "floor-fast:decoding"),
    Row(f"{COLD}: wall time", "its CPU time ÷ cores", "cold:idle", "", 1.15)
    ._replace(at_most=True),
    Row("features of {n} photos, warm (stored)", "the same, cold", "cold", "warm"),
    Row("… forward passes and decoded photos", "none", "warm:done", "", 0, "", True),
    Row(FORWARD, "none", "floor:rate", "", None, "pictures/s"),
    Row(f"{FORWARD}, fast engine", FORWARD, "floor-fast:rate", "floor:rate"),
    *(
        Row(FORWARD, title, "floor:rate", f"peer-{name}:rate")
        for name, title in {
            "keras": "Keras `predict`",
            "tfhub": "plain TF-Hub",
            "litert": "LiteRT alone, batches of 32",
            "onnxruntime": "ONNX Runtime",
            "openvino": "OpenVINO float32",
            "openvino_bf16": "OpenVINO, bfloat16 throughout",
        }.items()
    ),
    Row("reduced decoding of 96 textures: median cosine", "full, antialiased",
        "fidelity:median", "", 0.999, ""),
    Row("reduced decoding of 96 textures: worst cosine", "full, antialiased",
        "fidelity:worst", "", 0.99, ""),
    Row("fast engine: median cosine", "float32", "fidelity_fast:median", "", 0.998, ""),
    Row("fast engine: worst cosine", "float32", "fidelity_fast:worst", "", 0.99, ""),
    Row(ANSWER, NEW_PROCESS, "original_upload", "upload", 50),
    Row(ANSWER, "none", "upload", "", 0.080, "s", True),
    Row(PROCESS, NEW_PROCESS, "original_upload", "process"),
    Row(PROCESS, "none", "process", "", 0.5, "s", True),
    *(
        Row(f"{SMALL.format(k=f'{n:,}')}: largest memory", "none", f"many-{n}:MB", "",
            600, "MB", True)
        for n in (10_000, 50_000)
    ),
    Row(f"{SMALL.format(k='50,000')}: time a picture", "of 10,000", "many-50000:each",
        "many-10000:each", 1.1, "×", True),
    Row(f"{SMALL.format(k='10,000')}, Dask with 1 process", "none", "cluster-1:rate",
        "", None, "pictures/s"),
    Row(f"{SMALL.format(k='10,000')}, Dask with 2 processes", "1 process",
        "cluster-1", "cluster-2"),
]  # fmt: skip
ONCE = ("many", "cluster", "fidelity", "peer")  # too long for every round, or exact
REPORT = config.REPORTS / "benchmarks.md"
README = config.REPOSITORY / "README.md"
EPILOG = """examples:
  make bench                                 everything, about 25 minutes
  python benchmarks/run.py --rounds 1 --photos 40 --skip many cluster --out /tmp/b.md
                                             does it all work? a few minutes
  python benchmarks/run.py --only upload     some rows; printed, not written

Run it on an idle machine: the report says how busy it was. Rows that could not be
measured say why. With the default report, the README's table is renewed, too."""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=int, default=5, metavar="N", help="default: 5")
    add("--photos", type=int, default=630, metavar="N", help="at least 20")
    add("--only", nargs="+", metavar="NAME", help="rows whose functions begin so")
    add("--skip", nargs="+", default=[], metavar="NAME", help="not these")
    add("--out", type=Path, help="the report; default: reports/benchmarks.md")
    args = parser.parse_args()
    if args.photos < 20 or args.rounds < 1:
        parser.error("give at least 20 photos and 1 round")
    if args.out is None and not args.only and not args.skip:
        args.out = REPORT
    return args


def choose_rows(only: Sequence[str] | None, skip: Sequence[str]) -> list[Row]:
    """Return the rows that are to be measured."""

    def begins(row: Row, names: Sequence[str]) -> bool:
        return any(f.startswith(tuple(names)) for f in (row.a, row.b) if f and names)

    return [r for r in ROWS if (not only or begins(r, only)) and not begins(r, skip)]


def measure(
    bench: work.Bench, rows: Sequence[Row], rounds: int
) -> dict[str, list[dict[str, float]] | str]:
    """Run what the rows need in turns; return figures, or why there are none."""
    names = [f.partition(":")[0] for row in rows for f in (row.a, row.b) if f]
    found: dict[str, list[dict[str, float]] | str] = {n: [] for n in names}
    turns = [(n, i) for i in range(rounds) for n in found]
    turns = [(n, i) for n, i in turns if i == 0 or not n.startswith(ONCE)]
    for name, _ in tqdm(turns, disable=None):
        known = found[name]
        if isinstance(known, str):
            continue
        try:
            figures = work.find(name)(bench)
        except Exception as error:  # after many minutes the other rows still count
            logging.warning("%s failed: %s", name, error)
            found[name] = " ".join(str(error).split()).replace("|", "/")[:120]
            continue
        known.append(figures if isinstance(figures, dict) else {"seconds": figures})
    return found


def judge(row: Row, found: dict[str, list[dict[str, float]] | str], n: int) -> str:
    """Return the row's line of the report."""
    columns = []
    for name, _, figure in (f.partition(":") for f in (row.a, row.b) if f):
        figures, sign = found[name], "≤" if row.at_most else "≥"
        goal = "–" if row.goal is None else f"{sign} {row.goal:,g} {row.unit}".rstrip()
        if isinstance(figures, str):
            cells = (row.work, row.baseline, f"failed: {figures}", goal, "no")
            return f"| {' | '.join(cells)} |".format(n=n)
        columns.append([one[figure or "seconds"] for one in figures])
    if row.b:  # what is done once is compared with what is done once
        columns = [[a / b for a, b in zip(*columns, strict=False)]]
    value = statistics.median(columns[0])
    reached = (
        value <= row.goal
        if row.at_most and row.goal is not None
        else (row.goal is not None and value >= row.goal)
    )
    verdict = "–" if row.goal is None else "yes" if reached else "no"
    digits = 5 if "cosine" in row.work else 0 if value >= 100 else 2
    measured = f"{value:,.{digits}f} {row.unit}".rstrip()
    return f"| {row.work} | {row.baseline} | {measured} | {goal} | {verdict} |".format(
        n=n
    )


def describe(bench: work.Bench, rounds: int, load: float) -> str:
    """Name processor, engines and how it was measured; no host."""
    processor, cpuinfo = platform.machine(), Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        text = cpuinfo.read_text(encoding="utf-8")
        name = text.partition("model name")[2].split("\n")[0].strip("\t :")
        units = [u for u in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if u in text]
        processor = f"{name or processor} ({', '.join(units)})"
    return (
        f"{platform.system()}, {processor}, {count_cores()} cores, Python "
        f"{platform.python_version()}; {bench.network.engine.title}, fast engine "
        f"{bench.fast.engine.title}; load before: {load:.1f}. Medians of {rounds} "
        "interleaved rounds, written by `make bench`; photos are generated JPEGs of 2 "
        "megapixels."
    )


def main() -> None:
    """Measure, print and write the report."""
    args, load = parse_arguments(), os.getloadavg()[0]
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    rows = choose_rows(args.only, args.skip)
    with tempfile.TemporaryDirectory() as scratch:
        bench = work.Bench(Path(scratch), args.photos)
        found = measure(bench, rows, args.rounds)
        about = describe(bench, args.rounds, load)
    table = ["| work | baseline | measured | goal | reached |", "|---|---|---|---|---|"]
    table += [judge(row, found, args.photos) for row in rows]
    text = "\n".join(["# Benchmarks", "", about, "", *table, ""])
    print(text)
    if args.out:
        with write_atomic(args.out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if args.out == REPORT:
        readme = README.read_text(encoding="utf-8")
        readme = fill_block(readme, "benchmarks", quote_benchmarks(text))
        with write_atomic(README) as temporary:
            temporary.write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Measure the speed of everything against named baselines; write the report.

A baseline and what is compared with it are timed in turns, in the same run; a figure is
the median over the rounds of their ratios, as seconds say more about the machine than
about the code.
"""

import argparse
import importlib
import logging
import os
import platform
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from measuring import N_CORES, Options, Row, fail

from nebula_utils import config
from nebula_utils.files import write_atomic
from nebula_utils.report.tables import fill_block, quote_benchmarks

# Which module measures which rows. A module is imported when its turn comes, so that a
# broken one costs its own rows only.
MODULES = {
    "photo_rows": {
        "photos": "photos to a trained head: whole processes, nothing cached",
        "features": "features of photos, nothing cached, in float32 and bfloat16",
        "warm": "the same features from the cache",
        "head": "training the head, and the loss it reaches",
    },
    "fidelity_rows": {
        "fidelity": "what reduced decoding and bfloat16 change in the embeddings",
    },
    "study_rows": {
        "validation": "all fits of a cross-validation by nebula",
        "intervals": "intervals by resampling nebulae",
    },
    "answer_rows": {
        "upload": "one answer of the page (needs reports/model)",
        "process": "one `nebula classify` process (needs reports/model)",
    },
    "scaling_rows": {
        "scaling": "memory and time of `nebula extract` on many small pictures",
    },
}
NAMES = {name: about for names in MODULES.values() for name, about in names.items()}
ROUNDS, N_PHOTOS = 5, 630
REPORT = config.REPORTS / "benchmarks.md"
README = config.REPOSITORY / "README.md"

EPILOG = f"""rows:
{chr(10).join(f"  {name:<11}{about}" for name, about in NAMES.items())}

examples:
  make bench                                          everything, about 15 minutes
  python benchmarks/run.py --rounds 1 --photos 40 --out /tmp/bench.md
                                                      does it all work? a few minutes
  python benchmarks/run.py --only upload intervals    some rows; printed, not written

Run it on an idle machine: the report says how busy it was. Rows that could not be
measured say why, and the others are written all the same. With the default report,
the README's table is renewed, too."""


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=read_count, default=ROUNDS, metavar="N", help="default: 5")
    add(
        "--photos",
        type=read_count,
        default=N_PHOTOS,
        metavar="N",
        help="2-megapixel photos that are generated, at least 20; default: 630",
    )
    add("--only", nargs="+", choices=NAMES, metavar="NAME", help="only these rows")
    add("--out", type=Path, help="the report; default: reports/benchmarks.md")
    args = parser.parse_args(given)
    if args.photos < 20:
        parser.error("--photos must be at least 20: the head has to learn something")
    if args.out is None and not args.only:
        args.out = REPORT
    return args


def read_count(text: str) -> int:
    """Read a number of at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def describe_machine() -> str:
    """Name system, processor and Python; no host."""
    processor = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        models = [x.split(":")[1].strip() for x in lines if x.startswith("model name")]
        processor = f"{models[0]} ({processor})" if models else processor
    return (
        f"{platform.system()}, {processor}, {N_CORES} cores, "
        f"Python {platform.python_version()}"
    )


def measure_all(options: Options, names: Collection[str]) -> Iterator[list[Row]]:
    """Yield the rows so far, after each module."""
    rows: list[Row] = []
    for module, known in MODULES.items():
        wanted = [name for name in known if name in names]
        if not wanted:
            continue
        try:
            rows += importlib.import_module(module).measure(options, wanted)
        except Exception as error:  # after many minutes the other rows still count
            logging.warning("%s: %s", module, error, exc_info=True)
            rows += [fail(known[name], "–", error) for name in wanted]
        yield rows


def write_report(rows: Sequence[Row], head: str) -> str:
    """Return the report as Markdown."""
    lines = ["# Benchmarks", "", head, ""]
    lines += [f"| {' | '.join(Row._fields)} |", "|---" * len(Row._fields) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, ""])


def write_text(path: Path, text: str) -> None:
    """Replace a file whole."""
    with write_atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main() -> None:
    """Measure, print, and write the report after each module."""
    args = parse_arguments()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    rounds = f"{args.rounds} interleaved round{'s'[: args.rounds > 1]}"
    head = (
        f"{describe_machine()}; load before: {os.getloadavg()[0]:.1f}. Medians of "
        f"{rounds}, written by `make bench`; "
        "photos are generated JPEGs of 2 megapixels."
    )
    text = ""
    with tempfile.TemporaryDirectory() as scratch:
        options = Options(args.rounds, args.photos, Path(scratch))
        for rows in measure_all(options, args.only or NAMES):
            text = write_report(rows, head)
            if args.out:
                write_text(args.out, text)
    print(text)
    if args.out == REPORT:
        readme = README.read_text(encoding="utf-8")
        write_text(README, fill_block(readme, "benchmarks", quote_benchmarks(text)))


if __name__ == "__main__":
    main()

"""Run notebooks and tests with other processors' kernels; tell what differs.

    python tests/portable.py [--notebooks-only] [SETTING …]

Each setting starts from an empty feature cache and ends in one row: checked cells and
tests that failed, and how far the scores are from the committed ones, as a share of
the room that `metrics_tolerance` gives them. `make test-portable` runs all settings,
which takes as many times as long as `make test`.

oneDNN (TensorFlow) and OpenBLAS (NumPy) have switches for their kernels. XNNPACK
(LiteRT) has none, so two settings let every library take the processor for an older
one, by answering CPUID otherwise (`other_processor.c`; x86-64 Linux with cc).
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from metrics_tolerance import Difference, compare_metrics

from nebula_utils.config import REPOSITORY, cache_dir
from nebula_utils.workflow.pipeline import KERNEL_ENVIRONMENT

OTHER_PROCESSOR = Path(__file__).parent / "other_processor.c"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
SETTINGS = {
    "as-it-is": {},
    "sse41": {"ONEDNN_MAX_CPU_ISA": "SSE41", "OPENBLAS_CORETYPE": "Nehalem"},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell"},
    "no-onednn": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "avx2-cpu": {"NEBULA_CPU": "avx2"},
    "avx-cpu": {"NEBULA_CPU": "avx"},
    "1-thread": dict.fromkeys(THREADS, "1"),
    "2-threads": dict.fromkeys(THREADS, "2"),
}
KEPT = ("downloads", "stellarium")  # of the cache: what was fetched, not computed
ROW = "{:<12} {:>6} {:>6}  {:<52} {:>7}"


def main() -> int:
    """Run the settings; 1 if anything failed under one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--notebooks-only", action="store_true")
    args = parser.parse_args()
    if unknown := set(args.settings) - set(SETTINGS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    print(ROW.format("kernels", "cells", "tests", "largest difference of a score", "s"))
    failed = False
    for name in args.settings or SETTINGS:
        started = time.monotonic()
        cells, tests, told = run_setting(name, args.notebooks_only)
        seconds = round(time.monotonic() - started)
        print(ROW.format(name, cells, tests, told, seconds), flush=True)
        failed |= bool(cells or tests)
    return int(failed)


def run_setting(name: str, notebooks_only: bool = False) -> tuple[int, int, str]:
    """Run notebooks and tests; return how many failed of each, and what differs."""
    fresh = REPOSITORY / ".check" / "reports"
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **KERNEL_ENVIRONMENT, **SETTINGS[name]}
        if "NEBULA_CPU" in environment:
            library = build_other_processor(Path(folder))
            if not library:
                return 0, 0, "not tried: this machine can't answer CPUID otherwise"
            environment["LD_PRELOAD"] = str(library)
        for kept in KEPT:
            if (cache_dir() / kept).exists():
                (Path(folder) / kept).symlink_to(cache_dir() / kept)
        environment |= {"NEBULA_CACHE": folder, "NEBULA_FRESH_REPORTS": str(fresh)}
        cells = run_pytest([sys.executable, "scripts/check_notebooks.py"], environment)
        told = describe_differences(compare_with_committed(fresh / "metrics.json"))
        if notebooks_only:
            return cells, 0, told
        words = [sys.executable, "-m", "pytest", "tests", "-q", "-n", "2"]
        words += ["--dist", "loadfile", "-m", "not browser", "-p", "no:cacheprovider"]
        return cells, run_pytest(words, environment), told


def build_other_processor(folder: Path) -> Path | None:
    """Compile what answers CPUID otherwise; None where that can't work."""
    library = folder / "other_processor.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library)]
    probe = {**os.environ, "NEBULA_CPU": "avx2", "LD_PRELOAD": str(library)}
    try:
        subprocess.run([*command, str(OTHER_PROCESSOR), "-ldl"], check=True)
        subprocess.run([sys.executable, "-c", ""], env=probe, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return library


def run_pytest(words: list[str], environment: dict[str, str]) -> int:
    """Return how many tests failed; their names go to stderr."""
    done = subprocess.run(
        words, cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            print(line, file=sys.stderr)
    counts = re.findall(r"(\d+) (?:failed|errors?)", lines[-1] if lines else "")
    return sum(map(int, counts)) or int(done.returncode != 0)


def compare_with_committed(path: Path) -> list[Difference]:
    """Return all that differs from the committed metrics, the farthest first."""
    committed = json.loads((REPOSITORY / "reports" / "metrics.json").read_text("utf-8"))
    fresh = json.loads(path.read_text("utf-8")) if path.exists() else None
    found = compare_metrics(committed, fresh)
    return sorted(found, key=lambda one: -one.found / (one.room or 1e-9))


def describe_differences(found: list[Difference]) -> str:
    """Say how many numbers differ and which is the farthest."""
    if not found:
        return "none"
    first = found[0]
    share = first.found / (first.room or 1e-9)
    return f"{len(found)} differ; {share:.0%} of its room: {first.where}"


if __name__ == "__main__":
    sys.exit(main())

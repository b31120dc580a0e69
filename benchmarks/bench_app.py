"""Serve many people at once: is each answered, and how much memory does it take.

Starts the page as `nebula app` does, opens it N times in one Chromium, uploads a
2-megapixel JPEG everywhere at once, and reads the memory of all kernels.
``python benchmarks/bench_app.py [--people 10] [--notebook NOTEBOOK]``
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from synthetic import make_jpeg

from nebula_utils import config
from nebula_utils.classifier.serving import (
    limit_memory,
    list_options,
    make_environment,
)

FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --no-first-run"
PATIENCE = 180_000  # ms


def start_server(notebook: Path, port: int) -> subprocess.Popen:
    """Serve a notebook with the limits of `nebula app`; wait for the port."""
    command = [sys.executable, "-m", "voila", str(notebook), f"--port={port}"]
    server = subprocess.Popen(
        [*command, *list_options()],
        cwd=config.REPOSITORY,
        env={**os.environ, **make_environment()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=limit_memory,
    )
    while server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.2)
    return server


def find_children(parent: int) -> list[int]:
    """Return the processes that a process has started."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in found.split()]


def read_memory(pid: int) -> float:
    """Return a process's proportional share of memory, MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def ask(pages: list[Page], path: Path) -> list[float]:
    """Upload to all pages at once; return the seconds until each has its answer."""
    start = time.perf_counter()
    for page in pages:
        page.set_input_files(".nebula-drop-input", path)
    times = []
    for page in pages:
        page.wait_for_selector(".nebula-answer", timeout=PATIENCE)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument(
        "--notebook", type=Path, default=config.NOTEBOOKS / "06_classifier.ipynb"
    )
    args = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start_server(args.notebook.resolve(), port)
    time.sleep(8)  # for the waiting kernel
    try:
        with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "two_megapixels.jpg"
            path.write_bytes(make_jpeg())
            chromium = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=FLAGS.split()
            )
            pages = [chromium.new_page() for _ in range(args.people)]
            start = time.perf_counter()
            for page in pages:
                page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
            ready = []
            for page in pages:
                page.wait_for_selector(".nebula-drop", timeout=PATIENCE)
                ready.append(time.perf_counter() - start)
            print(f"pages ready: first {min(ready):.1f} s, last {max(ready):.1f} s")
            idle = [read_memory(pid) for pid in find_children(server.pid)]
            print(f"memory before: {sum(idle):.0f} MB, largest {max(idle):.0f} MB")
            times = ask(pages, path)
            print(f"answers: {len(times)} of {args.people}, last {max(times):.1f} s")
            kernels = [read_memory(pid) for pid in find_children(server.pid)]
            print(
                f"memory: server {read_memory(server.pid):.0f} MB, {len(kernels)} "
                f"kernels {sum(kernels):.0f} MB, largest {max(kernels):.0f} MB"
            )
            for page in pages:
                page.goto("about:blank")  # as a visitor leaves; close() says no word
            time.sleep(5)
            left = len(find_children(server.pid))
            print(f"5 s after all have left: {left} kernels are left")
            chromium.close()
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    main()

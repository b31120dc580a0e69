"""The limits of the served page."""

import asyncio
import json
import re
import subprocess
import sys

import pytest
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError

from nebula_utils.classifier.serving import LimitedKernelManager, make_environment
from nebula_utils.classifier.upload import STATIC
from nebula_utils.config import REPOSITORY

CONFIG = json.loads((REPOSITORY / "voila.json").read_text())


def test_no_more_kernels_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The visitor after the last one gets 503 at once, and no process."""

    async def start(self: object, **kwargs: object) -> str:
        return "started"

    monkeypatch.setattr(AsyncMappingKernelManager, "start_kernel", start)
    manager = LimitedKernelManager(max_kernels=2)
    assert asyncio.run(manager.start_kernel()) == "started"
    manager._kernels = {"a": None, "b": None}
    with pytest.raises(HTTPError, match="Too many visitors"):
        asyncio.run(manager.start_kernel())


def test_memory_is_limited_in_what_a_process_starts() -> None:
    """Above the limit there is a MemoryError, which becomes a clear message."""
    code = """
import numpy as np, subprocess, sys
from nebula_utils.classifier.serving import limit_memory
limit_memory(2 * 1024**3)
child = "import resource; print(resource.getrlimit(resource.RLIMIT_AS)[0])"
subprocess.run([sys.executable, "-c", child])
try:
    np.ones(3 * 1024**3, np.uint8)
except MemoryError:
    print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.stdout.split() == [str(2 * 1024**3), "refused"]


def test_settings_are_safe() -> None:
    """Only this machine, no sources, no tracebacks, no files, bounded and culled."""
    assert CONFIG["Voila"]["ip"] == "127.0.0.1"
    voila = CONFIG["VoilaConfiguration"]
    assert voila["strip_sources"] and not voila["show_tracebacks"]
    assert voila["file_allowlist"] == [] and voila["allow_template_override"] == "NO"
    assert voila["multi_kernel_manager_class"].endswith("LimitedKernelManager")
    assert CONFIG["LimitedKernelManager"]["max_kernels"] <= 32
    # A page in a tab at the back may send its sign of life once a minute only.
    assert 120 < CONFIG["MappingKernelManager"]["cull_idle_timeout"] <= 300
    size = CONFIG["Voila"]["tornado_settings"]["websocket_max_message_size"]
    assert size > 2_000_000  # a piece of an upload, or the report of a hundred pictures


def test_served_processes_know_that_they_are_served() -> None:
    """The variable that hides the path field is set."""
    assert make_environment()["NEBULA_SERVED"] == "1"
    assert "NEBULA_PUBLIC" not in make_environment()
    assert make_environment(is_public=True)["NEBULA_PUBLIC"] == "1"


def test_a_full_house_does_not_end_preheating(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a place is free again a process waits for the next visitor again."""

    async def end(self: object, kernel_id: str, **kwargs: object) -> None:
        return None

    async def fail() -> None:
        raise HTTPError(503)

    async def play() -> list[str]:
        refused = asyncio.ensure_future(fail())
        await asyncio.wait([refused])
        manager = LimitedKernelManager()
        manager._pools, filled = {"page.ipynb": [refused]}, []
        manager.fill_if_needed = lambda notebook_name: filled.append(notebook_name)
        await manager.shutdown_kernel("a")
        assert manager._pools == {"page.ipynb": []}
        return filled

    monkeypatch.setattr(AsyncMappingKernelManager, "shutdown_kernel", end)
    assert asyncio.run(play()) == ["page.ipynb"]


def test_a_served_process_loads_only_what_it_needs() -> None:
    """No TensorFlow, pandas, SciPy, matplotlib or astropy in a visitor's process."""
    code = """
import sys
from nebula_utils.classifier import widget
from nebula_utils.classifier.classifier import load_classifier
heavy = "tensorflow pandas scipy sklearn matplotlib astropy dask skimage tqdm pyarrow"
print([name for name in heavy.split() if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_our_files_name_no_other_host() -> None:
    """Nothing that we send to a browser has an address in it."""
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    assert len(files) == 7
    for path in files:  # a picture in the text itself names its format, not a place
        text = re.sub(r'url\("data:[^"]*"\)', "", path.read_text())
        assert not re.search(r"https?://|@import|url\(", text), path

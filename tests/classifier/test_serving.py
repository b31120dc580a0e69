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
from nebula_utils.images.reading import MAX_BYTES

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
    assert 0 < CONFIG["MappingKernelManager"]["cull_idle_timeout"] <= 3600
    size = CONFIG["Voila"]["tornado_settings"]["websocket_max_message_size"]
    assert size > MAX_BYTES


def test_served_processes_know_that_they_are_served() -> None:
    """The variable that hides the path field is set."""
    assert make_environment()["NEBULA_SERVED"] == "1"


def test_our_files_name_no_other_host() -> None:
    """Nothing that we send to a browser has an address in it."""
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:  # a picture in the text itself names its format, not a place
        text = re.sub(r'url\("data:[^"]*"\)', "", path.read_text())
        assert not re.search(r"https?://|@import|url\(", text), path

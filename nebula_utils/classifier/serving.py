"""Limits of the served page: how many people at once, and how much memory each.

Voilà starts one process a visitor (a *kernel*), which ends when the page is closed, or
a while after its last sign of life: a page sends one every 25 s, until it goes to sleep
by itself (`page.js`).
"""

import logging
import os
import sys
from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from traitlets import Int
from voila.voila_identity_provider import VoilaIdentityProvider

from nebula_utils.classifier.upload import PUBLIC, SERVED, STATIC
from nebula_utils.config import REPOSITORY

TEMPLATE = "nebula"  # Voilà's page without what it loads from the internet
MAX_KERNELS = 16
MAX_MEMORY = 4 * 1024**3  # bytes of address space a process


class LimitedKernelManager(AsyncMappingKernelManager):
    """Refuse to start more than ``max_kernels`` processes at once."""

    max_kernels = Int(
        MAX_KERNELS, config=True, help="Most visitors at once, the waiting one included"
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.log.addFilter(_tells_something)

    async def start_kernel(self, **kwargs: Any) -> str:  # type: ignore[override]
        """Start a process for a visitor; 503 if there are as many as may be."""
        if len(self) >= self.max_kernels:
            raise HTTPError(503, "Too many visitors: try again in a few minutes")
        return str(await super().start_kernel(**kwargs))

    async def shutdown_kernel(  # type: ignore[override]
        self, kernel_id: str, *args: Any, **kwargs: Any
    ) -> None:
        """End a process; where all places were taken, warm one up again.

        Voilà fills its pool of waiting processes only when one is taken from it, so
        that after one full house there would never be a waiting one again.
        """
        await super().shutdown_kernel(kernel_id, *args, **kwargs)
        me: Any = self  # Voilà makes its own class of this one, with the pools
        for name, pool in list(getattr(me, "_pools", {}).items()):
            failed = [t for t in pool if t.done() and (t.cancelled() or t.exception())]
            pool[:] = [task for task in pool if task not in failed]
            if not pool:
                me.fill_if_needed(notebook_name=name)


class NoLogin(VoilaIdentityProvider):
    """Have no pages to log in or out, which Voilà can't draw; a proxy asks."""

    def get_handlers(self) -> list[tuple[str, object]]:
        """Return no addresses."""
        return []


def list_options() -> list[str]:
    """Return Voilà's options beside those in voila.json."""
    # Sockets in a folder that only this user can open, not ports of 127.0.0.1.
    transport = ["--KernelManager.transport=ipc"] if sys.platform == "linux" else []
    return [f"--template={TEMPLATE}", *transport]


def limit_memory(n_bytes: int = MAX_MEMORY) -> None:
    """Limit the address space of this process and of all that it starts.

    A picture that needs more gets an answer that says so, and no one else suffers.
    Windows has no such limit.
    """
    try:
        import resource  # Unix only
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or n_bytes < hard:
        resource.setrlimit(resource.RLIMIT_AS, (n_bytes, hard))


def make_environment(is_public: bool = False) -> dict[str, str]:
    """Return the variables of Voilà and its kernels; public means for others, too."""

    def put_first(folder: str, variable: str) -> str:
        return os.pathsep.join(filter(None, (folder, os.environ.get(variable))))

    return {
        SERVED: "1",  # no paths of this machine may be typed
        **({PUBLIC: "1"} if is_public else {}),
        # A process a visitor: few memory pools, and none kept that is not needed.
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_TRIM_THRESHOLD_": "1000000",
        "JUPYTER_PATH": put_first(str(STATIC / "jupyter"), "JUPYTER_PATH"),
        "PYTHONPATH": put_first(str(REPOSITORY), "PYTHONPATH"),
    }


def _tells_something(record: logging.LogRecord) -> bool:
    # That our own notebook was never "trusted" in JupyterLab has no meaning here.
    return "is not trusted" not in str(record.msg)

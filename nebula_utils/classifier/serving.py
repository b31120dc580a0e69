"""Limits of the served page: how many people at once, and how much memory each.

Voilà starts one process a visitor (a *kernel*), which ends when the page is closed.
"""

import os
from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from traitlets import Int

from nebula_utils.classifier.upload import STATIC
from nebula_utils.config import REPOSITORY

TEMPLATE = "nebula"  # Voilà's page without what it loads from the internet
MAX_KERNELS = 16
MAX_MEMORY = 4 * 1024**3  # bytes of address space a process


class LimitedKernelManager(AsyncMappingKernelManager):
    """Refuse to start more than ``max_kernels`` processes at once."""

    max_kernels = Int(
        MAX_KERNELS, config=True, help="Most visitors at once, the waiting one included"
    )

    async def start_kernel(self, **kwargs: Any) -> str:  # type: ignore[override]
        """Start a process for a visitor.

        Raises
        ------
        HTTPError
            503, if there are as many visitors as may be.
        """
        if len(self) >= self.max_kernels:
            raise HTTPError(503, "Too many visitors: try again in a few minutes")
        return str(await super().start_kernel(**kwargs))


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


def make_environment() -> dict[str, str]:
    """Return the variables that Voilà and its kernels need to find our files."""

    def put_first(folder: str, variable: str) -> str:
        return os.pathsep.join(filter(None, (folder, os.environ.get(variable))))

    return {
        "NEBULA_SERVED": "1",  # no paths of this machine may be typed
        "JUPYTER_PATH": put_first(str(STATIC / "jupyter"), "JUPYTER_PATH"),
        "PYTHONPATH": put_first(str(REPOSITORY), "PYTHONPATH"),
    }

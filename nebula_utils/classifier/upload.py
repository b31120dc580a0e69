"""The page's ways in: files, built-in pictures, paths; and the limits of each.

ipywidgets' FileUpload sends a file as one message, which breaks the connection above
the server's limit without a word, and has no drop area. `WaysIn` sends pieces below
one megabyte, each answered before the next, so that there is nothing to break; the
kernel never holds more than one file. The browser keeps the queue.
"""

import logging
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from nebula_utils.config import PICTURE_SUFFIXES
from nebula_utils.images.decoding import MAX_BYTES

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
MAX_BYTES_SERVED = 60_000_000
MAX_FILES = 100
MAX_NAME = 80  # characters of a file's name that are shown
SERVED, PUBLIC = "NEBULA_SERVED", "NEBULA_PUBLIC"


class WaysIn(anywidget.AnyWidget):
    """Choose, drop or paste pictures, take a built-in one, or type a path.

    What happens calls methods of the page, a `widget.ClassifierApp`; ``examples`` names
    the built-in pictures.
    """

    _esm = STATIC / "page.js"
    _css = STATIC / "app.css"

    max_bytes = traitlets.Int(0).tag(sync=True)
    max_files = traitlets.Int(MAX_FILES).tag(sync=True)
    suffixes = traitlets.List(traitlets.Unicode(), [*PICTURE_SUFFIXES]).tag(sync=True)
    examples = traitlets.List(traitlets.Unicode()).tag(sync=True)
    allow_paths = traitlets.Bool(False).tag(sync=True)
    is_served = traitlets.Bool(False).tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        page: Any,
        examples: Sequence[str] = (),
        allow_paths: bool = False,
        max_bytes: int = MAX_BYTES_SERVED,
    ) -> None:
        super().__init__(
            max_bytes=max_bytes,
            examples=list(examples),
            allow_paths=allow_paths,
            is_served=is_served(),
        )
        # What the browser may change of our traits must not loosen these.
        self._max_bytes, self._may_read_paths = max_bytes, allow_paths
        self._page = page
        self._left = 0
        self._name: str | None = None
        self._data = bytearray()
        self.on_msg(self._answer)

    def save(self, name: str, mime: str, content: bytes) -> None:
        """Let the browser save a file."""
        self.send({"kind": "save", "name": name, "mime": mime}, [content])

    def _answer(self, _: Any, content: Any, buffers: list) -> None:
        # Every message gets one reply, whatever happens, or the page would wait.
        reply: dict[str, Any] = {"kind": "ok"}
        try:
            self._take(dict(content), buffers)
        except UploadError as error:
            self._forget()
            reply = {"kind": "refused", "reason": str(error)}
        except Exception:
            self._forget()
            log.exception("a message of the page failed")
            reply = {"kind": "refused", "reason": "it failed here: try again"}
        token = content.get("token") if isinstance(content, dict) else None
        self.send({**reply, "token": token})

    def _take(self, content: dict, buffers: list) -> None:
        kind = content.get("kind")
        if kind == "ping":
            return
        if kind == "begin":
            self._left = MAX_FILES
            self._page.begin()
        elif kind == "open":
            self._open(str(content["name"]), int(content["size"]))
        elif kind == "piece" and self._name is not None:
            self._add(buffers[0])
        elif kind == "close" and self._name is not None:
            name, data = self._name, bytes(self._data)
            self._forget()
            self._hand_over(name, data)
        elif kind == "example":
            self._page.take_example(int(content["index"]))
        elif kind == "path" and self._may_read_paths:
            self._page.take_path(str(content["path"]))
        elif kind == "row":
            self._page.open_row(int(content["index"]))
        elif kind == "end":
            self._page.end(int(content.get("left", 0)))
        else:
            raise UploadError("the upload got out of step: try again")

    def _hand_over(self, name: str, data: bytes) -> None:
        try:
            self._page.take(name, data)
        except Exception:
            log.exception("a picture failed")
            self._page.refuse(name, "it failed here: try again, or another file")

    def _open(self, name: str, size: int) -> None:
        self._forget()
        shown = clean_name(name)
        if self._left < 1:
            reason = f"not taken: at most {MAX_FILES} files at once"
        elif not 0 <= size <= self._max_bytes:
            reason = explain_limit(f"{size / 1e6:.0f} MB", self._max_bytes)
        else:
            self._left -= 1
            self._name = shown
            return
        self._page.refuse(shown, reason)
        raise UploadError(reason)

    def _add(self, piece: memoryview) -> None:
        if len(self._data) + len(piece) > self._max_bytes:
            raise UploadError(explain_limit("it", self._max_bytes))
        self._data += piece

    def _forget(self) -> None:
        self._name = None
        self._data = bytearray()


class UploadError(ValueError):
    """A file is not taken; the message is shown beside the button."""


def is_served() -> bool:
    """Say whether this process answers a served page, not somebody's own notebook."""
    return any(name.startswith(("VOILA_", SERVED)) for name in os.environ)


def get_max_bytes() -> int:
    """Return the largest file that is taken: less where the page is for others."""
    mine = SERVED in os.environ and PUBLIC not in os.environ
    return MAX_BYTES if mine or not is_served() else MAX_BYTES_SERVED


def explain_limit(found: str, limit: int) -> str:
    """Say that a file is above the limit, in bytes."""
    return f"not taken, {found} is above {limit / 1e6:.0f} MB: save a smaller copy"


def clean_name(name: str) -> str:
    """Return what may be shown of a file's name: its last part, printable and short.

    It is never empty, without control and direction-changing characters; it still needs
    escaping in HTML.
    """
    last = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    shown = "".join(c for c in last if unicodedata.category(c)[0] != "C").strip()
    if len(shown) > MAX_NAME:
        shown = shown[: MAX_NAME - 12] + "…" + shown[-11:]
    return shown or "picture"

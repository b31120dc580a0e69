"""The upload button and drop area, and the limits that hold on this side of it.

ipywidgets' FileUpload sends a file as one message, which breaks the connection above
the server's limit without a word, and has no drop area. `PhotoDrop` sends pieces below
one megabyte, each answered before the next, so that there is nothing to break; the
kernel never holds more than one file.
"""

import logging
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from nebula_utils.images.reading import MAX_BYTES

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
MAX_FILES = 20
MAX_NAME = 80  # characters of a file's name that are shown
ACCEPT = "image/*,.heic,.heif,.tif,.tiff,.fit,.fits,.fts"


class PhotoDrop(anywidget.AnyWidget):
    """Choose or drop pictures; each is handed over once it is here whole.

    Parameters
    ----------
    receive : callable
        Called with the name (cleaned, still to be escaped) and the bytes of a file.
    begin : callable
        Called with the number of files before the first.
    end : callable
        Called after the last.
    max_bytes : int
        Largest file, bytes; the browser refuses more, and so does this side.
    max_files : int
        Most files at once.
    """

    _esm = STATIC / "photo_drop.js"
    _css = STATIC / "app.css"

    max_bytes = traitlets.Int(MAX_BYTES).tag(sync=True)
    max_files = traitlets.Int(MAX_FILES).tag(sync=True)
    accept = traitlets.Unicode(ACCEPT).tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        receive: Callable[[str, bytes], None],
        begin: Callable[[int], None] = lambda n: None,
        end: Callable[[], None] = lambda: None,
        max_bytes: int = MAX_BYTES,
        max_files: int = MAX_FILES,
    ) -> None:
        super().__init__(max_bytes=max_bytes, max_files=max_files)
        # What the browser may change of our traits must not loosen these.
        self._limits = (max_bytes, max_files)
        self._receive, self._begin, self._end = receive, begin, end
        self._left = 0
        self._name: str | None = None
        self._data = bytearray()
        self.on_msg(self._answer)

    def _answer(self, _: Any, content: Any, buffers: list) -> None:
        # Every message gets one reply, whatever happens, or the page would wait.
        try:
            self._take(dict(content), buffers)
            self.send({"kind": "ok"})
        except Exception as error:
            self._forget()
            if not isinstance(error, UploadError):
                log.exception("an upload failed")
            reason = str(error) if isinstance(error, UploadError) else "it failed here"
            self.send({"kind": "refused", "reason": reason})

    def _take(self, content: dict, buffers: list) -> None:
        kind = content.get("kind")
        if kind == "begin":
            self._left = min(int(content["n"]), self._limits[1])
            self._begin(self._left)
        elif kind == "open":
            self._open(str(content["name"]), int(content["size"]))
        elif kind == "piece" and self._name is not None:
            self._add(buffers[0])
        elif kind == "close" and self._name is not None:
            name, data = self._name, bytes(self._data)
            self._forget()
            self._receive(name, data)
        elif kind == "end":
            self._end()
        else:
            raise UploadError("the upload got out of step: try again")

    def _open(self, name: str, size: int) -> None:
        self._forget()
        if self._left < 1:
            raise UploadError(f"at most {self._limits[1]} files at once")
        self._left -= 1
        if not 0 <= size <= self._limits[0]:
            raise UploadError(explain_limit(size, self._limits[0]))
        self._name = clean_name(name)

    def _add(self, piece: memoryview) -> None:
        if len(self._data) + len(piece) > self._limits[0]:
            raise UploadError(explain_limit(None, self._limits[0]))
        self._data += piece

    def _forget(self) -> None:
        self._name = None
        self._data = bytearray()


class UploadError(ValueError):
    """A file is not taken; the message is shown beside the button."""


def explain_limit(size: int | None, limit: int) -> str:
    """Say that a file of ``size`` bytes is above the limit."""
    found = "it" if size is None else f"{size / 1e6:.0f} MB"
    return f"not taken, {found} is above {limit / 1e6:.0f} MB: save a smaller copy"


def clean_name(name: str) -> str:
    """Return what may be shown of a file's name: its last part, printable and short.

    Parameters
    ----------
    name : str
        As the browser sent it, so anything at all.

    Returns
    -------
    str
        At most 80 characters, without folders and without control or
        direction-changing characters; never empty. It still needs escaping in HTML.
    """
    last = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    shown = "".join(c for c in last if unicodedata.category(c)[0] != "C").strip()
    if len(shown) > MAX_NAME:
        shown = shown[: MAX_NAME - 12] + "…" + shown[-11:]
    return shown or "picture"

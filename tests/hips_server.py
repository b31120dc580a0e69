"""A local server that speaks CDS's hips2fits protocol, with every way to fail.

``with HipsServer() as server`` serves on 127.0.0.1. ``server.behave`` may be set to a
function of (query, how often this URL was asked before) that names a behaviour, one of
the ``_send_…`` methods of the handler; the default is always "picture".
"""

import contextlib
import email.utils
import hashlib
import io
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
from PIL import Image

from nebula_utils.config import NEBULA_TYPES
from nebula_utils.dataset import hips

SURVEYS = ["DSS2-color", "DSS2-red"]
REQUIRED = ("hips", "width", "height", "ra", "dec", "fov", "projection")
STRETCHES = ("power", "linear", "sqrt", "log", "asinh")


def make_catalogue(n_nebulae: int) -> pd.DataFrame:
    """Return nebulae of all types, spread over the sky by a fixed seed."""
    draws = np.random.default_rng(5).uniform(size=(n_nebulae, 3))
    return pd.DataFrame(
        {
            "name": [f"Sh2-{number + 1}" for number in range(n_nebulae)],
            "type": [NEBULA_TYPES[i % len(NEBULA_TYPES)] for i in range(n_nebulae)],
            "ra_deg": draws[:, 0] * 360,
            "dec_deg": draws[:, 1] * 160 - 80,
            "size_arcmin": 1 + draws[:, 2] * 59,
            "constellation": (["Ori", "Cyg"] * n_nebulae)[:n_nebulae],
        }
    )


def make_plan(n_nebulae: int, **options: object) -> pd.DataFrame:
    """Plan small cutouts of some nebulae, and of nothing else, in colour and red."""
    defaults = {"surveys": SURVEYS, "size_px": 64}
    plan = hips.make_plan(make_catalogue(n_nebulae), **(defaults | options))
    return plan[plan["class"] != "other"].reset_index(drop=True)


def make_picture(query: dict[str, str]) -> np.ndarray:
    """Return stars and a glow that depend on the position, grey for a single band."""
    seed = hashlib.sha256(f"{query['ra']} {query['dec']}".encode()).digest()[:8]
    rng = np.random.default_rng(list(seed))
    height, width = int(query["height"]), int(query["width"])
    rows, columns = np.mgrid[:height, :width]
    image = rng.normal(40, 6, (height, width, 3))
    glow = np.exp(-((rows - height / 2) ** 2 + (columns - width / 2) ** 2) / width**1.5)
    image += glow[..., None] * rng.uniform(60, 160, 3)
    image[rng.integers(0, height, 40), rng.integers(0, width, 40)] = 250
    if "color" not in query["hips"]:
        image[:] = image.mean(axis=2, keepdims=True)
    return image.clip(0, 255).astype(np.uint8)


def encode_jpeg(image: np.ndarray) -> bytes:
    """Return an array as a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


class HipsServer:
    """The server, what it was asked, and how it shall behave.

    ``requests`` counts by URL, ``times`` and ``agents`` list every request in order;
    ``busiest`` is how many were under way at once at most; ``delay`` slows each answer
    down (seconds).
    """

    def __init__(self, delay: float = 0.0) -> None:
        self.requests: Counter[str] = Counter()
        self.times: list[float] = []
        self.agents: list[str] = []
        self.delay = delay
        self.behave = lambda query, before: "picture"
        self.busy = self.busiest = 0
        self.retry_after = "1"
        self.lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self.url = f"http://127.0.0.1:{self._http.server_port}/hips2fits"

    def __enter__(self) -> "HipsServer":
        """Start to serve."""
        threading.Thread(
            target=self._http.serve_forever, args=(0.02,), daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop to serve."""
        self._http.shutdown()
        self._http.server_close()

    @property
    def total(self) -> int:
        """Return the number of requests so far."""
        return len(self.times)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    owner: HipsServer

    def handle_error(self, *_: object) -> None:
        pass  # a client that was killed is no error of ours


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        owner = self.server.owner
        with owner.lock:
            before = owner.requests[self.path]
            owner.requests[self.path] += 1
            owner.times.append(time.monotonic())
            owner.agents.append(self.headers["User-Agent"])
            owner.busy += 1
            owner.busiest = max(owner.busiest, owner.busy)
        parsed = parse_qs(urlsplit(self.path).query)
        self.query = {key: values[0] for key, values in parsed.items()}
        try:
            time.sleep(owner.delay)
            problem = self._find_problem()
            behaviour = "bad_request" if problem else owner.behave(self.query, before)
            self.problem = problem or "Something is wrong"
            with contextlib.suppress(ConnectionError):
                getattr(self, f"_send_{behaviour}")()
        finally:
            with owner.lock:
                owner.busy -= 1

    def _find_problem(self) -> str:
        missing = [name for name in REQUIRED if name not in self.query]
        if missing:
            return f"{missing[0]}: this parameter is required"
        if self.query.get("stretch", "linear") not in STRETCHES:
            return "stretch: unknown"
        return ""

    def _answer(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _send_html(self, status: int = 200, **headers: str) -> None:
        page = b"<html><body>The proxy says hello</body></html>"
        self._answer(status, "text/html; charset=utf-8", page, **headers)

    def _send_picture(self) -> None:
        self._answer(200, "image/jpeg", encode_jpeg(make_picture(self.query)))

    def _send_bad_request(self) -> None:
        said = {"title": "Bad Request", "description": self.problem}
        self._answer(400, "application/json", json.dumps(said).encode())

    def _send_too_many(self) -> None:
        self._send_html(429, Retry_After=self.server.owner.retry_after)

    def _send_too_many_date(self) -> None:
        # A date has whole seconds only: two ahead is at least one to wait.
        when = email.utils.formatdate(time.time() + 2, usegmt=True)
        self._send_html(429, Retry_After=when)

    def _send_error(self) -> None:
        self._send_html(500)

    def _send_bad_gateway(self) -> None:
        self._send_html(502)

    def _send_flat(self, level: int = 77) -> None:
        size = (int(self.query["height"]), int(self.query["width"]), 3)
        self._answer(200, "image/jpeg", encode_jpeg(np.full(size, level, np.uint8)))

    def _send_white(self) -> None:
        self._send_flat(255)

    def _send_half_white(self) -> None:
        image = make_picture(self.query)
        image[:, : image.shape[1] * 3 // 4] = 255
        self._answer(200, "image/jpeg", encode_jpeg(image))

    def _send_wrong_size(self) -> None:
        query = self.query | {"width": "32", "height": "32"}
        self._answer(200, "image/jpeg", encode_jpeg(make_picture(query)))

    def _send_garbage(self) -> None:
        self._answer(200, "image/jpeg", b"\xff\xd8\xff" + bytes(500))

    def _send_cut(self) -> None:
        body = encode_jpeg(make_picture(self.query))
        self._send_headers(Content_Length=str(len(body)))
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def _send_cut_silently(self) -> None:
        # No length is told: only the picture shows that half of it is missing.
        body = encode_jpeg(make_picture(self.query))
        self._send_headers(Connection="close")
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def _send_nothing(self) -> None:
        self.close_connection = True

    def _send_slow(self) -> None:
        time.sleep(3)
        self._send_picture()

    def _send_trickle(self) -> None:
        self._send_headers(Content_Length="100000")
        for _ in range(100):
            self.wfile.write(b"\xff")
            self.wfile.flush()
            time.sleep(0.05)
        self.close_connection = True

    def _send_huge(self) -> None:
        self._send_headers(Connection="close")
        with contextlib.suppress(OSError):
            for _ in range(300):
                self.wfile.write(bytes(100_000))
        self.close_connection = True

    def _send_headers(self, **headers: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass

"""Ask CDS's hips2fits service for one cutout after another, politely and patiently.

The protocol is a GET with the query of `Cutout.params`; the answer is a JPEG, or JSON
with ``title`` and ``description`` on an error, or HTML from a proxy in between.
"""

import datetime
import email.utils
import json
import logging
import random
import threading
import time
from dataclasses import dataclass

import numpy as np
import requests
import urllib3

from nebula_utils import __version__
from nebula_utils.errors import ImageError, NebulaError, SourceError
from nebula_utils.images.reading import read_image

SERVER = "https://alasky.cds.unistra.fr/hips-image-services/hips2fits"
MIRROR = "https://alaskybis.cds.unistra.fr/hips-image-services/hips2fits"
USER_AGENT = f"nebula-utils/{__version__} (education; requests/{requests.__version__})"
MAX_BYTES = 20_000_000  # no honest JPEG of 2048 px a side is larger
_PASSING = (408, 425, 429, 500, 502, 503, 504)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long to wait for the service, in seconds, and how often to ask again.

    The pause before attempt n is ``pause`` · 2ⁿ⁻¹, at most ``longest_pause``, times a
    random factor in [0.5, 1.5) so that threads and users don't ask in step.
    """

    tries: int = 5
    pause: float = 1.0
    longest_pause: float = 60.0
    longest_retry_after: float = 600.0
    connect: float = 10.0
    read: float = 60.0
    whole_answer: float = 180.0
    give_up_after: int = 20  # cutouts that fail one after the other


class CutoutError(NebulaError):
    """One cutout can't be had; others may."""


class Stopped(Exception):  # noqa: N818  (no error: somebody pressed Ctrl-C)
    """The run was told to stop while this cutout was under way."""


class _PassingError(Exception):
    def __init__(
        self, reason: str, wait: float | None = None, unreachable: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.wait, self.unreachable = reason, wait, unreachable


class HipsClient:
    """Fetch pictures from a hips2fits service; safe to share between threads.

    Parameters
    ----------
    server : str, optional
        Address of the service.
    patience : Patience, optional
        Time-outs and attempts.
    """

    def __init__(self, server: str = SERVER, patience: Patience | None = None) -> None:
        self.server = server
        self.patience = patience or Patience()
        self.stop = threading.Event()
        self._local = threading.local()
        self._lock = threading.Lock()
        self._not_before = 0.0  # monotonic seconds: Retry-After holds for all threads
        self._answered = False
        self._failures = 0
        self._jitter = random.Random()

    def fetch(self, params: dict[str, str]) -> tuple[bytes, np.ndarray]:
        """Fetch one picture and decode it.

        Parameters
        ----------
        params : dict of str
            The query of hips2fits; the answer must be ``width`` × ``height`` px.

        Returns
        -------
        body : bytes
            The JPEG as the service sent it.
        image : ndarray of uint8, shape (height, width, 3)
            The same, decoded.

        Raises
        ------
        CutoutError
            If the service refuses this cutout, or still fails after every attempt.
        SourceError
            If the service can't be reached, asks to come back much later, or fails
            for one cutout after the other: going on is of no use.
        Stopped
            If ``stop`` was set meanwhile.
        """
        try:
            answer = self._try_repeatedly(params)
        except CutoutError as error:
            self._count_failure(str(error))
            raise
        with self._lock:
            self._failures = 0
        return answer

    def _try_repeatedly(self, params: dict[str, str]) -> tuple[bytes, np.ndarray]:
        for attempt in range(1, self.patience.tries + 1):
            self._wait_for_turn()
            try:
                return self._ask(params)
            except _PassingError as error:
                trouble = error
            # Without any answer so far there is most likely no network.
            hopeless = trouble.unreachable and not self._answered and attempt >= 2
            if attempt == self.patience.tries or hopeless:
                break
            _log.info("%s: asking again (attempt %d)", trouble.reason, attempt + 1)
            self._pause(attempt, trouble.wait)
        if trouble.unreachable:
            raise self._explain_unreachable(trouble.reason)
        raise CutoutError(f"{trouble.reason} ({attempt} attempts)")

    def _ask(self, params: dict[str, str]) -> tuple[bytes, np.ndarray]:
        timeouts = (self.patience.connect, self.patience.read)
        try:
            with self._session().get(
                self.server, params=params, timeout=timeouts, stream=True
            ) as response:
                self._answered = True
                _check_answer(response)
                body = self._read_body(response)
        except requests.exceptions.Timeout as error:
            unreachable = isinstance(error, requests.exceptions.ConnectTimeout)
            raise _PassingError("no answer in time", unreachable=unreachable) from error
        except requests.exceptions.ConnectionError as error:
            refused = bool(error.args) and isinstance(
                error.args[0], urllib3.exceptions.MaxRetryError
            )
            reason = _find_cause(error)
            raise _PassingError(reason, unreachable=refused) from error
        except (
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            requests.exceptions.MissingSchema,
        ) as error:
            raise SourceError(
                f"--server {self.server}: no usable address ({error})"
            ) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _PassingError(f"the answer was cut off: {error}") from error
        return body, _decode(body, params)

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.headers["User-Agent"] = USER_AGENT
        return self._local.session

    def _read_body(self, response: requests.Response) -> bytes:
        # read1 returns what has come, so that a trickle can't outlast the deadline.
        deadline = time.monotonic() + self.patience.whole_answer
        body = bytearray()
        while chunk := response.raw.read1(1 << 16, decode_content=True):
            body += chunk
            if self.stop.is_set():
                raise Stopped
            if len(body) > MAX_BYTES:
                raise CutoutError(f"the answer is larger than {MAX_BYTES:,} bytes")
            if time.monotonic() > deadline:
                raise _PassingError("the answer came too slowly")
        expected = response.headers.get("Content-Length", "")
        encoded = "Content-Encoding" in response.headers
        if expected.isdecimal() and not encoded and len(body) != int(expected):
            raise _PassingError(f"the answer was cut off at {len(body)} bytes")
        return bytes(body)

    def _wait_for_turn(self) -> None:
        while (left := self._not_before - time.monotonic()) > 0:
            if self.stop.wait(left):
                break
        if self.stop.is_set():
            raise Stopped

    def _pause(self, attempt: int, wait: float | None) -> None:
        if wait is None:
            longest = min(
                self.patience.longest_pause, self.patience.pause * 2 ** (attempt - 1)
            )
            self.stop.wait(longest * self._jitter.uniform(0.5, 1.5))
        elif wait > self.patience.longest_retry_after:
            raise SourceError(
                f"the service asks to come back in {wait / 60:.0f} minutes: run the "
                "same command again then; what was fetched is kept"
            )
        else:
            # A little later than told, and not all threads at once.
            until = time.monotonic() + wait + self._jitter.uniform(0, 0.1)
            with self._lock:
                self._not_before = max(self._not_before, until)

    def _count_failure(self, reason: str) -> None:
        with self._lock:
            self._failures += 1
            failures = self._failures
        if failures >= self.patience.give_up_after:
            raise SourceError(
                f"{failures} cutouts failed one after the other, the last because: "
                f"{reason}. Run the same command again later (what was fetched is "
                f"kept), or use the mirror: --server {MIRROR}"
            )

    def _explain_unreachable(self, reason: str) -> SourceError:
        return SourceError(
            f"can't reach {self.server} ({reason}). Check the network and the proxy "
            "(HTTPS_PROXY), then run the same command again: what was fetched is kept. "
            f"Another server: --server {MIRROR}. Without a network use the source "
            "stellarium"
        )


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks to wait.

    Parameters
    ----------
    value : str or None
        Seconds ("120") or a date as in RFC 9110 ("Fri, 31 Dec 1999 23:59:59 GMT").

    Returns
    -------
    float or None
        Seconds ≥ 0; None if there is no header or it can't be read.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return max(0.0, (when - datetime.datetime.now(datetime.UTC)).total_seconds())


def _check_answer(response: requests.Response) -> None:
    kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if response.status_code in _PASSING:
        wait = parse_retry_after(response.headers.get("Retry-After"))
        raise _PassingError(f"HTTP {response.status_code}", wait)
    if response.status_code != 200:
        text = _read_error(response, kind)
        raise CutoutError(f"HTTP {response.status_code}{text}")
    if not kind.startswith("image/"):
        raise _PassingError(f"answered with {kind or 'nothing'} instead of a picture")
    if int(response.headers.get("Content-Length", "0") or 0) > MAX_BYTES:
        raise CutoutError(f"the answer is larger than {MAX_BYTES:,} bytes")


def _read_error(response: requests.Response, kind: str) -> str:
    # The service's own words, from {"title": …, "description": …}.
    if kind != "application/json":
        return ""
    try:
        text = response.raw.read(10_000, decode_content=True)
        said = json.loads(text)
        parts = [str(said[key]) for key in ("title", "description") if said.get(key)]
    except (ValueError, TypeError, AttributeError, urllib3.exceptions.HTTPError):
        return ""
    return f" ({': '.join(parts)[:300]})"


def _decode(body: bytes, params: dict[str, str]) -> np.ndarray:
    try:
        image = read_image(body, refuse_blank=False)
    except ImageError as error:
        raise _PassingError(f"the picture is damaged: {error}") from error
    height, width = int(params["height"]), int(params["width"])
    if image.shape[:2] != (height, width):
        got = f"{image.shape[1]} × {image.shape[0]}"
        raise CutoutError(f"answered with {got} px instead of {width} × {height}")
    return image


def _find_cause(error: BaseException) -> str:
    # The innermost error says most: "Name or service not known".
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(getattr(error, "strerror", None) or error)

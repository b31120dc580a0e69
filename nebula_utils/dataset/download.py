"""Ask public picture services for many files: few at once, patiently, and resumably."""

import logging
import time
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any, TypeVar

import numpy as np
import requests
import urllib3
from requests.adapters import HTTPAdapter
from tqdm import tqdm

from nebula_utils import __version__
from nebula_utils.errors import ImageError, NebulaError, SourceError
from nebula_utils.images.reading import read_image

USER_AGENT = f"nebula-utils/{__version__} (education; requests/{requests.__version__})"
TRIES = 5
BACKOFF = 1.0  # s before the second attempt; doubles from there, with jitter
TIMEOUT = (10.0, 60.0)  # s to connect, and between two pieces of an answer
WHOLE_ANSWER = 180.0  # s
LONGEST_WAIT = 600.0  # s that a service may ask to wait (Retry-After)
MAX_BYTES = 20_000_000
GIVE_UP_AFTER = 20  # files that fail one after the other
_PASSING = (408, 425, 429, 500, 502, 503, 504)

Item = TypeVar("Item")


class FetchError(NebulaError):
    """One file can't be had; others may."""


class _Retry(urllib3.Retry):
    """Retry as urllib3 does, but don't sleep for an hour because a service says so."""

    def get_retry_after(self, response: Any) -> float | None:
        wait = super().get_retry_after(response)
        if wait is not None and wait > LONGEST_WAIT:
            raise SourceError(
                f"the service asks to come back in {wait / 60:.0f} minutes: run the "
                "same command again then; what was fetched is kept"
            )
        return wait


def open_session() -> requests.Session:
    """Return a session that repeats what fails in passing, and waits as it is told."""
    retry = _Retry(
        total=TRIES - 1, connect=1, backoff_factor=BACKOFF, backoff_max=60,
        backoff_jitter=BACKOFF / 2, status_forcelist=_PASSING,
    )  # fmt: skip
    # Attempts are no news to people; what fails in the end is told by who asked.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    session = requests.Session()
    session.headers["User-Agent"] = USER_AGENT
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def fetch_picture(
    session: requests.Session, url: str, params: dict[str, str] | None = None
) -> tuple[bytes, np.ndarray]:
    """Fetch and decode one picture, again where what comes is cut off or no picture.

    Returns
    -------
    body : bytes
        As the service sent it.
    image : ndarray of uint8, shape (h, w, 3)
        The same, decoded.

    Raises
    ------
    FetchError
        If the service refuses, or still fails after every attempt.
    SourceError
        If it can't be reached or asks to come back much later.
    """
    problem: object = ""
    for attempt in range(TRIES):
        time.sleep(BACKOFF * 2 ** (attempt - 1) if attempt else 0)
        try:
            with session.get(url, params=params, timeout=TIMEOUT, stream=True) as found:
                body = _read_body(found)
            return body, read_image(body, refuse_blank=False)
        except requests.exceptions.ReadTimeout:
            problem = "no answer in time"
        except (
            requests.exceptions.ConnectionError,  # also of all attempts by urllib3
            requests.exceptions.RetryError,
        ) as error:
            problem = _find_cause(error)
            if _is_unreachable(error):
                raise SourceError(
                    f"can't reach {url} ({problem}): check the network and the proxy "
                    "(HTTPS_PROXY), then run the same command again: what was fetched "
                    "is kept. Without a network use the source stellarium"
                ) from error
            if isinstance(error.args[0], urllib3.exceptions.MaxRetryError):
                break
        except ImageError as error:
            problem = error
        except ValueError as error:  # what requests makes of a mistyped address
            raise SourceError(f"{url}: no usable address ({error})") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            problem = f"the answer was cut off: {error}"
    raise FetchError(f"{problem} ({TRIES} attempts)")


def fetch_all(
    items: Sequence[Item],
    fetch_one: Callable[[Item], None],
    connections: int,
    name: str,
) -> dict[Item, str]:
    """Fetch many files with a few threads and a progress bar on terminals.

    Parameters
    ----------
    items : sequence
        What to fetch.
    fetch_one : callable
        Fetches one item; its `FetchError` is counted, any other error ends all.
    connections : int
        Requests under way at once.
    name : str
        For the bar.

    Returns
    -------
    dict
        Why each item failed that did.

    Raises
    ------
    SourceError
        If so many fail one after the other that going on is of no use.
    """

    def work(item: Item) -> tuple[Item, str]:
        try:
            fetch_one(item)
        except FetchError as error:
            return item, str(error)
        return item, ""

    failures: dict[Item, str] = {}
    in_a_row = 0
    pool = ThreadPool(connections)  # daemon threads: nobody waits for them in the end
    try:
        results = pool.imap_unordered(work, items)
        bar = tqdm(results, name, len(items), unit="file", disable=None)
        for item, problem in bar:
            in_a_row = in_a_row + 1 if problem else 0
            if problem:
                failures[item] = problem
            if in_a_row >= GIVE_UP_AFTER:
                raise SourceError(
                    f"{in_a_row} files failed one after the other, the last because: "
                    f"{problem}. Run the same command again later: what was fetched "
                    "is kept"
                )
    finally:
        pool.terminate()
    return failures


def _read_body(response: requests.Response) -> bytes:
    if response.status_code != 200:
        said = response.raw.read(300, decode_content=True).decode(errors="replace")
        raise FetchError(f"HTTP {response.status_code} ({said or response.reason})")
    kind = response.headers.get("Content-Type", "nothing").split(";")[0]
    if not kind.startswith("image/"):
        raise ImageError(f"answered with {kind} instead of a picture")
    # read1 returns what has come, so that a trickle can't outlast the deadline.
    deadline = time.monotonic() + WHOLE_ANSWER
    body = bytearray()
    while chunk := response.raw.read1(1 << 16, decode_content=True):
        body += chunk
        if len(body) > MAX_BYTES:
            raise FetchError(f"the answer is larger than {MAX_BYTES:,} bytes")
        if time.monotonic() > deadline:
            raise requests.exceptions.ReadTimeout
    return bytes(body)


def _is_unreachable(error: requests.RequestException) -> bool:
    reason = getattr(error.args[0], "reason", None)
    kinds = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ProxyError)
    timeout = isinstance(error, requests.exceptions.ConnectTimeout)
    return timeout or isinstance(reason, kinds)


def _find_cause(error: BaseException) -> str:
    # The innermost error says most: "Name or service not known".
    inner: object = error
    while isinstance(inner, BaseException):
        error = inner
        last = error.args[-1] if error.args else None
        wrapped = last if isinstance(last, BaseException) else None
        inner = wrapped or error.__cause__ or error.__context__
    return str(getattr(error, "strerror", None) or error)

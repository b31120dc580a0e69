"""Fetch pictures patiently and resumably; the source `archives`.

Archives are freely licensed pictures of public observatories: data/archives.csv, in
git, says which, whose and of what; the pictures come from
`$NEBULA_MIRROR/archives/<archive>/<ID>.jpg` or else from the archives' own addresses.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import requests
import urllib3
from requests.adapters import HTTPAdapter
from tqdm import tqdm

from nebula_utils import __version__
from nebula_utils.config import DATA, cache_dir
from nebula_utils.dataset.photos import make_manifest, read_rows
from nebula_utils.dataset.screening import MAX_DIFFERENCE, measure_difference
from nebula_utils.errors import ImageError, NebulaError, SourceError
from nebula_utils.files import hold_lock, write_atomic
from nebula_utils.images.reading import read_image

ARCHIVES = DATA / "archives.csv"
MIRROR = "NEBULA_MIRROR"
USER_AGENT = f"nebula-utils/{__version__} (education; requests/{requests.__version__})"
CONNECTIONS = 2  # at once; the archives are shared services
TRIES = 5
BACKOFF = 1.0  # s before the second attempt; doubles from there, with jitter
TIMEOUT = (10.0, 60.0)  # s to connect, and between two pieces of an answer
WHOLE_ANSWER = 180.0  # s
LONGEST_WAIT = 600.0  # s that a service may ask to wait (Retry-After)
MAX_BYTES = 20_000_000
GIVE_UP_AFTER = 20  # files that fail one after the other
_PASSING = (408, 425, 429, 500, 502, 503, 504)

Item = TypeVar("Item")
_log = logging.getLogger(__name__)


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


def fetch_archives() -> dict[str, str]:
    """Get the pictures that are not in the cache yet; stop and start as you like.

    Returns
    -------
    dict of str to str
        Why each picture that can't be had can't, by its file ``<archive>/<ID>.jpg``.

    Raises
    ------
    SourceError
        If the network can't be reached or everything fails.
    CacheError
        If the cache can't be written.
    """
    folder = find_archives()
    rows = {row["file"]: row for row in _read_archives()}
    with hold_lock(folder):
        missing = [file for file in rows if not (folder / file).is_file()]
        distant = [file for file in missing if not _copy_from_mirror(rows[file])]
        session = open_session()

        def fetch_one(file: str) -> None:
            _keep(rows[file], *fetch_picture(session, rows[file]["address"]))

        return fetch_all(distant, fetch_one, CONNECTIONS, "archives")


def load_archives() -> pd.DataFrame:
    """List the pictures, fetched first where they are not there yet.

    Returns
    -------
    DataFrame
        The columns of every source. A picture that can't be had is left out with a
        warning.

    Raises
    ------
    SourceError
        If none can be had.
    """
    problem: object
    try:
        problem = next(iter(fetch_archives().values()), "")
    except SourceError as error:
        problem = error
    folder, rows = find_archives(), _read_archives()
    there = [row for row in rows if (folder / row["file"]).is_file()]
    if not there:
        name = ARCHIVES.name
        raise SourceError(f"none of the pictures of {name} can be had: {problem}")
    if len(there) < len(rows):
        _log.warning(
            "%d of %d pictures of the archives are missing and left out: %s",
            *(len(rows) - len(there), len(rows), problem),
        )
    return make_manifest(there, folder, "archives")


def find_archives() -> Path:
    """Return where the archives' pictures are kept: ``archives`` in the cache."""
    return cache_dir() / "archives"


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
    """Fetch one picture, again where what comes is cut off or no picture.

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

    ``fetch_one`` gets one item; its `FetchError` is counted, any other error ends all.

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


def _read_archives() -> list[dict[str, str]]:
    rows = read_rows(ARCHIVES)
    return [row | {"file": f"{row['archive']}/{row['id']}.jpg"} for row in rows]


def _copy_from_mirror(row: dict[str, str]) -> bool:
    mirror = os.environ.get(MIRROR)
    path = Path(mirror).expanduser() / "archives" / row["file"] if mirror else None
    if path is None or not path.is_file():
        return False
    try:
        _keep(row, path.read_bytes(), read_image(path))
    except (FetchError, ImageError) as error:
        _log.warning("%s is not used: %s", path, error)
        return False
    return True


def _keep(row: dict[str, str], body: bytes, image: np.ndarray) -> None:
    """Keep a picture if it looks as the table says."""
    difference = measure_difference(image, row["phash"])
    if difference > MAX_DIFFERENCE:
        raise FetchError(f"it is another picture ({difference} of 256 bits differ)")
    with write_atomic(find_archives() / row["file"]) as temporary:
        temporary.write_bytes(body)

"""The source `archives`: freely licensed pictures of public observatories.

data/archives.csv, in git, says which, whose and of what; the pictures come from
`$NEBULA_MIRROR/archives/<archive>/<ID>.jpg` or else from the archives' own addresses.
"""

import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd

from nebula_utils.config import DATA, cache_dir
from nebula_utils.dataset.download import (
    FetchError,
    fetch_all,
    fetch_picture,
    open_session,
)
from nebula_utils.dataset.photos import make_manifest, read_rows
from nebula_utils.dataset.screening import MAX_DIFFERENCE, measure_difference
from nebula_utils.errors import ImageError, SourceError
from nebula_utils.files import hold_lock, write_atomic
from nebula_utils.images.reading import read_image

TABLE = DATA / "archives.csv"
MIRROR = "NEBULA_MIRROR"
CONNECTIONS = 2  # at once; the archives are shared services

_log = logging.getLogger(__name__)


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
    folder = find_folder()
    rows = {row["file"]: row for row in _read_table()}
    with hold_lock(folder):
        missing = [file for file in rows if not (folder / file).is_file()]
        distant = [file for file in missing if not _copy_from_mirror(rows[file])]
        session = open_session()

        def fetch_one(file: str) -> None:
            body, image = fetch_picture(session, rows[file]["address"])
            _keep(rows[file], body, image)

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
    folder = find_folder()
    problem: object = ""
    try:
        failures = fetch_archives()
        problem = next(iter(failures.values()), "")
    except SourceError as error:
        problem = error
    rows = _read_table()
    there = [row for row in rows if (folder / row["file"]).is_file()]
    if not there:
        raise SourceError(f"none of the pictures of {TABLE.name} can be had: {problem}")
    if len(there) < len(rows):
        _log.warning(
            "%d of %d pictures of the archives are missing and left out: %s",
            *(len(rows) - len(there), len(rows), problem),
        )
    return make_manifest(there, folder, "archives")


def find_folder() -> Path:
    """Return where the pictures are kept: ``archives`` in the cache."""
    return cache_dir() / "archives"


def _read_table() -> list[dict[str, str]]:
    return [
        row | {"file": f"{row['archive']}/{row['id']}.jpg"} for row in read_rows(TABLE)
    ]


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
    with write_atomic(find_folder() / row["file"]) as temporary:
        temporary.write_bytes(body)

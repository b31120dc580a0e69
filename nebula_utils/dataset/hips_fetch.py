"""Fetch the planned cutouts in parallel; stop and start again as often as you like."""

import datetime
import hashlib
import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from nebula_utils.dataset.hips_client import CutoutError, HipsClient, Stopped
from nebula_utils.dataset.hips_plan import Cutout
from nebula_utils.dataset.hips_store import (
    FINAL,
    Record,
    Store,
    classify_tile,
    find_folder,
    lock_folder,
)
from nebula_utils.errors import ImageError
from nebula_utils.images.reading import read_image

BYTES_PER_PIXEL = {True: 0.35, False: 0.25}  # JPEG, colour or grey: a first guess
_FACTS = ("nebula", "label", "accept", "other_kind", "size_arcmin")

_log = logging.getLogger(__name__)


def fetch_cutouts(
    cutouts: Sequence[Cutout],
    folder: Path | str | None = None,
    client: HipsClient | None = None,
    connections: int = 4,
) -> Counter[str]:
    """Fetch what is not there yet; stop and start again as often as you like.

    Parameters
    ----------
    cutouts : sequence of Cutout
        The plan.
    folder : Path, optional
        Default is ``hips`` in the cache.
    client : HipsClient, optional
        Default asks CDS.
    connections : int, default=4
        Requests under way at once.

    Returns
    -------
    Counter of str
        How many cutouts of the plan are now ``ok``, ``blank``, ``off_survey`` or
        ``failed``, and, under ``requested``, how many of them were asked for now.

    Raises
    ------
    SourceError
        If another run uses the folder, or the service can't be used.
    CacheError
        If the folder can't be written, for instance because the disk is full.
    """
    root = find_folder(folder)
    client = client or HipsClient()
    with lock_folder(root):
        Store(root).repair()
        store = Store(root)
        pending = [cutout for cutout in cutouts if not _settle(cutout, store)]
        _fetch_parallel(pending, store, client, connections)
    counts = Counter(store.records[cutout.image_id]["status"] for cutout in cutouts)
    counts["requested"] = len(pending)
    return counts


def estimate_download(
    cutouts: Iterable[Cutout], folder: Path | str | None = None
) -> pd.DataFrame:
    """Say what a fetch of the plan would ask for, without asking.

    Parameters
    ----------
    cutouts : iterable of Cutout
        The plan.
    folder : Path, optional
        Default is ``hips`` in the cache.

    Returns
    -------
    DataFrame
        Indexed by survey: ``planned``, ``there`` (fetched or known to be empty),
        ``files`` (still to fetch) and ``megabytes`` (10⁶ bytes, from the mean size of
        that survey's pictures so far, else from a guess of 0.25–0.35 bytes a pixel).
    """
    store = Store(find_folder(folder))
    sizes: dict[tuple[str, int], list[int]] = {}
    for record in store.records.values():
        if record["status"] == "ok":
            key = (record["survey"], record["width"])
            sizes.setdefault(key, []).append(record["bytes"])
    rows = []
    for cutout in cutouts:
        known = sizes.get((cutout.survey.slug, cutout.size_px))
        guess = BYTES_PER_PIXEL[cutout.survey.colour] * cutout.size_px**2
        there = _is_done(cutout, store) or cutout.is_outside
        wanted = 0.0 if there else float(np.mean(known)) if known else guess
        rows.append((cutout.survey.slug, 1, int(there), int(not there), wanted / 1e6))
    columns = ["survey", "planned", "there", "files", "megabytes"]
    return pd.DataFrame(rows, columns=columns).groupby("survey", sort=False).sum()


def _settle(cutout: Cutout, store: Store) -> bool:
    # True if the cutout needs no request.
    if _is_done(cutout, store):
        record = store.records[cutout.image_id]
        facts = _make_record(cutout, "", "")
        if any(record[key] != facts[key] for key in _FACTS):
            store.append(record | {key: facts[key] for key in _FACTS})
        return True
    if cutout.is_outside:
        south = f"south of {cutout.survey.dec_min:+.0f}°, where the survey ends"
        store.append(_make_record(cutout, "off_survey", south))
        return True
    return _adopt(cutout, store)


def _is_done(cutout: Cutout, store: Store) -> bool:
    record = store.records.get(cutout.image_id)
    if record is None or record["file"] != cutout.file.as_posix():
        return False
    if record["status"] != "ok":
        return record["status"] in FINAL
    return store.find_picture(cutout.file) == record["sha256"]


def _adopt(cutout: Cutout, store: Store) -> bool:
    # A kill between writing the picture and its record leaves the picture: its name
    # says which query it answers, so that nobody has to ask again.
    record = store.records.get(cutout.image_id)
    path = store.folder / cutout.file
    if not path.exists() or (record and record["file"] == cutout.file.as_posix()):
        return False
    body = path.read_bytes()
    try:
        status, reason = classify_tile(read_image(body, refuse_blank=False))
    except ImageError:
        return False
    store.append(_make_record(cutout, status, reason, body))
    return True


def _fetch_parallel(
    pending: Sequence[Cutout], store: Store, client: HipsClient, connections: int
) -> None:
    waiting = deque(pending)
    # A new one each time, so that a client can be used again after an interrupt.
    stop = client.stop = threading.Event()
    results: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()

    def work() -> None:
        while waiting and not stop.is_set():
            try:
                results.put(_fetch_one(waiting.popleft(), store, client))
            except (Stopped, IndexError):
                return
            except BaseException as error:
                results.put(error)
                return

    # Daemons: after Ctrl-C nobody waits for an answer that may never come.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        for _ in tqdm(pending, desc="hips", unit="file", disable=None):
            result = results.get()
            if isinstance(result, BaseException):
                raise result
    finally:
        stop.set()
        deadline = time.monotonic() + 2
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _fetch_one(cutout: Cutout, store: Store, client: HipsClient) -> str:
    try:
        body, image = client.fetch(cutout.params)
    except CutoutError as error:
        _log.warning("%s failed: %s", cutout.image_id, error)
        store.append(_make_record(cutout, "failed", str(error)))
        return "failed"
    status, reason = classify_tile(image)
    if status == "ok":
        store.write_picture(cutout.file, body)
    store.append(_make_record(cutout, status, reason, body))
    return status


def _make_record(
    cutout: Cutout, status: str, reason: str, body: bytes | None = None
) -> Record:
    target, survey = cutout.target, cutout.survey
    return {
        "image_id": cutout.image_id,
        "status": status,
        "reason": reason,
        "file": cutout.file.as_posix(),
        "survey": survey.slug,
        "hips": survey.hips,
        "nebula": target.name,
        "label": target.label,
        "accept": target.accept,
        "other_kind": target.other_kind,
        "ra_deg": round(target.ra_deg, 6),
        "dec_deg": round(target.dec_deg, 6),
        "size_arcmin": None if np.isnan(target.size_arcmin) else target.size_arcmin,
        "fov_deg": round(target.fov_arcmin / 60, 6),
        "width": cutout.size_px,
        "height": cutout.size_px,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "bytes": len(body) if body is not None else 0,
        "sha256": hashlib.sha256(body).hexdigest() if body is not None else "",
        "credit": survey.credit,
        "licence": survey.licence,
    }

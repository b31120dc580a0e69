"""Judge a source's pictures once: what is left out, who is whose copy, which palette.

Judging decodes every picture several times, so the verdict is kept in the cache, keyed
by what it depends on: the manifest, the pictures' bytes, and the code of this package
that judges. Five notebooks ask for it, one computes it.
"""

import hashlib
import io
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from nebula_utils.config import DATA, cache_dir
from nebula_utils.counterfactuals import colour
from nebula_utils.dataset import quality, sources, splits
from nebula_utils.files import compute_sha256, seal, unseal, write_atomic
from nebula_utils.images import reading, scientific

log = logging.getLogger(__name__)

PALETTE_SIDE = 128  # px; enough to judge a picture's palette
N_THREADS = 2
# Their source is part of the key: another rule gives another verdict.
_RULES = (colour, reading, quality, scientific, splits)


class Judged(NamedTuple):
    """A source's pictures and what was found out about them.

    Attributes
    ----------
    manifest : DataFrame
        All pictures, one row each, as the source gave them.
    kept : DataFrame
        Those that can be used, with ``group`` (the unit of every split) and
        ``palette``.
    left_out : DataFrame
        The others: ``image_id``, ``reason``, ``detail``.
    duplicates : DataFrame
        Pairs of copies, as `quality.find_duplicates` gives them.
    """

    manifest: pd.DataFrame
    kept: pd.DataFrame
    left_out: pd.DataFrame
    duplicates: pd.DataFrame


def judge_source(
    source: str, photos_dir: Path | str | None = None, use_flags: bool = True
) -> Judged:
    """Get a source's pictures and judge them, or read the verdict in the cache.

    Parameters
    ----------
    source : str
        As in `sources.load_source`.
    photos_dir : Path or str, optional
        Folder of the ``photos`` source.
    use_flags : bool
        Whether pictures that their source flags as doubtful are left out.

    Returns
    -------
    Judged

    Raises
    ------
    SourceError
        If the source can't be had.
    """
    manifest = sources.load_source(source, photos_dir)
    if not use_flags:
        manifest = manifest.assign(flag="")
    path = cache_dir() / "judged" / f"{_make_key(manifest)[:20]}.json"
    verdict = _read_verdict(path)
    if verdict is None:
        verdict = _judge(manifest)
        with write_atomic(path) as temporary:
            temporary.write_text(json.dumps(seal(verdict)), encoding="utf-8")
    left_out = _read_frame(verdict["left_out"], ["image_id", "reason", "detail"])
    kept = quality.apply_quality(manifest, left_out)
    kept = kept.assign(palette=verdict["palettes"], group=verdict["groups"])
    pairs = ["first", "second", "similarity", "same_nebula", "contradicts"]
    return Judged(manifest, kept, left_out, _read_frame(verdict["duplicates"], pairs))


def list_left_out(judged: Judged, source: str) -> pd.DataFrame:
    """List every picture that is not used, those that the source holds back included.

    Parameters
    ----------
    judged : Judged
        From `judge_source`.
    source : str
        The same source.

    Returns
    -------
    DataFrame
        ``image_id``, ``reason``, ``detail``. The labelled table of Stellarium's
        textures holds some back: no picture of one object, or a doubtful label.
    """
    tables = [judged.left_out]
    if "stellarium" in sources.parse_source(source):
        from nebula_utils.dataset.stellarium import read_table

        table = read_table()
        held = table[table["use"] != "yes"]
        names = "stellarium/" + held["file"].str.removesuffix(".png")
        about = {"image_id": names, "reason": "label", "detail": held["reason"]}
        tables.insert(0, pd.DataFrame(about))
    return pd.concat(tables, ignore_index=True).sort_values("image_id")


def name_groups(manifest: pd.DataFrame, duplicates: pd.DataFrame) -> np.ndarray:
    """Return the name of each picture's group: its first nebula's, shape (n,), str."""
    numbers = splits.make_groups(manifest, duplicates)
    first = manifest["nebula"].groupby(numbers).first()
    return first.loc[numbers].to_numpy(str)


def compute_palettes(manifest: pd.DataFrame) -> np.ndarray:
    """Return each picture's palette, shape (n,), str."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        return np.array(list(pool.map(_judge_palette, manifest["path"])), dtype=str)


def _judge(manifest: pd.DataFrame) -> dict:
    prints = quality.compute_fingerprints(manifest)
    left_out = quality.check_quality(manifest, prints)
    duplicates = quality.find_duplicates(manifest, prints)
    kept = quality.apply_quality(manifest, left_out)
    return {
        "left_out": left_out.to_json(orient="records"),
        "duplicates": duplicates.to_json(orient="records"),
        "palettes": compute_palettes(kept).tolist(),
        "groups": name_groups(kept, duplicates).tolist(),
    }


def _judge_palette(path: str) -> str:
    image = reading.read_image(Path(path), PALETTE_SIDE)
    return colour.compute_palette(reading.to_float(image))


def _make_key(manifest: pd.DataFrame) -> str:
    digest = hashlib.sha256(manifest.drop(columns="path").to_csv().encode())
    for module in _RULES:
        digest.update(compute_sha256(Path(str(module.__file__))).encode())
    for file in (Path(__file__), DATA / "catalogue.csv"):  # groups go by its places
        digest.update(compute_sha256(file).encode())
    with ThreadPoolExecutor(N_THREADS) as pool:
        for one in pool.map(_hash_picture, manifest["path"]):
            digest.update(one.encode())
    return digest.hexdigest()


def _hash_picture(path: str) -> str:
    try:
        return compute_sha256(Path(path))
    except OSError as error:  # judging will say so too
        return f"unreadable: {error.strerror}"


def _read_verdict(path: Path) -> dict | None:
    try:
        return unseal(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s is damaged (%s): judged again", path, error)
        return None


def _read_frame(text: str, columns: list[str]) -> pd.DataFrame:
    if text == "[]":
        return pd.DataFrame(columns=columns)
    return pd.read_json(io.StringIO(text), orient="records")[columns]

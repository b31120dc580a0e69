"""Screen pictures once: which can't be used and why, who is whose copy, which palette.

Copies are found in two steps. Perceptual hashes propose pairs, but on the sky
they are easily fooled: two round planetary nebulae on black have the same hash.
So a pair counts only if the fine detail (stars, filaments) agrees as well. On 1,047
textures and web photos true copies reached 0.75 and more, others at most 0.47.
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
import pandas as pd
import scipy.fft
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter
from tqdm import tqdm

from nebula_utils.config import DATA
from nebula_utils.counterfactuals.colour import compute_palette
from nebula_utils.dataset.splits import make_groups
from nebula_utils.errors import ImageError
from nebula_utils.files import compute_sha256, load_or_compute
from nebula_utils.images.reading import read_image, resize_image, to_float

GREY_SIDE = 128  # px, what copies and palettes are judged at
TINY_SIDE = 64  # px; below this a 224-px network sees mostly interpolation
# Grey levels between the 0.5th and 99.5th percentile: fewer teach nothing. To answer,
# `images.reading` (MIN_CONTRAST) refuses less: what has no 6 levels, extremes counted,
# in any channel of a small map's middle.
MIN_CONTRAST = 8
MAX_EMPTY = 0.5  # share of 8 × 8 px blocks that are flat black or flat white
COPY_SIMILARITY = 0.6
_HASH_BITS = 64
_MAX_HASH_DISTANCE = 12
_MIN_COARSE_SIMILARITY = 0.75
_MAX_SHIFT = 3  # px of GREY_SIDE that a copy may be cropped or moved
# Side of the hash of `measure_difference`: 16 × 16 bits. Re-encoded copies of 150
# pictures at half to one and a half times the size differ in at most 18 bits, any two
# different pictures of the archives in 48 or more.
_PHASH_SIDE = 16
MAX_DIFFERENCE = 32
_TABLES: dict[str, dict[str, type]] = {  # columns and their types, as they are kept
    "left_out": {"image_id": str, "reason": str, "detail": str},
    "duplicates": {
        **{"first": str, "second": str, "similarity": float},
        **{"same_nebula": bool, "contradicts": bool},
    },
}


class Screened(NamedTuple):
    """A manifest and what was found out about its pictures.

    Attributes
    ----------
    manifest : DataFrame
        All pictures, one row each, as the source gave them.
    kept : DataFrame
        Those that can be used, with ``group`` (the unit of every split) and
        ``palette``.
    left_out : DataFrame
        The others: ``image_id``, ``reason`` (broken, tiny, featureless, not a
        photograph, doubtful, duplicate, contradiction), ``detail``. Of copies the
        first sound one stays, unless no class is accepted for both: then none does.
    duplicates : DataFrame
        Pairs of copies, as `find_duplicates` gives them.
    """

    manifest: pd.DataFrame
    kept: pd.DataFrame
    left_out: pd.DataFrame
    duplicates: pd.DataFrame


class Fingerprint(NamedTuple):
    """What is kept of a picture to screen it; ``problem`` is "" if it is sound."""

    grey: np.ndarray  # uint8 (GREY_SIDE, GREY_SIDE), stretched to a square
    problem: str = ""
    detail: str = ""


def screen(manifest: pd.DataFrame) -> Screened:
    """Screen the pictures of a manifest, or read the verdict in the cache.

    The verdict's key is everything that it depends on: the manifest, the pictures'
    bytes, the catalogue, and the code.
    """
    parts = _list_parts(manifest)
    found = load_or_compute("screened", parts, lambda: _screen(manifest))
    tables = {
        name: pd.DataFrame({column: found[f"{name}/{column}"] for column in columns})
        for name, columns in _TABLES.items()
    }
    kept = _drop(manifest, tables["left_out"])
    kept = kept.assign(palette=found["palettes"], group=found["groups"])
    return Screened(manifest, kept, **tables)


def find_unseen(known: pd.DataFrame, outside: pd.DataFrame) -> np.ndarray:
    """Find the pictures that a head may be fitted on before an outside set judges it.

    Returns
    -------
    ndarray of int
        Rows of the manifest ``known`` that share neither nebula nor place nor a copy
        with any picture of the manifest ``outside``.
    """
    both = pd.concat([known, outside], ignore_index=True)
    n = len(known)

    def compute() -> dict[str, np.ndarray]:
        groups = make_groups(both, find_duplicates(both))
        return {"rows": np.flatnonzero(~np.isin(groups[:n], groups[n:]))}

    return load_or_compute("unseen", (n, *_list_parts(both)), compute)["rows"]


def measure_difference(image: np.ndarray, known: str) -> int:
    """Count the bits, of 256, in which the perceptual hash of a picture differs.

    ``known`` is ``imagehash.phash(…, hash_size=16)`` of the picture that it should be,
    as 64 hexadecimal digits; up to `MAX_DIFFERENCE` it is, re-encoded or resized.
    """
    found = imagehash.phash(Image.fromarray(image), hash_size=_PHASH_SIDE)
    return int(found - imagehash.hex_to_hash(known))


def find_emptiness(image: np.ndarray) -> str:
    """Say why a cutout (uint8, (h, w, 3)) shows no sky; "" if it does.

    The sky has grain even where it is darkest; a tile without pixels has none. Whole
    JPEG blocks are looked at: a saturated star's centre is white, too.
    """
    height, width = (side // 8 * 8 for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // 8, 8, width // 8, 8, 3)
    low, high = blocks.min(axis=(1, 3, 4)), blocks.max(axis=(1, 3, 4))
    flat = (high - low <= 1) & ((high <= 2) | (low >= 253))
    if flat.mean() > MAX_EMPTY:
        return f"{flat.mean():.0%} of the picture is empty"
    low, high = np.percentile(image.mean(axis=2), [0.5, 99.5])
    if high - low < MIN_CONTRAST:
        return f"contrast of {high - low:.0f} of 255 grey levels"
    return ""


def find_duplicates(
    manifest: pd.DataFrame, prints: Sequence[Fingerprint] | None = None
) -> pd.DataFrame:
    """Find copies within and across classes, nebulae and sources.

    A grey, resized, recompressed, brightened or slightly cropped copy is found; a
    rotated or mirrored one is not.

    Returns
    -------
    DataFrame
        One row a pair: ``first``, ``second`` (image ids in the manifest's order),
        ``similarity`` of the fine detail (0–1), ``same_nebula``, and
        ``contradicts``, true if no class is accepted for both.
    """
    prints = _take_fingerprints(manifest) if prints is None else prints
    sound = [i for i, one in enumerate(prints) if not one.problem]
    names, nebulae = manifest["image_id"].tolist(), manifest["nebula"].tolist()
    accepted = [set(text.split("|")) for text in manifest["accept"]]
    rows = []
    for one, two, similarity in _compare_pictures([prints[i].grey for i in sound]):
        i, j = sound[one], sound[two]
        contradicts = not accepted[i] & accepted[j]
        same = nebulae[i] == nebulae[j]
        rows.append((names[i], names[j], similarity, same, contradicts))
    return pd.DataFrame(rows, columns=list(_TABLES["duplicates"]))


def _list_unusable(
    manifest: pd.DataFrame, prints: Sequence[Fingerprint], duplicates: pd.DataFrame
) -> pd.DataFrame:
    found: dict[str, tuple[str, str]] = {}
    for row, fingerprint in zip(manifest.itertuples(), prints, strict=True):
        if fingerprint.problem:
            found[row.image_id] = (fingerprint.problem, fingerprint.detail)
        elif row.flag:
            found[row.image_id] = ("doubtful", row.flag)
    for pair in duplicates.itertuples():
        if pair.contradicts:
            for one, two in ((pair.first, pair.second), (pair.second, pair.first)):
                detail = f"copy of {two}, which has another class"
                found.setdefault(one, ("contradiction", detail))
        elif pair.first not in found:
            detail = f"copy of {pair.first} (similarity {pair.similarity:.2f})"
            found.setdefault(pair.second, ("duplicate", detail))
    rows = [(name, *why) for name, why in found.items()]
    return pd.DataFrame(rows, columns=list(_TABLES["left_out"]))


def _take_fingerprints(manifest: pd.DataFrame) -> list[Fingerprint]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        prints = pool.map(_take_fingerprint, manifest["path"])
        total = len(manifest)
        return list(tqdm(prints, "checking pictures", total, disable=None))


def _compare_pictures(greys: list[np.ndarray]) -> list[tuple[int, int, float]]:
    """Return (i, j, similarity) of those that are copies, i < j."""
    if len(greys) < 2:
        return []
    stack = np.stack(greys).astype(np.float32)
    spectra: dict[int, np.ndarray] = {}
    copies = []
    shifts = np.arange(-_MAX_SHIFT, _MAX_SHIFT + 1)
    for i, j in _propose_pairs(greys, stack):
        for k in (i, j):
            if k not in spectra:
                spectra[k] = scipy.fft.rfft2(_extract_detail(stack[k]))
        surface = scipy.fft.irfft2(spectra[i] * np.conj(spectra[j]))
        similarity = float(surface[np.ix_(shifts, shifts)].max())
        if similarity >= COPY_SIMILARITY:
            copies.append((int(i), int(j), similarity))
    return copies


def _propose_pairs(greys: list[np.ndarray], stack: np.ndarray) -> np.ndarray:
    hashes = [imagehash.phash(Image.fromarray(grey)).hash.ravel() for grey in greys]
    signs = np.stack(hashes).astype(np.float32) * 2 - 1
    distance = (_HASH_BITS - signs @ signs.T) / 2
    side = GREY_SIDE // 4
    small = stack.reshape(len(stack), side, 4, side, 4).mean((2, 4))
    coarse = small - gaussian_filter(small, (0, 4, 4))
    flat = _normalise(coarse.reshape(len(coarse), -1))
    close = (distance <= _MAX_HASH_DISTANCE) | (flat @ flat.T > _MIN_COARSE_SIMILARITY)
    return np.argwhere(np.triu(close, 1))


def _extract_detail(grey: np.ndarray) -> np.ndarray:
    # Stars and filaments at equal strength everywhere, so that a bright centre
    # does not decide alone; the constant keeps noise in black areas out.
    fine = grey - gaussian_filter(grey, 3)
    strength = np.sqrt(np.maximum(uniform_filter(fine * fine, 17), 0)) + 2
    return _normalise((fine / strength).ravel()).reshape(grey.shape)


def _normalise(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(-1, keepdims=True)
    return centred / (np.linalg.norm(centred, axis=-1, keepdims=True) + 1e-6)


def _take_fingerprint(path: str) -> Fingerprint:
    blank = np.zeros((GREY_SIDE, GREY_SIDE), np.uint8)
    try:
        image = read_image(Path(path), GREY_SIDE, refuse_blank=False)
    except ImageError as error:
        reason = "tiny" if "too small" in str(error) else "broken"
        return Fingerprint(blank, reason, str(error))
    height, width = image.shape[:2]
    if min(height, width) < TINY_SIDE:
        return Fingerprint(blank, "tiny", f"{width} × {height} px")
    small = resize_image(image, GREY_SIDE, GREY_SIDE)
    grey = np.array(Image.fromarray(small).convert("L"))
    low, high = np.percentile(grey, (0.5, 99.5))
    if high - low < MIN_CONTRAST:
        return Fingerprint(grey, "featureless", f"{high - low:.0f} grey levels")
    drawing = _describe_drawing(image)
    return Fingerprint(grey, "not a photograph" if drawing else "", drawing)


def _describe_drawing(image: np.ndarray) -> str:
    # Conservative: paper-white grounds and flat areas; black may be the sky.
    luma = image.astype(np.float32).mean(2)
    paper = float((luma > 235).mean())
    if paper > 0.5:
        return f"{paper:.0%} of it is white: a chart, a drawing or a negative"
    # Pixels equal to the one beside and the one below: none in a noisy photo.
    right = (image[:-1, :-1] == image[:-1, 1:]).all(2)
    below = (image[:-1, :-1] == image[1:, :-1]).all(2)
    flat = float((right & below & (luma[:-1, :-1] > 24)).mean())
    if flat > 0.5:
        return f"{flat:.0%} of it is flat colour: a chart or a drawing"
    return ""


def _screen(manifest: pd.DataFrame) -> dict[str, np.ndarray]:
    prints = _take_fingerprints(manifest)
    duplicates = find_duplicates(manifest, prints)
    left_out = _list_unusable(manifest, prints, duplicates)
    kept = _drop(manifest, left_out)
    numbers = make_groups(kept, duplicates)
    names = kept["nebula"].groupby(numbers).first().loc[numbers]  # by its first nebula

    def find_palette(path: str) -> str:
        return str(compute_palette(to_float(read_image(Path(path), GREY_SIDE))))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        palettes = list(pool.map(find_palette, kept["path"]))
    found = {"palettes": np.array(palettes, str), "groups": names.to_numpy(str)}
    for name, table in {"left_out": left_out, "duplicates": duplicates}.items():
        for column, kind in _TABLES[name].items():
            found[f"{name}/{column}"] = table[column].to_numpy(kind)
    return found


def _drop(manifest: pd.DataFrame, left_out: pd.DataFrame) -> pd.DataFrame:
    used = ~manifest["image_id"].isin(left_out["image_id"])
    return manifest[used].reset_index(drop=True)


def _list_parts(manifest: pd.DataFrame) -> tuple:
    # Everything that a verdict depends on.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pictures = list(pool.map(_hash_picture, manifest["path"]))
    facts = manifest.drop(columns=["path", "palette", "group"], errors="ignore")
    return facts, pictures, DATA / "catalogue.csv", sys.modules[__name__]


def _hash_picture(path: str) -> str:
    try:
        return compute_sha256(Path(path))
    except OSError as error:  # the screening will say so too
        return f"unreadable: {error.strerror}"

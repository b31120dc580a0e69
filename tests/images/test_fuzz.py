"""Bytes → result under 6,000 mutations: a result or ImageError, and nothing else."""

import io
import random
import struct
import time
import zlib

import numpy as np
import pytest
from fake_classifier import SURE
from PIL import Image

from nebula_utils.classifier.classifier import Classifier, Result
from nebula_utils.config import CLASS_NAMES
from nebula_utils.errors import ImageError
from nebula_utils.features.views import View
from nebula_utils.training.heads import make_linear_head

N_CASES = 1500  # of each of the four formats
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


class ConstantBackbone:
    """Give every view the same embedding."""

    n_features = 2

    def embed_with_map(self, images: np.ndarray) -> tuple[np.ndarray, None]:
        """Return zeros of shape (n, 2) and no map."""
        return np.zeros((len(images), 2), np.float32), None


def make_classifier() -> Classifier:
    """Build a classifier that costs nothing but the decoding."""
    n = len(CLASS_NAMES)
    head = make_linear_head(
        CLASS_NAMES, np.zeros((2, n), np.float32), np.zeros(n, np.float32)
    )
    return Classifier(head, ConstantBackbone(), (View(16),), ("grey",), 0.2, SURE)


def make_seed(kind: str) -> bytes:
    """Return a small sound file."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3), dtype=np.uint8)
    stream = io.BytesIO()
    if kind == "FITS":
        from astropy.io import fits

        fits.PrimaryHDU(pixels[..., 0].astype(np.float32)).writeto(stream)
    else:
        exif = Image.Exif()
        exif[274] = 6  # turned
        Image.fromarray(pixels).save(stream, kind, exif=exif)
    return stream.getvalue()


def mutate(data: bytes, rng: random.Random, header: int) -> bytes:
    """Change a few things, mostly in the header: bits, bytes, numbers, length."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        limit = header if rng.random() < 0.8 else len(changed)
        at = rng.randrange(max(1, min(limit, len(changed) - 8)))
        how = rng.randrange(6)
        if how == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            changed[at] = rng.choice(INTERESTING)
        elif how == 2:
            order = rng.choice("<>")
            value = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, rng.randrange(2**32)))
            changed[at : at + 4] = struct.pack(f"{order}I", value)
        elif how == 3:
            del changed[at : at + rng.randrange(1, 9)]
        elif how == 4:
            changed[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            del changed[rng.randrange(len(changed)) :]
        if len(changed) < 16:
            break
    return bytes(changed)


def repair_png(data: bytes) -> bytes:
    """Make the first chunk's checksum right, so that its nonsense is read."""
    return data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]


@pytest.mark.filterwarnings("ignore")  # Pillow's, of odd TIFF tags
@pytest.mark.parametrize(
    ("kind", "header"), [("JPEG", 700), ("PNG", 80), ("TIFF", 300), ("FITS", 800)]
)
def test_mutated_files_give_a_result_or_image_error(kind: str, header: int) -> None:
    """No decoder's own exception, no hang and no empty message gets out."""
    classifier, seed, rng = make_classifier(), make_seed(kind), random.Random(kind)
    assert isinstance(classifier.classify(seed), Result)
    if kind == "TIFF":  # its directory stands at the end
        header = len(seed)
    refused, slowest = 0, 0.0
    for case in range(N_CASES):
        data = mutate(seed, rng, header)
        if kind == "PNG" and case % 2:
            data = repair_png(data)
        start = time.perf_counter()
        try:
            assert isinstance(classifier.classify(data, "x"), Result)
        except ImageError as error:
            refused += 1
            assert len(str(error)) > 15, (kind, case)
        except Exception as error:
            pytest.fail(f"{kind} case {case}: {type(error).__name__}: {error}")
        slowest = max(slowest, time.perf_counter() - start)
    assert N_CASES * 0.1 < refused < N_CASES, refused
    assert slowest < 30

"""From the bytes of a file to a picture: what format it is, what it may cost.

`reading.read_image` is the way in.
"""

import contextlib
import functools
import gzip
import io
import logging
import os
import stat
import tempfile
import warnings
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

# The plugins are imported by name so that Pillow never loads its forty others.
from PIL import (  # noqa: F401
    Image,
    ImageOps,
    MpoImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from nebula_utils.errors import ImageError
from nebula_utils.images import scientific
from nebula_utils.images.scientific import Decoded

Source = Path | str | bytes | bytearray | memoryview

MAX_BYTES = 500_000_000  # of a file on one's own machine
MAX_SCANNED = 2_000_000_000  # pixels times scans of a progressive JPEG
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_MAGIC = {  # how a file begins, and its format, or what it is instead of a picture
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"SIMPLE  =": "FITS",
    b"XISF0100": "XISF",
    b"\x1f\x8b": "GZIP",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"\x7fELF": "a program",
    b"MZ": "a program",
}

_WEBP_IN_TIFF = 50001  # of the tag Compression
_CUT_SIGNS = ("truncated", "too small for requested", "end of file", "outside of file")


def decode_stream(stream: IO[bytes], min_side: int | None) -> Decoded:
    """Decode a picture from an open file; decoders' own errors are passed on."""
    start = stream.read(1024)
    kind = _detect_format(start)
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if kind == "GZIP":
        with tempfile.TemporaryFile() as unpacked:
            _gunzip(stream, unpacked)
            with open(unpacked.fileno(), "rb", closefd=False) as readable:
                return scientific.read_fits(readable, min_side)
    if kind == "FITS":
        return scientific.read_fits(stream, min_side)
    if kind == "XISF":
        return scientific.read_xisf(stream, min_side)
    _refuse_if_cut(start, kind, size)
    return _read_with_pillow(stream, kind, min_side)


def _gunzip(stream: IO[bytes], unpacked: IO[bytes]) -> None:
    left = scientific.MAX_UNPACKED
    with gzip.GzipFile(fileobj=stream) as packed:
        if _detect_format(packed.read(1024)) != "FITS":
            raise ImageError("not an image: a gzip archive (unpack it first)")
        packed.seek(0)
        while piece := packed.read(min(left, 4_000_000) + 1):
            left -= len(piece)
            if left < 0:
                raise ImageError(
                    f"it unpacks to more than {scientific.MAX_UNPACKED / 1e6:.0f} MB: "
                    "bin the picture, or cut out the nebula"
                )
            unpacked.write(piece)
    unpacked.flush()
    unpacked.seek(0)


def open_source(source: Source) -> IO[bytes]:
    """Open a file or bytes for reading, unless it is none or too large."""
    if isinstance(source, bytes | bytearray | memoryview):
        _check_bytes(len(source))
        return io.BytesIO(source)
    if not isinstance(source, str | os.PathLike):
        raise ImageError(f"not an image: a {type(source).__name__}, not path or bytes")
    try:
        status = Path(source).stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("not an image: this is a folder; name the files in it")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not an image: this is a device or a pipe, not a file")
        _check_bytes(status.st_size)
        return open(source, "rb")
    except FileNotFoundError as error:
        raise ImageError("no such file: check its name and folder") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"the file can't be read: {reason}") from error


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise ImageError(
            f"the file is larger than {MAX_BYTES / 1e6:.0f} MB: save a smaller copy "
            "of the picture"
        )
    if not size:
        raise ImageError("not an image: the file is empty")


def _detect_format(data: bytes) -> str:
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            if kind.startswith("a "):
                raise ImageError(f"not an image: {kind}")
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "HEIF"
    raise ImageError(f"not an image: {_describe_text(data[:1024])}")


def _refuse_if_cut(start: bytes, kind: str, size: int) -> None:
    # Two formats say early how long they are, and fail oddly when they are not.
    needed = 0
    if kind == "WEBP":
        needed = int.from_bytes(start[4:8], "little") + 8
    elif kind == "TIFF" and start[2] + start[3] == 42:
        order: Literal["little", "big"] = "little" if start[:1] == b"I" else "big"
        needed = int.from_bytes(start[4:8], order) + 2
    if needed > size:
        raise ImageError(
            f"the picture is cut off: {size:,} of {needed:,} bytes or more; "
            "get the file again"
        )


def _describe_text(start: bytes) -> str:
    lowered = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in lowered:
        return "an SVG drawing (scripts and all): export it as PNG"
    if lowered.startswith((b"<!doctype html", b"<html", b"<script")):
        return "a web page (HTML): save the picture itself"
    printable = sum(byte >= 32 or byte in b"\t\r\n" for byte in start)
    if b"\0" not in start and printable >= 0.95 * len(start):
        return "this is text"
    known = "JPEG, PNG, WebP, TIFF, GIF, BMP, HEIC, FITS and XISF are read"
    return f"unknown kind of data; {known}"


def _read_with_pillow(stream: IO[bytes], kind: str, min_side: int | None) -> Decoded:
    _silence_pillow()
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    try:
        picture: Image.Image = Image.open(stream, formats=[kind])
    except UnidentifiedImageError as error:
        if kind == "TIFF":
            return _read_deep_tiff(stream, min_side)
        raise ImageError(
            f"the {kind} file is damaged or is cut off: its header can't be read"
        ) from error
    with picture:
        # Bytes that decoding takes a pixel, measured, all copies together.
        cost = 20 if kind == "WEBP" else 16 if _is_transparent(picture) else 12
        scientific.check_size(*picture.size, 12 * scientific.MAX_PIXELS // cost)
        if kind == "TIFF" and max(_list_bits(picture)) > 12:
            try:
                return _read_deep_tiff(stream, min_side)
            except ImageError:
                raise
            except Exception:  # a codec that tifffile lacks; it has no error for that
                stream.seek(0)
        if getattr(picture, "tag_v2", {}).get(259) == _WEBP_IN_TIFF:
            picture = _join_webp(picture, stream)
        if picture.format in ("JPEG", "MPO"):
            _refuse_scans(picture, stream)
            if min_side:
                picture.draft("RGB", (min_side, min_side))
        full = picture.size
        picture.load()
        # A damaged EXIF block does not make the picture useless.
        with contextlib.suppress(Exception):
            ImageOps.exif_transpose(picture, in_place=True)
        image, notes = _to_rgb(picture, min_side)
    scale = min(image.shape[:2]) / min(full)
    shift = (scale - 1) / 2
    to_shown = np.array([[scale, 0, shift], [0, scale, shift]])
    return Decoded(image, notes, {}, to_shown)


def _read_deep_tiff(stream: IO[bytes], min_side: int | None) -> Decoded:
    """Decode the first page of a TIFF of more than 8 bits a colour by tifffile."""
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    stream.seek(0)
    with tifffile.TiffFile(stream) as tiff:
        page = tiff.pages.first
        if len(page.shape) not in (2, 3) or page.dtype is None:
            raise ImageError(f"this TIFF holds no plain picture, but {page.shape}")
        scientific.check_numbers(page.shape, page.dtype.itemsize)
        array: np.ndarray
        if page.is_memmappable and not isinstance(stream, io.BytesIO):
            dtype = page.dtype.newbyteorder(tiff.byteorder)
            array = np.memmap(stream, dtype, "r", page.dataoffsets[0], page.shape)
        else:
            array = page.asarray(maxworkers=1)
    return scientific.develop(scientific.lay_out_array(array), min_side)


def _join_webp(picture: Any, stream: IO[bytes]) -> Image.Image:
    """Decode a TIFF whose strips or tiles are WebP, which Pillow's libtiff can't."""
    tags = picture.tag_v2
    width, height = tags.get(322, picture.width), tags.get(323, tags.get(278))
    starts, counts = tags.get(324, tags.get(273)), tags.get(325, tags.get(279))
    across = -(-picture.width // width)
    whole = Image.new("RGB", picture.size)
    for i, (start, count) in enumerate(zip(starts, counts, strict=True)):
        stream.seek(start)
        part = Image.open(io.BytesIO(stream.read(count)), formats=["WEBP"])
        if part.width > width or part.height > height:
            raise ImageError("the picture is damaged: a part of it is too large")
        whole.paste(part.convert("RGB"), (i % across * width, i // across * height))
    return whole


def _refuse_scans(picture: Image.Image, stream: IO[bytes]) -> None:
    # Each scan of a progressive JPEG visits all pixels; honest ones have about ten.
    if not picture.info.get("progressive"):
        return
    place = stream.tell()
    stream.seek(0)
    scans = stream.read().count(b"\xff\xda")
    stream.seek(place)
    if scans * picture.size[0] * picture.size[1] > MAX_SCANNED:
        raise ImageError(f"this JPEG has {scans} scans: save the picture again")


@functools.cache
def _silence_pillow() -> None:
    # A filter for good, not catch_warnings(), which is not safe between threads; set
    # with the first picture, as importing us must not change the program's filters.
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _to_rgb(
    picture: Image.Image, min_side: int | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        array = np.asarray(picture)
        if picture.mode.startswith("I;16"):
            array = array << (16 - min(16, max(_list_bits(picture))))
        found = scientific.develop(scientific.lay_out_array(array), min_side)
        return found.image, found.notes
    if _is_transparent(picture):
        # Multiplied by its opacity: that is what lies over black.
        picture = picture.convert("RGBA").convert("RGBa")
    elif picture.mode != "RGB":
        picture = picture.convert("RGB")
    factor = min(picture.size) // min_side if min_side else 1
    if factor > 1:
        picture = picture.reduce(factor)
    return np.array(np.asarray(picture)[..., :3]), ()


def _is_transparent(picture: Image.Image) -> bool:
    layered = picture.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    return layered or "transparency" in picture.info


def _list_bits(picture: Image.Image) -> tuple[int, ...]:
    """Return the bits of each channel of a TIFF; 16 where nothing is said."""
    bits = getattr(picture, "tag_v2", {}).get(258, (16,))
    return tuple(int(n) for n in np.atleast_1d(bits))


def explain(error: Exception) -> str:
    """Say in words for people why a decoder failed."""
    if isinstance(error, Image.DecompressionBombError):
        return scientific.explain_size("more pixels than is safe to decode")
    if isinstance(error, MemoryError):
        return "the picture is too large for this machine's memory: save a smaller copy"
    text = str(error).split("\n")[0][:120] or type(error).__name__
    signs = any(sign in text.lower() for sign in _CUT_SIGNS)
    if signs or isinstance(error, EOFError):
        return "the picture is cut off: get the file again"
    if not isinstance(error, OSError | SyntaxError):  # no words for people in those
        text = "its header makes no sense"
    return f"the picture is damaged: {text}"

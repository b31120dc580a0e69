"""Decode any picture to uint8 RGB, or say in plain words why it can't be used.

Every function here works on arrays of shape (h, w, 3), uint8, RGB, 0–255, sRGB.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import os
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

import numpy as np

# The plugins are imported by name so that Pillow never loads its forty others.
from PIL import (  # noqa: F401
    Image,
    ImageFilter,
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
WORKING_SIDE = 512  # px; all that looks at a picture's content decodes it so
MAX_SCANNED = 2_000_000_000  # pixels times scans of a progressive JPEG
INSIDE = 0.85  # share of a side that is kept of a picture with a dark border
MIN_CONTRAST = 6  # levels of 255, between the cells of a map of a picture's inside
_MAP_SIDE = 96  # px, of the map of what is lit
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_MAGIC = {
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
}
_NOT_IMAGES = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"\x7fELF": "a program",
    b"MZ": "a program",
}

_CUT_SIGNS = ("truncated", "too small for requested", "end of file", "outside of file")


def read_image(
    source: Source, min_side: int | None = None, refuse_blank: bool = True
) -> np.ndarray:
    """Decode a picture; its content decides the format, not its name.

    JPEG, PNG, WebP, TIFF, GIF (first frame), BMP, HEIC, FITS (also .gz and .fz) and
    XISF are read. EXIF orientation is applied, transparency is laid over black (the
    sky), 16-bit pixels keep their high byte, and linear data are stretched for the
    eye (`scientific.stretch`). Colour profiles are ignored: pixels count as sRGB,
    so that the same file gives the same array with every version of Pillow.

    Parameters
    ----------
    source : Path, str or bytes
        A file's path, or the file's content.
    min_side : int, optional
        Decode at reduced size, as long as the shorter side stays at or above
        this many px: much faster where a small picture is all that is needed.
    refuse_blank : bool, default True
        Whether a picture with nothing to see (one colour within its border) is an
        error; False for who looks into why, as the screening does.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        RGB, 0–255.

    Raises
    ------
    ImageError
        For anything that can't be used: missing, unreadable, too large, too
        small, cut off, damaged, blank, not an image. Nothing else is raised.
    """
    return decode(source, min_side, refuse_blank).image


def decode(
    source: Source, min_side: int | None = None, refuse_blank: bool = True
) -> Decoded:
    """Decode a picture like `read_image`, and say what was done to it."""
    try:
        with _open(source) as stream:
            found = _decode_stream(stream, min_side)
    except ImageError:
        raise
    except Exception as error:  # decoders raise nearly everything on bad bytes
        raise ImageError(_explain(error)) from error
    if refuse_blank and not _has_contrast(found.image):
        raise ImageError(
            "nothing to see in this picture: it is blank, or of one colour"
        )
    return found


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize to (height, width, 3); shrinking averages areas, so stars keep no rings.

    Raises
    ------
    ImageError
        If a side is below 1 px or the array is no uint8 RGB picture.
    """
    picture = Image.fromarray(_check(image))
    if height < 1 or width < 1:
        raise ImageError(f"can't resize to {width} × {height} px: give at least 1 × 1")
    if (height, width) == image.shape[:2]:
        return image.copy()
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    return np.array(picture.resize((width, height), method))


def resize_short_side(image: np.ndarray, size: int) -> np.ndarray:
    """Resize so that the shorter side is ``size`` px; proportions are kept.

    Raises
    ------
    ImageError
        If ``size`` is below 1 or the array is no uint8 RGB picture.
    """
    height, width = _check(image).shape[:2]
    scale = size / min(height, width)
    return resize_image(
        image, max(size, round(height * scale)), max(size, round(width * scale))
    )


def pad_to_square(image: np.ndarray, fill: int = 0) -> np.ndarray:
    """Add borders of ``fill`` (0–255) until (s, s, 3); nothing is stretched."""
    height, width = _check(image).shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), fill, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def centre_crop(
    image: np.ndarray, height: int | None = None, width: int | None = None
) -> np.ndarray:
    """Cut (height, width, 3) from the middle; by default the largest square.

    Raises
    ------
    ImageError
        If the crop is empty or larger than the picture.
    """
    full_height, full_width = _check(image).shape[:2]
    side = min(full_height, full_width)
    height, width = height or side, width or side
    if not (1 <= height <= full_height and 1 <= width <= full_width):
        raise ImageError(
            f"can't crop {width} × {height} px from {full_width} × {full_height}"
        )
    top, left = (full_height - height) // 2, (full_width - width) // 2
    return image[top : top + height, left : left + width].copy()


def cut_square(
    image: np.ndarray,
    size: int,
    share: float = 1.0,
    centre: tuple[float, float] = (0.5, 0.5),
) -> np.ndarray:
    """Cut a square from a picture's largest centred square and bring it to a size.

    Parameters
    ----------
    image : ndarray of shape (h, w, 3), uint8
        RGB.
    size : int
        Side of the result, px.
    share : float, default 1
        Side of the cut as a share of the largest square's, in (0, 1].
    centre : tuple of 2 floats
        Its middle, row before column, as shares of the largest square's side; moved
        inwards where the cut would leave the square.

    Returns
    -------
    ndarray of shape (size, size, 3), uint8

    Raises
    ------
    ImageError
        If ``size`` is below 1 or ``share`` outside (0, 1].
    """
    if size < 1 or not 0 < share <= 1:
        raise ImageError(f"can't cut {share} of a side to {size} px")
    height, width = _check(image).shape[:2]
    largest = min(height, width)
    side = max(1.0, largest * share)
    top, left = (
        (length - largest) / 2 + np.clip(place * largest - side / 2, 0, largest - side)
        for length, place in zip((height, width), centre, strict=True)
    )
    method = Image.Resampling.BILINEAR if side >= size else Image.Resampling.BICUBIC
    box = (left, top, left + side, top + side)
    return np.array(Image.fromarray(image).resize((size, size), method, box=box))


def crop_inside(image: np.ndarray, fraction: float) -> np.ndarray:
    """Keep the inner ``fraction`` (0–1] of each side, e.g. to cut off a vignette.

    Raises
    ------
    ImageError
        If ``fraction`` is outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ImageError(
            f"can't keep {fraction} of a side: give more than 0, at most 1"
        )
    height, width = _check(image).shape[:2]
    return centre_crop(
        image, max(1, round(height * fraction)), max(1, round(width * fraction))
    )


def trim_border(image: np.ndarray) -> np.ndarray:
    """Keep the inner 85 % of each side of a picture whose border is dark.

    Parameters
    ----------
    image : ndarray of shape (h, w, 3), uint8
        RGB.

    Returns
    -------
    ndarray of shape (h', w', 3), uint8
        The picture as it is if more than half of its outermost thirtieth is brighter,
        once blurred, than a quarter of the picture's median light; else its inside:
        textures that fade to black, framed pictures, a nebula on an empty sky.
    """
    light = Image.fromarray(_make_map(image).max(-1))
    mask = find_lit(np.asarray(light.filter(ImageFilter.GaussianBlur(2)), np.float32))
    ring = np.ones_like(mask)
    ring[3:-3, 3:-3] = False
    return image if mask[ring].mean() > 0.5 else crop_inside(image, INSIDE)


def _make_map(image: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(_check(image))
    size = (_MAP_SIDE, _MAP_SIDE)
    return np.asarray(picture.resize(size, Image.Resampling.BOX, reducing_gap=2))


def _has_contrast(image: np.ndarray) -> bool:
    # Of 1,911 real pictures, dark and faint ones among them, none is below 62.
    edge = round(_MAP_SIDE * (1 - INSIDE) / 2)
    inside = _make_map(image)[edge:-edge, edge:-edge]
    return bool(np.ptp(inside, axis=(0, 1)).max() >= MIN_CONTRAST)


def find_lit(light: np.ndarray) -> np.ndarray:
    """Say which pixels of a smoothed picture are more than a black border.

    Parameters
    ----------
    light : ndarray of shape (h, w), float32
        Brightness, 0 to 255.

    Returns
    -------
    ndarray of shape (h, w), bool
        True where it exceeds a quarter of the median of what is not black.
    """
    lit = light[light > 4]
    return light > max(4.0, 0.25 * float(np.median(lit)) if len(lit) else 4.0)


def compute_pixel_hash(image: np.ndarray) -> str:
    """Return the SHA-256 of shape and pixels, equal for equal pictures.

    Files of one picture may differ in their bytes (PNG compression levels);
    decoded by `read_image` at full size they have one hash.
    """
    digest = hashlib.sha256("x".join(map(str, _check(image).shape)).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def to_float(image: np.ndarray) -> np.ndarray:
    """Scale uint8 (…, h, w, 3), 0–255, to float32 in [0, 1]."""
    return np.asarray(image, np.float32) / np.float32(255)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Scale floats (…, h, w, 3) in [0, 1] to uint8, 0–255; the rest is clipped."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _decode_stream(stream: IO[bytes], min_side: int | None) -> Decoded:
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


@contextlib.contextmanager
def _open(source: Source) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes | bytearray | memoryview):
        _check_bytes(len(source))
        yield io.BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        with _open_file(Path(source)) as stream:
            yield stream
    else:
        raise ImageError(f"not an image: a {type(source).__name__}, not path or bytes")


def _open_file(path: Path) -> IO[bytes]:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("not an image: this is a folder; name the files in it")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not an image: this is a device or a pipe, not a file")
        _check_bytes(status.st_size)
        return open(path, "rb")
    except FileNotFoundError as error:
        raise ImageError("no such file: check its name and folder") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"the file can't be read: {reason}") from error


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        limit = f"{MAX_BYTES / 1e6:.0f} MB"
        raise ImageError(
            f"the file is larger than {limit}: save a smaller copy of the picture"
        )
    if not size:
        raise ImageError("not an image: the file is empty")


def _detect_format(data: bytes) -> str:
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "HEIF"
    for magic, name in _NOT_IMAGES.items():
        if data.startswith(magic):
            raise ImageError(f"not an image: {name}")
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
        _register_heif()
    try:
        picture = Image.open(stream, formats=[kind])
    except UnidentifiedImageError as error:
        if kind == "TIFF":
            return _read_deep_tiff(stream, min_side)
        raise ImageError(
            f"the {kind} file is damaged or is cut off: its header can't be read"
        ) from error
    with picture:
        _check_cost(picture, kind)
        if kind == "TIFF" and max(_list_bits(picture)) > 12:
            try:
                return _read_deep_tiff(stream, min_side)
            except (ValueError, NotImplementedError):  # a codec that tifffile lacks
                stream.seek(0)
        return _load(picture, stream, min_side)


def _load(picture: Image.Image, stream: IO[bytes], min_side: int | None) -> Decoded:
    if picture.format in ("JPEG", "MPO"):
        _refuse_scans(picture, stream)
        if min_side:
            picture.draft("RGB", (min_side, min_side))
    full = picture.size
    picture.load()
    _turn_upright(picture)
    image, notes = _to_rgb(picture, min_side)
    scale = min(image.shape[:2]) / min(full)
    shift = (scale - 1) / 2
    to_shown = np.array([[scale, 0, shift], [0, scale, shift]])
    return Decoded(image, notes, {}, to_shown)


def _read_deep_tiff(stream: IO[bytes], min_side: int | None) -> Decoded:
    stream.seek(0)
    return scientific.read_tiff(stream, min_side)


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


def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def _turn_upright(picture: Image.Image) -> None:
    # A damaged EXIF block does not make the picture useless.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(picture, in_place=True)


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


def _check_cost(picture: Image.Image, kind: str) -> None:
    # Bytes that decoding takes a pixel, measured, all copies together.
    cost = 20 if kind == "WEBP" else 16 if _is_transparent(picture) else 12
    scientific.check_size(*picture.size, 12 * scientific.MAX_PIXELS // cost)


def _list_bits(picture: Image.Image) -> tuple[int, ...]:
    """Return the bits of each channel of a TIFF; 16 where nothing is said."""
    bits = getattr(picture, "tag_v2", {}).get(258, (16,))
    return tuple(int(n) for n in np.atleast_1d(bits))


def _check(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(
            "needs a uint8 picture of shape (h, w, 3), "
            f"got {image.dtype} of shape {image.shape}"
        )
    return image


def _explain(error: Exception) -> str:
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

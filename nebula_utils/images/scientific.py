"""Turn numbers of any range, as FITS, XISF and 16-bit TIFF hold them, into RGB.

`reading.decode` is the way in; here is what Pillow lacks. What a file claims is held
against its limits before anything is unpacked, and large pictures are read a few rows
at a time, so that nothing takes more than about a gigabyte.
"""

import io
import math
import warnings
import zlib
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nebula_utils.errors import ImageError

MAX_PIXELS = 100_000_000  # Pillow itself refuses above 178,956,970
MAX_UNPACKED = 500_000_000  # bytes of a picture's numbers
MAX_FLOATS = 60_000_000  # numbers worked on at once; larger pictures are binned
MAX_TILES = 200_000  # of a compressed FITS picture
MAX_HEADER = 32_000_000  # bytes of XISF's header
MIN_SIDE = 16  # px
BLOCK = 8_000_000  # numbers that are read at once
# Finished pictures are lighter: of 1,911 only six have a smaller span (see stretch).
LINEAR_SPAN = 0.1
CLIP, BACKGROUND = 2.8, 0.25  # of the autostretch, as published
LINEAR = "linear data, stretched for the eye"
_XISF_TYPES = dict(UInt8="u1", UInt16="u2", UInt32="u4", Float32="f4", Float64="f8")


class Numbers(NamedTuple):
    """A picture whose numbers are read when they are wanted.

    Attributes
    ----------
    shape : tuple of (height, width, planes)
        Planes are 1 or 3.
    read : callable
        Returns rows first to last, exclusive, as (n, width, planes).
    white : float or None
        What is white in the file's own format (1 for floats, 65535 for 16 bits);
        None where numbers are counts of any range.
    header : Mapping
        FITS keywords, empty for other formats.
    bottom_up : bool
        Whether the first row is the lowest.
    """

    shape: tuple[int, int, int]
    read: Callable[[int, int], NDArray[Any]]
    white: float | None = None
    header: Mapping[str, Any] = {}
    bottom_up: bool = False


class Decoded(NamedTuple):
    """A picture and what is known about how it came to be.

    Attributes
    ----------
    image : ndarray of shape (h, w, 3), uint8
        RGB, 0–255, sRGB.
    notes : tuple of str
        What was done to it that a reader should know, such as a stretch.
    header : Mapping
        FITS keywords; empty for other formats.
    to_shown : ndarray of shape (2, 3), float64
        Turns (x, y, 1) of the file, pixels from 0 in file order, into column and row.
    """

    image: NDArray[np.uint8]
    notes: tuple[str, ...]
    header: Mapping[str, Any]
    to_shown: NDArray[np.float64]


def read_fits(stream: IO[bytes], min_side: int | None = None) -> Decoded:
    """Decode the first 2-D or 3-D image of a FITS file, stretched, north up.

    A cube (3, h, w) or (h, w, 3) is colour; of any other cube the first plane is
    taken. Tile-compressed images (``.fits.fz``) are read, too. With a celestial WCS
    north is up, as near as quarter turns bring it, and east is left; else rows count
    from the bottom unless ROWORDER says TOP-DOWN. Bayer data (BAYERPAT) come out in
    colour, half as wide and high.

    Raises
    ------
    ImageError
        If there is no such image or its size is not accepted; what is damaged raises
        astropy's own errors.
    """
    from astropy.io import fits

    warnings.filterwarnings("ignore", module=r"astropy\.")
    with fits.open(stream, memmap=False) as hdus:
        for hdu in hdus:
            shape = tuple(n for n in (hdu.shape if hdu.is_image else ()) if n != 1)
            if len(shape) in (2, 3):
                break
        else:
            raise ImageError("this FITS file holds no picture, only tables or spectra")
        _check_tiles(hdu)
        bits = int(hdu.header["BITPIX"])
        check_numbers(shape, abs(bits) // 8)
        # A tile that is as large as what is read at once would be unpacked again and
        # again; of the small ones astropy unpacks what is wanted.
        tile = getattr(hdu, "tile_shape", (1,))
        source = hdu.data if math.prod(tile) > BLOCK // 16 else hdu.section
        gaps = tuple(0 if n == 1 else slice(None) for n in hdu.shape)

        def read(index: tuple[slice, ...]) -> NDArray[Any]:
            wanted = iter(index)
            full = tuple(next(wanted) if isinstance(g, slice) else g for g in gaps)
            return np.asarray(source[full])

        white = 1.0 if bits < 0 else 255.0 if bits == 8 else None
        top_down = str(hdu.header.get("ROWORDER", "")).upper().startswith("TOP")
        numbers = _lay_out(shape, read, white, hdu.header, not top_down)
        return develop(numbers, min_side)


def read_xisf(stream: IO[bytes], min_side: int | None = None) -> Decoded:
    """Decode the first image of a monolithic XISF file, PixInsight's own format.

    Uncompressed or compressed by zlib, LZ4 or Zstandard, with or without shuffled
    bytes, planes one after the other: all that PixInsight writes (XISF 1.0
    specification). Raises as `read_fits`.
    """
    from xml.etree import ElementTree

    length = int.from_bytes(stream.read(16)[8:12], "little")
    if length > MAX_HEADER:
        raise ImageError("the XISF file is damaged: its header makes no sense")
    header = stream.read(length).rstrip(b"\0")
    if b"<!ENTITY" in header:  # never in an honest file
        raise ImageError("the XISF file is damaged: its header makes no sense")
    image = ElementTree.fromstring(header).find("{*}Image")
    if image is None:
        raise ImageError("this XISF file holds no picture")
    width, height, planes = (int(n) for n in image.attrib["geometry"].split(":"))
    place, *where = image.attrib["location"].split(":")
    kind = _XISF_TYPES.get(image.attrib["sampleFormat"])
    if place != "attachment" or kind is None or image.get("pixelStorage") == "Normal":
        raise ImageError(
            "XISF files of this kind are not read: save it as FITS, or as XISF "
            "with its data in the same file"
        )
    dtype = np.dtype(kind).newbyteorder(">" if image.get("byteOrder") == "big" else "<")
    shape = (planes, height, width)
    check_numbers(shape, dtype.itemsize)
    start, size = map(int, where)
    packing = image.get("compression")
    if packing is None and not isinstance(stream, io.BytesIO):
        array: NDArray[Any] = np.memmap(stream, dtype, "r", start, shape)
    else:
        stream.seek(start)
        data = stream.read(min(size, MAX_UNPACKED))
        if packing is not None:
            data = _unpack(data, packing, math.prod(shape) * dtype.itemsize)
        array = np.frombuffer(data, dtype, math.prod(shape)).reshape(shape)
    return develop(lay_out_array(array, planes_first=True), min_side)


def develop(numbers: Numbers, min_side: int | None = None) -> Decoded:
    """Put a picture of numbers in colour, bin, stretch and turn it."""
    header, notes = numbers.header, []
    pattern = str(header.get("BAYERPAT", "")).strip().upper()
    scale = 1
    if numbers.shape[2] == 1 and sorted(pattern) == ["B", "G", "G", "R"]:
        numbers, scale = _debayer(numbers, pattern), 2
        notes.append(f"Bayer data ({pattern}), two by two pixels made one in colour")
    height, width, _ = numbers.shape
    factor = min(height, width) // min_side if min_side else 1
    least = math.ceil(math.sqrt(math.prod(numbers.shape) / MAX_FLOATS))
    factor = max(factor, least, 1)
    if factor > 1 and not min_side:
        notes.append(f"binned {factor} × {factor}, as it is very large")
    values = _bin(numbers, factor)
    image, linear = scale_numbers(values, numbers.white)
    if linear:
        notes.append(LINEAR)
    turned, to_shown = _turn_north_up(to_rgb(image), header, numbers.bottom_up)
    scale *= factor
    shrink = np.diag([1 / scale, 1 / scale, 1.0])
    shrink[:2, 2] = 0.5 / scale - 0.5
    return Decoded(turned, tuple(notes), header, (to_shown @ shrink)[:2])


def scale_numbers(
    values: NDArray[np.floating], white: float | None
) -> tuple[NDArray[np.uint8], bool]:
    """Turn numbers (h, w, n) into 0–255, in place; say whether they were stretched.

    Numbers with a known white point, all of them within it, are scaled as they are,
    unless they span less than `LINEAR_SPAN` of it between the 1st and the 99th
    percentile, as no finished picture does: those are linear. All else is stretched.
    """
    sample = _sample(values)
    if not sample.size:
        raise ImageError("the picture is empty: it has no finite pixel")
    if white is not None:
        low, high = np.percentile(sample, (1, 99))
        inside = np.nanmin(values) >= 0 and np.nanmax(values) <= 1.001 * white
        if inside and (white == 255 or high - low >= LINEAR_SPAN * white):
            # 16 bits keep their high byte, as everywhere; the rest is rounded.
            shift, scale = (0, 1 / 256) if white > 255 else (0.5, 255 / white)
            values *= np.float32(scale)
            values += np.float32(shift)
            np.clip(values, 0, 255, out=values)
            return np.nan_to_num(values, copy=False).astype(np.uint8), False
    return stretch(values), True


def stretch(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Map linear numbers of any range to 0–255 for the eye.

    The automatic stretch that PixInsight (screen transfer function) and Siril
    publish: black is 2.8 times the noise below the median, noise being the median
    absolute deviation times 1.4826, and the midtones transfer function [1]_ brings the
    median to a quarter of white. Before that the channels' 1st percentiles are made
    equal, which takes out a coloured sky; all else is the same for all channels, so
    that colours stay.

    Parameters
    ----------
    values : ndarray of shape (h, w) or (h, w, n)
        Any real numbers; NaN and infinite ones become black.

    Returns
    -------
    ndarray of the same shape, uint8

    References
    ----------
    .. [1] XISF 1.0 specification, section 8.5.7 (display functions): m is the value
       that becomes a half, MTF(x; m) = (m - 1) x / ((2 m - 1) x - m).
    """
    shape = values.shape
    values = np.array(np.atleast_3d(values), np.float32)
    values[~np.isfinite(values)] = np.nan
    for channel in range(values.shape[2]):
        sample = _sample(values[..., channel : channel + 1])
        values[..., channel] -= np.percentile(sample, 1) if len(sample) else 0
    sample = _sample(values)
    median, bright, white = np.percentile(sample, (50, 99, 99.97))
    noise = 1.4826 * float(np.median(np.abs(sample - median)))
    # A sky without any noise, as simulations have it: take a tenth of what rises.
    noise = noise or float(bright - median) / 10 or float(white - median) / 100 or 1.0
    black = float(median) - CLIP * noise
    span = max(float(white), float(median) + noise) - black
    values -= np.float32(black)
    values /= np.float32(span)
    np.clip(values, 0, 1, out=values)
    middle = CLIP * noise / span
    m = middle * (BACKGROUND - 1) / ((2 * BACKGROUND - 1) * middle - BACKGROUND)
    below = np.float32(2 * m - 1) * values - np.float32(m)
    values *= np.float32(255 * (m - 1))
    values /= below
    return (np.nan_to_num(values, copy=False) + 0.5).astype(np.uint8).reshape(shape)


def to_rgb(array: np.ndarray) -> np.ndarray:
    """Repeat grey (h, w) or (h, w, 1) three times; pass (h, w, 3) through."""
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array)


def check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Refuse sizes (px) outside MIN_SIDE … ``most`` pixels with an ImageError."""
    if width * height > most:
        raise ImageError(explain_size(f"{width} × {height} px", most))
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"the picture is too small: {width} × {height} px, "
            f"each side needs {MIN_SIDE} px or more"
        )


def explain_size(size: str, most: int = MAX_PIXELS) -> str:
    """Say that a picture of ``size`` is above the limit, and what to do."""
    limit = f"{most / 1e6:.0f} megapixels"
    return f"the picture is too large: {size}, at most {limit}: save a smaller copy"


def check_numbers(shape: tuple[int, ...], itemsize: int) -> None:
    """Refuse a picture by its header: sides, planes and bytes once unpacked."""
    channels_last = len(shape) == 3 and shape[2] <= 4
    height, width = shape[:2] if channels_last else shape[-2:]
    check_size(width, height, 2 * MAX_PIXELS)
    size = math.prod(shape) * itemsize
    if size > MAX_UNPACKED:
        raise ImageError(
            f"the picture is too large: {size / 1e6:,.0f} MB once unpacked, at most "
            f"{MAX_UNPACKED / 1e6:.0f}: bin it, or cut out the nebula"
        )


def _check_tiles(hdu: Any) -> None:
    tile = getattr(hdu, "tile_shape", None)
    if tile is None:
        return
    tiles = math.prod(-(-n // t) for n, t in zip(hdu.shape, tile, strict=True))
    if tiles > MAX_TILES:
        raise ImageError(
            f"this FITS file is cut into {tiles:,} compressed tiles: unpack it first "
            "(funpack)"
        )


def _lay_out(
    shape: tuple[int, ...],
    read: Callable[[tuple[slice, ...]], NDArray[Any]],
    white: float | None,
    header: Mapping[str, Any],
    bottom_up: bool,
    planes_first: bool = False,
) -> Numbers:
    """Give (h, w), (n, h, w) or (h, w, n) as rows of (w, 1) or (w, 3)."""
    whole = slice(None)
    if len(shape) == 2:
        (height, width), planes = shape, 1
    elif shape[2] <= 4 and not planes_first:
        height, width, planes = shape[0], shape[1], 3 if shape[2] >= 3 else 1
    else:
        planes, height, width = 3 if shape[0] in (3, 4) else 1, shape[1], shape[2]

    def rows(start: int, stop: int) -> NDArray[Any]:
        part, first = slice(start, stop), slice(0, planes)
        if len(shape) == 2:
            return read((part, whole))[..., None]
        if shape[:2] == (height, width) and not planes_first:
            return read((part, whole, first))
        return np.moveaxis(read((first, part, whole)), 0, 2)

    return Numbers((height, width, planes), rows, white, header, bottom_up)


def lay_out_array(array: NDArray[Any], planes_first: bool = False) -> Numbers:
    """Give an array (h, w), (n, h, w) or (h, w, n) as `Numbers`, top row first."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    white = 1.0 if kind == "f" else None
    if kind == "u" and size <= 2:
        white = 255.0 if size == 1 else 65535.0
    return _lay_out(array.shape, array.__getitem__, white, {}, False, planes_first)


def _unpack(data: bytes, packing: str, size: int) -> bytes:
    """Decompress a block of XISF to at most ``size`` bytes."""
    codec, _, *item = packing.split(":")
    if codec.startswith("zlib"):
        data = zlib.decompressobj().decompress(data, size)
    elif codec.startswith("lz4"):
        import lz4.block

        data = lz4.block.decompress(data, uncompressed_size=size)
    elif codec.startswith("zstd"):
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            data = reader.read(size)
    else:
        raise ImageError(f"XISF compressed by {codec[:20]!r} is not read")
    if codec.endswith("+sh"):
        shuffled = np.frombuffer(data, np.uint8).reshape(int(item[0]), -1)
        data = np.ascontiguousarray(shuffled.T).tobytes()
    return data


def _debayer(numbers: Numbers, pattern: str) -> Numbers:
    """Make each two by two pixels one of red, green (their mean) and blue."""
    height, width, _ = numbers.shape
    places = {c: [divmod(i, 2) for i, p in enumerate(pattern) if p == c] for c in "RGB"}

    def rows(start: int, stop: int) -> NDArray[Any]:
        raw = numbers.read(2 * start, 2 * stop)[:, : width // 2 * 2, 0]
        raw = raw.astype(np.float32)
        planes = [
            np.mean([raw[y::2, x::2] for y, x in places[colour]], axis=0)
            for colour in "RGB"
        ]
        return np.stack(planes, axis=-1)

    return numbers._replace(shape=(height // 2, width // 2, 3), read=rows)


def _bin(numbers: Numbers, factor: int) -> NDArray[np.float32]:
    """Return means of factor by factor pixels, NaN left out of them."""
    height, width, planes = numbers.shape
    out_height, out_width = height // factor, width // factor
    out = np.empty((out_height, out_width, planes), np.float32)
    step = max(1, BLOCK // (width * planes * factor))
    for top in range(0, out_height, step):
        last = min(top + step, out_height)
        block = numbers.read(top * factor, last * factor)
        block = block[:, : out_width * factor].astype(np.float32)
        block[~np.isfinite(block)] = np.nan
        if factor > 1:
            cells = block.reshape(last - top, factor, out_width, factor, planes)
            mean = np.nanmean if np.isnan(block).any() else np.mean
            block = mean(cells, axis=(1, 3))
        out[top:last] = block
    return out


def _sample(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return up to a million of the finite numbers: enough for percentiles."""
    step = max(1, round((values.shape[0] * values.shape[1] / 1e6) ** 0.5))
    sample = values[::step, ::step]
    return sample[np.isfinite(sample)]


def _turn_north_up(
    image: np.ndarray, header: Mapping[str, Any], bottom_up: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Turn and mirror by the WCS; return also the matrix of pixels, (3, 3)."""
    transpose, flip_rows, flip_columns = False, bottom_up, False
    sky = _find_directions(header)
    if sky is not None:
        north, east = sky
        transpose = abs(north[0]) > abs(north[1])
        if transpose:
            north, east = north[::-1], east[::-1]
        flip_rows, flip_columns = north[1] > 0, east[0] > 0
    matrix = np.eye(3)
    if transpose:
        image, matrix = image.swapaxes(0, 1), matrix[[1, 0, 2]]
    height, width = image.shape[:2]
    if flip_rows:
        image = image[::-1]
        matrix = np.array([[1, 0, 0], [0, -1, height - 1], [0, 0, 1]]) @ matrix
    if flip_columns:
        image = image[:, ::-1]
        matrix = np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]]) @ matrix
    return np.ascontiguousarray(image), matrix


def _find_directions(header: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return north and east as directions (x, y) in the file, if a WCS says so."""
    if "CTYPE1" not in header:
        return None
    from astropy.wcs import WCS

    try:
        matrix = WCS(header, naxis=2).celestial.pixel_scale_matrix
        east, north = np.linalg.inv(matrix).T
    except Exception:  # a damaged WCS does not make the picture useless
        return None
    return north, east

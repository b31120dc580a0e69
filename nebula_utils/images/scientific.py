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
    """A picture whose numbers are read when they are wanted."""

    shape: tuple[int, int, int]  # height, width, planes (1 or 3)
    read: Callable[[int, int], NDArray[Any]]  # rows [first, last): (n, width, planes)
    white: float | None = None  # white in the file's format; None for counts
    header: Mapping[str, Any] = {}  # FITS keywords, empty for other formats
    bottom_up: bool = False  # whether the first row is the lowest


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
        pictures = (n for n, hdu in enumerate(hdus) if _holds_picture(hdu))
        place = next(pictures, None)
        if place is None:
            raise ImageError("this FITS file holds no picture, only tables or spectra")
        hdu = hdus[place]
        tile = getattr(hdu, "tile_shape", (1,))
        if hasattr(hdu, "tile_shape"):
            _check_tiles(stream, place, hdu.shape, tile)
        bits, header = int(hdu.header["BITPIX"]), hdu.header
        check_numbers(tuple(n for n in hdu.shape if n != 1), abs(bits) // 8)
        # A tile that is as large as what is read at once would be unpacked again and
        # again; of the small ones astropy unpacks what is wanted.
        source = hdu.data if math.prod(tile) > BLOCK // 16 else hdu.section
        white = 1.0 if bits < 0 else 255.0 if bits == 8 else None
        top_down = str(header.get("ROWORDER", "")).upper().startswith("TOP")
        numbers = _lay_out(source, hdu.shape)
        found = numbers._replace(white=white, header=header, bottom_up=not top_down)
        return develop(found, min_side)


def _holds_picture(hdu: Any) -> bool:
    return hdu.is_image and sum(n != 1 for n in hdu.shape) in (2, 3)


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
    image, linear = _scale_numbers(values, numbers.white)
    if linear:
        notes.append(LINEAR)
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    turned, to_shown = _turn_north_up(image, header, numbers.bottom_up)
    scale *= factor
    shrink = np.diag([1 / scale, 1 / scale, 1.0])
    shrink[:2, 2] = 0.5 / scale - 0.5
    return Decoded(turned, tuple(notes), header, (to_shown @ shrink)[:2])


def _scale_numbers(
    values: NDArray[np.floating], white: float | None
) -> tuple[NDArray[np.uint8], bool]:
    """Turn numbers (h, w, n) into 0–255, in place; say whether they were stretched.

    They are not if all lie within a known white point and span `LINEAR_SPAN` of it or
    more from the 1st to the 99th percentile, as any finished picture does.
    """
    sample = _sample(values)
    if not sample.size:
        raise ImageError("the picture is empty: it has no finite pixel")
    low, high = np.percentile(sample, (1, 99))
    if (
        white is None
        or np.nanmin(values) < 0
        or np.nanmax(values) > 1.001 * white
        or (white != 255 and high - low < LINEAR_SPAN * white)
    ):
        return stretch(values), True
    # 16 bits keep their high byte, as everywhere; the rest is rounded.
    shift, scale = (0, 1 / 256) if white > 255 else (0.5, 255 / white)
    values *= np.float32(scale)
    values += np.float32(shift)
    np.clip(values, 0, 255, out=values)
    return np.nan_to_num(values, copy=False).astype(np.uint8), False


def stretch(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Map linear numbers of any range to 0–255 for the eye.

    The automatic stretch of PixInsight (screen transfer function) and Siril: black is
    2.8 times the noise (1.4826 times the median absolute deviation) below the median,
    and the midtones transfer function [1]_ brings the median to a quarter of white.
    Before that the channels' 1st percentiles are made equal, which takes out a
    coloured sky; all else is the same for all channels, so that colours stay.

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


def _check_tiles(
    stream: IO[bytes], place: int, shape: tuple[int, ...], tile: tuple[int, ...]
) -> None:
    """Refuse a compressed picture of too many tiles, or of some that are bombs."""
    from astropy.io import fits

    tiles = math.prod(-(-n // t) for n, t in zip(shape, tile, strict=True))
    if tiles > MAX_TILES:
        raise ImageError(
            f"this FITS file is cut into {tiles:,} compressed tiles: unpack it first "
            "(funpack)"
        )
    start = stream.tell()
    stream.seek(0)
    raw = fits.open(stream, memmap=False, disable_image_compression=True)[place]
    gzipped = ["GZIP_COMPRESSED_DATA"]  # what could not be compressed otherwise
    if str(raw.header["ZCMPTYPE"]).startswith("GZIP"):
        gzipped.append("COMPRESSED_DATA")
    most = 8 * math.prod(tile) + 1024
    for name in set(gzipped) & set(raw.columns.names):
        for packed in map(bytes, raw.data[name]):
            # astropy would unpack it whole, whatever comes.
            if packed and len(zlib.decompressobj(31).decompress(packed, most)) == most:
                raise ImageError("the FITS file is damaged: a tile unpacks to too much")
    stream.seek(start)


def _lay_out(
    source: Any, shape: tuple[int, ...], planes_first: bool = False
) -> Numbers:
    """Give what is sliced as (h, w), (n, h, w) or (h, w, n) as `Numbers`.

    Axes of length 1 don't count.
    """
    axes = [axis for axis, length in enumerate(shape) if length != 1]
    in_colour = len(axes) == 3
    last = in_colour and shape[axes[2]] <= 4 and not planes_first
    plane = axes.pop(2 if last else 0) if in_colour else None
    planes = 3 if plane is not None and shape[plane] in (3, 4) else 1

    def read(start: int, stop: int) -> NDArray[Any]:
        index = [0 if length == 1 else slice(None) for length in shape]
        index[axes[0]] = slice(start, stop)
        if plane is not None:
            index[plane] = slice(0, planes)
        part = np.asarray(source[tuple(index)])
        return (
            part[..., None] if plane is None else np.moveaxis(part, 2 if last else 0, 2)
        )

    return Numbers((shape[axes[0]], shape[axes[1]], planes), read)


def lay_out_array(array: NDArray[Any], planes_first: bool = False) -> Numbers:
    """Give an array (h, w), (n, h, w) or (h, w, n) as `Numbers`, top row first."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    white = 1.0 if kind == "f" else None
    if kind == "u" and size <= 2:
        white = 255.0 if size == 1 else 65535.0
    return _lay_out(array, array.shape, planes_first)._replace(white=white)


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
    matrix = np.eye(3)
    flip_rows, flip_columns = bottom_up, False
    sky = _find_directions(header)
    if sky is not None:
        north, east = sky
        if abs(north[0]) > abs(north[1]):
            north, east = north[::-1], east[::-1]
            image, matrix = image.swapaxes(0, 1), matrix[[1, 0, 2]]
        flip_rows, flip_columns = north[1] > 0, east[0] > 0
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

"""Decode any picture to uint8 RGB, and cut, resize and compare such pictures.

Every function here works on arrays of shape (h, w, 3), uint8, RGB, 0–255, sRGB; any
other array, and a size that can't be, is an `ImageError`.
"""

import hashlib

import numpy as np
from PIL import Image, ImageFilter

from nebula_utils.errors import ImageError
from nebula_utils.images import decoding
from nebula_utils.images.decoding import Source
from nebula_utils.images.scientific import Decoded

INSIDE = 0.85  # share of a side that is kept of a picture with a dark border
MIN_CONTRAST = 6  # levels of 255, between the cells of a map of a picture's inside
_MAP_SIDE = 96  # px, of the map of what is lit


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
        with decoding.open_source(source) as stream:
            found = decoding.decode_stream(stream, min_side)
    except ImageError:
        raise
    except Exception as error:  # decoders raise nearly everything on bad bytes
        raise ImageError(decoding.explain(error)) from error
    if refuse_blank and not _has_contrast(found.image):
        raise ImageError(
            "nothing to see in this picture: it is blank, or of one colour"
        )
    return found


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize to (height, width, 3) px; shrinking averages areas: stars get no rings."""
    picture = Image.fromarray(_check(image))
    if height < 1 or width < 1:
        raise ImageError(f"can't resize to {width} × {height} px: give at least 1 × 1")
    if (height, width) == image.shape[:2]:
        return image.copy()
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    return np.array(picture.resize((width, height), method))


def resize_short_side(image: np.ndarray, size: int) -> np.ndarray:
    """Resize so that the shorter side is ``size`` px; proportions are kept."""
    height, width = _check(image).shape[:2]
    scale = size / min(height, width)
    return resize_image(
        image, max(size, round(height * scale)), max(size, round(width * scale))
    )


def centre_crop(
    image: np.ndarray, height: int | None = None, width: int | None = None
) -> np.ndarray:
    """Cut (height, width, 3) px from the middle; by default the largest square."""
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


def trim_border(image: np.ndarray) -> np.ndarray:
    """Keep the inner 85 % of each side of a picture whose border is dark.

    Such are textures that fade to black, framed pictures, a nebula on an empty sky. A
    border is dark if half of the outermost thirtieth or more is no brighter, once
    blurred, than a quarter of the picture's median light (`find_lit`).
    """
    light = Image.fromarray(_make_map(image).max(-1))
    mask = find_lit(np.asarray(light.filter(ImageFilter.GaussianBlur(2)), np.float32))
    ring = np.ones_like(mask)
    ring[3:-3, 3:-3] = False
    if mask[ring].mean() > 0.5:
        return image
    height, width = (max(1, round(side * INSIDE)) for side in image.shape[:2])
    return centre_crop(image, height, width)


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
    lit = np.sort(light[light > 4])
    # Not np.median, whose first call imports numpy.ma: 35 ms of `nebula classify`.
    middle = (lit[(len(lit) - 1) // 2] + lit[len(lit) // 2]) / 2 if len(lit) else 0
    return light > max(4.0, 0.25 * float(middle))


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


def _make_map(image: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(_check(image))
    size = (_MAP_SIDE, _MAP_SIDE)
    return np.asarray(picture.resize(size, Image.Resampling.BOX, reducing_gap=2))


def _has_contrast(image: np.ndarray) -> bool:
    # Of 1,911 real pictures, dark and faint ones among them, none is below 62.
    edge = round(_MAP_SIDE * (1 - INSIDE) / 2)
    inside = _make_map(image)[edge:-edge, edge:-edge]
    return bool(np.ptp(inside, axis=(0, 1)).max() >= MIN_CONTRAST)


def _check(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(
            "needs a uint8 picture of shape (h, w, 3), "
            f"got {image.dtype} of shape {image.shape}"
        )
    return image

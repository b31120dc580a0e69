"""Turn numbers of any range, as FITS and floating-point TIFF hold them, into RGB.

`reading.read_image` is the way in; this module has what Pillow lacks.
"""

import io
import logging
import warnings

import numpy as np

from nebula_utils.errors import ImageError

MAX_PIXELS = 100_000_000  # Pillow itself refuses above 178,956,970
MIN_SIDE = 16  # px
SOFTENING = (0.003, 1.0)  # of the white point; below it the stretch is linear


def read_fits(data: bytes) -> np.ndarray:
    """Decode the first 2-D or 3-D image of a FITS file, stretched, north up.

    Parameters
    ----------
    data : bytes
        The file's content. A cube (3, h, w) or (h, w, 3) is colour; of any other
        cube the first plane is taken. Rows count from the bottom unless the
        header's ROWORDER says TOP-DOWN.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        RGB, 0–255; pixels without a value (NaN) are black.

    Raises
    ------
    ImageError
        If there is no such image or its size is not accepted. Astropy's own
        errors for damaged files are passed on.
    """
    from astropy.io import fits

    warnings.filterwarnings("ignore", module=r"astropy\.")
    with fits.open(io.BytesIO(data), memmap=False) as hdus:
        for hdu in hdus:
            shape = tuple(n for n in (hdu.shape if hdu.is_image else ()) if n != 1)
            if len(shape) in (2, 3):
                break
        else:
            raise ImageError("this FITS file holds no picture, only tables or spectra")
        _check_cube(shape)
        array = np.asarray(hdu.data).reshape(shape)
        top_down = str(hdu.header.get("ROWORDER", "")).upper().startswith("TOP")
    picture = _take_picture(array)
    return to_rgb(stretch(picture if top_down else picture[::-1]))


def read_tiff(data: bytes) -> np.ndarray:
    """Decode a TIFF that Pillow can't, such as the 32-bit colour of Siril.

    Parameters
    ----------
    data : bytes
        The file's content; its first page is read.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        RGB, 0–255.

    Raises
    ------
    ImageError
        If the page is no plain picture or its size is not accepted. The errors
        of tifffile for damaged files are passed on.
    """
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages.first
        if len(page.shape) not in (2, 3):
            raise ImageError(f"this TIFF holds no plain picture, but {page.shape}")
        _check_cube(page.shape)
        array = page.asarray(maxworkers=1)
    return scale_numbers(_take_picture(array))


def scale_numbers(array: np.ndarray) -> np.ndarray:
    """Turn (h, w) or (h, w, 3) of any number type into uint8 RGB (h, w, 3).

    Floats in [0, 1] and whole numbers of 8 or 16 bits have a known white point
    and are scaled as they are; everything else is stretched.
    """
    if array.dtype == np.uint8:
        return to_rgb(array)
    finite = np.isfinite(array)
    low = array.min(where=finite, initial=0)
    high = array.max(where=finite, initial=0)
    if array.dtype.kind == "f" and low >= 0 and 0 < high <= 1:
        return to_rgb((np.where(finite, array, 0) * 255 + 0.5).astype(np.uint8))
    is_16_bit = array.dtype.kind in "iu" and low >= 0 and 255 < high <= 65535
    if array.dtype == np.uint16 or is_16_bit:
        return to_rgb((array >> 8).astype(np.uint8))
    return to_rgb(stretch(array))


def stretch(array: np.ndarray) -> np.ndarray:
    """Map numbers of any range to 0–255: percentiles, then asinh.

    One black point a channel (1st percentile) takes out a coloured sky; one white
    point (99.7th) for all channels keeps the colours of what stands in front of
    it. The asinh keeps faint nebulosity and bright stars at once (Lupton et al.
    2004, PASP 116, 133), and turns linear at three times the sky's level.

    Parameters
    ----------
    array : ndarray, shape (h, w) or (h, w, 3)
        Any real numbers; NaN and infinite ones become black.

    Returns
    -------
    ndarray of uint8, same shape

    Raises
    ------
    ImageError
        If no pixel is finite.
    """
    with np.errstate(all="ignore"):
        values = np.atleast_3d(array).astype(np.float32)
        finite = np.isfinite(values)
        if not finite.any():
            raise ImageError("the picture is empty: it has no finite pixel")
        # A million pixels are enough to know the percentiles.
        step = max(1, round((values.shape[0] * values.shape[1] / 1e6) ** 0.5))
        for channel in range(values.shape[2]):
            sample = values[::step, ::step, channel]
            sample = sample[finite[::step, ::step, channel]]
            values[..., channel] -= np.percentile(sample, 1) if sample.size else 0
        values[~finite] = 0
        sky, white = np.percentile(values[::step, ::step], (50, 99.7))
        white = white or values.max() or 1
        np.clip(values / white, 0, 1, out=values)
        soft = np.float32(np.clip(3 * sky / white, *SOFTENING))
        values = np.arcsinh(values / soft) / np.arcsinh(1 / soft)
    values = np.nan_to_num(values)
    return (values * 255 + 0.5).astype(np.uint8).reshape(array.shape)


def to_rgb(array: np.ndarray) -> np.ndarray:
    """Repeat grey (h, w) three times; pass (h, w, 3) through, contiguous."""
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    return np.ascontiguousarray(array)


def check_size(width: int, height: int) -> None:
    """Refuse sizes (px) outside MIN_SIDE … MAX_PIXELS with an ImageError."""
    if width * height > MAX_PIXELS:
        raise ImageError(explain_size(f"{width} × {height} px"))
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"the picture is too small: {width} × {height} px, "
            f"each side needs {MIN_SIDE} px or more"
        )


def explain_size(size: str) -> str:
    """Say that a picture of ``size`` is above the limit."""
    limit = f"{MAX_PIXELS / 1e6:.0f} megapixels"
    return f"the picture is too large: {size}, at most {limit}"


def _check_cube(shape: tuple[int, ...]) -> None:
    # The header is asked, before anything is decoded.
    channels_last = len(shape) == 3 and shape[2] <= 4
    height, width = shape[:2] if channels_last else shape[-2:]
    check_size(width, height)
    if np.prod(shape, dtype=float) > 4 * MAX_PIXELS:
        raise ImageError(explain_size(" × ".join(map(str, shape))))


def _take_picture(array: np.ndarray) -> np.ndarray:
    # (h, w), (n, h, w) or (h, w, n) → (h, w) or (h, w, 3), by transposing.
    if array.ndim == 2:
        return array
    if array.shape[2] <= 4:
        return array[..., :3] if array.shape[2] >= 3 else array[..., 0]
    return np.moveaxis(array[:3], 0, 2) if array.shape[0] in (3, 4) else array[0]

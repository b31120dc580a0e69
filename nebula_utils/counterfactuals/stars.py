"""Simulate stars in linear light, to be put around a picture or before its dust.

A power law of fluxes, black-body colours, one Moffat profile. Units are arbitrary: the
faintest star drawn has flux 1. Coordinates are pixels, row before column.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float32]

# Effective wavelengths of the three channels of colour cameras and of sRGB, nm.
WAVELENGTHS_NM = (620.0, 540.0, 460.0)
WHITE_TEMPERATURE = 5772.0  # kelvin; the Sun is white, as astrophotographers set it
_HC_OVER_K = 1.438777e7  # nm K
# N(>F) goes as F^−slope: 1.5 for stars evenly spread in space, 0.75 to 1 in the
# Galactic plane at magnitudes 10 to 18 (Bahcall & Soneira 1980, ApJS 44, 73).
SLOPE = 0.9
TEMPERATURE = 5600.0  # kelvin, median; the scatter is lognormal with sigma 0.4
MOFFAT_BETA = 3.0  # 2.5 to 4.8 fit real seeing, smaller means wider wings


class Stars(NamedTuple):
    """Positions (n, 2), row and column in px, and linear RGB fluxes (n, 3) of stars."""

    positions: Floats
    fluxes: Floats


def compute_star_colour(temperature: NDArray[np.floating] | float) -> Floats:
    """Return the linear RGB (..., 3) of black bodies of some kelvin (...), green = 1.

    Planck's law at `WAVELENGTHS_NM` divided by that of the Sun, which is white.
    """
    kelvin = np.asarray(temperature, np.float64)[..., np.newaxis]
    exponent = _HC_OVER_K / np.array(WAVELENGTHS_NM)
    planck = np.expm1(exponent / WHITE_TEMPERATURE) / np.expm1(exponent / kelvin)
    return (planck / planck[..., 1:2]).astype(np.float32)


def draw_stars(
    shape: tuple[int, ...], n_stars: int, brightest: float, rng: np.random.Generator
) -> Stars:
    """Draw stars anywhere on a picture (h, w), with fluxes in green of 1 to a limit."""
    size = shape[0] * shape[1]
    pixel = np.maximum(np.ceil(rng.random(n_stars) * size).astype(int) - 1, 0)
    centres = np.stack(np.unravel_index(pixel, shape), axis=-1)
    positions = centres + rng.uniform(-0.5, 0.5, (n_stars, 2))
    rest = brightest**-SLOPE
    flux = (rest + (1 - rest) * rng.random(n_stars)) ** (-1 / SLOPE)
    kelvin = TEMPERATURE * np.exp(rng.normal(0, 0.4, n_stars))
    colours = compute_star_colour(np.clip(kelvin, 2800, 30000))
    return Stars(
        positions.astype(np.float32), (flux[:, np.newaxis] * colours).astype(np.float32)
    )


def make_psf(shape: tuple[int, ...], fwhm: float) -> Floats:
    """Make the image of a point: a Moffat profile (Moffat 1969, A&A 3, 455).

    Shape (h, w), `fwhm` px wide at half maximum, of sum 1. Its centre is pixel (0, 0)
    and it wraps round the edges, as a convolution by Fourier transform needs it.
    """
    rows = (fft.fftfreq(shape[0]) * shape[0]).astype(np.float32)[:, np.newaxis]
    columns = (fft.fftfreq(shape[1]) * shape[1]).astype(np.float32)[np.newaxis]
    radius = np.float32(fwhm / 2 / np.sqrt(2 ** (1 / MOFFAT_BETA) - 1))
    profile = (1 + (rows**2 + columns**2) / radius**2) ** np.float32(-MOFFAT_BETA)
    return (profile / profile.sum()).astype(np.float32)


def paint_stars(stars: Stars, psf: Floats) -> Floats:
    """Paint stars onto a black picture (h, w, 3) of the size of `psf`, linear light.

    Each star shares its flux between four pixels (bilinear), then comes the profile.
    The sum over the picture is the sum of the fluxes: light that leaves at one edge
    comes in at the other.
    """
    height, width = psf.shape
    corner = np.floor(stars.positions).astype(np.int64)
    fraction = stars.positions - corner
    points = np.zeros((3, height * width), np.float64)
    for down in (0, 1):
        for right in (0, 1):
            share = np.abs(1 - down - fraction[:, 0]) * np.abs(
                1 - right - fraction[:, 1]
            )
            row, column = (corner[:, 0] + down) % height, (corner[:, 1] + right) % width
            for channel in range(3):
                points[channel] += np.bincount(
                    row * width + column,
                    weights=share * stars.fluxes[:, channel],
                    minlength=height * width,
                )
    planes = points.reshape(3, height, width).astype(np.float32)
    blurred = fft.irfft2(fft.rfft2(planes) * fft.rfft2(psf), s=psf.shape)
    return np.maximum(np.moveaxis(blurred, 0, -1), 0).astype(np.float32)


def develop(light: Floats, white: float, midtone: float) -> Floats:
    """Turn linear light (..., h, w, 3) into an encoded picture in [0, 1].

    By the midtones transfer function that astrophotographers use,
    (m − 1) x / ((2 m − 1) x − m): `white` becomes 1, and `midtone`, in (0, 1) of it,
    becomes 0.5.
    """
    x = np.clip(light / np.float32(white), 0, 1)
    m = np.float32(midtone)
    return np.clip((m - 1) * x / ((2 * m - 1) * x - m), 0, 1).astype(np.float32)

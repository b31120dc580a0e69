"""Simulate pictures of star fields, in linear light, and develop them as photos are.

A scene is made of stars (a power law of fluxes, black-body colours, one Moffat image
profile) and a glow of stars too faint to be told apart. Units are arbitrary: the
faintest star drawn has flux 1. Coordinates are pixels, row before column.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float32]

# Effective wavelengths of the three channels of colour cameras and of sRGB, nm.
WAVELENGTHS_NM = (620.0, 540.0, 460.0)
WHITE_TEMPERATURE = 5772.0  # kelvin; the Sun is white, as astrophotographers set it
_HC_OVER_K = 1.438777e7  # nm K


@dataclass(frozen=True)
class Stars:
    """Stars to be painted on one picture.

    Positions (n, 2) are row and column in pixels, whole at pixel centres; fluxes (n, 3)
    are linear in red, green, blue. Both are float32.
    """

    positions: Floats
    fluxes: Floats

    def dimmed(self, factors: Floats) -> "Stars":
        """Return the stars with fluxes times `factors`, shape (n, 3) or (n, 1)."""
        return replace(self, fluxes=self.fluxes * factors)


def compute_star_colour(temperature: NDArray[np.floating] | float) -> Floats:
    """Return the linear RGB (..., 3) of black bodies of some kelvin (...), green = 1.

    Planck's law at `WAVELENGTHS_NM` divided by that of the Sun, which is white.
    """
    kelvin = np.asarray(temperature, np.float64)[..., np.newaxis]
    exponent = _HC_OVER_K / np.array(WAVELENGTHS_NM)
    planck = np.expm1(exponent / WHITE_TEMPERATURE) / np.expm1(exponent / kelvin)
    return (planck / planck[..., 1:2]).astype(np.float32)


def draw_stars(
    density_map: Floats,
    n_stars: int,
    random_state: int | np.random.Generator,
    slope: float = 0.9,
    temperature: float = 5600.0,
    brightest: float = 3e4,
) -> Stars:
    """Draw `n_stars` at random where `density_map` (h, w) says, by its shares.

    Parameters
    ----------
    slope : float, default 0.9
        N(>F) goes as F^−slope: 1.5 for stars evenly spread in space, 0.75 to 1 in
        the Galactic plane at magnitudes 10 to 18 (Bahcall & Soneira 1980, ApJS 44, 73).
    temperature : float, default 5600
        Median in kelvin; the scatter is lognormal with sigma 0.4.
    brightest : float, default 3e4
        Upper limit of the flux; the faintest star has 1 in green.
    """
    rng = np.random.default_rng(random_state)
    cumulated = np.cumsum(density_map, dtype=np.float64)
    pixel = np.searchsorted(cumulated, rng.random(n_stars) * cumulated[-1])
    pixel = np.minimum(pixel, density_map.size - 1)
    centres = np.stack(np.unravel_index(pixel, density_map.shape), axis=-1)
    positions = centres + rng.uniform(-0.5, 0.5, (n_stars, 2))
    rest = brightest**-slope
    flux = (rest + (1 - rest) * rng.random(n_stars)) ** (-1 / slope)
    kelvin = temperature * np.exp(rng.normal(0, 0.4, n_stars))
    colours = compute_star_colour(np.clip(kelvin, 2800, 30000))
    return Stars(
        positions.astype(np.float32), (flux[:, np.newaxis] * colours).astype(np.float32)
    )


def make_psf(
    shape: tuple[int, int],
    fwhm: float,
    beta: float = 3.0,
    spikes: float = 0.0,
    angle: float = 0.0,
) -> Floats:
    """Make the image of a point: a Moffat profile (Moffat 1969, A&A 3, 455).

    Parameters
    ----------
    fwhm : float
        Full width at half maximum in pixels.
    beta : float, default 3
        Exponent; 2.5 to 4.8 fit real seeing, smaller means wider wings.
    spikes, angle : float, default 0
        Share of the light in the four diffraction spikes of a reflector, and their
        position in radians.

    Returns
    -------
    ndarray of float32, shape (h, w)
        Sums to 1; its centre is pixel (0, 0) and it wraps round the edges, as a
        convolution by Fourier transform needs it.
    """
    rows = (fft.fftfreq(shape[0]) * shape[0]).astype(np.float32)[:, np.newaxis]
    columns = (fft.fftfreq(shape[1]) * shape[1]).astype(np.float32)[np.newaxis]
    radius = np.float32(fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1))
    squared = rows**2 + columns**2
    profile = (1 + squared / radius**2) ** np.float32(-beta)
    profile /= profile.sum()
    if spikes > 0:
        along = rows * np.float32(np.cos(angle)) + columns * np.float32(np.sin(angle))
        across = columns * np.float32(np.cos(angle)) - rows * np.float32(np.sin(angle))
        narrow = np.minimum(np.abs(along), np.abs(across)) / np.float32(0.35 * fwhm)
        cross = np.exp(-(narrow**2)) / (1 + squared / np.float32(4 * fwhm) ** 2)
        profile = (1 - spikes) * profile + spikes * cross / cross.sum()
    return profile.astype(np.float32)


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


@dataclass(frozen=True)
class Development:
    """How linear light becomes a picture: the same for all pictures of one scene.

    `black` and `white` are the linear values that become 0 and (at least) 1, `midtone`
    the one, from 0 to 1 between the two, that becomes 0.5; `saturation` is a factor of
    the distance from grey afterwards.
    """

    black: float
    white: float
    midtone: float
    saturation: float = 1.0

    @classmethod
    def fit(
        cls, scene: Floats, level: float, black: float = 0.0, saturation: float = 1.0
    ) -> "Development":
        """Choose the stretch that shows the median of a scene at a given level.

        Parameters
        ----------
        scene : ndarray of float32, shape (h, w, 3)
            Linear light; its 99.8th percentile becomes white.
        level : float
            Encoded value of the median, in (0, 1); 0.08 to 0.4 in real photographs.
        black : float, default 0
            How far the black point is raised, as a share of the darkest percent.
        """
        dark, middle, white = np.percentile(scene[::2, ::2], [1, 50, 99.8])
        floor = float(black * dark)
        span = max(float(white) - floor, 1e-9)
        median = min(max((float(middle) - floor) / span, 1e-6), 0.95)
        # The transfer function is its own inverse in this sense.
        midtone = (level - 1) * median / ((2 * level - 1) * median - level)
        return cls(floor, floor + span, midtone, saturation)

    def apply(self, scene: Floats) -> Floats:
        """Turn linear light (..., h, w, 3) into an encoded picture in [0, 1].

        By the midtones transfer function that astrophotographers use,
        (m − 1) x / ((2 m − 1) x − m).
        """
        x = (scene - np.float32(self.black)) / np.float32(self.white - self.black)
        x = np.clip(x, 0, 1)
        m = np.float32(self.midtone)
        picture = (m - 1) * x / ((2 * m - 1) * x - m)
        if self.saturation != 1:
            grey = picture.mean(axis=-1, keepdims=True)
            picture = grey + np.float32(self.saturation) * (picture - grey)
        return np.clip(picture, 0, 1).astype(np.float32)


def add_noise(scene: Floats, deviates: Floats, noise: float, middle: float) -> Floats:
    """Add photon noise, in its Gaussian limit, to linear light (h, w, 3).

    `deviates` are normal, and the same for two scenes that differ in nothing else;
    `noise` is the standard deviation at the level `middle`, as a share of it;
    elsewhere it goes as the square root of the light.
    """
    amplitude = np.sqrt(scene * np.float32(noise**2 * middle))
    return np.maximum(scene + amplitude * deviates, np.float32(0))


def make_gradient(
    shape: tuple[int, int], change: float, random_state: int | np.random.Generator
) -> Floats:
    """Make a slope (h, w) of mean 1 in a random direction.

    It runs from 1 − change/2 to 1 + change/2 between two corners.
    """
    angle = np.random.default_rng(random_state).uniform(0, 2 * np.pi)
    rows = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, np.newaxis]
    columns = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)[np.newaxis]
    slope = rows * np.float32(np.cos(angle)) + columns * np.float32(np.sin(angle))
    return (1 + np.float32(change / np.sqrt(2)) * slope).astype(np.float32)

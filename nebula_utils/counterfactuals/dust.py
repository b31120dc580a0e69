"""Put a dark nebula in front of a picture: structure, not colour.

A dark nebula is a foreground screen of dust: I = I₀ · exp(−τ_λ) with
τ_λ = A_λ / 1.086, and A_λ / A_V from a published reddening law. The map of A_V is an
outline, only drawn to look like those of known dark nebulae, times a column density: a
fractal of lognormal values, as observed, with power spectrum k^−β and β ≈ 2.8 (Stutzki
et al. 1998, A&A 336, 697; Elmegreen & Scalo 2004, ARA&A 42, 211; Federrath et al. 2010,
A&A 512, A81) and, in clouds that form stars, a power-law tail of dense gas (Kainulainen
et al. 2009, A&A 508, L35).

Extinction acts in linear light. How a photograph was stretched isn't known: it is
decoded as sRGB, dimmed and encoded again. That is exact for a picture that was only
encoded; in one with lifted shadows the same cloud looks shallower than its A_V.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special

from nebula_utils.counterfactuals import stars
from nebula_utils.counterfactuals.colour import check_pictures

Floats = NDArray[np.float32]
Generator = np.random.Generator

# A winding filament or several, Bok globules, an irregular cloud, a broad lane across
# the picture as in the Milky Way, and a ridge with pillars, as the Horsehead's; and how
# often each is drawn.
KINDS = ("filament", "globule", "cloud", "lane", "ridge")
KIND_SHARES = (0.30, 0.18, 0.24, 0.20, 0.08)
FEWER_THAN = {"filament": 4, "globule": 5, "lane": 3, "ridge": 2}  # of a kind at once
MAGNITUDES_PER_TAU = 2.5 / np.log(10.0)  # 1.0857: A = 1.086 τ
ALBEDO = 0.6  # of interstellar dust in visible light (Draine 2003, ARA&A 41, 241)
# No cloudshine, some, or so much that the dust outshines a dark sky.
SHINES, SHINE_SHARES = (0.0, 2.2, 11.0), (0.54, 0.38, 0.08)
COVER = (0.04, 0.7)  # share of a picture where A_V is above a quarter of its peak
TRIES = 4  # at a screen that covers so much


@dataclass(frozen=True)
class DarkNebula:
    """What is in front of a picture.

    `kind` is one of `KINDS`; `a_v` the extinction of the densest percent of the picture
    in magnitudes, `r_v` total to selective: 3.1 in diffuse gas, up to 5.5 in dense
    clouds; `foreground` the share of the light, from 0 to 1, that arises in front of
    the dust; `cloudshine` the light that falls on the cloud over a third of the mean
    light of the picture.
    """

    kind: str
    a_v: float
    r_v: float = 3.1
    foreground: float = 0.0
    cloudshine: float = 0.0

    @classmethod
    def draw(cls, rng: Generator) -> "DarkNebula":
        """Draw a nebula: A_V 1.8 to 10, R_V 3.1 to 5.5, half with cloudshine."""
        return cls(
            kind=str(rng.choice(KINDS, p=KIND_SHARES)),
            a_v=float(np.exp(rng.uniform(np.log(1.8), np.log(10)))),
            r_v=float(rng.uniform(3.1, 5.5)),
            foreground=float(rng.uniform(0, 0.2)),
            cloudshine=float(rng.choice(SHINES, p=SHINE_SHARES) * rng.uniform(0.5, 1)),
        )


def simulate_dark_nebula(
    picture: Floats, random_state: int = 0, nebula: DarkNebula | None = None
) -> tuple[Floats, Floats]:
    """Show a picture with and without a dark nebula in front, all else equal.

    Parameters
    ----------
    picture : ndarray of float32, shape (h, w, 3)
        What is behind the dust, sRGB-encoded, in [0, 1].
    random_state : int, default 0
        Seed. The picture without the nebula doesn't depend on `nebula`, and the shape
        of a given nebula doesn't on its `a_v`: so one cloud can be made denser.
    nebula : DarkNebula, optional
        What is in front; by default drawn at random.

    Returns
    -------
    tuple of 2 ndarrays of float32, shape (h, w, 3)
        With and without the nebula, encoded, in [0, 1], some simulated stars in front
        of both; equal where A_V is 0.

    Raises
    ------
    ImageError
        If the picture isn't floating point of shape (h, w, 3).
    """
    light = decode_srgb(check_pictures(picture))
    shape = light.shape[:2]
    sky_rng, dust_rng = np.random.default_rng(random_state).spawn(2)
    nebula = nebula or DarkNebula.draw(dust_rng)
    tau = compute_tau(
        nebula.a_v * _draw_screen(shape, nebula.kind, dust_rng), nebula.r_v
    )
    shine = np.float32(nebula.cloudshine / 3) * light.mean(axis=(0, 1))
    extra = _draw_foreground_stars(shape, sky_rng)
    covered = light * transmit(tau, nebula.foreground) + shine * scatter(tau)
    return encode_srgb(covered + extra), encode_srgb(light + extra)


def decode_srgb(images: Floats) -> Floats:
    """Turn sRGB-encoded values into linear light (IEC 61966-2-1), both in [0, 1]."""
    images = np.asarray(images, np.float32)
    power = ((images + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(images <= 0.04045, images / np.float32(12.92), power)


def encode_srgb(light: Floats) -> Floats:
    """Turn linear light into sRGB-encoded values, the inverse of `decode_srgb`."""
    light = np.clip(np.asarray(light, np.float32), 0, 1)
    power = np.float32(1.055) * light ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.clip(np.where(light <= 0.0031308, light * 12.92, power), 0, 1)


@lru_cache(maxsize=64)
def compute_reddening(r_v: float = 3.1) -> tuple[float, ...]:
    """Return A_λ / A_V at 620, 540 and 460 nm by Gordon et al. 2023 (ApJ 950, 86)."""
    from astropy import units
    from dust_extinction.parameter_averages import G23

    ratios = G23(Rv=r_v)(np.array(stars.WAVELENGTHS_NM) * units.nm)
    return tuple(float(ratio) for ratio in ratios)


def compute_tau(a_v: Floats | float, r_v: float = 3.1) -> Floats:
    """Turn extinction in magnitudes (...) into optical depths (..., 3) of the channels.

    `r_v` is rounded to 0.1, so that few values of `compute_reddening` are needed.
    """
    ratios = np.array(compute_reddening(round(float(r_v), 1)), np.float32)
    scaled = ratios / np.float32(MAGNITUDES_PER_TAU)
    return np.asarray(a_v, np.float32)[..., np.newaxis] * scaled


def transmit(tau: Floats, foreground: float = 0.0) -> Floats:
    """Return the share of light that comes through, or arises in front of, the dust."""
    share = np.float32(foreground)
    return share + (1 - share) * np.exp(-tau)


def scatter(tau: Floats) -> Floats:
    """Return the starlight that a cloud scatters to us, its "cloudshine".

    Single scattering in a plane slab lit evenly from both faces: ω/2 · [(1 − e^−2τ)/2
    + τ e^−τ], which rises with τ, peaks near τ = 1 and falls to ω/4: thin dust glows
    bluish, denser dust brown, the core stays dark, as in the pictures of Foster &
    Goodman 2006 (ApJ 636, L105). In units of the light that falls on either face.
    """
    half = np.exp(-tau)
    return (ALBEDO / 2 * ((1 - half**2) / 2 + tau * half)).astype(np.float32)


def make_fractal_field(
    shape: tuple[int, ...], beta: float, rng: Generator
) -> tuple[Floats, Floats]:
    """Make two independent Gaussian random fields with the power spectrum k^−beta.

    Both (h, w), of mean 0 and standard deviation 1; larger `beta` is smoother, and the
    edges join those on the other side.
    """
    rows, columns = (fft.fftfreq(length) for length in shape)
    frequency = np.hypot(rows[:, np.newaxis], columns[np.newaxis])
    frequency[0, 0] = 1
    log_frequency = np.log(frequency).astype(np.float32)
    amplitude = np.exp(np.float32(-beta / 2) * log_frequency)
    amplitude[0, 0] = 0  # so the mean is 0
    noise = rng.standard_normal((2, *shape), np.float32)
    # One complex transform gives two real fields.
    field = fft.ifft2((noise[0] + 1j * noise[1]) * amplitude)
    return _normalise(np.real(field)), _normalise(np.imag(field))


def make_column_density(
    shape: tuple[int, ...],
    beta: float,
    sigma: float,
    tail: float | None,
    rng: Generator,
) -> Floats:
    """Make a fractal map (h, w) of column density, N over its median.

    ln N has a power spectrum of slope `beta` and the standard deviation `sigma`: 0.3 to
    0.5 in quiet clouds, more in turbulent ones. With a `tail`, 1.5 to 3 where stars
    form, the lognormal goes over into a power law above one sigma, P(>N) ∝ N^−tail.
    """
    field = make_fractal_field(shape, beta, rng)[0]
    log_column: Floats = np.float32(sigma) * field
    if tail is not None:
        dense = field > 1
        # Quantile matching: Q(field) / Q(1) = (N / N₁)^−tail.
        surplus = special.log_ndtr(-1.0) - special.log_ndtr(-field[dense])
        log_column[dense] = sigma + surplus / tail
    return np.exp(log_column)


def make_envelope(shape: tuple[int, ...], kind: str, rng: Generator) -> Floats:
    """Make the outline of a cloud: 0 outside to 1 in its middle, shape (h, w)."""
    if kind == "cloud":
        return _draw_cloud(shape, rng)
    rows, columns = _warped_grid(shape, rng, kind)
    draw = {
        "filament": _draw_filament,
        "globule": _draw_globule,
        "lane": _draw_lane,
        "ridge": _draw_ridge,
    }[kind]
    parts = [draw(rows, columns, rng) for _ in range(rng.integers(1, FEWER_THAN[kind]))]
    return np.max(parts, axis=0).astype(np.float32)


def _draw_screen(shape: tuple[int, ...], kind: str, rng: Generator) -> Floats:
    """Draw A_V (h, w) with the densest percent above 1; again if it covers too much."""
    for _ in range(TRIES):
        beta, sigma = rng.uniform(2.5, 3.1), rng.uniform(0.3, 0.8)
        tail = rng.uniform(1.5, 3.0) if rng.random() < 0.3 else None
        outline = make_envelope(shape, kind, rng)
        column = outline * make_column_density(shape, beta, sigma, tail, rng)
        place = -column.size // 100
        peak = float(np.partition(column.ravel(), place)[place])
        screen = (1 / max(peak, 1e-6) * column).astype(np.float32)
        if COVER[0] < np.mean(screen > 0.25) < COVER[1]:
            break
    return screen


def _draw_foreground_stars(shape: tuple[int, ...], rng: Generator) -> Floats:
    number = rng.poisson(rng.uniform(0, 40))
    points = stars.draw_stars(shape, number, 300, rng)
    psf = stars.make_psf(shape, rng.uniform(1.2, 2.4) * max(shape) / 224)
    return np.float32(rng.uniform(0.05, 0.5)) * stars.paint_stars(points, psf)


def _normalise(field: NDArray[np.floating]) -> Floats:
    flat: Floats = np.ascontiguousarray(field, np.float32)
    return flat / np.float32(np.sqrt(np.vdot(flat, flat) / flat.size))


def _smooth_step(x: Floats) -> Floats:
    x = np.clip(x, 0, 1).astype(np.float32, copy=False)
    return x * x * (3 - 2 * x)


def _warped_grid(
    shape: tuple[int, ...], rng: Generator, kind: str
) -> tuple[Floats, Floats]:
    """Coordinates, long side −0.5 to 0.5, displaced by smooth and fractal fields."""
    rows, columns = np.indices(shape, np.float32)
    scale = np.float32(max(shape))
    rows, columns = (rows - shape[0] / 2) / scale, (columns - shape[1] / 2) / scale
    beta = 4.4 if kind in ("filament", "globule") else 3.8
    down, right = make_fractal_field(shape, beta, rng)
    strength = np.float32(rng.uniform(0.03, 0.09))
    return rows + strength * down, columns + strength * right


def _turn(
    rows: Floats, columns: Floats, rng: Generator, spread: float
) -> tuple[Floats, Floats]:
    angle = rng.uniform(0, 2 * np.pi)
    rows = rows - np.float32(rng.uniform(-spread, spread))
    columns = columns - np.float32(rng.uniform(-spread, spread))
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * columns + sine * rows, cosine * rows - sine * columns


def _wiggle(along: Floats, rng: Generator, size: float) -> Floats:
    waves = np.zeros_like(along)
    for frequency in (1, 2, 3.5, 6, 11):
        phase = np.float32(rng.uniform(0, 2 * np.pi))
        turns = np.float32(2 * np.pi * frequency * rng.uniform(0.7, 1.3))
        share = np.float32(size * rng.normal() / frequency**1.3)
        waves += share * np.sin(turns * along + phase)
    return waves


def _draw_cloud(shape: tuple[int, ...], rng: Generator) -> Floats:
    field = make_fractal_field(shape, 3.4, rng)[0]
    # The field goes on across the edges; a cloud that leaves on one side mustn't come
    # in on the other.
    centre = rng.uniform(0.3, 0.7, 2)
    rows, columns = (
        (np.arange(n) - middle * n) / max(shape)
        for n, middle in zip(shape, centre, strict=True)
    )
    distance = rows[:, np.newaxis] ** 2 + columns[np.newaxis] ** 2
    field = field - 6 * distance.astype(np.float32)
    threshold = rng.uniform(-0.3, 0.6)
    core = _smooth_step((field - threshold) / rng.uniform(0.5, 1.6))
    halo = _smooth_step((field - threshold + 0.9) / 2.5)
    return (0.8 * core + 0.2 * halo).astype(np.float32)


def _draw_filament(rows: Floats, columns: Floats, rng: Generator) -> Floats:
    along, across = _turn(rows, columns, rng, 0.2)
    across = across - _wiggle(along, rng, rng.uniform(0.02, 0.1))
    width = rng.uniform(0.008, 0.03) * np.exp(_wiggle(along, rng, 0.6))
    half = rng.uniform(0.15, 0.7)
    ends = _smooth_step((np.float32(half) - np.abs(along)) / np.float32(0.3 * half))
    # Plummer-like profile of filaments, p = 2 (Arzoumanian et al. 2011, A&A 529, L6).
    profile = ends / (1 + (across / width.astype(np.float32)) ** 2) ** np.float32(1.2)
    return profile.astype(np.float32)


def _draw_globule(rows: Floats, columns: Floats, rng: Generator) -> Floats:
    along, across = _turn(rows, columns, rng, 0.25)
    radius = rng.uniform(0.04, 0.16)
    flattening = rng.uniform(1.0, 2.2)
    tail = np.where(along > 0, np.float32(rng.uniform(1, 5)), np.float32(1))
    squared = (along / (flattening * tail)) ** 2 + across**2
    profile = (1 + 0.6 * squared / np.float32(radius) ** 2) ** np.float32(-2.5)
    return profile.astype(np.float32)


def _draw_lane(rows: Floats, columns: Floats, rng: Generator) -> Floats:
    along, across = _turn(rows, columns, rng, 0.2)
    across = across - _wiggle(along, rng, 0.08)
    width = rng.uniform(0.05, 0.18) * np.exp(_wiggle(along, rng, 0.4))
    return np.exp(-((across / width.astype(np.float32)) ** 2))


def _draw_ridge(rows: Floats, columns: Floats, rng: Generator) -> Floats:
    along, depth = _turn(rows, columns, rng, 0.15)
    edge = _wiggle(along, rng, 0.08) + rng.uniform(-0.05, 0.25)
    for _ in range(rng.integers(0, 4)):
        place, width = rng.uniform(-0.4, 0.4), rng.uniform(0.02, 0.06)
        height = rng.uniform(0.08, 0.3)
        edge = edge - height / (1 + ((along - place) / width) ** 2)
    depth = depth - edge.astype(np.float32)
    core = _smooth_step(depth / np.float32(rng.uniform(0.04, 0.12)))
    return 0.85 * core + 0.15 * _smooth_step(depth / 0.4 + 0.5)

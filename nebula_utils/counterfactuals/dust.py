"""Put a dark nebula in front of a picture, or simulate one: structure, not colour.

A dark nebula is a foreground screen of dust: I = I₀ · exp(−τ_λ) with
τ_λ = A_λ / 1.086. The map of A_V comes from `clouds`; A_λ / A_V is a published
reddening law, taken from `dust_extinction`.

The extinction acts in linear light. A simulated scene *is* linear until it is
developed. A photograph isn't, and how it was stretched isn't known: it is decoded as
sRGB, dimmed and encoded again. That is exact for a picture that was only encoded; in
a picture with lifted shadows the same cloud looks shallower than its A_V.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nebula_utils.counterfactuals import stars
from nebula_utils.counterfactuals.clouds import (
    KINDS,
    make_dust_screen,
    make_fractal_field,
    make_galactic_dust,
)
from nebula_utils.errors import ImageError

Floats = NDArray[np.float32]
Seed = int | np.random.Generator

MAGNITUDES_PER_TAU = 2.5 / np.log(10.0)  # 1.0857: A = 1.086 τ
ALBEDO = 0.6  # of interstellar dust in visible light (Draine 2003, ARA&A 41, 241)


@lru_cache(maxsize=64)
def compute_reddening(r_v: float = 3.1) -> tuple[float, ...]:
    """Return A_λ / A_V at 620, 540 and 460 nm by Gordon et al. 2023 (ApJ 950, 86).

    `r_v` is A_V / E(B − V): 3.1 in diffuse gas, up to 5.5 in dense clouds.
    """
    from astropy import units
    from dust_extinction.parameter_averages import G23

    ratios = G23(Rv=r_v)(np.array(stars.WAVELENGTHS_NM) * units.nm)
    return tuple(float(ratio) for ratio in ratios)


def compute_tau(a_v: Floats | float, r_v: float = 3.1) -> Floats:
    """Turn extinction in magnitudes (...) into optical depths (..., 3) of the channels.

    τ_λ = A_V · (A_λ / A_V) / 1.086; `r_v` is rounded to 0.1, so that few values of
    `compute_reddening` are needed.
    """
    ratios = np.array(compute_reddening(round(float(r_v), 1)), np.float32)
    scaled = ratios / np.float32(MAGNITUDES_PER_TAU)
    return np.asarray(a_v, np.float32)[..., np.newaxis] * scaled


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


def scatter(tau: Floats) -> Floats:
    """Return the starlight that a cloud scatters to us, its "cloudshine".

    Single scattering in a plane slab lit evenly from both faces: ω/2 · [(1 − e^−2τ)/2
    + τ e^−τ], which rises with τ, peaks near τ = 1 and falls to ω/4: thin dust glows
    bluish, denser dust brown, the core stays dark, as in the pictures of Foster &
    Goodman 2006 (ApJ 636, L105). In units of the light that falls on either face.
    """
    half = np.exp(-tau)
    return (ALBEDO / 2 * ((1 - half**2) / 2 + tau * half)).astype(np.float32)


@dataclass(frozen=True)
class DarkNebula:
    """What is in front of a scene.

    `kind` is one of `KINDS`; `a_v` the extinction of the densest percent of the picture
    in magnitudes, `r_v` total to selective; `foreground` the share of the light, from 0
    to 1, that arises in front of the dust; `cloudshine` the light that falls on the
    cloud over the mean light of the scene.
    """

    kind: str
    a_v: float
    r_v: float = 3.1
    foreground: float = 0.0
    cloudshine: float = 0.0

    @classmethod
    def draw(
        cls, random_state: Seed, kind_shares: tuple[float, ...] = ()
    ) -> "DarkNebula":
        """Draw a nebula: A_V 1.8 to 10, R_V 3.1 to 5.5, half with cloudshine."""
        rng = np.random.default_rng(random_state)
        shares = kind_shares or SKIES["varied"].kind_shares
        return cls(
            kind=str(rng.choice(KINDS, p=shares)),
            a_v=float(np.exp(rng.uniform(np.log(1.8), np.log(10)))),
            r_v=float(rng.uniform(3.1, 5.5)),
            foreground=float(rng.uniform(0, 0.2)),
            cloudshine=float(
                rng.choice(_SHINES, p=_SHINE_SHARES) * rng.uniform(0.5, 1)
            ),
        )

    @classmethod
    def draw_galactic(cls, random_state: Seed) -> "DarkNebula":
        """Draw the dust of the Galactic plane: 5 to 40 % of the light is before it."""
        rng = np.random.default_rng(random_state)
        return cls(
            kind="galactic",
            a_v=1.0,
            r_v=float(rng.uniform(3.1, 5.5)),
            foreground=float(rng.uniform(0.05, 0.4)),
            cloudshine=float(rng.choice([0.0, 1.0])),
        )


# No cloudshine, some, or so much that the dust outshines a dark sky; 4 would hide it.
_SHINES, _SHINE_SHARES = (0.0, 2.2, 11.0), (0.54, 0.38, 0.08)
# Share of a drawn picture where A_V is above a quarter of its peak.
_COVER = (0.04, 0.7)
_HYDROGEN = (1.0, 0.12, 0.2)  # linear RGB of H-alpha with some H-beta


@dataclass(frozen=True)
class Sky:
    """Which star fields are simulated, and how they are developed.

    `fields` are kinds of field, each four ranges: stars a pixel (224 to the long side),
    glow over the light of the faintest stars, A_V of the field, contrast of its star
    clouds; `field_shares` say how often each is drawn, `kind_shares` how often each of
    `KINDS` is in front (empty: dust along the Galactic plane over the whole field).
    `level` is factor, offset and largest value of the encoded median, which is drawn
    from 0.08 to 0.35; `saturation` a factor of the colours.
    """

    fields: tuple[tuple[tuple[float, float], ...], ...]
    field_shares: tuple[float, ...]
    kind_shares: tuple[float, ...]
    level: tuple[float, float, float] = (1.0, 0.0, 1.0)
    saturation: float = 1.0


SKIES = {
    # Fields off, in and in the bright clouds of the Galactic plane.
    "varied": Sky(
        (
            ((0.01, 0.05), (4, 12), (0.0, 0.4), (0.0, 0.2)),
            ((0.05, 0.30), (2, 6), (0.1, 1.0), (0.0, 0.3)),
            ((0.15, 0.50), (3, 8), (0.3, 1.6), (0.2, 0.6)),
        ),
        (0.2, 0.5, 0.3),
        (0.30, 0.18, 0.24, 0.20, 0.08),
    ),
    # Rich, brightly developed star clouds, as most photographers show dark nebulae.
    "rich": Sky(
        (
            ((0.3, 1.0), (10, 40), (0.3, 1.8), (0.5, 1.1)),
            ((0.15, 0.5), (6, 20), (0.2, 1.4), (0.3, 0.8)),
        ),
        (0.6, 0.4),
        (0.25, 0.07, 0.25, 0.38, 0.05),
        (1.6, 0.05, 0.55),
        1.3,
    ),
    # Wide views of the Milky Way with its dark lanes.
    "galactic": Sky(
        (((0.3, 1.2), (8, 40), (0.3, 1.8), (0.0, 0.4)),),
        (1.0,),
        (),
        (1.3, 0.05, 0.5),
        1.3,
    ),
}


def simulate_dark_nebula(
    background: Floats | None = None,
    random_state: int = 0,
    nebula: DarkNebula | None = None,
    shape: tuple[int, int] = (224, 224),
    sky: str = "varied",
) -> tuple[Floats, Floats]:
    """Make one scene with and without its dark nebula, all else equal.

    Without a background a star field is simulated in linear light: stars behind the
    dust are dimmed as points and only then blurred, some stars are in front, both
    pictures share stars, noise and development. Over a background (a star field, an
    emission nebula) the screen dims the decoded picture, and a few simulated stars
    are put in front in both.

    Parameters
    ----------
    background : ndarray of float32, shape (h, w, 3), optional
        Picture behind the dust, sRGB-encoded, in [0, 1].
    random_state : int, default 0
        Seed. The picture without the nebula doesn't depend on `nebula`, and the shape
        of a given nebula doesn't on its `a_v`: so one cloud can be made denser.
    nebula : DarkNebula, optional
        What is in front; by default drawn at random. For some fixed and some drawn
        values: ``replace(DarkNebula.draw(seed), a_v=0.0)`` of `dataclasses`.
    shape : tuple of 2 ints, default (224, 224)
        Height and width in pixels, if there is no background.
    sky : str, default "varied"
        One of `SKIES`, if there is no background.

    Returns
    -------
    tuple of 2 ndarrays of float32, shape (h, w, 3)
        With and without the nebula, encoded, in [0, 1]; equal where A_V is 0.

    Raises
    ------
    ImageError
        If the background isn't floating point of shape (h, w, 3).
    """
    sky_rng, dust_rng = np.random.default_rng(random_state).spawn(2)
    if background is not None:
        background = _check(background)
        shape = (background.shape[0], background.shape[1])
    style = SKIES[sky]
    if background is None and not style.kind_shares:
        nebula = nebula or DarkNebula.draw_galactic(dust_rng)
        a_v = make_galactic_dust(shape, dust_rng)
        return _simulate_scene(a_v, nebula, sky_rng, style)
    nebula = nebula or DarkNebula.draw(dust_rng, style.kind_shares)
    a_v = _draw_screen(shape, nebula, dust_rng)
    if background is None:
        return _simulate_scene(a_v, nebula, sky_rng, style)
    return _cover_picture(background, a_v, nebula, sky_rng)


def _check(images: Floats) -> Floats:
    images = np.asarray(images)
    if images.ndim < 3 or images.shape[-1] != 3 or images.dtype.kind != "f":
        raise ImageError(
            "pictures are floating point in [0, 1] of shape (..., h, w, 3), got "
            f"{images.dtype} {images.shape}: divide 8-bit pictures by 255 first"
        )
    return images


def _screen(
    light: Floats, tau: Floats, foreground: float, cloudshine: Floats | float
) -> Floats:
    light = light * _transmit(tau, foreground)
    if np.any(cloudshine):
        light += np.asarray(cloudshine, np.float32) * scatter(tau)
    return light


def _transmit(tau: Floats, foreground: float) -> Floats:
    share = np.float32(foreground)
    return share + (1 - share) * np.exp(-tau)


def _draw_screen(
    shape: tuple[int, int], nebula: DarkNebula, rng: np.random.Generator
) -> Floats:
    """Draw screens until one lies well in the picture, at most four times."""
    for _ in range(4):
        beta, sigma = rng.uniform(2.5, 3.1), rng.uniform(0.3, 0.8)
        tail = rng.uniform(1.5, 3.0) if rng.random() < 0.3 else None
        screen = make_dust_screen(shape, 1.0, nebula.kind, beta, sigma, tail, rng)
        if _COVER[0] < np.mean(screen > 0.25) < _COVER[1]:
            break
    return np.float32(nebula.a_v) * screen


def _simulate_scene(
    a_v: Floats, nebula: DarkNebula, rng: np.random.Generator, style: Sky
) -> tuple[Floats, Floats]:
    glow, field, psf = _draw_sky(a_v.shape, rng, style)
    in_front = rng.random(len(field.fluxes)) < nebula.foreground
    haze = np.float32(rng.uniform(0.05, 0.4)) * glow.mean(axis=(0, 1))
    noise, deviates = rng.uniform(0.01, 0.08), rng.standard_normal(glow.shape, "f4")
    level, black = rng.uniform(0.08, 0.35), rng.uniform(0, 0.9)
    factor, offset, largest = style.level
    level = min(largest, level * factor + offset)
    saturation = rng.uniform(0.6, 1.8) * style.saturation
    tau = compute_tau(a_v, nebula.r_v)
    row, column = np.rint(field.positions).astype(int).T
    height, width = a_v.shape
    factors = _transmit(tau, 0)[row % height, column % width]
    factors[in_front] = 1
    without = stars.paint_stars(field, psf) + glow
    middle = float(np.median(without[::2, ::2]))
    shine = nebula.cloudshine * glow.mean(axis=(0, 1)) * scatter(tau)
    dimmed = stars.paint_stars(field.dimmed(factors), psf)
    covered = dimmed + glow * _transmit(tau, nebula.foreground) + shine
    development = stars.Development.fit(without + haze, level, black, saturation)
    noisy = (
        stars.add_noise(s + haze, deviates, noise, middle) for s in (covered, without)
    )
    first, second = (development.apply(scene) for scene in noisy)
    return first, second


def _draw_sky(
    shape: tuple[int, ...], rng: np.random.Generator, style: Sky
) -> tuple[Floats, stars.Stars, Floats]:
    """Draw the glow (h, w, 3), the stars and the profile of a simulated field."""
    size = (shape[0], shape[1])
    field = style.fields[int(rng.choice(len(style.fields), p=style.field_shares))]
    density, glow, reddening, contrast = (rng.uniform(*limits) for limits in field)
    large, other = make_fractal_field(size, 3.4, rng)
    # Star clouds are brighter than the rest; gaps would look like dust.
    modulation = np.exp(np.float32(contrast) * np.maximum(large, 0))
    modulation *= stars.make_gradient(size, rng.uniform(0, 0.8), rng)
    temperature = rng.uniform(4800, 6500)
    number = rng.poisson(density * (224 * 224) * large.size / max(size) ** 2)
    points = stars.draw_stars(modulation, number, rng, rng.uniform(0.85, 1.4))
    reddened = np.exp(-compute_tau(reddening, 3.1))
    colour = stars.compute_star_colour(temperature) * reddened
    # Photographers take part of the colour of the background away.
    reddened /= (colour / colour.mean()) ** np.float32(rng.uniform(0, 1))
    colour = stars.compute_star_colour(temperature) * reddened
    light = np.float32(glow * density) * modulation[..., np.newaxis] * colour
    if rng.random() < 0.15:  # a faint emission nebula far behind
        hydrogen = np.exp(np.float32(0.5) * other)[..., np.newaxis] * light.mean()
        light = light + hydrogen * rng.uniform(0.3, 2) * np.array(_HYDROGEN, np.float32)
    psf = stars.make_psf(
        size,
        rng.uniform(0.7, 1.7) * max(size) / 224,
        rng.uniform(2.5, 4.5),
        rng.uniform(0.05, 0.3) if rng.random() < 0.15 else 0.0,
        rng.uniform(0, np.pi),
    )
    return light.astype(np.float32), points.dimmed(reddened), psf


def _cover_picture(
    picture: Floats, a_v: Floats, nebula: DarkNebula, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    light = decode_srgb(picture)
    shine = np.float32(nebula.cloudshine / 3) * light.mean(axis=(0, 1))
    tau = compute_tau(a_v, nebula.r_v)
    number = rng.poisson(rng.uniform(0, 40))
    points = stars.draw_stars(np.ones_like(a_v), number, rng, brightest=300)
    psf = stars.make_psf(a_v.shape, rng.uniform(1.2, 2.4) * max(a_v.shape) / 224)
    extra = np.float32(rng.uniform(0.05, 0.5)) * stars.paint_stars(points, psf)
    covered = _screen(light, tau, nebula.foreground, shine)
    return encode_srgb(covered + extra), encode_srgb(light + extra)

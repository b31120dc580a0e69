"""Make maps of dust clouds: fractal column densities and the outlines of clouds.

The column density is a fractal of lognormal values, as observed: power spectrum
k^−β with β ≈ 2.8 (Stutzki et al. 1998, A&A 336, 697; Elmegreen & Scalo 2004, ARA&A
42, 211; Federrath et al. 2010, A&A 512, A81) and, in clouds that form stars, a
power-law tail of dense gas (Kainulainen et al. 2009, A&A 508, L35). The outlines
are only drawn to look like those of known dark nebulae.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special
from scipy.ndimage import map_coordinates

Floats = NDArray[np.float32]
Seed = int | np.random.Generator

KINDS = ("filament", "globule", "cloud", "lane", "ridge")


def make_fractal_field(
    shape: tuple[int, int], beta: float, random_state: Seed
) -> tuple[Floats, Floats]:
    """Make two independent Gaussian random fields with the power spectrum k^−beta.

    Both (h, w), of mean 0 and standard deviation 1; larger `beta` is smoother, and the
    edges join those on the other side.
    """
    rng = np.random.default_rng(random_state)
    amplitude = np.exp(np.float32(-beta / 2) * _log_frequency(shape))
    amplitude[0, 0] = 0
    noise = rng.standard_normal((2, *shape), np.float32)
    # One complex transform gives two real fields.
    field = fft.ifft2((noise[0] + 1j * noise[1]) * amplitude)
    return _normalise(np.real(field)), _normalise(np.imag(field))


def make_column_density(
    shape: tuple[int, int],
    beta: float = 2.8,
    sigma: float = 0.6,
    tail: float | None = None,
    random_state: Seed = 0,
) -> Floats:
    """Make a fractal map (h, w) of column density, N over its median.

    Parameters
    ----------
    beta : float
        Slope of the power spectrum of ln N.
    sigma : float
        Standard deviation of ln N: 0.3 to 0.5 in quiet clouds, more in turbulent ones.
    tail : float or None
        Above one sigma the lognormal goes over into a power law, P(>N) ∝ N^−tail;
        1.5 to 3 where stars form. Without it, lognormal throughout.
    """
    field = make_fractal_field(shape, beta, random_state)[0]
    return _to_column(field, sigma, tail)


def make_envelope(shape: tuple[int, int], kind: str, random_state: Seed) -> Floats:
    """Make the outline of a cloud: 0 outside to 1 in its middle, shape (h, w).

    Kinds are a winding "filament" or several, Bok "globule"s, an irregular "cloud", a
    broad "lane" across the picture as in the Milky Way, and a "ridge" that comes in
    from one side with pillars, as the Horsehead's.
    """
    rng = np.random.default_rng(random_state)
    if kind == "cloud":
        field = make_fractal_field(shape, 3.4, rng)[0]
        # The field goes on across the edges; a cloud that leaves on one side
        # mustn't come in on the other.
        field = field - 6 * _distance_squared(shape, rng)
        threshold = rng.uniform(-0.3, 0.6)
        core = _smooth_step((field - threshold) / rng.uniform(0.5, 1.6))
        halo = _smooth_step((field - threshold + 0.9) / 2.5)
        return (0.8 * core + 0.2 * halo).astype(np.float32)
    rows, columns = _warped_grid(shape, rng, kind)
    parts = {"filament": (1, 4), "globule": (1, 5), "lane": (1, 3), "ridge": (1, 2)}
    draw = {
        "filament": _draw_filament,
        "globule": _draw_globule,
        "lane": _draw_lane,
        "ridge": _draw_ridge,
    }[kind]
    clouds = [draw(rows, columns, rng) for _ in range(rng.integers(*parts[kind]))]
    return np.max(clouds, axis=0).astype(np.float32)


def make_dust_screen(
    shape: tuple[int, int],
    a_v: float,
    kind: str = "cloud",
    beta: float = 2.8,
    sigma: float = 0.6,
    tail: float | None = None,
    random_state: Seed = 0,
) -> Floats:
    """Make a map (h, w) of extinction: an outline times a fractal column density.

    The densest percent of the picture reaches `a_v` magnitudes; see `make_envelope`
    and `make_column_density` for the rest.
    """
    rng = np.random.default_rng(random_state)
    outline = make_envelope(shape, kind, rng)
    column = outline * make_column_density(shape, beta, sigma, tail, rng)
    peak = float(np.partition(column.ravel(), -column.size // 100)[-column.size // 100])
    return (a_v / max(peak, 1e-6) * column).astype(np.float32)


@lru_cache(maxsize=4)
def make_galactic_dust(shape: tuple[int, int], random_state: Seed) -> Floats:
    """Make the dust of the Galactic plane: lanes along a band across the picture.

    A_V (h, w) in magnitudes: a fractal field, stretched up to 2.2 times along a band of
    random tilt and width and cut at a random level, times fine lognormal structure.
    The shapes are a sketch of wide Milky Way photographs, not a model of the
    interstellar medium.
    """
    rng = np.random.default_rng(random_state)
    height, width = shape
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    tilt, stretch = rng.uniform(0, np.pi), rng.uniform(1, 2.2)
    beta = rng.uniform(2.7, 3.1)
    field, _ = make_fractal_field((2 * height, 2 * width), beta, rng)
    along = columns * np.cos(tilt) + rows * np.sin(tilt)
    across = rows * np.cos(tilt) - columns * np.sin(tilt)
    places = [height * (1 + across * 0.5), width * (1 + along * 0.5 / stretch)]
    lanes = map_coordinates(field, places, order=1, mode="wrap")
    lanes = (lanes - lanes.mean()) / lanes.std()
    fine = make_column_density(shape, 2.7, rng.uniform(0.4, 0.8), None, rng)
    offset, breadth = rng.uniform(-0.6, 0.6), rng.uniform(0.3, 1.5)
    band = np.exp(-(((across - offset) / breadth) ** 2))
    level, softness = rng.uniform(-0.7, 0.4), rng.uniform(0.5, 1.5)
    core = np.maximum((lanes - level) / softness, 0)
    a_v = (rng.uniform(0.7, 2.4) * core + 0.15) * fine * band
    return a_v.astype(np.float32)


def _log_frequency(shape: tuple[int, int]) -> Floats:
    rows = fft.fftfreq(shape[0])[:, np.newaxis]
    columns = fft.fftfreq(shape[1])[np.newaxis]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1
    return np.log(frequency).astype(np.float32)


def _normalise(field: NDArray[np.floating]) -> Floats:
    # The mean is 0 already: the spectrum is, at k = 0.
    flat: Floats = np.ascontiguousarray(field, np.float32)
    return flat / np.float32(np.sqrt(np.vdot(flat, flat) / flat.size))


def _smooth_step(x: Floats) -> Floats:
    x = np.clip(x, 0, 1).astype(np.float32, copy=False)
    return x * x * (3 - 2 * x)


def _to_column(field: Floats, sigma: float, tail: float | None) -> Floats:
    log_column: Floats = np.float32(sigma) * field
    if tail is not None:
        dense = field > 1
        # Quantile matching: Q(field) / Q(1) = (N / N₁)^−tail.
        surplus = special.log_ndtr(-1.0) - special.log_ndtr(-field[dense])
        log_column[dense] = sigma + surplus / tail
    return np.exp(log_column)


def _warped_grid(
    shape: tuple[int, int], rng: np.random.Generator, kind: str
) -> tuple[Floats, Floats]:
    """Coordinates, long side −0.5 to 0.5, displaced by smooth and fractal fields."""
    rows, columns = np.indices(shape, np.float32)
    scale = np.float32(max(shape))
    rows, columns = (rows - shape[0] / 2) / scale, (columns - shape[1] / 2) / scale
    beta = 4.4 if kind in ("filament", "globule") else 3.8
    down, right = make_fractal_field(shape, beta, rng)
    strength = np.float32(rng.uniform(0.03, 0.09))
    return rows + strength * down, columns + strength * right


def _distance_squared(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Squared distance from a point near the middle, in long sides."""
    centre = rng.uniform(0.3, 0.7, 2)
    rows = (np.arange(shape[0]) - centre[0] * shape[0]) / max(shape)
    columns = (np.arange(shape[1]) - centre[1] * shape[1]) / max(shape)
    return (rows[:, np.newaxis] ** 2 + columns[np.newaxis] ** 2).astype(np.float32)


def _turn(
    rows: Floats, columns: Floats, rng: np.random.Generator, spread: float
) -> tuple[Floats, Floats]:
    angle = rng.uniform(0, 2 * np.pi)
    rows = rows - np.float32(rng.uniform(-spread, spread))
    columns = columns - np.float32(rng.uniform(-spread, spread))
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * columns + sine * rows, cosine * rows - sine * columns


def _wiggle(along: Floats, rng: np.random.Generator, size: float) -> Floats:
    waves = np.zeros_like(along)
    for frequency in (1, 2, 3.5, 6, 11):
        phase = np.float32(rng.uniform(0, 2 * np.pi))
        turns = np.float32(2 * np.pi * frequency * rng.uniform(0.7, 1.3))
        share = np.float32(size * rng.normal() / frequency**1.3)
        waves += share * np.sin(turns * along + phase)
    return waves


def _draw_filament(rows: Floats, columns: Floats, rng: np.random.Generator) -> Floats:
    along, across = _turn(rows, columns, rng, 0.2)
    across = across - _wiggle(along, rng, rng.uniform(0.02, 0.1))
    width = rng.uniform(0.008, 0.03) * np.exp(_wiggle(along, rng, 0.6))
    half = rng.uniform(0.15, 0.7)
    ends = _smooth_step((np.float32(half) - np.abs(along)) / np.float32(0.3 * half))
    # Plummer-like profile of filaments, p = 2 (Arzoumanian et al. 2011, A&A 529, L6).
    profile = ends / (1 + (across / width.astype(np.float32)) ** 2) ** np.float32(1.2)
    return profile.astype(np.float32)


def _draw_globule(rows: Floats, columns: Floats, rng: np.random.Generator) -> Floats:
    along, across = _turn(rows, columns, rng, 0.25)
    radius = rng.uniform(0.04, 0.16)
    flattening = rng.uniform(1.0, 2.2)
    tail = np.where(along > 0, np.float32(rng.uniform(1, 5)), np.float32(1))
    squared = (along / (flattening * tail)) ** 2 + across**2
    profile = (1 + 0.6 * squared / np.float32(radius) ** 2) ** np.float32(-2.5)
    return profile.astype(np.float32)


def _draw_lane(rows: Floats, columns: Floats, rng: np.random.Generator) -> Floats:
    along, across = _turn(rows, columns, rng, 0.2)
    across = across - _wiggle(along, rng, 0.08)
    width = rng.uniform(0.05, 0.18) * np.exp(_wiggle(along, rng, 0.4))
    return np.exp(-((across / width.astype(np.float32)) ** 2))


def _draw_ridge(rows: Floats, columns: Floats, rng: np.random.Generator) -> Floats:
    along, depth = _turn(rows, columns, rng, 0.15)
    edge = _wiggle(along, rng, 0.08) + rng.uniform(-0.05, 0.25)
    for _ in range(rng.integers(0, 4)):
        place, width = rng.uniform(-0.4, 0.4), rng.uniform(0.02, 0.06)
        height = rng.uniform(0.08, 0.3)
        edge = edge - height / (1 + ((along - place) / width) ** 2)
    depth = depth - edge.astype(np.float32)
    core = _smooth_step(depth / np.float32(rng.uniform(0.04, 0.12)))
    return 0.85 * core + 0.15 * _smooth_step(depth / 0.4 + 0.5)

"""Dust screens, clouds and simulated stars: physics with known answers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nebula_utils.counterfactuals import dust, stars
from nebula_utils.errors import ImageError

SHAPE = (64, 48)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Random colours that stay above black after ten magnitudes or so."""
    random = np.random.default_rng(0).random((*SHAPE, 3), dtype=np.float32)
    return (0.3 + 0.7 * random).astype(np.float32)


def look_through(image, a_v, r_v=3.1, foreground=0.0):
    """Return an encoded picture as it looks through a screen of dust."""
    share = dust.transmit(dust.compute_tau(a_v, r_v), foreground)
    return dust.encode_srgb(dust.decode_srgb(image) * share)


def test_no_dust_changes_nothing(picture):
    """A_V = 0 is the identity, with a single number and with a map."""
    np.testing.assert_allclose(look_through(picture, 0.0), picture, atol=1e-6)
    empty = np.zeros(SHAPE, np.float32)
    np.testing.assert_allclose(look_through(picture, empty), picture, atol=1e-6)


def test_linear_light_falls_as_exp_minus_tau(picture):
    """I = I₀ exp(−τ) holds channel by channel after decoding."""
    a_v = 0.8
    ratio = dust.decode_srgb(look_through(picture, a_v)) / dust.decode_srgb(picture)
    tau = a_v * np.array(dust.compute_reddening(3.1)) / 1.0857362
    np.testing.assert_allclose(ratio, np.broadcast_to(np.exp(-tau), ratio.shape), 1e-4)


def test_one_magnitude_is_a_tau_of_one_over_1_086():
    """A = 1.086 τ, and 5 magnitudes are a factor of 100."""
    assert pytest.approx(1.0857, abs=1e-4) == dust.MAGNITUDES_PER_TAU
    ratios = np.array(dust.compute_reddening(3.1))
    transmitted = np.exp(-dust.compute_tau(5.0))
    np.testing.assert_allclose(transmitted, 100.0**-ratios, rtol=1e-5)


def test_blue_is_dimmed_more_than_red():
    """A_λ/A_V falls with wavelength, is 1 near V, and is greyer in dense clouds."""
    red, green, blue = dust.compute_reddening(3.1)
    assert red < green < blue
    assert red == pytest.approx(0.87, abs=0.02)
    assert green == pytest.approx(1.02, abs=0.02)
    assert blue == pytest.approx(1.25, abs=0.02)
    dense = dust.compute_reddening(5.5)
    assert dense[2] - dense[0] < blue - red


def test_srgb_is_the_standard_and_its_own_inverse():
    """Encoded 0.5 is linear 0.214041; decoding and encoding cancel."""
    assert float(dust.decode_srgb(np.float32(0.5))) == pytest.approx(0.214041, abs=1e-6)
    ramp = np.linspace(0, 1, 256, dtype=np.float32)
    np.testing.assert_allclose(
        dust.encode_srgb(dust.decode_srgb(ramp)), ramp, atol=1e-6
    )


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 15), st.floats(0, 15), st.floats(3.1, 5.5), st.floats(0, 1))
def test_more_dust_is_never_brighter(first, second, r_v, foreground):
    """Every channel falls with A_V, and the input is not written to."""
    image = np.random.default_rng(1).random((3, 4, 3), dtype=np.float32)
    image.setflags(write=False)
    thin, thick = sorted((first, second))
    through_thin = look_through(image, thin, r_v, foreground)
    through_thick = look_through(image, thick, r_v, foreground)
    assert through_thick.dtype == np.float32
    assert (through_thick <= through_thin + 1e-6).all()
    assert (through_thin <= image + 1e-6).all() and through_thick.min() >= 0


def test_screens_are_multiplied(picture):
    """Two screens one behind the other are one screen with the sum of A_V."""
    twice = look_through(look_through(picture, 0.7), 0.5)
    np.testing.assert_allclose(twice, look_through(picture, 1.2), atol=2e-6)


def test_light_in_front_isn_t_dimmed(picture):
    """With foreground f and very thick dust the fraction f of the light is left."""
    result = look_through(picture, 60.0, foreground=0.2)
    expected = 0.2 * dust.decode_srgb(picture)
    np.testing.assert_allclose(dust.decode_srgb(result), expected, atol=1e-5)


def test_cloudshine_rises_peaks_and_falls():
    """Thin dust scatters ω τ, thick dust ω/4, with a maximum near τ = 1."""
    tau = np.linspace(0, 20, 2001, dtype=np.float32)
    light = dust.scatter(tau)
    assert light[0] == 0
    assert light[1] / tau[1] == pytest.approx(dust.ALBEDO, rel=0.02)
    assert light[-1] == pytest.approx(dust.ALBEDO / 4, rel=1e-3)
    assert 0.5 < tau[light.argmax()] < 1.5


def test_cloudshine_is_bluer_on_thin_dust_than_on_dense_dust():
    """Blue scatters first and is lost first."""
    thin, dense = dust.scatter(dust.compute_tau(np.array([0.2, 3.0], np.float32)))
    assert thin[2] / thin[0] > 1.2
    assert dense[2] / dense[0] < 1.0


def test_bytes_are_refused():
    """8-bit pictures come with a cure."""
    with pytest.raises(ImageError, match="divide 8-bit"):
        dust.simulate_dark_nebula(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize("beta", [2.0, 2.8, 3.5])
def test_the_power_spectrum_has_the_slope_asked_for(beta):
    """A straight line through log power against log k gives −beta."""
    field, _ = dust.make_fractal_field((256, 256), beta, np.random.default_rng(0))
    power = np.abs(np.fft.fft2(field)) ** 2
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(256)] * 2))
    use = (k > 0.01) & (k < 0.4)
    slope = np.polyfit(np.log(k[use]), np.log(power[use]), 1)[0]
    # 30,000 modes, each with the scatter of an exponential law: ±0.015 (2 sigma).
    assert slope == pytest.approx(-beta, abs=0.04)


def test_the_two_fields_are_independent_and_normalised():
    """Mean 0, deviation 1, hardly correlated, different for another seed."""
    first, second = dust.make_fractal_field((128, 96), 0.0, np.random.default_rng(1))
    for field in (first, second):
        assert field.mean() == pytest.approx(0, abs=1e-5)
        assert field.std() == pytest.approx(1, abs=1e-4)
    assert abs(np.mean(first * second)) < 0.04  # 4 sigma of 12,288 white pixels
    other, _ = dust.make_fractal_field((128, 96), 0.0, np.random.default_rng(2))
    assert not np.array_equal(first, other)


def test_columns_are_lognormal_with_a_tail_on_request():
    """Logarithms scatter as asked for; above one sigma P(>N) goes as N^−tail."""
    plain, tailed = (
        dust.make_column_density((256, 256), 0.0, 0.7, tail, np.random.default_rng(0))
        for tail in (None, 2.0)
    )
    assert np.log(plain).std() == pytest.approx(0.7, abs=1e-3)
    np.testing.assert_array_equal(tailed[plain < 2], plain[plain < 2])
    start = np.exp(0.7)
    ratio = np.mean(tailed > 2 * start) / np.mean(tailed > start)
    assert ratio == pytest.approx(2.0**-2, abs=0.02)


@pytest.mark.parametrize("kind", dust.KINDS)
def test_screens_reach_the_extinction_asked_for(kind):
    """One percent of the pixels is above one, none is negative, seeds decide."""
    screen, again = (
        dust._draw_screen(SHAPE, kind, np.random.default_rng(5)) for _ in range(2)
    )
    assert screen.shape == SHAPE and screen.dtype == np.float32 and screen.min() >= 0
    assert np.mean(screen >= 0.9999) == pytest.approx(0.01, abs=0.002)
    np.testing.assert_array_equal(screen, again)
    outline = dust.make_envelope(SHAPE, kind, np.random.default_rng(5))
    assert outline.min() >= 0 and outline.max() <= 1 + 1e-6


def test_star_colours_are_those_of_black_bodies():
    """The Sun is white, a red dwarf red, an O star as blue as Planck's law says."""
    np.testing.assert_allclose(stars.compute_star_colour(5772.0), 1, rtol=1e-6)
    red, _, blue = stars.compute_star_colour(3000.0)
    assert red > 1.4 and blue < 0.6
    hot = stars.compute_star_colour(1e7)
    sun = np.expm1(1.438777e7 / np.array([620, 540, 460]) / 5772)
    rayleigh_jeans = sun * np.array([620, 540, 460])
    np.testing.assert_allclose(hot, rayleigh_jeans / rayleigh_jeans[1], rtol=2e-3)


def test_star_counts_follow_the_power_law():
    """N(>F) ∝ F^−0.9: ten times brighter stars are 10^0.9 times rarer."""
    drawn = stars.draw_stars(SHAPE, 40_000, 3e4, np.random.default_rng(0))
    flux = drawn.fluxes[:, 1]
    assert flux.min() >= 1
    assert np.mean(flux > 10) == pytest.approx(10**-0.9, rel=0.06)  # 3 sigma
    assert drawn.positions.min() >= -0.5
    assert (drawn.positions <= np.array(SHAPE) - 0.5).all()
    halves = [(drawn.positions[:, axis] < SHAPE[axis] / 2).mean() for axis in (0, 1)]
    assert halves == pytest.approx([0.5, 0.5], abs=0.02)


def test_painting_keeps_the_flux_and_the_place():
    """A star's light sums to its flux and is centred where it stands."""
    star = stars.Stars(
        np.array([[20.25, 30.5]], np.float32), np.array([[5.0, 7.0, 11.0]], np.float32)
    )
    psf = stars.make_psf(SHAPE, fwhm=2.5)
    assert psf.sum() == pytest.approx(1, rel=1e-5)
    painted = stars.paint_stars(star, psf)
    np.testing.assert_allclose(painted.sum(axis=(0, 1)), [5, 7, 11], rtol=1e-3)
    near = painted[14:27, 24:38, 1].astype(float)
    rows, columns = np.indices(near.shape)
    assert (rows * near).sum() / near.sum() + 14 == pytest.approx(20.25, abs=0.05)
    assert (columns * near).sum() / near.sum() + 24 == pytest.approx(30.5, abs=0.05)


def test_the_profile_has_the_width_asked_for():
    """At half the full width from the centre the profile is half as high."""
    psf = stars.make_psf((101, 101), fwhm=8.0)
    assert psf[0, 4] / psf[0, 0] == pytest.approx(0.5, rel=1e-4)


def test_development_shows_black_middle_and_white():
    """0 stays black, the midtone becomes 0.5, and all above white is white."""
    scene = np.array([0, 0.2, 4, 9], np.float32)
    developed = stars.develop(scene, white=4.0, midtone=0.05)
    np.testing.assert_allclose(developed, [0, 0.5, 1, 1], atol=1e-6)


def test_without_dust_the_two_pictures_of_a_pair_are_equal(picture):
    """With A_V = 0 and no cloudshine nothing is left that could differ."""
    none = dust.DarkNebula("globule", a_v=0.0)
    covered, plain = dust.simulate_dark_nebula(picture, 3, none)
    np.testing.assert_allclose(covered, plain, atol=1e-6)


def test_the_picture_without_the_nebula_does_not_know_of_it(picture):
    """Another nebula over the same seed leaves the other half of the pair alone."""
    drawn = dust.DarkNebula.draw(np.random.default_rng(0))
    _, first = dust.simulate_dark_nebula(picture, 7, drawn)
    _, second = dust.simulate_dark_nebula(picture, 7, replace(drawn, a_v=9.0))
    np.testing.assert_array_equal(first, second)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_drawn_pairs_are_pictures_and_repeatable(seed):
    """Any seed gives two different pictures, and the same ones again."""
    picture = np.random.default_rng(3).random((*SHAPE, 3), dtype=np.float32)
    covered, plain = dust.simulate_dark_nebula(picture, seed)
    for image in (covered, plain):
        assert image.shape == (*SHAPE, 3) and image.dtype == np.float32
        assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1
    assert not np.array_equal(covered, plain)
    again, _ = dust.simulate_dark_nebula(picture, seed)
    np.testing.assert_array_equal(covered, again)


def test_a_dark_nebula_is_dark_and_red():
    """Without cloudshine the dust dims a picture, and blue more than red."""
    nebula = dust.DarkNebula("cloud", a_v=3.0)
    grey = np.full((*SHAPE, 3), 0.5, np.float32)
    covered, plain = dust.simulate_dark_nebula(grey, 1, nebula)
    lost = (plain - covered).mean(axis=(0, 1))
    assert 0.005 < lost[0] < lost[1] < lost[2]


def test_one_cloud_can_be_made_denser(picture):
    """With only A_V changed the same cloud dims the same picture, more and more."""
    means = []
    for a_v in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0):
        nebula = dust.DarkNebula("filament", a_v)
        covered, plain = dust.simulate_dark_nebula(picture, 11, nebula)
        means.append(float(covered.mean()))
        assert (covered <= plain + 1e-6).all()
    assert all(np.diff(means) < 0)

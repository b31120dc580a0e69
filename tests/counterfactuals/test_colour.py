"""Colour interventions: the colour changes, the structure stays."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nebula_utils.counterfactuals import colour as cf
from nebula_utils.errors import ImageError

ROUNDING = 2e-6  # a few float32 steps at 1
pictures = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=3, max_side=6).map(lambda s: (*s, 3)),
    elements=st.floats(0, 1, width=32),
)
CHANGES = cf.COUNTERFACTUALS | {
    "warm": partial(cf.white_balance, gains=(1.25, 1.0, 0.7)),
    "stretch": partial(cf.stretch, softening=4.0),
    "gamma": partial(cf.adjust_gamma, gamma=1.5),
    "hue": partial(cf.shift, hue=180),
    "vivid": partial(cf.shift, hue=-70, saturation=2.5),
    "SHO": partial(cf.shift, palette="SHO"),
    "HOO": partial(cf.shift, palette="HOO", saturation=0.5),
}
KEEP_LUMA = (*cf.LUMA_KEEPING, "hue", "vivid")
KEEP_GREY = ("grey", "saturated", "swapped", "hue", "vivid", "HOO", "SHO", "stretch")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Random colours, no structure."""
    return np.random.default_rng(0).random((16, 12, 3), dtype=np.float32)


@pytest.mark.parametrize("name", CHANGES)
@settings(max_examples=30, deadline=None)
@given(images=pictures)
def test_results_are_pictures_and_the_input_is_left_alone(name, images):
    """Any picture gives float32 in [0, 1] of the same shape, and isn't written to."""
    images.setflags(write=False)
    before = images.copy()
    result = CHANGES[name](images)
    assert result.shape == images.shape and result.dtype == np.float32
    assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 1
    assert not np.shares_memory(result, images)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", KEEP_LUMA)
@settings(max_examples=30, deadline=None)
@given(images=pictures)
def test_luma_is_kept_exactly(name, images):
    """Interventions on colour only have the same greyscale picture."""
    result = cf.to_grey(CHANGES[name](images))
    np.testing.assert_allclose(result, cf.to_grey(images), atol=ROUNDING)


@pytest.mark.parametrize("name", KEEP_GREY)
@settings(max_examples=30, deadline=None)
@given(images=pictures)
def test_grey_pictures_stay_grey(name, images):
    """What only moves colours about can't make any where there is none."""
    result = CHANGES[name](cf.to_grey(images))
    assert np.ptp(result, axis=-1).max() <= ROUNDING


@given(images=pictures)
def test_grey_twice_is_grey_once(images):
    """Taking the colour away is idempotent to the last bit."""
    grey = cf.to_grey(images)
    np.testing.assert_array_equal(cf.to_grey(grey), grey)


def test_grey_has_the_weights_of_bt709():
    """Pure red, green and blue have the luma of the recommendation."""
    primaries = np.eye(3, dtype=np.float32).reshape(1, 3, 3)
    expected = np.array([0.2126, 0.7152, 0.0722])
    np.testing.assert_allclose(cf.to_grey(primaries)[0, :, 0], expected, atol=1e-7)


def test_tints_keep_the_order_of_brightness():
    """A brighter grey is never darker in any channel of a tint, black stays black."""
    ramp = np.repeat(np.linspace(0, 1, 101, dtype=np.float32), 3).reshape(1, 101, 3)
    for colour in (cf.RED, cf.BLUE, cf.GOLD):
        result = cf.tint(ramp, colour)
        assert np.diff(cf.to_grey(result)[0, :, 0]).min() > 0
        assert not result[0, 0].any() and result[0, -1].min() > 1 - ROUNDING


def test_a_tint_gives_its_own_colour_at_its_own_luma():
    """Where the luma is that of the tint the tint itself is painted."""
    luma = float(np.dot(cf.RED, cf.LUMA))
    result = cf.tint(np.full((1, 1, 3), luma, np.float32), cf.RED)
    np.testing.assert_allclose(result[0, 0], cf.RED, atol=1e-5)


def test_a_partial_tint_lies_half_way(picture):
    """Amount 0 leaves the colours, 0.5 is the mean of picture and tint."""
    half = cf.tint(picture, cf.BLUE, amount=0.5)
    full = cf.tint(picture, cf.BLUE)
    np.testing.assert_allclose(half, (picture + full) / 2, atol=ROUNDING)
    np.testing.assert_allclose(cf.tint(picture, cf.BLUE, 0), picture, atol=ROUNDING)


def test_saturation_scales_the_chroma_where_a_screen_can_show_it():
    """Factor 2 doubles the distance from grey of a pale colour, 0 takes it away."""
    pale = np.array([[[0.5, 0.45, 0.4]]], np.float32)
    grey = cf.to_grey(pale)
    np.testing.assert_allclose(
        cf.saturate(pale, 2) - grey, 2 * (pale - grey), atol=ROUNDING
    )
    np.testing.assert_allclose(cf.saturate(pale, 0), grey, atol=ROUNDING)


def test_a_full_turn_of_hue_changes_nothing(picture):
    """360° is the identity, and two half turns of a pale colour too."""
    np.testing.assert_allclose(cf.shift(picture, 360), picture, atol=1e-5)
    pale = 0.4 + 0.1 * picture
    twice = cf.shift(cf.shift(pale, 180), 180)
    np.testing.assert_allclose(twice, pale, atol=1e-5)


def test_channels_are_swapped_and_not_mixed():
    """One marked channel turns up whole in the other place."""
    marked = np.zeros((2, 2, 3), np.float32)
    marked[..., 0] = 0.7
    result = cf.swap_channels(marked)
    np.testing.assert_array_equal(result[..., 2], marked[..., 0])
    assert not result[..., :2].any()


def test_narrow_band_palettes_turn_hydrogen_gold_and_oxygen_teal():
    """In SHO hydrogen red becomes R, G ≫ B; oxygen's green-blue becomes B ≫ R."""
    pair = np.array([[[0.6, 0.1, 0.1], [0.05, 0.5, 0.5]]], np.float32)
    hydrogen, oxygen = cf.apply_palette(pair, "SHO")[0]
    assert min(hydrogen[:2]) > 5 * hydrogen[2]
    assert oxygen[2] > 5 * oxygen[0]
    np.testing.assert_allclose(cf.apply_palette(pair, "HOO")[0, 0], [0.6, 0.1, 0.1])


def test_white_balance_keeps_grey_pixels_as_bright():
    """Gains are scaled so that the luma of a grey pixel stays."""
    grey = np.full((1, 1, 3), 0.4, np.float32)
    result = cf.white_balance(grey, (2.0, 1.0, 0.5))
    np.testing.assert_allclose(cf.to_grey(result), grey, atol=ROUNDING)
    assert result[0, 0, 0] / result[0, 0, 2] == pytest.approx(4.0, rel=1e-5)


def test_the_stretch_lifts_and_the_gamma_lowers(picture):
    """Both keep black and white, and what is between moves as documented."""
    ends = np.array([[[0.0, 1.0, 0.25]]], np.float32)
    lifted, lowered = cf.stretch(ends, 4.0)[0, 0], cf.adjust_gamma(ends, 2.0)[0, 0]
    expected = np.arcsinh(1) / np.arcsinh(4)
    np.testing.assert_allclose(lifted, [0, 1, expected], atol=ROUNDING)
    np.testing.assert_allclose(lowered, [0, 1, 0.0625], atol=ROUNDING)


def test_the_reported_counterfactuals_stay():
    """Reports and models name these, in this order."""
    assert cf.REPORTED == ("grey", "saturated", "red", "blue", "gold", "swapped")


def test_a_shift_is_its_parts_and_goes_on_smoothly(picture):
    """Palette, then hue, then saturation; a small change changes little."""
    pale = 0.4 + 0.1 * picture
    parts = cf.saturate(cf.shift(cf.apply_palette(pale, "HOO"), 40), 0.5)
    whole = cf.shift(pale, hue=40, saturation=0.5, palette="HOO")
    np.testing.assert_allclose(whole, parts, atol=1e-6)
    np.testing.assert_array_equal(cf.shift(picture), picture)
    np.testing.assert_allclose(cf.shift(picture, saturation=0), cf.to_grey(picture))
    steps = [cf.shift(picture, hue=hue) for hue in range(0, 361, 2)]
    assert max(np.abs(a - b).max() for a, b in pairwise(steps)) < 0.15
    np.testing.assert_allclose(steps[-1], picture, atol=1e-5)
    with pytest.raises(ValueError, match="SHO"):
        cf.shift(picture, palette="OSH")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_random_copies_are_pictures(seed):
    """Whatever is drawn, the copy is float32 in [0, 1], and the same the next time."""
    image = np.random.default_rng(2).random((4, 5, 3), dtype=np.float32)
    result, again = (
        cf.randomise_colour(image, np.random.default_rng(seed)) for _ in range(2)
    )
    assert result.dtype == np.float32 and result.shape == image.shape
    assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 1
    np.testing.assert_array_equal(result, again)


def test_a_quarter_of_the_copies_is_grey(picture):
    """The mix is the documented one."""
    rng = np.random.default_rng(0)
    copies = np.stack([cf.randomise_colour(picture, rng) for _ in range(400)])
    grey = np.ptp(copies, axis=-1).max(axis=(1, 2)) < 1e-5
    # 400 draws at 0.25: four standard deviations are 0.09.
    assert grey.mean() == pytest.approx(0.25, abs=0.09)


@pytest.mark.parametrize(
    ("colour", "palette"),
    [
        ((0.3, 0.3, 0.3), "mono"),
        ((0.32, 0.30, 0.29), "mono"),
        ((0.0, 0.0, 0.0), "mono"),
        ((0.6, 0.15, 0.2), "red"),
        ((0.5, 0.3, 0.15), "red"),
        ((0.2, 0.3, 0.6), "blue"),
        ((0.1, 0.5, 0.5), "blue"),
        ((0.2, 0.5, 0.2), "mixed"),
    ],
)
def test_palettes_of_plain_colours(colour, palette):
    """Grey and black are mono; hydrogen and dust red; oxygen and scattering blue."""
    image = np.full((4, 4, 3), colour, np.float32)
    assert cf.compute_palette(image) == palette
    assert cf.compute_palette(cf.to_grey(image)) == "mono"


def test_a_picture_half_red_half_cyan_is_mixed():
    """Colours that cancel are no lean, though the picture is colourful."""
    image = np.empty((2, 2, 3), np.float32)
    image[0], image[1] = (0.6, 0.2, 0.2), (0.2, 0.6, 0.6)
    assert cf.measure_chroma(image) == pytest.approx(2 / 3, rel=1e-6)
    assert cf.compute_palette(image) == "mixed"


def test_tints_decide_the_palette(picture):
    """Every picture's red tint is red and its blue tint blue."""
    assert cf.compute_palette(cf.COUNTERFACTUALS["red"](picture)) == "red"
    assert cf.compute_palette(cf.COUNTERFACTUALS["blue"](picture)) == "blue"


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 4), np.float32),
    ],
)
def test_what_is_no_picture_is_refused(wrong):
    """8-bit values, no channels and four channels get a message with the cure."""
    with pytest.raises(ImageError, match="divide 8-bit"):
        cf.to_grey(wrong)


def test_wrong_parameters_are_refused(picture):
    """A black tint and an unknown palette are errors."""
    with pytest.raises(ValueError, match="black"):
        cf.tint(picture, (0, 0, 0))
    with pytest.raises(ValueError, match="SHO"):
        cf.apply_palette(picture, "RGB")

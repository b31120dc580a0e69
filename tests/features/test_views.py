"""Views are what they say, and the same for the study and for what is served."""

import numpy as np
import pytest
from PIL import Image

from nebula_utils.counterfactuals.framing import FRAMINGS
from nebula_utils.features.views import Preprocessing, View, apply_first
from nebula_utils.images.reading import cut_square


def test_views_are_what_they_say():
    """A marker in the top-left corner is in the crop of that corner only."""
    image = np.zeros((100, 100, 3), np.uint8)
    image[:10, :10, 0] = 255
    views = Preprocessing(
        (View(32, "top_left"), View(32, "bottom_right"), View(32, "whole", "grey"))
    ).make_views(image)
    assert views[0][0, 0].tolist() == pytest.approx([1, 0, 0])
    assert views[1].max() == 0
    assert np.ptp(views[2], axis=-1).max() == pytest.approx(0, abs=1e-6)


def test_colour_steps_are_taken_in_order():
    """`red>grey` is the greyscale of the red picture."""
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    both, grey = Preprocessing(
        (View(32, colour="red>grey"), View(32, colour="grey"))
    ).make_views(image)
    np.testing.assert_allclose(both, grey, atol=1e-4)


def test_a_framing_comes_before_the_crop():
    """A view is cut from what the framing gives, which is as large as crops need it."""
    image = np.random.default_rng(0).integers(0, 255, (90, 60, 3), np.uint8)
    (view,) = apply_first("larger", (View(48, colour="grey"),))
    made = Preprocessing((view, view._replace(colour="as_is"))).make_views(image)
    expected = cut_square(FRAMINGS["larger"](image, size=74), 48)
    np.testing.assert_array_equal(made[1], expected / np.float32(255))
    assert np.ptp(made[0], axis=-1).max() == pytest.approx(0, abs=1e-6)


def test_every_framing_gives_every_view(tmp_path):
    """Whole or cropped, in the size that was asked for."""
    image = np.random.default_rng(0).integers(0, 255, (90, 60, 3), np.uint8)
    views = [
        View(32, crop, "as_is", f) for f in FRAMINGS for crop in ("whole", "centre")
    ]
    made = Preprocessing(tuple(views)).make_views(image)
    assert [view.shape for view in made] == [(32, 32, 3)] * len(views)


@pytest.mark.parametrize("trim", [False, True])
def test_a_large_picture_is_decoded_alike_for_all_views(tmp_path, trim):
    """20 megapixels: what else is asked changes no view, crops of it included."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (40, 52, 3), np.uint8))
    coarse.resize((5200, 4000)).save(tmp_path / "large.jpg", quality=90)
    few = Preprocessing((View(),), trim=trim)
    many = Preprocessing((View(), View(crop="top_left"), View(160)), trim=trim)
    first, other = (p.make_views(p.read(tmp_path / "large.jpg")) for p in (few, many))
    np.testing.assert_array_equal(first[0], other[0])

"""Framing changes where and how large a nebula is, and only as its seed says."""

import numpy as np
import pytest

from nebula_utils.counterfactuals import framing
from nebula_utils.errors import ImageError
from nebula_utils.images import reading


def make_picture(height=200, width=260, sky=20):
    """Return a disc of (250, 90, 60) left of the middle on an even sky."""
    rows, columns = np.indices((height, width))
    picture = np.full((height, width, 3), sky, np.uint8)
    picture[np.hypot(rows - 100, columns - 110) < 50] = 250, 90, 60
    return picture


def find_disc(image):
    """Return row, column and area of what is clearly red, as shares of the frame."""
    red = image[..., 0].astype(int) - image[..., 2] > 100
    rows, columns = np.nonzero(red)
    return rows.mean() / len(image), columns.mean() / len(image), red.mean()


@pytest.mark.parametrize("name", framing.FRAMINGS)
def test_each_framing_gives_the_same_square_again(name):
    """Any shape gives (size, size, 3) uint8; two calls give equal pixels."""
    frame = framing.FRAMINGS[name]
    for picture in (make_picture(), make_picture(300, 220)):
        before = picture.copy()
        first, second = frame(picture, size=96), frame(picture, size=96)
        assert first.shape == (96, 96, 3)
        assert first.dtype == np.uint8
        assert np.array_equal(first, second)
        assert np.array_equal(picture, before)


def test_framings_put_the_nebula_where_they_say():
    """Areas go with the square of the scale; places turn and mirror exactly."""
    picture = make_picture()
    row, column, area = find_disc(reading.cut_square(picture, 224))
    for name, scale in (("smaller", 0.5), ("much_smaller", 0.3), ("larger", 1 / 0.6)):
        found = find_disc(framing.FRAMINGS[name](picture, size=224))
        assert found[2] == pytest.approx(area * scale**2, rel=0.12)
        assert found[1] == pytest.approx(0.5 + (column - 0.5) * scale, abs=0.02)
    turned = find_disc(framing.FRAMINGS["turned"](picture, size=224))
    assert turned == pytest.approx((1 - column, row, area), abs=0.01)
    mirrored = find_disc(framing.FRAMINGS["mirrored"](picture, size=224))
    assert mirrored == pytest.approx((row, 1 - column, area), abs=0.01)
    off = find_disc(framing.FRAMINGS["off_centre"](picture, size=224))
    assert off[0] < row - 0.1


def test_the_sky_around_matches_the_picture():
    """Level and colour of the sky go on without an edge, and there are stars in it."""
    picture = make_picture()
    picture[picture[..., 2] == 20] = 40, 20, 30
    image = framing.zoom_out(picture, 0.5, 224)
    assert np.abs(np.median(image[:40], (0, 1)) - (40, 20, 30)).max() <= 2
    assert (image[:40].max(-1) > 150).sum() > 10
    joint = np.median(image[:, 50:62].astype(float), axis=(0, 1))
    assert np.abs(joint - (40, 20, 30)).max() <= 4


def test_a_black_and_a_small_picture_are_framed_too():
    """Nothing divides by zero, and 16 px are enough."""
    for picture in (np.zeros((16, 16, 3), np.uint8), np.full((20, 30, 3), 255, "u1")):
        for frame in framing.FRAMINGS.values():
            assert frame(picture, size=32).shape == (32, 32, 3)


def test_cut_square_stays_inside():
    """A centre near the edge moves inwards; impossible shares are refused."""
    picture = make_picture()
    corner = reading.cut_square(picture, 100, 0.5, (0.0, 1.0))
    assert np.array_equal(corner, picture[:100, 130:230])
    with pytest.raises(ImageError):
        reading.cut_square(picture, 100, 1.2)

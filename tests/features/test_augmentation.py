"""Training views: the middle stays in, the border out, and seeds decide."""

import numpy as np
import pytest

from nebula_utils.features.augmentation import (
    DustyCrops,
    RandomCrops,
    ZoomedOut,
    crop_at_random,
    make_content_mask,
    process_as_photo,
    turn,
)

MAKERS = [
    RandomCrops(3, 64),
    DustyCrops(2, 64),
    ZoomedOut(2, 64),
]


@pytest.fixture
def vignetted() -> np.ndarray:
    """Draw a bright disc on black, with a marker in the middle."""
    rows, columns = np.mgrid[-1:1:200j, -1:1:200j]
    image = np.zeros((200, 200, 3), np.uint8)
    image[np.hypot(rows, columns) < 0.6] = (90, 60, 120)
    image[98:102, 98:102] = 255
    return image


@pytest.mark.parametrize("maker", MAKERS)
def test_as_many_views_as_promised(maker, vignetted):
    """Views are float32 squares in [0, 1], `n_views` of them."""
    views = maker.make_views(vignetted, 1)
    assert len(views) == maker.n_views
    for view in views:
        assert view.shape == (64, 64, 3) and view.dtype == np.float32
        assert view.min() >= 0 and view.max() <= 1


def test_seeds_decide(vignetted):
    """Equal seeds give equal views, other seeds others."""
    maker = RandomCrops(2, 64)
    first, again, other = (maker.make_views(vignetted, s) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_crops_hold_the_middle_and_little_border(vignetted):
    """The marker is in every crop, and most of a crop is not black."""
    mask = make_content_mask(vignetted)
    rng = np.random.default_rng(0)
    for _ in range(50):
        crop = crop_at_random(vignetted, mask, rng)
        assert crop.max() == 255
        assert (crop.max(-1) == 0).mean() < 0.3


def test_black_picture_still_gives_crops():
    """A picture without any light is cropped and not refused."""
    black = np.zeros((80, 120, 3), np.uint8)
    assert len(RandomCrops(1, 64).make_views(black)) == 3


def test_third_view_is_grey(vignetted):
    """Of each crop the third view has no colour."""
    views = RandomCrops(2, 64).make_views(vignetted)
    assert np.ptp(views[2], axis=-1).max() < 1e-6


def test_turning_keeps_every_pixel():
    """Turning and mirroring moves pixels and changes none."""
    picture = np.random.default_rng(0).random((16, 16, 3), np.float32)
    turned = turn(picture, np.random.default_rng(3))
    assert np.array_equal(np.sort(turned, axis=None), np.sort(picture, axis=None))


def test_processing_stays_in_range():
    """Whatever is done to a picture, it stays float32 in [0, 1]."""
    picture = np.random.default_rng(0).random((224, 224, 3), np.float32)
    for seed in range(40):
        done = process_as_photo(picture, np.random.default_rng(seed))
        assert done.shape == picture.shape and done.dtype == np.float32
        assert done.min() >= 0 and done.max() <= 1

"""Pictures are cut, resized and compared; blank ones and all else is refused."""

import subprocess
import sys

import numpy as np
import pytest
from test_decoding import (
    MARKER,
    NOISE,
    corners,
    encode,
    encode_fits,
    encode_heif,
    make_bomb,
)

from nebula_utils.config import REPOSITORY, cache_dir
from nebula_utils.errors import ImageError
from nebula_utils.images import reading

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("level", [0, 90, 254])
def test_pictures_with_nothing_to_see_are_refused(level):
    """One colour, its JPEG noise, a frame around it: refused; faint things pass."""
    blank = np.full((300, 400, 3), level, np.uint8)
    framed = blank.copy()
    framed[:20] = framed[-20:] = 255 - level
    speckled = blank + np.random.default_rng(0).integers(0, 2, blank.shape, np.uint8)
    for image in (blank, framed, speckled):
        for kind in ("PNG", "JPEG"):
            with pytest.raises(ImageError, match="nothing to see in this picture"):
                reading.read_image(encode(image, kind))
    assert reading.read_image(encode(blank), refuse_blank=False).shape == blank.shape
    faint = blank.astype(int)
    faint[100:140, 150:200] += 12 if level < 128 else -12
    assert reading.read_image(encode(faint.astype(np.uint8))).shape == blank.shape
    counts = np.full((40, 40), 1000.0 + level)
    with pytest.raises(ImageError, match="nothing to see"):
        reading.read_image(encode_fits(counts))


def test_mutated_files_raise_nothing_else():
    """Four hundred damaged files: a picture or an ImageError, never another error."""
    rng = np.random.default_rng(5)
    good = [encode(NOISE, kind) for kind in ("JPEG", "PNG", "TIFF", "GIF", "WEBP")]
    good += [encode(NOISE, "BMP"), encode_fits(NOISE), encode_heif(NOISE)]
    for k in range(400):
        data = np.frombuffer(good[k % len(good)], np.uint8).copy()
        where = rng.integers(0, min(len(data), 200), rng.integers(1, 8))
        data[where] = rng.integers(0, 256, len(where))
        try:
            image = reading.read_image(data.tobytes(), min_side=32)
        except ImageError:
            continue
        assert image.dtype == np.uint8
        assert image.ndim == 3


def test_nothing_is_printed(tmp_path):
    """Pillow, libtiff and astropy stay silent on damaged files."""
    damaged = {
        "exif.jpg": encode(MARKER, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        "large.png": make_bomb(9900, 9900),
        "cut.tif": encode(NOISE, "TIFF", compression="tiff_lzw")[:-300],
        "cut.fits": encode_fits(NOISE)[:-9000],
    }
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
    code = (
        "import sys; from nebula_utils import errors\n"
        "from nebula_utils.images import reading\n"
        "for name in sys.argv[1:]:\n"
        "    try: reading.read_image(name)\n"
        "    except errors.ImageError: pass\n"
    )
    names = [str(tmp_path / name) for name in damaged]
    run = [sys.executable, "-W", "default", "-c", code, *names]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stderr == done.stdout == ""


def test_import_is_light():
    """Importing the module loads neither pandas, astropy, SciPy nor TensorFlow."""
    code = "import sys, nebula_utils.images.reading; print(' '.join(sys.modules))"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    heavy = {"pandas", "astropy", "scipy", "tensorflow", "tifffile", "pillow_heif"}
    assert not heavy & set(loaded)


def test_resize_and_crop():
    """Sizes are (height, width), corners stay, nothing is stretched."""
    assert reading.resize_image(MARKER, 20, 90).shape == (20, 90, 3)
    assert corners(reading.resize_image(MARKER, 20, 30)) == "rgbw"
    assert reading.resize_short_side(MARKER, 20).shape == (20, 30, 3)
    assert reading.resize_short_side(MARKER, 80).shape == (80, 120, 3)
    assert reading.centre_crop(MARKER).shape == (40, 40, 3)
    assert np.array_equal(reading.centre_crop(MARKER, 20, 30), MARKER[10:30, 15:45])


def test_shrinking_averages_areas():
    """Single bright pixels keep their light: no aliasing, no rings."""
    stars = np.zeros((64, 64, 3), np.uint8)
    stars[::4, ::4] = 240
    small = reading.resize_image(stars, 16, 16)
    assert (small == 15).all()


def test_bad_sizes_and_arrays_are_refused():
    """Impossible sizes and other kinds of arrays are errors with words."""
    for call in (
        lambda: reading.resize_image(MARKER, 0, 5),
        lambda: reading.centre_crop(MARKER, 41, 10),
        lambda: reading.cut_square(MARKER, 0),
        lambda: reading.centre_crop(MARKER[..., 0]),
        lambda: reading.compute_pixel_hash(MARKER.astype(float)),
    ):
        with pytest.raises(ImageError):
            call()


def test_pixel_hash_depends_on_shape_and_pixels_only():
    """Other PNG bytes give the same hash; a transposed or changed picture not."""
    hashes = {
        reading.compute_pixel_hash(reading.read_image(encode(MARKER, compress_level=n)))
        for n in (0, 9)
    }
    assert hashes == {reading.compute_pixel_hash(MARKER)}
    turned = reading.compute_pixel_hash(MARKER.reshape(60, 40, 3))
    assert turned not in hashes
    assert len(turned) == 64


def test_float_and_back():
    """0–255 and [0, 1] convert to each other exactly."""
    floats = reading.to_float(MARKER)
    assert floats.dtype == np.float32
    assert floats.max() == 1.0
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert np.array_equal(reading.to_uint8(reading.to_float(every)), every)


def test_dark_border_is_cut_off_and_a_full_frame_kept():
    """A vignetted picture loses its border; one that fills its frame loses nothing."""
    rows, columns = np.mgrid[-1:1:200j, -1:1:200j]
    light = (200 * (np.hypot(rows, columns) < 0.7)).astype(np.uint8)
    vignetted = np.repeat(light[..., None], 3, axis=-1)
    assert reading.trim_border(vignetted).shape == (170, 170, 3)
    full = np.full((100, 150, 3), 90, np.uint8)
    assert reading.trim_border(full).shape == full.shape
    black = np.zeros((50, 50, 3), np.uint8)
    assert reading.trim_border(black).size > 0


@pytest.mark.slow
def test_no_real_picture_is_taken_for_blank():
    """None of the default textures and of the outside sets is lost."""
    shared = REPOSITORY.parent / "shared"
    folders = [cache_dir() / "stellarium"]
    folders += [shared / name for name in ("stellarium-26.3", "photos", "strangers")]
    files = [f for d in folders for f in d.rglob("*") if f.suffix in (".png", ".jpg")]
    if not files:
        pytest.skip("no pictures here: run `nebula fetch stellarium`")
    for file in files:
        assert len(reading.read_image(file, 128))

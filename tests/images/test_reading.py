"""Any file gives a uint8 RGB picture or an ImageError that says why not."""

import gzip
import io
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from astropy.io import fits
from PIL import Image, PngImagePlugin

from nebula_utils.config import REPOSITORY, cache_dir
from nebula_utils.errors import ImageError
from nebula_utils.images import reading, scientific

# pytest undoes the module's own filter; test_nothing_is_printed sees to it.
pytestmark = pytest.mark.filterwarnings("ignore")

# Red top left, green top right, blue bottom left, white bottom right: (40, 60, 3).
MARKER = np.zeros((40, 60, 3), np.uint8)
MARKER[:20, :30, 0] = 255
MARKER[:20, 30:, 1] = 255
MARKER[20:, :30, 2] = 255
MARKER[20:, 30:] = 255


def encode(image, kind="PNG", **options):
    """Return the bytes of an array or a Pillow image in the given format."""
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def encode_fits(array, **cards):
    """Return the bytes of a FITS file with an empty first HDU, then the array."""
    buffer = io.BytesIO()
    hdu = fits.ImageHDU(array)
    hdu.header.update(cards)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return buffer.getvalue()


def encode_heif(image):
    """Return the bytes of a HEIC file."""
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(image)).save(buffer, quality=95)
    return buffer.getvalue()


def corners(image):
    """Return the colours in the middle of the four quarters, as one string."""
    height, width = image.shape[:2]
    names = {0: "k", 4: "r", 2: "g", 1: "b", 7: "w"}
    points = [(1, 1), (1, 3), (3, 1), (3, 3)]
    found = ""
    for row, column in points:
        r, g, b = image[height * row // 4, width * column // 4] > 127
        found += names.get(4 * r + 2 * g + b, "?")
    return found


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("png", encode(MARKER)),
        ("jpeg", encode(MARKER, "JPEG", quality=95)),
        ("webp", encode(MARKER, "WEBP", lossless=True)),
        ("tiff", encode(MARKER, "TIFF")),
        ("tiff lzw", encode(MARKER, "TIFF", compression="tiff_lzw")),
        ("gif", encode(MARKER, "GIF")),
        ("bmp", encode(MARKER, "BMP")),
        ("heic", encode_heif(MARKER)),
        ("cmyk", encode(Image.fromarray(MARKER).convert("CMYK"), "JPEG", quality=95)),
        ("palette", encode(Image.fromarray(MARKER).convert("P"))),
        ("alpha", encode(Image.fromarray(MARKER).convert("RGBA"))),
    ],
)
def test_marker_keeps_its_corners_and_colours(name, data):
    """Every format gives (h, w, 3) RGB with nothing turned or swapped."""
    image = reading.read_image(data)
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.uint8
    assert corners(image) == "rgbw"


def test_lossless_formats_keep_each_pixel():
    """PNG, and TIFF at 16 bits in both layouts, return the very pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    planar = np.moveaxis(noise.astype(np.uint16) * 257, 2, 0)
    tiff, mixed = io.BytesIO(), io.BytesIO()
    tifffile.imwrite(tiff, planar, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(mixed, noise.astype(np.uint16) * 257, photometric="rgb")
    for data in (encode(noise), tiff.getvalue(), mixed.getvalue()):
        assert np.array_equal(reading.read_image(data), noise)


def test_16_bit_grey_is_scaled_not_clipped():
    """A ramp to 65535 becomes a ramp to 255, as PNG and TIFF."""
    ramp = np.linspace(0, 65535, 1600).reshape(40, 40).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        image = reading.read_image(encode(ramp, kind))
        assert np.array_equal(image[..., 1], (ramp >> 8).astype(np.uint8))


def test_float_tiff_grey_and_colour():
    """Floats in [0, 1] are taken as they are, NaN as black; others are stretched."""
    colour = MARKER.astype(np.float32) / 255
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, colour, photometric="rgb")
    assert np.array_equal(reading.read_image(buffer.getvalue()), MARKER)
    grey = np.full((20, 20), 0.5, np.float32)
    grey[0, 0] = np.nan
    grey[10:] = 0.25
    image = reading.read_image(encode(Image.fromarray(grey), "TIFF"))
    assert image[0, 0, 0] == 0
    assert image[1, 1, 0] == 128
    counts = np.arange(400, dtype=np.float32).reshape(20, 20) * 1000 - 5e4
    assert reading.read_image(encode(Image.fromarray(counts), "TIFF")).max() == 255


def test_transparency_lies_over_black():
    """Half transparent white is mid grey, a transparent palette entry is black."""
    layered = np.full((20, 20, 4), 255, np.uint8)
    layered[:10, :, 3] = 128
    image = reading.read_image(encode(layered))
    assert (image[:10] == 128).all()
    assert (image[10:] == 255).all()
    palette = Image.new("P", (20, 20), 1)
    palette.putpalette([0, 0, 0, 255, 255, 255])
    data = encode(palette, transparency=1)
    assert not reading.read_image(data, refuse_blank=False).any()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind):
    """Orientation 6 is turned a quarter clockwise, once."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = reading.read_image(encode(MARKER, kind, exif=exif))
    assert image.shape == (60, 40, 3)
    assert corners(image) == "brwg"


def test_damaged_exif_does_not_matter():
    """A picture with a nonsense EXIF block is still a picture."""
    data = encode(MARKER, "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert corners(reading.read_image(data)) == "rgbw"


def test_animation_gives_its_first_frame():
    """Of an animated GIF or WebP the first frame is read."""
    frames = [Image.fromarray(MARKER), Image.new("RGB", (60, 40))]
    for kind in ("GIF", "WEBP"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        assert corners(reading.read_image(data)) == "rgbw"


def test_fits_colour_mono_and_missing_values():
    """(3, h, w) and (h, w, 3) are colour, rows count from below, NaN is black."""
    flipped = MARKER[::-1].astype(np.float32)
    cube = reading.read_image(encode_fits(np.moveaxis(flipped, 2, 0)))
    assert cube.shape == (40, 60, 3)
    assert corners(cube) == "rgbw"
    assert corners(reading.read_image(encode_fits(flipped))) == "rgbw"
    top = MARKER.astype(np.float32)
    assert corners(reading.read_image(encode_fits(top, ROWORDER="TOP-DOWN"))) == "rgbw"
    mono = np.arange(2400, dtype=np.float32).reshape(40, 60)
    mono[0, :5] = np.nan, np.inf, -np.inf, np.nan, np.nan
    image = reading.read_image(encode_fits(mono))
    assert image.shape == (40, 60, 3)
    assert not image[-1, :5].any()
    assert image.max() == 255
    deep = reading.read_image(encode_fits(mono[None, None].astype(np.float64)))
    assert np.array_equal(deep, image)


def test_fits_without_a_picture_is_refused():
    """Spectra and empty pictures are named as such."""
    for array, words in (
        (np.ones(100), "no picture"),
        (np.full((20, 20), np.nan), "no finite pixel"),
        (np.ones((5, 200)), "too small"),
    ):
        with pytest.raises(ImageError, match=words):
            reading.read_image(encode_fits(array))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "FITS"])
def test_reduced_decoding_keeps_the_short_side_above_the_minimum(kind):
    """Half a size or less is decoded, never less than asked for."""
    large = np.repeat(np.repeat(MARKER, 10, 0), 10, 1)
    if kind == "FITS":
        data = encode_fits(np.moveaxis(large[::-1], 2, 0))
    else:
        data = encode(large, kind)
    image = reading.read_image(data, min_side=90)
    assert 90 <= min(image.shape[:2]) <= 200
    assert image.shape[1] == pytest.approx(1.5 * image.shape[0], abs=2)
    assert corners(image) == "rgbw"
    assert reading.read_image(data, min_side=5000).shape == (400, 600, 3)


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


def make_bomb(width, height):
    """Return a PNG of a few bytes that claims the given size."""
    data = bytearray(encode(MARKER))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an image: the file is empty"),
        (b"plain text named .jpg\n" * 9, "not an image: this is text"),
        ("Grüße\n".encode() * 9, "not an image: this is text"),
        (b"<!DOCTYPE html><script>alert(1)</script>", "not an image: a web page"),
        (b'<?xml version="1.0"?><svg onload="x()"/>', "not an image: an SVG"),
        (b"%PDF-1.7\n", "not an image: a PDF"),
        (b"PK\x03\x04rest", "not an image: a ZIP"),
        (b"\x1f\x8b\x08\0", "is cut off"),
        (gzip.compress(encode(MARKER)), "not an image: a gzip"),
        (b"XISF0100" + bytes(100), "damaged"),
        (bytes(range(256)), "not an image: unknown"),
        (encode(np.zeros((1, 1, 3), np.uint8)), "too small: 1 × 1 px"),
        (encode(np.zeros((15, 400, 3), np.uint8)), "too small"),
        (encode(Image.new("1", (30000, 30000))), "too large"),
        (make_bomb(30000, 30000), "too large"),
        (make_bomb(11000, 11000), "too large: 11000 × 11000 px"),
        (make_bomb(2**31 - 1, 2**31 - 1), "too large"),
        (b"\xff\xd8\xff\xe0", "damaged or is cut off"),
        (b"SIMPLE  =", "damaged"),
        (b"II*\0", "damaged"),
        (b"BM", "damaged"),
        (b"RIFF\xff\xff\0\0WEBPVP8 ", "is cut off"),
    ],
)
def test_bad_bytes_are_refused_in_plain_words(data, words):
    """Each kind of bad content has a message that names it."""
    with pytest.raises(ImageError, match=words):
        reading.read_image(data)


NOISE = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        encode(NOISE, "JPEG"),
        encode(NOISE, "PNG"),
        encode(NOISE, "WEBP"),
        encode(NOISE, "TIFF"),
        encode(NOISE, "TIFF", compression="tiff_lzw"),
        encode(NOISE, "GIF"),
        encode(NOISE, "BMP"),
        encode_heif(NOISE),
        encode_fits(np.moveaxis(NOISE, 2, 0)),
    ],
    ids=["jpeg", "png", "webp", "tiff", "lzw", "gif", "bmp", "heic", "fits"],
)
def test_truncated_files_are_cut_off(data):
    """Half a file is refused as cut off, whatever its format."""
    with pytest.raises(ImageError, match="is cut off: "):
        reading.read_image(data[: len(data) // 2])


def test_pathological_tiff_is_refused():
    """A directory that points to itself, or with absurd counts, does no harm."""
    loop = b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0"
    entry = b"\x00\x01\x04\0\xff\xff\xff\xff\x08\0\0\0"
    absurd = b"II*\0\x08\0\0\0" + b"\xff\xff" + entry * 300
    for data in (loop, absurd, b"MM\0*" + b"\0\0\0\x08" + b"\xff" * 500):
        with pytest.raises(ImageError):
            reading.read_image(data)


def test_text_bomb_in_a_png_is_refused():
    """A compressed comment that would unpack to 80 MB is not unpacked."""
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "0" * 80_000_000, zip=True)
    with pytest.raises(ImageError, match="damaged"):
        reading.read_image(encode(MARKER, pnginfo=info))


def test_polyglot_is_read_as_a_picture_and_nothing_else():
    """A script behind a PNG is ignored: only the pixels are taken."""
    data = encode(MARKER) + b"<script>alert(1)</script>"
    assert np.array_equal(reading.read_image(data), MARKER)


def test_formats_off_the_list_are_refused():
    """What Pillow could open, but runs programs or old code for, stays closed."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n"
    ppm = b"P6 40 40 255\n" + bytes(4800)
    for data in (eps, ppm, encode(MARKER, "ICO"), encode(MARKER, "TGA")):
        with pytest.raises(ImageError, match="not an image: "):
            reading.read_image(data)


def test_files_that_cannot_be_read(tmp_path):
    """A folder, a missing file, a pipe and odd names each have a message."""
    os.mkfifo(tmp_path / "pipe")
    for source, words in (
        (tmp_path, "this is a folder"),
        (tmp_path / "missing.jpg", "no such file"),
        (tmp_path / "pipe", "device or a pipe"),
        (tmp_path / ("x" * 300), "can't be read"),
        ("null\0byte.jpg", "can't be read"),
    ):
        with pytest.raises(ImageError, match=words) as caught:
            reading.read_image(source)
        assert str(tmp_path) not in str(caught.value)


def test_unreadable_file(tmp_path, monkeypatch):
    """Without permission the message says so (root may read all, so simulated)."""
    path = tmp_path / "secret.png"
    path.write_bytes(encode(MARKER))

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match="can't be read: Permission denied"):
        reading.read_image(path)


def test_content_decides_and_names_may_be_anything(tmp_path):
    """A PNG named .jpg, with spaces and other letters, is read."""
    path = tmp_path / "Nébuleuse d'Orion 星雲 <b>.jpg"
    path.write_bytes(encode(MARKER))
    assert np.array_equal(reading.read_image(path), MARKER)
    assert np.array_equal(reading.read_image(str(path)), MARKER)


def test_limits(tmp_path, monkeypatch):
    """Bytes above the limit are refused unread; memory errors become plain words."""
    monkeypatch.setattr(reading, "MAX_BYTES", 100)
    path = tmp_path / "large.png"
    path.write_bytes(encode(NOISE))
    for source in (path, path.read_bytes()):
        with pytest.raises(ImageError, match="larger than"):
            reading.read_image(source)
    monkeypatch.undo()

    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(reading, "_to_rgb", fail)
    with pytest.raises(ImageError, match="this machine's memory"):
        reading.read_image(path)
    with pytest.raises(ImageError, match="not path or bytes"):
        reading.read_image(None)


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


def test_resize_pad_and_crop():
    """Sizes are (height, width), corners stay, nothing is stretched by padding."""
    assert reading.resize_image(MARKER, 20, 90).shape == (20, 90, 3)
    assert corners(reading.resize_image(MARKER, 20, 30)) == "rgbw"
    assert reading.resize_short_side(MARKER, 20).shape == (20, 30, 3)
    assert reading.resize_short_side(MARKER, 80).shape == (80, 120, 3)
    square = reading.pad_to_square(MARKER)
    assert square.shape == (60, 60, 3)
    assert np.array_equal(square[10:50], MARKER)
    assert not square[:10].any()
    assert reading.centre_crop(MARKER).shape == (40, 40, 3)
    assert np.array_equal(reading.centre_crop(MARKER, 20, 30), MARKER[10:30, 15:45])
    assert reading.crop_inside(MARKER, 0.5).shape == (20, 30, 3)


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
        lambda: reading.crop_inside(MARKER, 0),
        lambda: reading.pad_to_square(MARKER[..., 0]),
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


def test_stretch_shows_what_is_faint():
    """A cloud at a hundredth of a star's light is clearly visible."""
    field = np.random.default_rng(0).normal(1000, 1, (100, 100))
    field[40:60, 40:60] += 30
    field[::10, ::10] += 3000
    image = scientific.stretch(field)
    assert image[50, 51] > image[20, 21] + 20


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

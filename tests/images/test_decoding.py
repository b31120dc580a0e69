"""Any file gives a uint8 RGB picture or an ImageError that says why not."""

import gzip
import io
import os
import zlib

import numpy as np
import pytest
import tifffile
import zstandard
from astropy.io import fits
from PIL import Image, PngImagePlugin

from nebula_utils.errors import ImageError
from nebula_utils.images import decoding, reading, scientific

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


def pack_tiff(parts, shape, dtype, **options):
    """Return a TIFF around strips that are compressed already, by "Zstandard"."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as tiff:
        tiff.write(
            iter(parts),
            shape=shape,
            dtype=dtype,
            compression="zstd",
            photometric="rgb",
            **options,
        )
    return buffer.getvalue()


def test_tiff_in_codecs_that_one_library_lacks():
    """16-bit planes in Zstandard, not tifffile's, and WebP, not libtiff's."""
    deep = np.moveaxis(MARKER.astype("<u2") * 257, 2, 0)
    packed = [zstandard.compress(plane.tobytes()) for plane in deep]
    planes = pack_tiff(packed, deep.shape, "<u2", planarconfig=2, rowsperstrip=40)
    assert np.array_equal(reading.read_image(planes), MARKER)
    strips = [encode(MARKER[i : i + 16], "WEBP", lossless=True) for i in (0, 16, 32)]
    tiff = pack_tiff(strips, MARKER.shape, np.uint8, rowsperstrip=16)
    entry = (259).to_bytes(2, "little") + b"\3\0\1\0\0\0"
    assert entry in tiff
    webp = tiff.replace(entry + b"\x50\xc3", entry + b"\x51\xc3")
    assert np.array_equal(reading.read_image(webp), MARKER)
    with pytest.raises(ImageError):
        reading.read_image(webp[:-40])


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
    monkeypatch.setattr(decoding, "MAX_BYTES", 100)
    path = tmp_path / "large.png"
    path.write_bytes(encode(NOISE))
    for source in (path, path.read_bytes()):
        with pytest.raises(ImageError, match="larger than"):
            reading.read_image(source)
    monkeypatch.undo()

    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(decoding, "_to_rgb", fail)
    with pytest.raises(ImageError, match="this machine's memory"):
        reading.read_image(path)
    with pytest.raises(ImageError, match="not path or bytes"):
        reading.read_image(None)


def test_stretch_shows_what_is_faint():
    """A cloud at a hundredth of a star's light is clearly visible."""
    field = np.random.default_rng(0).normal(1000, 1, (100, 100))
    field[40:60, 40:60] += 30
    field[::10, ::10] += 3000
    image = scientific.stretch(field)
    assert image[50, 51] > image[20, 21] + 20

"""Astrophotographers' files open: linear, Bayer, packed, turned; none is too much."""

import gzip
import io
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image
from test_decoding import MARKER, corners, encode_fits
from xisf import XISF

from nebula_utils.errors import ImageError
from nebula_utils.images import reading, scientific

pytestmark = pytest.mark.filterwarnings("ignore")

# A faint square of 60 counts in the upper left quarter of a noisy sky of 1,000.
SKY = np.random.default_rng(0).normal(1000, 32, (120, 160))
SKY[20:50, 30:70] += 60
SKY[::17, ::13] = 50_000
SKY = SKY.astype(np.uint16)


def compress_fits(array, **options):
    """Return the bytes of a tile-compressed FITS file."""
    buffer = io.BytesIO()
    hdu = fits.CompImageHDU(array, **options)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return buffer.getvalue()


def encode_tiff(array, **options):
    """Return the bytes of a TIFF."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def encode_xisf(tmp_path, array, **options):
    """Return the bytes of an XISF file, written by another implementation."""
    path = tmp_path / "a.xisf"
    XISF.write(path, np.atleast_3d(array), **options)
    return path.read_bytes()


def test_a_faint_nebula_is_seen_in_every_linear_format(tmp_path):
    """60 counts over 1,000 differ by 20 levels or more, and a note says why."""
    flipped = SKY[::-1]
    whole = encode_fits(flipped)
    for data in (
        whole,
        gzip.compress(whole),
        compress_fits(flipped),
        compress_fits(flipped, compression_type="GZIP_2", tile_shape=(120, 160)),
        encode_fits(flipped.astype(np.float32) / 65535),
        encode_tiff(SKY),
        encode_tiff(np.repeat(SKY[..., None], 3, 2), photometric="rgb"),
        encode_tiff(SKY.astype(np.float32) / 65535, compression="zlib"),
        encode_xisf(tmp_path, SKY),
    ):
        found = reading.decode(data)
        assert found.notes == (scientific.LINEAR,)
        image = found.image[..., 0].astype(int)
        assert np.median(image[22:48, 32:68]) > np.median(image[80:]) + 20
        assert 40 < np.median(image) < 90  # a quarter of white


def test_finished_pictures_are_not_stretched(tmp_path):
    """What spans its range stays as it is, in every deep format, without a note."""
    deep = MARKER.astype(np.uint16) * 257
    floats = MARKER.astype(np.float32) / 255
    for data in (
        encode_tiff(deep, photometric="rgb"),
        encode_tiff(np.moveaxis(deep, 2, 0), photometric="rgb", planarconfig=2),
        encode_tiff(deep, photometric="rgb", compression="zlib"),
        encode_tiff(floats, photometric="rgb"),
        encode_fits(np.moveaxis(floats[::-1], 2, 0)),
        encode_xisf(tmp_path, deep),
        encode_xisf(tmp_path, floats),
    ):
        found = reading.decode(data)
        assert np.array_equal(found.image, MARKER)
        assert found.notes == ()


@pytest.mark.parametrize("codec", ["zlib", "lz4", "lz4hc", "zstd"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_xisf_of_each_codec(tmp_path, codec, shuffle):
    """What PixInsight compresses is unpacked, with bytes shuffled or not."""
    deep = np.kron(MARKER, np.ones((4, 4, 1), np.uint8)).astype(np.uint16) * 257
    data = encode_xisf(tmp_path, deep, codec=codec, shuffle=shuffle)
    assert len(data) < deep.nbytes / 2
    assert np.array_equal(reading.read_image(data), (deep >> 8).astype(np.uint8))


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_bayer_data_come_out_in_colour(pattern):
    """A mosaic of the marker gives its four corners' colours back."""
    large = np.kron(MARKER[::-1], np.ones((2, 2, 1), np.uint8))
    mosaic = np.zeros(large.shape[:2], np.uint16)
    for i, colour in enumerate(pattern):
        row, column = divmod(i, 2)
        plane = large[row::2, column::2, "RGB".index(colour)]
        mosaic[row::2, column::2] = plane.astype(int) * 100 + 900
    found = reading.decode(encode_fits(mosaic, BAYERPAT=pattern))
    assert found.image.shape == (40, 60, 3)
    assert corners(found.image) == "rgbw"
    assert pattern in found.notes[0]


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_fits_is_shown_north_up(turns, mirrored):
    """However a camera was turned, the same picture comes out, and places follow."""
    # Row 0 of the array is south, column 0 is east.
    field = np.full((60, 80), 100.0)
    field[40:50, 10:20] = 1000  # north-east
    field[5:9, 60:70] = 500  # south-west
    header = WCS(naxis=2)
    header.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    header.wcs.crval = [83.8, -5.4]
    shape = field.shape
    matrix = np.array([[-1.0, 0], [0, 1]])  # sky from pixels, east to the left
    point = np.array([14.5, 44.5])  # x, y of the middle of the north-eastern square
    for _ in range(turns):
        field = np.rot90(field)
        point = np.array([point[1], shape[1] - 1 - point[0]])
        matrix = matrix @ np.array([[0.0, -1], [1, 0]])
        shape = field.shape
    if mirrored:
        field = field[:, ::-1]
        point[0] = shape[1] - 1 - point[0]
        matrix = matrix @ np.diag([-1, 1])
    header.wcs.cd = matrix * 0.01 @ [[0.996, -0.087], [0.087, 0.996]]  # 5 degrees off
    header.wcs.crpix = [1, 1]
    cards = dict(header.to_header())
    found = reading.decode(encode_fits(np.ascontiguousarray(field), **cards))
    assert found.image.shape == (60, 80, 3)
    row, column = np.argwhere(found.image[..., 0] == found.image.max()).mean(0)
    assert (row, column) == (14.5, 14.5)
    assert found.to_shown @ [*point, 1] == pytest.approx([14.5, 14.5])


def test_binning_keeps_places_and_skips_missing_pixels():
    """A reduced picture is a mean of what is there, and `to_shown` knows it."""
    field = np.full((120, 160), 10.0)
    field[::2] = np.nan
    field[40:60, 80:100] = 900
    found = reading.decode(encode_fits(field, ROWORDER="TOP-DOWN"), min_side=40)
    assert found.image.shape == (40, 53, 3)
    bright = np.argwhere(found.image[..., 0] == found.image.max())
    middle = found.to_shown @ [89.5, 49.5, 1]
    assert np.abs(bright.mean(0)[::-1] - middle).max() < 1


def claim(**cards):
    """Return a FITS header without data that claims what it likes."""
    header = fits.Header({"SIMPLE": True, "BITPIX": -64, "NAXIS": 2, **cards})
    return header.tostring().encode() + bytes(2880)


def test_what_would_not_fit_is_refused_before_it_is_unpacked():
    """Pixels, planes, bytes, tiles and archives are bounded by what headers claim."""
    bomb = gzip.compress(claim(NAXIS1=100, NAXIS2=100) + bytes(510_000_000), 1)
    tiles = compress_fits(np.zeros((700, 700), np.int16), tile_shape=(1, 1))
    for data, words in (
        (claim(NAXIS1=30_000, NAXIS2=30_000), "too large: 30000 × 30000 px"),
        (claim(NAXIS1=9000, NAXIS2=9000), "648 MB once unpacked"),
        (claim(NAXIS=3, NAXIS1=900, NAXIS2=900, NAXIS3=900), "MB once unpacked"),
        (bomb, "unpacks to more than 500 MB"),
        (tiles, "490,000 compressed tiles"),
    ):
        assert len(data) < 20_000_000
        with pytest.raises(ImageError, match=words):
            reading.read_image(data)


def test_a_gzip_tile_that_is_a_bomb_is_not_unpacked():
    """A tile of 100 MB behind a picture of 200 KB is refused, an honest one read."""
    noise = np.random.default_rng(0).integers(0, 9000, (300, 300)).astype(np.int16)
    honest = compress_fits(noise, compression_type="GZIP_1", tile_shape=(300, 300))
    assert reading.read_image(honest).shape == (300, 300, 3)
    raw = fits.open(io.BytesIO(honest), disable_image_compression=True)[1]
    tile = np.frombuffer(gzip.compress(bytes(100_000_000)), np.uint8)
    column = fits.Column("COMPRESSED_DATA", "1PB()", array=np.array([tile], object))
    table = fits.BinTableHDU.from_columns([column])
    table.header.update({k: v for k, v in raw.header.items() if k.startswith("Z")})
    table.header["EXTNAME"] = raw.header["EXTNAME"]
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(buffer)
    with pytest.raises(ImageError, match="a tile unpacks to too much"):
        reading.read_image(buffer.getvalue())


def make_xisf(data, packing, geometry="40:60:1"):
    """Return an XISF file around a block of data."""
    place = f"attachment:600:{len(data)}"
    xml = (
        f'<xisf xmlns="http://www.pixinsight.com/xisf"><Image geometry="{geometry}" '
        f'sampleFormat="UInt8" location="{place}" compression="{packing}"/></xisf>'
    )
    start = b"XISF0100" + len(xml).to_bytes(4, "little") + bytes(4) + xml.encode()
    return start.ljust(600, b"\0") + data


def test_xisf_bombs_unpack_to_what_their_header_claims():
    """A block of 80 MB behind a picture of 2,400 bytes is not unpacked whole."""
    flat = zlib.compress(bytes(80_000_000))
    with pytest.raises(ImageError, match="nothing to see"):
        reading.read_image(make_xisf(flat, "zlib:2400"))
    with pytest.raises(ImageError, match="too large"):
        reading.read_image(make_xisf(flat, "zlib:2400", "30000:30000:3"))
    with pytest.raises(ImageError, match="compressed by 'brotli' is not read"):
        reading.read_image(make_xisf(flat, "brotli:2400"))
    for data in (make_xisf(b"short", "zlib:2400"), make_xisf(flat, "zlib:1")[:300]):
        with pytest.raises(ImageError, match="damaged|cut off"):
            reading.read_image(data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fits.fz", "png", "tif"])
def test_the_largest_that_is_accepted_stays_below_its_memory(kind, tmp_path):
    """At the limits of size and copies, decoding takes 1.5 GB and 10 s of a core."""
    path = tmp_path / f"large.{kind}"
    if kind == "fits.fz":
        path.write_bytes(compress_fits(np.zeros((3, 9100, 9100), np.int16)))
    elif kind == "png":
        light = np.full((8600, 8600, 4), 200, np.uint8)
        Image.fromarray(light).save(path, compress_level=1)
    else:
        light = np.zeros((9100, 9100, 3), np.uint16)
        tifffile.imwrite(path, light, photometric="rgb", compression="zlib")
    code = (
        "import resource, sys; from nebula_utils.images import reading\n"
        "reading.read_image(sys.argv[1], 512, refuse_blank=False)\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(used.ru_maxrss / 1e6, used.ru_utime + used.ru_stime)"
    )
    command = [sys.executable, "-c", code, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    gigabytes, seconds = map(float, said.split())
    assert gigabytes < 1.5
    assert seconds < 10

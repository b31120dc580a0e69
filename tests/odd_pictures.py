"""Small files of every kind that people upload: sound ones, and ones to refuse."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

SIDE = 48  # px


def make_good() -> dict[str, bytes]:
    """Return one file of each format, and the odd ones among them."""
    pixels = np.random.default_rng(4).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    colour = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[274] = 6
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 256)
    frames = [colour, colour.rotate(90)]
    return {
        "plain.jpg": _save(colour, "JPEG"),
        "turned.jpg": _save(colour, "JPEG", exif=exif),
        "cmyk.jpg": _save(colour.convert("CMYK"), "JPEG"),
        "plain.png": _save(colour, "PNG"),
        "alpha.png": _save(colour.convert("RGBA"), "PNG"),
        "deep.png": _save(deep, "PNG"),
        "plain.webp": _save(colour, "WEBP"),
        "plain.tif": _save(colour, "TIFF"),
        "moving.gif": _save(colour, "GIF", save_all=True, append_images=frames),
        "plain.heic": _make_heic(colour),
        "plain.fits": _make_fits(pixels),
        "really_a_png.jpg": _save(colour, "PNG"),
    }


def make_bad() -> dict[str, bytes]:
    """Return files that must be refused with a clear message."""
    good = make_good()
    html = b"<html><script>window.pwned = 1</script></html>"
    return {
        "text.jpg": b"not a picture at all, just words",
        "empty.png": b"",
        "cut.jpg": good["plain.jpg"][:300],
        "dot.png": _save(Image.new("RGB", (1, 1)), "PNG"),
        "bomb.png": _make_bomb(),
        "page.png": html,
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="pwned=1"/>',
        "archive.jpg": b"PK\x03\x04" + bytes(60),
        "polyglot.gif": b"GIF89a/*" + html + b"*/",
        "../../up.png": b"up",
        "<img src=x onerror=window.pwned=1>.png": html,
        "Überriese 星雲 \u202egnp.exe": b"MZ" + bytes(60),
        "x" * 300 + ".jpg": b"long",
    }


def _save(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def _make_heic(picture: Image.Image) -> bytes:
    import pillow_heif

    stream = io.BytesIO()
    pillow_heif.from_pillow(picture).save(stream)
    return stream.getvalue()


def _make_fits(pixels: np.ndarray) -> bytes:
    from astropy.io import fits

    stream = io.BytesIO()
    fits.PrimaryHDU(pixels[..., 0].astype(np.float32)).writeto(stream)
    return stream.getvalue()


def _make_bomb() -> bytes:
    # 30,000 × 30,000 px in a file of a few bytes.
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", checksum)
        )

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )

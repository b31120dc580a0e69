"""Any file → uint8 RGB, or a plain refusal: decoding, FITS, XISF and TIFF, borders."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "reading": [
            "cut_square",
            "decode",
            "read_image",
            "resize_image",
            "trim_border",
        ],
        "scientific": ["Decoded", "stretch"],
    },
)

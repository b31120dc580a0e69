"""Names and places that every stage shares; importing it changes nothing on disk."""

import os
from pathlib import Path

import platformdirs

NEBULA_TYPES = (
    "dark",
    "emission",
    "reflection",
    "planetary",
    "protoplanetary",
    "supernova_remnant",
)
OTHER = "other"
CLASS_NAMES = (*NEBULA_TYPES, OTHER)

# What `other` is made of; a picture of a nebula has the empty string.
OTHER_KINDS = ("galaxy", "cluster", "star_field", "everyday")

# What a picture's file may end in; its content decides how it is read.
PICTURE_SUFFIXES = tuple(
    ".jpg .jpeg .png .webp .tif .tiff .gif .bmp .heic .heif .xisf "
    ".fits .fit .fts .fits.gz .fit.gz .fits.fz .fit.fz".split()
)

IMAGE_SIZE = 224  # px, what MobileNet v1 was trained on
RANDOM_STATE = 0
MIN_NEBULAE = 5  # a type with fewer nebulae is left out, by name and reason
DEFAULT_BACKBONE = "mobilenet_v1_100_224"

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY / "data"
NOTEBOOKS = REPOSITORY / "notebooks"
REPORTS = REPOSITORY / "reports"
MODEL = REPORTS / "model"


def cache_dir() -> Path:
    """Return the folder for downloads, weights and features.

    Returns
    -------
    Path
        ``$NEBULA_CACHE`` if set, else the platform's user cache folder for
        ``nebula``. The folder may not exist yet; who writes into it makes it.
    """
    chosen = os.environ.get("NEBULA_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("nebula"))

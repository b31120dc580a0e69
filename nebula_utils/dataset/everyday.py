"""The source `everyday`: photos of anything but the sky, for the class `other`.

They lie on every machine that runs this package: scikit-image, scikit-learn and
Matplotlib bundle a few for their examples, and Stellarium has landscapes. A model that
never saw a cat must not call it a nebula.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

from nebula_utils.config import OTHER
from nebula_utils.dataset.textures import fetch_landscapes

# Package, folder in it, licence, and the files that are photographs.
BUNDLED = (
    (
        "skimage",
        "data",
        "public domain or CC0 (see scikit-image's data/README.txt)",
        "astronaut.png brick.png camera.png cell.png chelsea.png clock_motion.png "
        "coffee.png coins.png grass.png gravel.png ihc.png microaneurysms.png "
        "moon.png motorcycle_left.png retina.jpg rocket.jpg",
    ),
    ("sklearn", "datasets/images", "CC BY 2.0", "china.jpg flower.jpg"),
    ("matplotlib", "mpl-data/sample_data", "public domain", "grace_hopper.jpg"),
)
# Pictures of one place share its name, so that a split never parts them.
LANDSCAPES = (
    "garching/garching-gl1.png garching/garching-gl2.png garching/garching-gl3.png "
    "garching/garching-gl4.png garching/garching-ground3.png "
    "grossmugl/grossmugl_leeberg_crop11.25_2048.png guereins/guereins1.png "
    "guereins/guereins3.png guereins/guereins5.png guereins/guereins7.png "
    "hurricane/hurricane1.png hurricane/hurricane3.png hurricane/hurricane5.png "
    "hurricane/hurricane7.png moon/apollo17.png ocean/ocean1.png ocean/ocean5.png "
    "ocean/ocean9.png trees/trees_512.png"
)


def load_everyday() -> pd.DataFrame:
    """List the everyday photos that are on this machine.

    Returns
    -------
    DataFrame
        One row a picture, the columns of `sources`; label ``other``, kind
        ``everyday``. Stellarium's landscapes are left out where they are not
        installed.

    Raises
    ------
    SourceError
        If Stellarium's files can't be had.
    """
    rows = []
    for package, folder, licence, files in BUNDLED:
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            continue
        place = Path(found.origin).parent / folder
        for name in files.split():
            rows.append(_describe(place / name, Path(name).stem, package, licence))
    landscapes = fetch_landscapes()
    for name in LANDSCAPES.split() if landscapes else ():
        licence = "GPL-2.0-or-later (package)"
        path = Path(str(landscapes)) / name
        rows.append(_describe(path, path.parent.name, "Stellarium", licence))
    return pd.DataFrame([row for row in rows if Path(row["path"]).is_file()])


def _describe(path: Path, scene: str, origin: str, licence: str) -> dict:
    return {
        "image_id": f"everyday/{origin.lower()}/{path.stem}",
        "path": str(path),
        "source": "everyday",
        "nebula": f"everyday: {scene}",
        "label": OTHER,
        "accept": OTHER,
        "other_kind": "everyday",
        "ra_deg": np.nan,
        "dec_deg": np.nan,
        "size_arcmin": np.nan,
        "credit": origin,
        "licence": licence,
        "flag": "",
    }

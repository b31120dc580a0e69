"""What explanations are worth, measured: where evidence lies, what colour it takes."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from nebula_utils.bias.evidence import measure_share, pad_border
from nebula_utils.catalogue.frame import read_outlines
from nebula_utils.catalogue.table import Nebula, find
from nebula_utils.counterfactuals.flips import find_flips
from nebula_utils.features.views import Preprocessing
from nebula_utils.images import reading

Classifier = Any  # a later room's, which is only handed in

SEEN = (0.02, 0.6)  # share of a picture that an object covers, to be told from chance
MASK_SIDE = 256  # px, shorter side of the mask of an object
_TEXTURE = re.compile(
    r'"imageUrl"\s*:\s*"([^"]+)".*?"worldCoords"\s*:\s*\[\[(.*?)\]\]\s*,', re.DOTALL
)


def measure_localisation(
    classifier: Classifier, rows: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Measure how much of the evidence for a nebula's type lies on the nebula.

    Parameters
    ----------
    classifier : Classifier
        With a feature map.
    rows : iterable of mapping
        Of a manifest; those of Stellarium's textures are measured, as their corners
        are known: inside Stellarium's outline of the object, or where it has none in
        the circle of the catalogue's size.

    Returns
    -------
    list of dict
        One a picture whose object covers a part of it (`SEEN`): ``nebula``, ``label``,
        ``shape`` ("outline" or "circle"), ``share`` of the evidence for the true type
        that lies inside, and ``chance``, the share of the picture that it covers.
    """
    found = []
    for row in rows:
        if row["label"] not in classifier.class_names:
            continue
        image = _read(classifier, row)
        mask, shape = make_mask(row, (image.shape[0], image.shape[1]))
        if mask is None or not SEEN[0] <= mask.mean() <= SEEN[1]:
            continue
        evidence = classifier.map_evidence(image)
        label = classifier.class_names.index(row["label"])
        inside = reading.trim_border(image) if classifier.trim else image
        part = inside.shape[0] / image.shape[0]
        rows_seen, columns_seen = (round(part * n) for n in evidence.shape[:2])
        seen = pad_border(np.ones((rows_seen, columns_seen, 1), np.float32), part)
        share, chance = measure_share(evidence[..., label], mask, seen[..., 0])
        kept = {name: row[name] for name in ("nebula", "label")}
        found.append({**kept, "shape": shape, "share": share, "chance": chance})
    return found


def measure_flip_distances(
    classifier: Classifier, rows: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Measure how much colour has to change until the answer flips.

    Parameters
    ----------
    classifier : Classifier
        Any.
    rows : iterable of mapping
        Of a manifest.

    Returns
    -------
    list of dict
        One a picture: ``nebula``, ``label`` (the true type), ``answer``; ``hue``, the
        smallest turn of all hues that flips it, degrees in (0, 180], infinite where
        none does; ``saturation``, the largest factor below 1 that flips it, negative
        where not even grey does; ``palettes`` that do, joined by a blank.
    """
    found = []
    for row in rows:
        image = _read(classifier, row)
        predict = classifier.make_predictor(image)
        flips, answer = find_flips(predict), predict([np.array]).argmax()
        shifts = [flip.shift for flip in flips]
        hue = [abs(s.hue) for s in shifts if s.hue]
        paler = [s.saturation for s in shifts if s.saturation < 1]
        found.append(
            {
                "nebula": row["nebula"],
                "label": row["label"],
                "answer": classifier.class_names[int(answer)],
                "hue": min(hue, default=np.inf),
                "saturation": max(paler, default=-1.0),
                "palettes": " ".join(
                    s.palette for s in shifts if s.palette != "natural"
                ),
            }
        )
    return found


def make_mask(
    row: Mapping[str, Any], size: tuple[int, int]
) -> tuple[np.ndarray | None, str]:
    """Say which pixels of one of Stellarium's textures show the object.

    Parameters
    ----------
    row : mapping
        Of a manifest.
    size : (int, int)
        Height and width of the picture, px.

    Returns
    -------
    mask : ndarray of shape (height, width), bool, or None
        In the proportions of the picture, its shorter side `MASK_SIDE`; None where
        corners or size are not known.
    shape : {"outline", "circle", ""}
        What the mask is.
    """
    path = Path(row["path"])
    corners = _read_corners(path.parent).get(path.name)
    if corners is None:
        return None, ""
    outlines = read_outlines(path.parent / "outlines.dat").get(row["nebula"], [])
    if outlines:
        outline, shape = outlines[-1], "outline"
    else:
        nebula = find(row["nebula"])
        if nebula is None or nebula.size_arcmin is None:
            return None, ""
        outline, shape = _make_circle(nebula), "circle"
    scale = MASK_SIDE / min(size)
    height, width = (round(length * scale) for length in size)
    # An affine map from the sky's tangent plane to the picture, through its corners.
    centre = corners.mean(0)
    plane = np.column_stack([_project(corners, centre), np.ones(4)])
    places = np.array([[0, 1], [1, 1], [1, 0], [0, 0]]) * (width, height)
    to_picture = np.linalg.lstsq(plane, places, rcond=None)[0]
    points = np.column_stack([_project(outline, centre), np.ones(len(outline))])
    mask = Image.new("1", (width, height))
    drawn = [(float(x), float(y)) for x, y in points @ to_picture]
    ImageDraw.Draw(mask).polygon(drawn, fill=1)
    return np.asarray(mask), shape


def _read(classifier: Classifier, row: Mapping[str, Any]) -> np.ndarray:
    min_side = Preprocessing(classifier.views, trim=classifier.trim).min_side
    return reading.read_image(Path(row["path"]), min_side)


def _project(sky: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Project (ra, dec) in degrees on the tangent plane at a centre (gnomonic)."""
    ra, dec = np.radians(sky).T
    ra0, dec0 = np.radians(centre)
    cos_c = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
    x = np.cos(dec) * np.sin(ra - ra0) / cos_c
    y = np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra - ra0)
    return np.column_stack([x, y / cos_c])


def _make_circle(nebula: Nebula) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = (nebula.size_arcmin or 0) / 120  # degrees
    ra = nebula.ra_deg + radius * np.cos(angle) / np.cos(np.radians(nebula.dec_deg))
    return np.column_stack([ra, nebula.dec_deg + radius * np.sin(angle)])


@lru_cache(maxsize=2)
def _read_corners(folder: Path) -> dict[str, np.ndarray]:
    """Read the sky corners of textures: bottom left, bottom right, top right, top left.

    The file is not strict JSON (numbers like ``-.98``, comments).
    """
    file = folder / "textures.json"
    if not file.is_file():
        return {}
    found = {}
    for name, text in _TEXTURE.findall(file.read_text(encoding="utf-8")):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", text)]
        corners = np.array(numbers).reshape(-1, 2)
        if len(corners) == 4:
            if np.ptp(corners[:, 0]) > 180:  # across the zero of right ascension
                corners[:, 0] = np.where(
                    corners[:, 0] > 180, corners[:, 0] - 360, corners[:, 0]
                )
            found[name] = corners
    return found

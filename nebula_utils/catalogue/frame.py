"""Every catalogue nebula in a picture that knows its place on the sky."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nebula_utils.catalogue.place import Place, find_place
from nebula_utils.catalogue.table import Nebula, find, match_position
from nebula_utils.errors import NebulaError
from nebula_utils.files import write_atomic
from nebula_utils.images.reading import decode
from nebula_utils.images.scientific import Decoded

logger = logging.getLogger(__name__)

Classify = Callable[[NDArray[np.uint8]], Mapping[str, Any]]

LARGEST = 2400.0  # arcminutes; no nebula of the catalogue is larger
SMALLEST_SHARE = 0.1  # of a nebula whose middle lies outside the frame
CROP = 2.5  # side of the classified crop over the nebula's diameter
SMALLEST_CROP = 64  # px
UNKNOWN_SIZE = 5.0  # arcminutes, where the catalogue gives none


@dataclass(frozen=True)
class InFrame(Nebula):
    """A nebula in a picture.

    Attributes
    ----------
    answer : dict or None
        What the classifier says of a crop 2.5 times as wide: ``label``,
        ``probability`` and ``confident``; None if the crop would be below 64 px, or
        less than a tenth of the nebula is inside.
    agrees : bool or None
        Whether catalogue and picture agree; None if the classifier is not sure.
    """

    x: float  # column of its middle in the picture as it is shown, px from 0, left
    y: float  # row, from the top
    diameter_px: float  # of its circle; of 5 arcminutes where it has no size
    share_inside: float  # of that circle, from 0 to 1
    answer: dict[str, Any] | None = None
    agrees: bool | None = None


def read_frame(path: Path) -> tuple[Decoded, Place, list[InFrame]]:
    """Return a picture, its place, and the nebulae in it, the largest first.

    Raises
    ------
    ImageError
        If the file is no picture.
    NoPlaceError
        If it does not know its place.
    """
    decoded = decode(path)
    place = find_place(path, decoded)
    return decoded, place, list_nebulae(place)


def classify_crops(
    image: NDArray[np.uint8], found: list[InFrame], classify: Classify
) -> list[InFrame]:
    """Add what a classifier says of a crop around each nebula of a picture.

    It takes a crop (h, w, 3), uint8, and returns a mapping with ``label``,
    ``probabilities`` and ``confident``.
    """
    return [_classify_crop(image, one, classify) for one in found]


def list_nebulae(place: Place) -> list[InFrame]:
    """Return the catalogue's nebulae in a frame, the largest first.

    A nebula counts if its middle is inside, or a tenth of its circle, or if the
    frame's middle lies in its circle, as in a part of a large nebula.
    """
    from astropy import units
    from astropy.coordinates import SkyCoord

    height, width = place.shape
    edges = np.array([[c, r] for c in (0, width / 2, width) for r in (0, height)])
    middle = place.middle
    reach = float(np.nanmax(middle.separation(place.find_sky(edges)).arcmin))
    near = [
        nebula
        for nebula, away in match_position(
            middle.ra.deg, middle.dec.deg, reach + LARGEST / 2
        )
        if away <= reach + (nebula.size_arcmin or UNKNOWN_SIZE) / 2
    ]
    if not near:
        return []
    sky = SkyCoord(
        [n.ra_deg for n in near] * units.deg, [n.dec_deg for n in near] * units.deg
    )
    radii = np.array([(n.size_arcmin or UNKNOWN_SIZE) / 2 for n in near])
    # A disc of points, evenly spread by area.
    angles, shares = np.meshgrid(np.arange(0, 360, 15), (np.arange(8) + 0.5) / 8)
    spread = sky[:, None].directional_offset_by(
        angles.ravel() * units.deg,
        radii[:, None] * np.sqrt(shares.ravel()) * units.arcmin,
    )
    points = place.find_pixels(spread.ravel()).reshape(len(near), -1, 2)
    inside = _is_inside(points, place.shape).mean(1)
    middles = place.find_pixels(sky)
    scale = place.px_per_arcmin
    found = [
        _describe(*row, scale)
        for i, row in enumerate(zip(near, middles, inside, 2 * radii, strict=True))
        if _is_inside(row[1], place.shape)
        or row[2] >= SMALLEST_SHARE
        or middle.separation(sky[i]).arcmin < radii[i]
    ]
    return sorted(found, key=lambda one: (-one.diameter_px, one.name))


@lru_cache(maxsize=2)
def read_outlines(path: Path) -> dict[str, list[NDArray[np.float64]]]:
    """Read Stellarium's ``outlines.dat``; there is none in a file that is missing.

    Returns
    -------
    dict of str to list of ndarray of shape (n, 2)
        The drawn outlines of each nebula of the catalogue: right ascension and
        declination, degrees.
    """
    outlines: dict[str, list[NDArray[np.float64]]] = {}
    points: list[tuple[float, float]] = []
    name = ""
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        if line.startswith("#") or not line.strip():
            continue
        hours, degrees, what, *rest = line.split(maxsplit=3)
        if what == "start":
            name, points = "".join(rest).strip(), []
        points.append((15 * float(hours), float(degrees)))
        nebula = find(name) if what == "end" else None
        if nebula is not None:
            outlines.setdefault(nebula.name, []).append(np.array(points))
    return outlines


def annotate(
    image: NDArray[np.uint8],
    place: Place,
    found: list[InFrame],
    outlines: Mapping[str, list[NDArray[np.float64]]],
) -> NDArray[np.uint8]:
    """Return a picture (h, w, 3), uint8, with names and outlines, or else circles.

    Red where the picture's class is not the catalogue's, else yellow; outlines are
    from `read_outlines`.
    """
    from astropy.coordinates import SkyCoord
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    side = min(picture.size)
    width, font = max(1, side // 500), ImageFont.load_default(max(11, side // 50))
    for one in found:
        colour = (255, 90, 70) if one.agrees is False else (255, 220, 90)
        radius = max(one.diameter_px / 2, 4 * width)
        drawn = outlines.get(one.name, [])
        for outline in drawn:
            sky = SkyCoord(outline, unit="deg")
            points = [tuple(point) for point in place.find_pixels(sky)]
            draw.line(points + points[:1], colour, width)
        if not drawn:
            draw.circle((one.x, one.y), radius, outline=colour, width=width)
        small = radius < side / 20  # its name stands above, not on it
        at, anchor = (one.x, one.y - small * (radius + width)), "mb" if small else "mm"
        draw.text(at, one.name, colour, font, anchor=anchor, stroke_width=1,
                  stroke_fill=(0, 0, 0))  # fmt: skip
    return np.asarray(picture)


def as_dict(path: Path, place: Place, found: list[InFrame]) -> dict[str, Any]:
    """Return what ``nebula frame --json`` prints of a picture."""
    height, width = place.shape
    middle = place.middle
    return {
        "path": str(path),
        "width": width,
        "height": height,
        "ra_deg": round(float(middle.ra.deg), 6),
        "dec_deg": round(float(middle.dec.deg), 6),
        "arcsec_per_px": round(60 / place.px_per_arcmin, 4),
        "nebulae": [asdict(one) for one in found],
    }


def write_votable(path: Path, found: list[InFrame]) -> None:
    """Write the nebulae of a frame as a VOTable."""
    from astropy.table import Table

    rows = [
        {
            **asdict(one),
            "aliases": "; ".join(one.aliases),
            "sources": "; ".join(one.sources),
            "answer": (one.answer or {}).get("label", ""),
            "agrees": {None: "", True: "yes", False: "no"}[one.agrees],
            "size_arcmin": np.nan if one.size_arcmin is None else one.size_arcmin,
        }
        for one in found
    ]
    columns = list(InFrame.__dataclass_fields__)
    table = Table(rows=rows, names=columns) if rows else Table(names=columns)
    with write_atomic(path) as temporary:
        table.write(temporary, format="votable", overwrite=True)


def _classify_crop(
    image: NDArray[np.uint8], one: InFrame, classify: Classify
) -> InFrame:
    half = CROP / 2 * one.diameter_px
    rows, columns = (
        slice(max(0, round(at - half)), min(length, round(at + half)))
        for at, length in zip((one.y, one.x), image.shape[:2], strict=True)
    )
    crop = image[rows, columns]
    if min(crop.shape[:2]) < SMALLEST_CROP or one.share_inside < SMALLEST_SHARE:
        return one
    try:
        said = classify(np.ascontiguousarray(crop))
    except NebulaError as error:
        logger.info("%s: %s", one.name, error)
        return one
    label, sure = said["label"], bool(said["confident"])
    probability = round(float(said["probabilities"][label]), 4)
    answer = {"label": label, "probability": probability, "confident": sure}
    agrees = label == one.type if sure or label == one.type else None
    return replace(one, answer=answer, agrees=agrees)


def _describe(
    nebula: Nebula, at: NDArray[np.floating], share: float, size: float, scale: float
) -> InFrame:
    return InFrame(
        **vars(nebula),
        x=round(float(at[0]), 1),
        y=round(float(at[1]), 1),
        diameter_px=round(size * scale, 1),
        share_inside=round(float(share), 3),
    )


def _is_inside(points: NDArray[np.floating], shape: tuple[int, int]) -> Any:
    column, row = points[..., 0], points[..., 1]
    height, width = shape
    return (
        (column >= -0.5) & (column < width - 0.5) & (row >= -0.5) & (row < height - 0.5)
    )

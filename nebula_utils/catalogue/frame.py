"""Every catalogue nebula in a picture that knows its place on the sky."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nebula_utils.catalogue.table import Nebula, find, match_position
from nebula_utils.errors import NebulaError
from nebula_utils.files import write_atomic
from nebula_utils.images.reading import decode
from nebula_utils.images.scientific import Decoded

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.wcs import WCS

logger = logging.getLogger(__name__)

Classify = Callable[[NDArray[np.uint8]], Mapping[str, Any]]

LARGEST = 2400.0  # arcminutes; no nebula of the catalogue is larger
SMALLEST_SHARE = 0.1  # of a nebula whose middle lies outside the frame
CROP = 2.5  # side of the classified crop over the nebula's diameter
SMALLEST_CROP = 64  # px
UNKNOWN_SIZE = 5.0  # arcminutes, where the catalogue gives none
HOW_TO = (
    "the picture does not say where on the sky it is. A FITS header with WCS, AVM in a "
    "JPEG, PNG or TIFF, or a file beside it ({stem}.wcs, or {stem}.ini of ASTAP) "
    "would. To get one, plate-solve the picture with ASTAP, Siril, PixInsight or "
    "nova.astrometry.net"
)


class NoPlaceError(NebulaError):
    """A picture without a place on the sky; the message says how to get one."""


@dataclass(frozen=True)
class Place:
    """Where a picture is on the sky.

    Attributes
    ----------
    wcs : WCS
        Celestial, two-dimensional.
    to_shown : ndarray of shape (2, 3), float64
        Turns (x, y, 1) of the WCS, from 0, into column and row of the picture.
    shape : tuple of (height, width)
        Of the picture, px.
    """

    wcs: "WCS"
    to_shown: NDArray[np.float64]
    shape: tuple[int, int]

    def find_pixels(self, sky: "SkyCoord") -> NDArray[np.float64]:
        """Return columns and rows of places on the sky, shape (n, 2)."""
        from astropy.wcs import NoConvergence
        from astropy.wcs.utils import skycoord_to_pixel

        try:
            x, y = skycoord_to_pixel(sky, self.wcs, mode="all")
        except NoConvergence:  # distortions are defined near the frame only
            x, y = skycoord_to_pixel(sky, self.wcs, mode="wcs")
        x, y = np.atleast_1d(x), np.atleast_1d(y)
        return (self.to_shown @ np.stack([x, y, np.ones_like(x)])).T

    def find_sky(self, pixels: NDArray[np.floating]) -> "SkyCoord":
        """Return the places on the sky of columns and rows, shape (n, 2)."""
        from astropy.wcs.utils import pixel_to_skycoord

        turn, shift = self.to_shown[:, :2], self.to_shown[:, 2]
        x, y = np.linalg.solve(turn, (pixels - shift).T)
        return pixel_to_skycoord(x, y, self.wcs, mode="all").icrs


@dataclass(frozen=True)
class InFrame:
    """A nebula in a picture.

    Attributes
    ----------
    name, type, aliases, ra_deg, dec_deg, size_arcmin
        As in `catalogue.table.Nebula`.
    x, y : float
        Column and row of its middle in the picture as it is shown, px from 0, top left.
    diameter_px : float
        Of its circle; of 5 arcminutes where the catalogue gives no size.
    share_inside : float
        Share of that circle inside the picture, from 0 to 1.
    answer : dict or None
        What the classifier says of a crop 2.5 times as wide: ``label``,
        ``probability`` and ``confident``; None if the crop would be below 64 px, or
        less than a tenth of the nebula is inside.
    agrees : bool or None
        Whether catalogue and picture agree; None if the classifier is not sure.
    """

    name: str
    type: str
    aliases: tuple[str, ...]
    ra_deg: float
    dec_deg: float
    size_arcmin: float | None
    x: float
    y: float
    diameter_px: float
    share_inside: float
    answer: dict[str, Any] | None = None
    agrees: bool | None = None


def read_frame(
    path: Path, classify: Classify | None = None
) -> tuple[Decoded, Place, list[InFrame]]:
    """List the nebulae in a picture, and what a classifier says of each.

    Parameters
    ----------
    path : Path
        A picture.
    classify : callable, optional
        Takes a crop (h, w, 3), uint8, and returns a mapping with ``label``,
        ``probabilities`` and ``confident``.

    Returns
    -------
    decoded : Decoded
        The picture.
    place : Place
        Where it is.
    found : list of InFrame
        The largest first.

    Raises
    ------
    ImageError
        If the file is no picture.
    NoPlaceError
        If it does not know its place.
    """
    decoded = decode(path)
    place = find_place(path, decoded)
    found = list_nebulae(place)
    if classify is not None:
        found = [_classify_crop(decoded.image, one, classify) for one in found]
    return decoded, place, found


def find_place(path: Path, decoded: Decoded) -> Place:
    """Read where a picture is: from its FITS header, a file beside it, or its AVM.

    Raises
    ------
    NoPlaceError
        If nothing says so.

    Notes
    -----
    Programs differ in where they count the rows of a JPEG from, and do not say so. A
    file beside a picture is taken to count them so that the sky is not mirrored.
    """
    warnings.filterwarnings("ignore", module=r"astropy\.|pyavm")
    height, width = decoded.image.shape[:2]
    shape = (height, width)
    for header in (decoded.header, *_read_sidecars(path)):
        wcs = _make_wcs(header)
        if wcs is None:
            continue
        if decoded.header:
            return Place(wcs, decoded.to_shown, shape)
        full = int(header.get("IMAGEW", header.get("NAXIS1", 0))) or width
        mirrored = np.linalg.det(wcs.pixel_scale_matrix) > 0
        return Place(wcs, _scale_rows(width / full, shape, not mirrored), shape)
    found = _read_avm(path)
    if found is not None:
        wcs, full = found
        return Place(wcs, _scale_rows(width / (full or width), shape, True), shape)
    raise NoPlaceError(HOW_TO.format(stem=path.stem))


def list_nebulae(place: Place) -> list[InFrame]:
    """Return the catalogue's nebulae in a frame, the largest first.

    A nebula counts if its middle is inside, or a tenth of its circle, or if the
    frame's middle lies in its circle, as in a part of a large nebula.
    """
    from astropy import units
    from astropy.coordinates import SkyCoord

    height, width = place.shape
    edges = np.array([[c, r] for c in (0, width / 2, width) for r in (0, height)])
    middle = place.find_sky(np.array([[(width - 1) / 2, (height - 1) / 2]]))[0]
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
    scale = _measure_scale(place, middle)
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
    path: Path,
    image: NDArray[np.uint8],
    place: Place,
    found: list[InFrame],
    outlines: Mapping[str, list[NDArray[np.float64]]],
) -> None:
    """Write a picture (h, w, 3), uint8, with names and outlines, or else circles.

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
        drawn = outlines.get(one.name, [])
        for outline in drawn:
            sky = SkyCoord(outline, unit="deg")
            points = [tuple(point) for point in place.find_pixels(sky)]
            draw.line(points + points[:1], colour, width)
        if not drawn:
            radius = max(one.diameter_px / 2, 4 * width)
            draw.circle((one.x, one.y), radius, outline=colour, width=width)
        draw.text((one.x, one.y), one.name, colour, font, anchor="mm", stroke_width=1,
                  stroke_fill=(0, 0, 0))  # fmt: skip
    with write_atomic(path) as temporary:
        picture.save(temporary)


def as_dict(path: Path, place: Place, found: list[InFrame]) -> dict[str, Any]:
    """Return what ``nebula frame --json`` prints of a picture."""
    height, width = place.shape
    middle = place.find_sky(np.array([[(width - 1) / 2, (height - 1) / 2]]))[0]
    return {
        "path": str(path),
        "width": width,
        "height": height,
        "ra_deg": round(float(middle.ra.deg), 6),
        "dec_deg": round(float(middle.dec.deg), 6),
        "arcsec_per_px": round(60 / _measure_scale(place, middle), 4),
        "nebulae": [asdict(one) for one in found],
    }


def write_votable(path: Path, found: list[InFrame]) -> None:
    """Write the nebulae of a frame as a VOTable."""
    from astropy.table import Table

    rows = [
        {
            **asdict(one),
            "aliases": "; ".join(one.aliases),
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
        nebula.name, nebula.type, nebula.aliases, nebula.ra_deg, nebula.dec_deg,
        nebula.size_arcmin, round(float(at[0]), 1), round(float(at[1]), 1),
        round(size * scale, 1), round(float(share), 3),
    )  # fmt: skip


def _is_inside(points: NDArray[np.floating], shape: tuple[int, int]) -> Any:
    column, row = points[..., 0], points[..., 1]
    height, width = shape
    return (
        (column >= -0.5) & (column < width - 0.5) & (row >= -0.5) & (row < height - 0.5)
    )


def _measure_scale(place: Place, middle: "SkyCoord") -> float:
    """Return pixels per arcminute in the middle of a picture."""
    height, width = place.shape
    other = np.array([[(width - 1) / 2 + 10, (height - 1) / 2]])
    return float(10 / middle.separation(place.find_sky(other)[0]).arcmin)


def _make_wcs(header: Mapping[str, Any]) -> "WCS | None":
    if "CTYPE1" not in header:
        return None
    from astropy.wcs import WCS

    try:
        wcs = WCS(header, naxis=2)
        return wcs.celestial if wcs.has_celestial else None
    except Exception as error:  # WCSLIB's errors are many
        logger.warning("its WCS can't be read: %s", str(error).split("\n")[0])
        return None


def _read_sidecars(path: Path) -> Iterator[Mapping[str, Any]]:
    from astropy.io import fits

    for beside in (path.with_suffix(".wcs"), path.with_name(path.name + ".wcs")):
        if beside.is_file():
            data = beside.read_bytes()[:1_000_000]
            text = data.decode("latin-1")
            # ASTAP writes lines, astrometry.net and others a FITS header.
            lines = "\n" in text[:400]
            yield fits.Header.fromstring(
                "".join(f"{line:80.80s}" for line in text.splitlines())
                if lines
                else text[: len(text) // 80 * 80]
            )
    beside = path.with_suffix(".ini")
    if beside.is_file():
        yield _read_ini(beside.read_text("latin-1")[:100_000])


def _read_ini(text: str) -> dict[str, Any]:
    """Read what ASTAP writes: KEY=number, without the type of projection."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        try:
            found[key.strip()] = float(value)
        except ValueError:
            continue
    if "CRVAL1" not in found:
        return {}
    names = ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CDELT1", "CDELT2", "CROTA2")
    matrix = ("CD1_1", "CD1_2", "CD2_1", "CD2_2")
    keep = names[:4] + (matrix if matrix[0] in found else names[4:])
    return {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"} | {
        name: found[name] for name in keep if name in found
    }


def _read_avm(path: Path) -> "tuple[WCS, float | None] | None":
    from pyavm import AVM

    try:
        avm = AVM.from_image(str(path))
        wcs = avm.to_wcs()
    except Exception as error:  # no AVM, or one without a place
        logger.debug("no AVM in %s: %s", path.name, error)
        return None
    reference = avm.Spatial.ReferenceDimension
    return wcs.celestial, float(reference[0]) if reference else None


def _scale_rows(
    scale: float, shape: tuple[int, int], bottom_up: bool
) -> NDArray[np.float64]:
    """Return the matrix from a WCS's pixels to those of a scaled JPEG or the like."""
    shift = (scale - 1) / 2
    if bottom_up:
        return np.array([[scale, 0, shift], [0, -scale, shape[0] - 1 - shift]])
    return np.array([[scale, 0, shift], [0, scale, shift]])

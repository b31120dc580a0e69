"""Where a picture is on the sky: its WCS, its AVM, a file beside it, its corners."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nebula_utils.errors import NebulaError
from nebula_utils.images.scientific import Decoded

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.wcs import WCS

logger = logging.getLogger(__name__)

HOW_TO = (
    "the picture does not say where on the sky it is. A FITS header with WCS, AVM in a "
    "JPEG, PNG or TIFF, or a file beside it ({stem}.wcs, or {stem}.ini of ASTAP) "
    "would. To get one, plate-solve the picture with ASTAP, Siril, PixInsight or "
    "nova.astrometry.net"
)

TEXTURES = "textures.json"  # beside Stellarium's textures: their corners on the sky
_TEXTURE = re.compile(
    r'"imageUrl"\s*:\s*"([^"]+)".*?"worldCoords"\s*:\s*\[\[(.*?)\]\]\s*,', re.DOTALL
)


class NoPlaceError(NebulaError):
    """A picture without a place on the sky; the message says how to get one."""


@dataclass(frozen=True)
class Place:
    """Where a picture is on the sky."""

    wcs: "WCS"  # celestial, two-dimensional
    to_shown: NDArray[np.float64]  # (2, 3): its (x, y, 1), from 0, to column and row
    shape: tuple[int, int]  # of the picture: height and width, px

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

    @property
    def middle(self) -> "SkyCoord":
        """Where the picture's middle is on the sky."""
        return self._find_beside_middle(0)

    @property
    def px_per_arcmin(self) -> float:
        """Scale in the picture's middle."""
        return float(10 / self.middle.separation(self._find_beside_middle(10)).arcmin)

    def _find_beside_middle(self, columns: int) -> "SkyCoord":
        height, width = self.shape
        at = np.array([[(width - 1) / 2 + columns, (height - 1) / 2]])
        return self.find_sky(at)[0]


def find_place(path: Path, decoded: Decoded) -> Place:
    """Read where a picture is: from its FITS header, a file beside it, or its AVM.

    The file beside it may also be Stellarium's list of its textures.

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
    corners = read_corners(path.parent / TEXTURES).get(path.name)
    if corners is not None:
        return place_by_corners(corners, shape)
    raise NoPlaceError(HOW_TO.format(stem=path.stem))


def place_by_corners(corners: NDArray[np.float64], shape: tuple[int, int]) -> Place:
    """Return the place of a picture whose corners on the sky are known.

    Parameters
    ----------
    corners : ndarray of shape (4, 2)
        Right ascension and declination in degrees: bottom left, bottom right, top
        right, top left.
    shape : tuple of (height, width)
        Of the picture, px.
    """
    from astropy.coordinates import SkyCoord
    from astropy.wcs.utils import fit_wcs_from_points

    height, width = shape
    x = np.array([0.0, width, width, 0.0]) - 0.5
    y = np.array([0.0, 0.0, height, height]) - 0.5  # upwards, as FITS counts rows
    wcs = fit_wcs_from_points((x, y), SkyCoord(corners, unit="deg"))
    return Place(wcs, _scale_rows(1, shape, bottom_up=True), shape)


@lru_cache(maxsize=2)
def read_corners(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read the corners of Stellarium's textures; none from a file that is missing.

    The file is not strict JSON (numbers like ``-.98``, comments). The corners are as in
    `place_by_corners`.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = {
        name: np.array(re.findall(r"-?[\d.]+", numbers), float).reshape(-1, 2)
        for name, numbers in _TEXTURE.findall(text)
    }
    return {name: corners for name, corners in found.items() if len(corners) == 4}


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

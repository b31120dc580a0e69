"""Decide which cutouts of which sky surveys `nebula fetch hips` asks for.

Every nebula is planned in every survey, colour and single band alike, so that colour
says nothing about the type.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from nebula_utils.config import CLASS_NAMES, NEBULA_TYPES
from nebula_utils.errors import SourceError

FOV_FACTOR = 2.5  # side of a cutout / size of the nebula
MIN_FOV_ARCMIN = 1.0  # below it a DSS plate has fewer than 60 pixels
MAX_FOV_ARCMIN = 1200.0  # 20°, beyond it a tangent plane distorts
UNKNOWN_SIZE_ARCMIN = 5.0  # what a nebula without a size in the catalogue is given


@dataclass(frozen=True)
class Survey:
    """A HiPS sky survey: its CDS identifier, and what must be said of it.

    ``slug`` is its short name in files and image ids; ``dec_min`` is the southern
    limit of its footprint (degrees); ``stretch`` only matters for a single band.
    """

    slug: str
    hips: str
    colour: bool
    credit: str
    licence: str
    dec_min: float = -90.0
    stretch: str = "linear"


_CDS = "HiPS and hips2fits by CDS, Strasbourg"
_DSS_CREDIT = f"Digitized Sky Survey: STScI/NASA, AURA, AAO, ROE, Caltech; {_CDS}"
_DSS_LICENCE = "copyright AURA, AAO, ROE, Caltech; research and education, with credit"
_PS1_CREDIT = f"Pan-STARRS1 Surveys, arXiv:1612.05560; STScI/MAST; {_CDS}"
_PS1_LICENCE = "public data of PS1/MAST; acknowledgement requested"


def _dss(band: str, colour: bool = False) -> Survey:
    hips = f"CDS/P/DSS2/{band}"
    return Survey(f"DSS2-{band}", hips, colour, _DSS_CREDIT, _DSS_LICENCE)


def _panstarrs(band: str, colour: bool = False) -> Survey:
    return Survey(
        f"PanSTARRS-{band}",
        f"CDS/P/PanSTARRS/DR1/{band}",
        colour,
        _PS1_CREDIT,
        _PS1_LICENCE,
        dec_min=-30.0,
        stretch="asinh",
    )


SURVEYS = {
    survey.slug: survey
    for survey in (
        _dss("color", colour=True),
        _dss("red"),
        _dss("blue"),
        _panstarrs("color-i-r-g", colour=True),
        _panstarrs("g"),
        _panstarrs("r"),
        _panstarrs("i"),
        _dss("NIR"),
    )
}
DEFAULT_SURVEYS = tuple(slug for slug in SURVEYS if slug != "DSS2-NIR")


@dataclass(frozen=True)
class Target:
    """A place on the sky with a label: a nebula, a star field, a galaxy or a cluster.

    Positions are ICRS in degrees; ``size_arcmin`` is NaN where the catalogue has none,
    ``fov_arcmin`` is the side of the square cutout.
    """

    name: str
    label: str
    accept: str
    other_kind: str
    ra_deg: float
    dec_deg: float
    size_arcmin: float
    fov_arcmin: float


@dataclass(frozen=True)
class Cutout:
    """One picture to ask for: a target in a survey, ``size_px`` pixels a side."""

    target: Target
    survey: Survey
    size_px: int

    @property
    def image_id(self) -> str:
        """Return the picture's name in every manifest: ``hips/<survey>/<name>``."""
        return f"hips/{self.survey.slug}/{self.target.name}"

    @property
    def is_outside(self) -> bool:
        """Return whether the centre lies outside the survey's footprint."""
        return self.target.dec_deg < self.survey.dec_min

    @property
    def params(self) -> dict[str, str]:
        """Return the query of hips2fits; angles in degrees with six decimals."""
        params = {
            "hips": self.survey.hips,
            "width": str(self.size_px),
            "height": str(self.size_px),
            "projection": "TAN",
            "coordsys": "icrs",
            "ra": f"{self.target.ra_deg:.6f}",
            "dec": f"{self.target.dec_deg:.6f}",
            "fov": f"{self.target.fov_arcmin / 60:.6f}",
            "format": "jpg",
        }
        if not self.survey.colour:
            cuts = {"min_cut": "0.5%", "max_cut": "99.5%", "cmap": "Greys_r"}
            params |= cuts | {"stretch": self.survey.stretch}
        return params

    @property
    def file(self) -> Path:
        """Return the picture's path inside the folder of the source.

        The name ends in a digest of the query, so that a file that is there is the
        answer to this very query, even if no record of it was written.
        """
        query = "&".join(f"{key}={value}" for key, value in self.params.items())
        digest = hashlib.sha256(query.encode()).hexdigest()[:8]
        name = quote(self.target.name.replace(" ", "_"), safe="+")
        return Path(self.survey.slug) / f"{name}.{digest}.jpg"


def choose_surveys(names: Iterable[str]) -> list[Survey]:
    """Return the surveys of some slugs or CDS identifiers, in their order.

    Raises
    ------
    SourceError
        If a survey is unknown (its licence would be unknown too), or none is named.
    """
    known = {key.lower(): s for s in SURVEYS.values() for key in (s.slug, s.hips)}
    names = [name for given in names for name in given.split(",") if name]
    unknown = [name for name in names if name.lower() not in known]
    if unknown or not names:
        raise SourceError(
            f"unknown survey {', '.join(unknown) or '(none given)'}; "
            f"the surveys are {', '.join(SURVEYS)}"
        )
    return list(dict.fromkeys(known[name.lower()] for name in names))


def select_nebulae(
    catalogue: pd.DataFrame,
    types: Sequence[str] | None = None,
    min_size: float | None = None,
    max_size: float | None = None,
    constellation: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    limit: int | None = None,
) -> pd.DataFrame:
    """Return the rows of the catalogue that fit every condition.

    Parameters
    ----------
    catalogue : DataFrame
        Columns name, type, ra_deg, dec_deg, size_arcmin, constellation.
    types, constellation, names : sequence of str, optional
        What to keep; names are canonical ("NGC 2359"), constellations the three
        letters of the IAU, in any case.
    min_size, max_size : float, optional
        Arcminutes, both included; a nebula without a size fits neither.
    limit : int, optional
        At most so many nebulae, the largest of each type in turn, so that a small
        selection has every type.

    Returns
    -------
    DataFrame
        The chosen rows in catalogue order.

    Raises
    ------
    SourceError
        If a type or a name is unknown, or nothing is left.
    """
    _check_known("type", types, NEBULA_TYPES)
    _check_known("name", names, catalogue["name"])
    keep = catalogue["type"].isin(types or NEBULA_TYPES)
    if names:
        keep &= catalogue["name"].isin(names)
    if constellation:
        wanted = [short.lower() for short in constellation]
        keep &= catalogue["constellation"].str.lower().isin(wanted)
    if min_size is not None:
        keep &= catalogue["size_arcmin"] >= min_size
    if max_size is not None:
        keep &= catalogue["size_arcmin"] <= max_size
    chosen = catalogue[keep & catalogue["ra_deg"].notna()]
    if limit is not None:
        ranked = chosen.sort_values("size_arcmin", ascending=False, kind="stable")
        turn = ranked.groupby("type").cumcount().sort_values(kind="stable")
        chosen = chosen.loc[sorted(turn.index[:limit])]
    if chosen.empty:
        raise SourceError("no nebula fits this selection: widen it or drop a condition")
    return chosen


def _check_known(what: str, given: Iterable[str] | None, known: Iterable[str]) -> None:
    unknown = sorted(set(given or ()) - set(known))
    if unknown:
        raise SourceError(
            f"unknown {what} {', '.join(unknown)}: types are {', '.join(NEBULA_TYPES)}"
            if what == "type"
            else f"unknown {what} {', '.join(unknown)}: see nebula resolve"
        )


def compute_fov(size_arcmin: float) -> float:
    """Return the side of a cutout in arcminutes: 2.5 sizes, within [1', 1200']."""
    size = size_arcmin if np.isfinite(size_arcmin) else UNKNOWN_SIZE_ARCMIN
    return float(np.clip(FOV_FACTOR * size, MIN_FOV_ARCMIN, MAX_FOV_ARCMIN))


def make_nebula_targets(nebulae: pd.DataFrame) -> list[Target]:
    """Return a target for each row of the catalogue."""
    return [
        Target(
            name=row["name"],
            label=row["type"],
            accept=row.get("accept") or row["type"],
            other_kind="",
            ra_deg=float(row["ra_deg"]),
            dec_deg=float(row["dec_deg"]),
            size_arcmin=float(row["size_arcmin"]),
            fov_arcmin=compute_fov(float(row["size_arcmin"])),
        )
        for row in nebulae.to_dict("records")
    ]


def make_cutouts(
    targets: Iterable[Target], surveys: Iterable[Survey], size_px: int
) -> list[Cutout]:
    """Return every target in every survey, target by target.

    Raises
    ------
    SourceError
        If two targets have one name, so that their files would collide.
    """
    targets, surveys = list(targets), list(surveys)
    counts = Counter(target.name.replace(" ", "_").lower() for target in targets)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise SourceError(f"two targets have one name: {', '.join(twice)}")
    return [Cutout(target, survey, size_px) for target in targets for survey in surveys]


def tabulate_plan(cutouts: Iterable[Cutout]) -> pd.DataFrame:
    """Count the planned cutouts of each class in each survey.

    Parameters
    ----------
    cutouts : iterable of Cutout
        The plan; what lies outside a survey's footprint is not counted.

    Returns
    -------
    DataFrame of int
        A row a class in the order of `config.CLASS_NAMES`, a column a survey. Were
        all footprints the whole sky, the columns would be equal.
    """
    inside = [cutout for cutout in cutouts if not cutout.is_outside]
    labels = pd.Series([cutout.target.label for cutout in inside], name="label")
    surveys = pd.Series([cutout.survey.slug for cutout in inside], name="survey")
    table = pd.crosstab(labels, surveys)
    rows = [name for name in CLASS_NAMES if name in table.index]
    table = table.loc[rows, [slug for slug in SURVEYS if slug in table.columns]]
    table.columns.name = None
    return table

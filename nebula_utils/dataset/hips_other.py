"""Choose what `other` is made of in the sky surveys: star fields, galaxies, clusters.

They are taken at the latitudes and in the sizes of the nebulae, so that neither the
crowd of stars nor the scale tells a nebula from anything else.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nebula_utils.config import OTHER
from nebula_utils.dataset.hips_plan import UNKNOWN_SIZE_ARCMIN, Target, compute_fov
from nebula_utils.errors import SourceError

MIN_OTHER_ARCMIN = 2.0  # smaller galaxies and clusters look like stars
CLEARANCE = 0.75  # of a star field's side, kept between its centre and any nebula
MAX_TRIES = 2000


def make_star_fields(
    nebulae: pd.DataFrame, catalogue: pd.DataFrame, n_fields: int, random_state: int
) -> list[Target]:
    """Choose plain star fields with the latitudes and sizes of the nebulae.

    Parameters
    ----------
    nebulae : DataFrame
        The selection: each field takes the galactic latitude and the field of view
        of one of them, so that neither tells a nebula from a star field.
    catalogue : DataFrame
        All nebulae; each keeps the fields at its distance.
    n_fields : int
        How many; field number i does not depend on how many there are.
    random_state : int
        Seed of the choice.

    Returns
    -------
    list of Target
        Label ``other``, kind ``star_field``, named after the galactic position.

    Raises
    ------
    SourceError
        If no place clear of all nebulae is found for a field.
    """
    from astropy.coordinates import SkyCoord

    centres, radii = _locate_nebulae(catalogue)
    models, _ = _locate_nebulae(nebulae)
    latitudes = np.degrees(np.arcsin(models[:, 2]))
    fovs = [compute_fov(size) for size in nebulae["size_arcmin"]]
    fields = []
    for number in range(n_fields):
        rng = np.random.default_rng([random_state, number])
        lon, lat, fov = _find_clear_place(rng, latitudes, fovs, centres, radii)
        place = SkyCoord(lon, lat, unit="deg", frame="galactic").icrs
        name = f"star field {lon:.2f}{lat:+.2f}"
        fields.append(
            Target(
                name, OTHER, OTHER, "star_field", place.ra.deg, place.dec.deg, fov, fov
            )
        )
    return fields


def _locate_nebulae(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    # Galactic unit vectors (n, 3) and radii in degrees (n,).
    from astropy.coordinates import SkyCoord

    placed = table[table["ra_deg"].notna()]
    sky = SkyCoord(placed["ra_deg"].values, placed["dec_deg"].values, unit="deg")
    sizes = placed["size_arcmin"].fillna(UNKNOWN_SIZE_ARCMIN).to_numpy(float)
    return sky.galactic.cartesian.xyz.value.T, sizes / 120


def _find_clear_place(
    rng: np.random.Generator,
    latitudes: np.ndarray,
    fovs: Sequence[float],
    centres: np.ndarray,
    radii: np.ndarray,
) -> tuple[float, float, float]:
    for _ in range(MAX_TRIES):
        model = int(rng.integers(len(latitudes)))
        lon, lat = rng.uniform(0, 360), latitudes[model]
        place = _make_unit_vector(lon, lat)
        away = np.degrees(np.arccos(np.clip(centres @ place, -1, 1)))
        if np.all(away > radii + CLEARANCE * fovs[model] / 60):
            return round(lon, 4), round(float(lat), 4), fovs[model]
    raise SourceError(
        "no star field clear of all nebulae was found: select smaller nebulae "
        "(--max-size) or ask for --star-fields 0"
    )


def _make_unit_vector(lon: float, lat: float) -> np.ndarray:
    # From degrees to a vector of length 1, shape (3,).
    lon, lat = np.radians(lon), np.radians(lat)
    return np.array([np.cos(lon) * np.cos(lat), np.sin(lon) * np.cos(lat), np.sin(lat)])


def make_other_targets(
    catalogue: pd.DataFrame, n_targets: int, random_state: int
) -> list[Target]:
    """Choose galaxies and clusters of OpenNGC, half and half, clear of the nebulae.

    Parameters
    ----------
    catalogue : DataFrame
        The nebulae; a galaxy or cluster whose centre is inside one is left out.
    n_targets : int
        How many; fewer come back if OpenNGC has no more.
    random_state : int
        Seed of the choice.

    Returns
    -------
    list of Target
        Label ``other``, kind ``galaxy`` or ``cluster``, at least 2' across.
    """
    objects = _read_openngc()
    objects = objects[~objects["name"].isin(catalogue["name"])]
    centres, radii = _locate_nebulae(catalogue)
    places, _ = _locate_nebulae(objects)
    away = np.degrees(np.arccos(np.clip(places @ centres.T, -1, 1)))
    clear = objects[(away > radii).all(axis=1)].sample(
        frac=1, random_state=random_state
    )
    n_galaxies = (n_targets + 1) // 2
    galaxies = clear[clear["kind"] == "galaxy"].head(n_galaxies)
    clusters = clear[clear["kind"] == "cluster"].head(n_targets - n_galaxies)
    return [
        Target(
            name=row["name"],
            label=OTHER,
            accept=OTHER,
            other_kind=row["kind"],
            ra_deg=row["ra_deg"],
            dec_deg=row["dec_deg"],
            size_arcmin=row["size_arcmin"],
            fov_arcmin=compute_fov(row["size_arcmin"]),
        )
        for row in pd.concat([galaxies, clusters]).to_dict("records")
    ]


def _read_openngc() -> pd.DataFrame:
    from pyongc import data

    table = data.all()
    table["kind"] = table["type"].map(
        {"G": "galaxy", "OCl": "cluster", "GCl": "cluster"}
    )
    parts = table["name"].str.extract(r"^(NGC|IC)0*(\d+)$")
    keep = table["kind"].notna() & parts[0].notna() & table["ra"].notna()
    keep &= table["majax"] >= MIN_OTHER_ARCMIN
    return pd.DataFrame(
        {
            "name": parts[0] + " " + parts[1],
            "kind": table["kind"],
            "ra_deg": np.degrees(table["ra"].astype(float)),
            "dec_deg": np.degrees(table["dec"].astype(float)),
            "size_arcmin": table["majax"].astype(float),
        }
    )[keep].reset_index(drop=True)

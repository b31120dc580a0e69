"""The source `hips`: cutouts of sky surveys around every nebula, from CDS's hips2fits.

Every nebula is planned in every survey, colour and single band alike, so that colour
says nothing about the type; so are galaxies, clusters and star fields.
"""

import argparse
import contextlib
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import requests

from nebula_utils.catalogue.table import read_catalogue, resolve
from nebula_utils.config import NEBULA_TYPES, RANDOM_STATE, cache_dir
from nebula_utils.dataset import download
from nebula_utils.dataset.manifest import NUMBERS
from nebula_utils.dataset.photos import make_manifest, read_rows
from nebula_utils.dataset.screening import find_emptiness
from nebula_utils.dataset.stellarium import TABLE
from nebula_utils.errors import SourceError
from nebula_utils.files import compute_sha256, hold_lock, seal, unseal, write_atomic

SERVER = "https://alasky.cds.unistra.fr/hips-image-services/hips2fits"
MIRROR = "https://alaskybis.cds.unistra.fr/hips-image-services/hips2fits"
FOV_FACTOR = 2.5  # side of a cutout / size of the nebula
MIN_FOV_ARCMIN, MAX_FOV_ARCMIN = 1.0, 1200.0  # 60 px of a DSS plate; a flat 20°
UNKNOWN_SIZE_ARCMIN = 5.0  # what a nebula without a size in the catalogue is given
OTHER_SHARE = 3  # one galaxy, cluster or star field for so many nebulae
MIN_SIDE, MAX_SIDE = 64, 2048  # px of a cutout
BYTES_PER_PIXEL = 0.3  # of a JPEG; a guess for the dry run
INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it
_DIGITS = 8  # of the digests in file names
_TARGET = ("name", "type", *NUMBERS)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """A HiPS sky survey: its CDS identifier, and what must be said of it."""

    slug: str  # in files and image ids
    hips: str
    credit: str
    licence: str
    dec_min: float = -90.0  # deg, southern limit of its footprint
    stretch: str = "linear"  # of a single band

    @property
    def colour(self) -> bool:
        """Whether it is in colour, not of a single band."""
        return "color" in self.slug


_CDS = "HiPS and hips2fits by CDS, Strasbourg"
_DSS = (
    f"Digitized Sky Survey: STScI/NASA, AURA, AAO, ROE, Caltech; {_CDS}",
    "copyright AURA, AAO, ROE, Caltech; research and education, with credit",
)
_PS1 = (
    f"Pan-STARRS1 Surveys, arXiv:1612.05560; STScI/MAST; {_CDS}",
    "public data of PS1/MAST; acknowledgement requested",
)
_BANDS = [
    *(Survey(f"DSS2-{b}", f"CDS/P/DSS2/{b}", *_DSS) for b in ("color", "red", "blue")),
    *(
        Survey(f"PanSTARRS-{b}", f"CDS/P/PanSTARRS/DR1/{b}", *_PS1, -30.0, "asinh")
        for b in ("color-i-r-g", "g", "r", "i")
    ),
]
SURVEYS = {survey.slug: survey for survey in _BANDS}


def make_plan(
    catalogue: pd.DataFrame,
    surveys: Iterable[str] = tuple(SURVEYS),
    size_px: int = 512,
    **selection: Any,
) -> pd.DataFrame:
    """Plan the cutouts: nebulae, and what is none, in every survey.

    Parameters
    ----------
    catalogue : DataFrame
        As from `read_catalogue`.
    surveys : iterable of str
        Keys of `SURVEYS`.
    size_px : int
        Side of the square pictures.
    **selection
        Conditions of `select_nebulae`.

    Returns
    -------
    DataFrame
        One row a cutout that lies in the survey's footprint: ``file`` (its name ends
        in a digest of the query), what a manifest says of it, ``survey`` and
        ``fov_arcmin``.

    Raises
    ------
    SourceError
        If the selection is empty or names something unknown.
    """
    if not MIN_SIDE <= size_px <= MAX_SIDE:
        raise SourceError(f"{size_px} px a side: give {MIN_SIDE} to {MAX_SIDE}")
    surveys = list(dict.fromkeys(surveys))
    unknown = sorted(set(surveys) - set(SURVEYS))
    if unknown:
        known = ", ".join(SURVEYS)
        raise SourceError(f"unknown survey {', '.join(unknown)}: there are {known}")
    nebulae = select_nebulae(catalogue, **selection)
    tables = [nebulae[list(_TARGET)], _choose_other(len(nebulae) // OTHER_SHARE)]
    targets = pd.concat(tables, ignore_index=True).fillna({"other_kind": ""})
    targets = targets.rename(columns={"name": "nebula", "type": "class"})
    fov = FOV_FACTOR * targets["size_arcmin"].fillna(UNKNOWN_SIZE_ARCMIN)
    targets["fov_arcmin"] = fov.clip(MIN_FOV_ARCMIN, MAX_FOV_ARCMIN)
    plan = targets.merge(pd.DataFrame({"survey": surveys}), "cross")
    plan["size_px"] = size_px
    for fact in ("credit", "licence", "dec_min"):
        facts = {slug: getattr(survey, fact) for slug, survey in SURVEYS.items()}
        plan[fact] = plan["survey"].map(facts)
    plan = plan[plan["dec_deg"] >= plan.pop("dec_min")].reset_index(drop=True)
    plan.insert(0, "file", [_name_file(row) for row in plan.itertuples()])
    return plan


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

    Sizes are in arcminutes (a nebula without one fits none), names canonical; of
    ``limit`` nebulae there are the largest of each type in turn.

    Raises
    ------
    SourceError
        If a type or a name is unknown, or nothing is left.
    """
    for given, known in ((types, NEBULA_TYPES), (names, catalogue["name"])):
        unknown = sorted(set(given or ()) - set(known))
        if unknown:
            hint = f"types are {', '.join(NEBULA_TYPES)}; names: see nebula resolve"
            raise SourceError(f"unknown {', '.join(unknown)}: {hint}")
    size, wanted = catalogue["size_arcmin"], [c.lower() for c in constellation or ()]
    keep = catalogue["type"].isin(types or NEBULA_TYPES)
    if names:
        keep &= catalogue["name"].isin(names)
    if wanted:
        keep &= catalogue["constellation"].str.lower().isin(wanted)
    if min_size is not None or max_size is not None:
        keep &= size.between(min_size or 0, max_size or np.inf)
    chosen = catalogue[keep]
    if limit is not None:
        ranked = chosen.sort_values("size_arcmin", ascending=False, kind="stable")
        turn = ranked.groupby("type").cumcount().sort_values(kind="stable")
        chosen = chosen.loc[sorted(turn.index[: max(0, limit)])]
    if chosen.empty:
        raise SourceError("no nebula fits this selection: widen it or drop a condition")
    return chosen


def fetch_cutouts(
    plan: pd.DataFrame, server: str = SERVER, connections: int = 4
) -> Counter[str]:
    """Fetch what is not there yet; stop and start again as often as you like.

    Returns
    -------
    Counter of str
        How many cutouts of the plan are now ``ok``, ``empty`` or ``failed``, and,
        under ``requested``, how many of them were asked for now.
    """
    folder = _find_folder()
    with hold_lock(folder):
        _write_manifest(plan, folder)
        pending = plan[~plan["file"].isin(_find_files(folder))]
        fetch_one = partial(_fetch_one, download.open_session(), server, folder)
        rows = list(pending.itertuples(index=False))
        failures = download.fetch_all(rows, fetch_one, connections, "hips")
        done = _find_files(folder)
    for row, problem in failures.items():
        _log.warning("%s in %s failed: %s", row.nebula, row.survey, problem)
    kinds = Counter(done[file].suffix for file in plan["file"] if file in done)
    counts = {"ok": kinds[".jpg"], "empty": kinds[".empty"], "failed": len(failures)}
    return Counter(counts | {"requested": len(pending)})


def load_hips() -> pd.DataFrame:
    """Return the manifest of the fetched cutouts.

    A nebula that has pictures in colour only, or in grey only, is flagged, as it would
    let colour say something about its type.

    Raises
    ------
    SourceError
        If nothing was fetched so far, or its list is damaged.
    """
    folder = _find_folder()
    found = _find_files(folder)
    rows = [
        row | {"file": found[row["file"]].relative_to(folder).as_posix()}
        for row in _read_manifest(folder)
        if row["file"] in found and found[row["file"]].suffix == ".jpg"
    ]
    if not rows:
        raise SourceError(
            f"no cutouts in {folder}: run nebula fetch hips first (nebula fetch hips "
            "--limit 60 for a small start)"
        )
    table = make_manifest(rows, folder, "hips")
    table["image_id"] = [f"hips/{row['survey']}/{row['nebula']}" for row in rows]
    colour = pd.Series([SURVEYS[row["survey"]].colour for row in rows])
    if colour.nunique() < 2:
        _log.warning("only colour or only grey pictures: fetch the other surveys, too")
        return table
    by_nebula = colour.groupby(table["nebula"])
    table.loc[by_nebula.transform("all"), "flag"] = "exists in colour only"
    table.loc[~by_nebula.transform("any"), "flag"] = "exists in grey only"
    return table


def _find_folder() -> Path:
    return cache_dir() / "hips"


def _make_query(row: Any) -> dict[str, str]:
    survey = SURVEYS[row.survey]
    query = {
        "hips": survey.hips,
        "width": str(row.size_px),
        "height": str(row.size_px),
        "projection": "TAN",
        "coordsys": "icrs",
        "ra": f"{row.ra_deg:.6f}",
        "dec": f"{row.dec_deg:.6f}",
        "fov": f"{row.fov_arcmin / 60:.6f}",
        "format": "jpg",
    }
    if not survey.colour:
        cuts = {"min_cut": "0.5%", "max_cut": "99.5%", "cmap": "Greys_r"}
        query |= cuts | {"stretch": survey.stretch}
    return query


def _name_file(row: Any) -> str:
    # A file that is there is the answer to this very query. Its name ends in a digest
    # of its content as well, which tells whether it is whole.
    query = "&".join(f"{key}={value}" for key, value in _make_query(row).items())
    digest = hashlib.sha256(query.encode()).hexdigest()[:_DIGITS]
    return f"{row.survey}/{quote(row.nebula.replace(' ', '_'), safe='+')}.{digest}"


def _choose_other(n_targets: int) -> pd.DataFrame:
    """Choose galaxies, clusters and star fields that Stellarium has textures of."""
    table = pd.DataFrame(read_rows(TABLE))
    table = table.rename(columns={"nebula": "name", "class": "type"})
    table[list(NUMBERS)] = table[list(NUMBERS)].apply(pd.to_numeric)
    table = table[table["other_kind"] != ""].drop_duplicates("name")
    mixed = table.sample(frac=1, random_state=RANDOM_STATE)
    turn = mixed.groupby("other_kind").cumcount().sort_values(kind="stable")
    return mixed.loc[turn.index[:n_targets], [*_TARGET, "other_kind"]]


def _write_manifest(plan: pd.DataFrame, folder: Path) -> None:
    """Add the plan to the folder's list; a new query replaces an older one."""
    rows: list[dict[str, str]] = []
    with contextlib.suppress(SourceError):  # damaged: the plan stands in it anyway
        rows = _read_manifest(folder)
    new = plan.astype(str).to_dict("records")
    known = {(row["nebula"], row["survey"]): row for row in [*rows, *new]}
    with write_atomic(folder / "manifest.json") as temporary:
        content = {"rows": [known[key] for key in sorted(known)]}
        temporary.write_text(json.dumps(seal(content), indent=0), encoding="utf-8")


def _read_manifest(folder: Path) -> list[dict[str, str]]:
    path = folder / "manifest.json"
    try:
        return list(unseal(json.loads(path.read_text(encoding="utf-8")))["rows"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(
            f"{path} is damaged ({error}): run the same nebula fetch hips again, "
            "which asks for nothing that is there"
        ) from error


def _find_files(folder: Path) -> dict[str, Path]:
    """Return the whole files by the name that the plan gives them."""
    found = {}
    for path in folder.glob("*/*.*"):
        planned, _, digest = path.stem.rpartition("-")
        if path.name.startswith(".") or not planned:
            continue
        if compute_sha256(path)[:_DIGITS] == digest:
            found[f"{path.parent.name}/{planned}"] = path
        else:
            _log.warning("%s is damaged: nebula fetch hips gets it again", path)
    return found


def _fetch_one(session: requests.Session, server: str, folder: Path, row: Any) -> None:
    body, image = download.fetch_picture(session, server, _make_query(row))
    if image.shape[:2] != (row.size_px, row.size_px):
        raise download.FetchError(
            f"answered with {image.shape[1]} × {image.shape[0]} px"
        )
    reason = find_emptiness(image)
    kept, suffix = (reason.encode(), ".empty") if reason else (body, ".jpg")
    digest = hashlib.sha256(kept).hexdigest()[:_DIGITS]
    with write_atomic(folder / f"{row.file}-{digest}{suffix}") as temporary:
        temporary.write_bytes(kept)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nebula fetch hips`` to a parser."""
    add = parser.add_argument
    add("--types", nargs="+", choices=NEBULA_TYPES, metavar="TYPE", help="only these")
    add("--names", nargs="+", metavar="NAME", help="only these, by any name")
    add("--min-size", type=float, metavar="ARCMIN", help="only at least so large")
    add("--max-size", type=float, metavar="ARCMIN", help="only at most so large")
    add("--constellation", nargs="+", metavar="ORI", help="only in these (IAU letters)")
    help_text = "at most N nebulae, the largest of each type in turn"
    add("--limit", type=int, metavar="N", help=help_text)
    help_text = f"the same for every nebula: {', '.join(SURVEYS)} (default: all)"
    add("--surveys", nargs="+", default=[*SURVEYS], metavar="SURVEY", help=help_text)
    help_text = "side of the pictures, 2.5 times the nebula's (default %(default)s)"
    add("--size-px", type=int, default=512, metavar="PX", help=help_text)
    add("--dry-run", action="store_true", help="only say how many files and MB")
    help_text = "requests at once, 1 to 8; CDS is shared (default %(default)s)"
    few = range(1, 9)
    add("--connections", type=int, choices=few, default=4, metavar="N", help=help_text)
    help_text = f"hips2fits service (default %(default)s; also {MIRROR})"
    add("--server", default=SERVER, metavar="URL", help=help_text)


def run(args: argparse.Namespace, catalogue: pd.DataFrame | None = None) -> int:
    """Carry out ``nebula fetch hips`` with the options of `add_arguments`.

    Returns the exit status: 0 if all is well, 1 if some cutouts failed, 2 if every one
    did, 130 after Ctrl-C.
    """
    if catalogue is None:
        catalogue = read_catalogue()
        args.names = [resolve(name).name for name in args.names or ()]
    options = ("types", "min_size", "max_size", "constellation", "names", "limit")
    selection = {name: getattr(args, name) for name in options}
    plan = make_plan(catalogue, args.surveys, args.size_px, **selection)
    folder = _find_folder()
    if args.dry_run:
        n_files = int((~plan["file"].isin(_find_files(folder))).sum())
        megabytes = n_files * args.size_px**2 * BYTES_PER_PIXEL / 1e6
        print(plan.value_counts(["class", "survey"]).unstack(fill_value=0).to_string())
        print(f"{n_files} files, about {megabytes:.0f} MB, to fetch into {folder}")
        return 0
    try:
        counts = fetch_cutouts(plan, args.server, args.connections)
    except KeyboardInterrupt:
        _log.warning("stopped; run the same command again to go on where it was")
        return INTERRUPTED
    told = {"ok": "pictures", "empty": "blank or off the survey", "failed": "failed"}
    found = ", ".join(f"{counts[key]} {what}" for key, what in told.items())
    print(f"{found}, in {folder}")
    if counts["failed"]:
        _log.warning("run the same command again to try the failed ones once more")
        return 1 if counts["ok"] or counts["empty"] else 2
    return 0

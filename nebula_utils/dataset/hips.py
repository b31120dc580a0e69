"""The source `hips`: cutouts of sky surveys around every nebula, fetched from CDS.

The parts: `hips_plan` and `hips_other` say what to fetch, `hips_client` asks for it,
`hips_store` keeps it, `hips_fetch` puts these together.
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nebula_utils.config import NEBULA_TYPES, RANDOM_STATE
from nebula_utils.dataset.hips_client import SERVER, HipsClient
from nebula_utils.dataset.hips_fetch import estimate_download, fetch_cutouts
from nebula_utils.dataset.hips_other import make_other_targets, make_star_fields
from nebula_utils.dataset.hips_plan import (
    DEFAULT_SURVEYS,
    SURVEYS,
    Cutout,
    choose_surveys,
    make_cutouts,
    make_nebula_targets,
    select_nebulae,
)
from nebula_utils.dataset.hips_store import Record, Store, find_folder
from nebula_utils.errors import SourceError

OTHER_SHARE = 6  # one star field, and one galaxy or cluster, for so many nebulae
INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it

_log = logging.getLogger(__name__)


def make_plan(
    catalogue: pd.DataFrame,
    surveys: Iterable[str] = DEFAULT_SURVEYS,
    size_px: int = 512,
    star_fields: int | None = None,
    other: int | None = None,
    random_state: int = RANDOM_STATE,
    **selection: object,
) -> list[Cutout]:
    """Plan the cutouts: nebulae, star fields, galaxies and clusters in every survey.

    Parameters
    ----------
    catalogue : DataFrame
        As from `catalogue.read_catalogue`.
    surveys : iterable of str
        Slugs or CDS identifiers.
    size_px : int, default=512
        Side of the square pictures.
    star_fields, other : int, optional
        How many star fields, and how many galaxies and clusters; default is one for
        every six nebulae.
    random_state : int
        Seed of the choice of star fields, galaxies and clusters.
    **selection
        Conditions of `hips_plan.select_nebulae`.

    Returns
    -------
    list of Cutout
        Target by target, each in every survey.

    Raises
    ------
    SourceError
        If the selection is empty or names something unknown.
    """
    chosen = choose_surveys(surveys)
    nebulae = select_nebulae(catalogue, **selection)  # type: ignore[arg-type]
    share = len(nebulae) // OTHER_SHARE
    n_fields = share if star_fields is None else star_fields
    n_other = share if other is None else other
    targets = make_nebula_targets(nebulae)
    targets += make_star_fields(nebulae, catalogue, n_fields, random_state)
    targets += make_other_targets(catalogue, n_other, random_state) if n_other else []
    return make_cutouts(targets, chosen, size_px)


def load_hips(folder: Path | str | None = None) -> pd.DataFrame:
    """Return the manifest of the fetched cutouts.

    Parameters
    ----------
    folder : Path, optional
        Default is ``hips`` in the cache.

    Returns
    -------
    DataFrame
        One row a usable picture, with the columns of every source. A nebula that has
        pictures in colour only, or in grey only, is flagged, as it would let colour
        say something about its type.

    Raises
    ------
    SourceError
        If nothing was fetched so far.
    """
    root = find_folder(folder)
    store = Store(root)
    usable = [
        record
        for record in store.records.values()
        if record["status"] == "ok" and _is_whole(store, record)
    ]
    if not usable:
        raise SourceError(
            f"no cutouts in {root}: run nebula fetch hips first (nebula fetch hips "
            "--limit 60 for a small start)"
        )
    # Records come in the order of the answers, which no two runs share.
    usable.sort(key=lambda record: record["image_id"])
    table = pd.DataFrame([_make_row(record, root) for record in usable])
    return _flag_unpaired(table)


def _is_whole(store: Store, record: Record) -> bool:
    found = store.find_picture(Path(record["file"]))
    if found is not None and found != record["sha256"]:
        _log.warning(
            "%s is damaged: left out; nebula fetch hips gets it again", record["file"]
        )
    return found == record["sha256"]


def _make_row(record: Record, root: Path) -> dict[str, object]:
    size = record["size_arcmin"]
    return {
        "image_id": record["image_id"],
        "path": str((root / record["file"]).resolve()),
        "source": "hips",
        "nebula": record["nebula"],
        "label": record["label"],
        "accept": record["accept"],
        "other_kind": record["other_kind"],
        "ra_deg": record["ra_deg"],
        "dec_deg": record["dec_deg"],
        "size_arcmin": np.nan if size is None else size,
        "credit": record["credit"],
        "licence": record["licence"],
        "flag": "",
    }


def _flag_unpaired(table: pd.DataFrame) -> pd.DataFrame:
    slugs = table["image_id"].str.split("/").str[1]
    colour = slugs.map(lambda slug: slug not in SURVEYS or SURVEYS[slug].colour)
    if colour.nunique() < 2:
        _log.warning("only colour or only grey pictures: fetch the other surveys, too")
        return table
    by_nebula = colour.groupby(table["nebula"])
    table.loc[by_nebula.transform("all"), "flag"] = "exists in colour only"
    table.loc[~by_nebula.transform("any"), "flag"] = "exists in grey only"
    return table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nebula fetch hips`` to a parser."""
    _add_selection(parser.add_argument_group("which nebulae"))
    _add_pictures(parser.add_argument_group("which pictures"))
    group = parser.add_argument_group("how")
    add = group.add_argument
    add("--dry-run", action="store_true", help="only say how many files and MB")
    add(
        "--connections",
        type=_between(1, 8),
        default=4,
        metavar="N",
        help="requests at once, 1 to 8; CDS is a shared service (default %(default)s)",
    )
    add(
        "--server",
        default=SERVER,
        metavar="URL",
        help="address of a hips2fits service (default %(default)s)",
    )


def _add_selection(group: Any) -> None:
    add = group.add_argument
    types = ", ".join(NEBULA_TYPES)
    add("--types", nargs="+", metavar="TYPE", help=f"only these types: {types}")
    add("--names", nargs="+", metavar="NAME", help="only these, by any name")
    add("--min-size", type=float, metavar="ARCMIN", help="only at least so large")
    add("--max-size", type=float, metavar="ARCMIN", help="only at most so large")
    add(
        "--constellation",
        nargs="+",
        metavar="ORI",
        help="only in these constellations (the IAU's three letters)",
    )
    add(
        "--limit",
        type=_between(1, 10**6),
        metavar="N",
        help="at most N nebulae, the largest of each type in turn",
    )


def _add_pictures(group: Any) -> None:
    add = group.add_argument
    add(
        "--surveys",
        nargs="+",
        default=list(DEFAULT_SURVEYS),
        metavar="SURVEY",
        help="the same for every nebula, colour and single bands, so that colour says "
        f"nothing about the type: {', '.join(SURVEYS)} (default: all but the last)",
    )
    add(
        "--size-px",
        type=_between(64, 2048),
        default=512,
        metavar="PX",
        help="side of the pictures, which show 2.5 times the nebula's size (default "
        "%(default)s)",
    )
    counts = {
        "--star-fields": "plain star fields at the nebulae's latitudes",
        "--other": "galaxies and clusters",
    }
    for option, what in counts.items():
        help_text = f"{what}, as class other (default: one for six nebulae)"
        add(option, type=_between(0, 10**6), metavar="N", help=help_text)
    add(
        "--seed",
        type=_between(0, 2**32 - 1),
        default=RANDOM_STATE,
        metavar="N",
        help="chooses star fields, galaxies and clusters (default %(default)s)",
    )


def _between(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{number} is not in {low} … {high}")
        return number

    parse.__name__ = "whole number"
    return parse


def run(args: argparse.Namespace, catalogue: pd.DataFrame | None = None) -> int:
    """Carry out ``nebula fetch hips``.

    Parameters
    ----------
    args : Namespace
        What `add_arguments` defines.
    catalogue : DataFrame, optional
        Default is the package's own.

    Returns
    -------
    int
        0 if all is well, 1 if some cutouts failed, 2 if every one did, 130 after
        Ctrl-C.

    Raises
    ------
    SourceError
        If the selection is empty, another run uses the folder, or the service can't
        be used.
    CacheError
        If the cache can't be written.
    """
    if catalogue is None:
        from nebula_utils.catalogue.table import read_catalogue, resolve

        catalogue = read_catalogue()
        args.names = [resolve(name).name for name in args.names or ()]
    cutouts = make_plan(
        catalogue,
        surveys=args.surveys,
        size_px=args.size_px,
        star_fields=args.star_fields,
        other=args.other,
        random_state=args.seed,
        types=args.types,
        min_size=args.min_size,
        max_size=args.max_size,
        constellation=args.constellation,
        names=args.names,
        limit=args.limit,
    )
    if args.dry_run:
        return _report_dry_run(cutouts)
    try:
        counts = fetch_cutouts(
            cutouts, client=HipsClient(args.server), connections=args.connections
        )
    except KeyboardInterrupt:
        _log.warning("stopped; run the same command again to go on where it was")
        return INTERRUPTED
    return _report_counts(counts)


def _report_dry_run(cutouts: Sequence[Cutout]) -> int:
    table = estimate_download(cutouts)
    total = table.sum()
    sys.stdout.write(
        f"{table.round({'megabytes': 1}).to_string()}\n"
        f"{total.files:.0f} files, about {total.megabytes:.0f} MB, to fetch into "
        f"{find_folder()}; {total.there:.0f} more are there or known to be empty\n"
    )
    return 0


def _report_counts(counts: Counter[str]) -> int:
    empty = counts["blank"] + counts["off_survey"]
    sys.stdout.write(
        f"{counts['ok']} pictures, {empty} blank or off the survey, "
        f"{counts['failed']} failed, in {find_folder()}\n"
    )
    if counts["failed"]:
        _log.warning("run the same command again to try the failed ones once more")
        return 1 if counts["ok"] or empty else 2
    return 0

"""The commands that tell of nebulae and pictures: `resolve`, `classify`, `frame`."""

import argparse
import io
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nebula_utils import config
from nebula_utils.errors import (
    CatalogueError,
    ImageError,
    ModelError,
    NebulaError,
    make_printable,
)
from nebula_utils.workflow.commands import argument, command

logger = logging.getLogger(__name__)

JSON = argument("--json", action="store_true", help="one JSON object a line")
FORMS = {"csv": "as CSV", "json": "one JSON object a line"} | {
    "votable": "as VOTable",
    "ecsv": "as ECSV, astropy's CSV with units",
}
MODEL = argument(
    "--model",
    type=Path,
    default=config.MODEL,
    metavar="DIR",
    help="folder of an exported classifier; default: reports/model",
)


@command(
    "resolve",
    argument("names", nargs="*", metavar="NAME", help="- for a list on stdin"),
    argument(
        "--near",
        metavar='"RA DEC"',
        help="instead of names: a place (ICRS), sexagesimal or in degrees",
    ),
    argument(
        "--radius", metavar="R", help="how far from there: 1deg (default), 30arcmin …"
    ),
    JSON,
    examples="""\
  nebula resolve "Thor's Helmet" S155 "Orion Nebula (M42)"
  nebula resolve --json "Barnard 33" | python3 -m json.tool
  nebula resolve --near "05 35 17 -05 23 28" --radius 30arcmin
  nebula resolve - < names.txt
""",
)
def do_resolve(args: argparse.Namespace) -> int:
    """Look a nebula up by any name, or by its place."""
    if args.near is not None:
        if args.names:
            raise CatalogueError("give names or --near, not both")
        radius = "1deg" if args.radius is None else args.radius
        records = _find_near(args.near, radius)
        if not records:
            logger.warning("no nebula of the catalogue is that near: try --radius")
    elif args.radius is not None:
        raise CatalogueError("--radius goes with --near")
    else:
        from nebula_utils.catalogue.table import as_record

        given = [sys.stdin if name == "-" else [name] for name in args.names]
        names = [name.strip() for several in given for name in several]
        records = [as_record(name) for name in names if name]
        if not records:
            raise CatalogueError("there is no name to look up: give one, or --near")
    for record in records:
        if "error" in record and not args.json:
            logger.warning("%s", record["error"])
        else:
            _print_record(record, args.json, _format_resolved)
    return compute_status(records)


def _find_near(place: str, radius: str) -> list[dict[str, Any]]:
    """Return records of the nebulae around a place, the nearest first."""
    from astropy.coordinates import Angle, SkyCoord

    from nebula_utils.catalogue.table import describe, match_position

    text = place.replace(",", " ")
    in_degrees = re.fullmatch(r"\s*[-+.\d]+\s+[-+.\d]+\s*", text)
    wrong = (
        f"{place[:60]!r} is no place: write it like "
        '"05 35 17 -05 23 28", or in degrees like "83.82 -5.39"'
    )
    try:
        where = SkyCoord(text, unit="deg" if in_degrees else ("hourangle", "deg"))
        wrong = f"{radius[:60]!r} is no radius: write it like 1deg or 30arcmin"
        reach = float(Angle(radius, "deg").arcmin)
        found = match_position(float(where.ra.deg), float(where.dec.deg), reach)
    except (ValueError, TypeError) as error:
        raise CatalogueError(wrong) from error
    return [describe(place, n) | {"distance_arcmin": round(d, 2)} for n, d in found]


@command(
    "list",
    argument("--type", choices=config.NEBULA_TYPES, metavar="T", help="%(choices)s"),
    argument("--constellation", metavar="C", help="as the IAU shortens it, e.g. Oph"),
    argument("--min-size", type=float, metavar="A", help="largest diameter, arcmin"),
    argument("--max-size", type=float, metavar="B", help="largest diameter, arcmin"),
    *(
        argument(f"--{form}", dest="form", action="store_const", const=form, help=help_)
        for form, help_ in FORMS.items()
    ),
    examples="""\
  nebula list --type dark --constellation Oph --min-size 10
  nebula list --max-size 0.2 --votable > small.vot

A nebula of unknown size is left out where a size is asked for.
""",
)
def do_list(args: argparse.Namespace) -> int:
    """List the nebulae of the catalogue."""
    from nebula_utils.catalogue.table import read_catalogue

    rows = read_catalogue()
    if args.constellation is not None:
        theirs = rows["constellation"].str.casefold() == args.constellation.casefold()
        if not theirs.any():
            raise CatalogueError(
                f"there are no nebulae in {args.constellation[:60]!r}: give one of "
                + ", ".join(sorted(rows["constellation"].unique()))
            )
        rows = rows[theirs]
    for condition, value in (
        ("type == @value", args.type),
        ("size_arcmin >= @value", args.min_size),
        ("size_arcmin <= @value", args.max_size),
    ):
        if value is not None:
            rows = rows.query(condition)
    if rows.empty:
        logger.warning("no nebula of the catalogue is like that")
    _print_rows(rows, args.form)
    return 0


def _print_rows(rows: Any, form: str | None) -> None:
    if form == "csv":
        print(rows.to_csv(index=False, lineterminator="\n"), end="")
    elif form in ("votable", "ecsv"):
        from astropy.table import Table

        table = Table.from_pandas(rows)
        for name in table.colnames:
            unit = name.rpartition("_")[2]
            table[name].unit = unit if unit in ("deg", "arcmin") else None
        text = io.BytesIO() if form == "votable" else io.StringIO()
        table.write(text, format="votable" if form == "votable" else "ascii.ecsv")
        written = text.getvalue()
        print(written if isinstance(written, str) else written.decode(), end="")
    else:
        for row in rows.to_dict("records"):
            for column in ("aliases", "common_names"):
                row[column] = row[column].split("|") if row[column] else []
            if form != "json":
                row["aliases"] = row.pop("common_names") + row["aliases"]
                row["query"] = row["constellation"]
            _print_record(row, form == "json", _format_resolved)


def _format_resolved(record: Mapping[str, Any]) -> str:
    place = f"RA {record['ra_deg']}°, Dec {record['dec_deg']}°"
    size = record.get("size_arcmin") or math.nan
    parts = [record["type"], place] + ([f"{size}′"] if size == size else [])
    if "distance_arcmin" in record:
        parts.append(f"{record['distance_arcmin']}′ away")
    also = "; ".join(record.get("aliases") or [])
    return f"{record['query']}: {record['name']}: {', '.join(parts)}" + (
        f"; also {also}" if also else ""
    )


@command(
    "classify",
    argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="picture files; a folder stands for its pictures, - for a list on stdin",
    ),
    JSON,
    MODEL,
    examples="""\
  nebula classify orion.jpg
  nebula classify --json pictures/ > answers.jsonl
  find . -name "*.fits" | nebula classify -
  nebula classify --model two_classes/model orion.jpg

Needs the classifier that `make reproduce` (or `nebula run`) writes.
""",
)
def do_classify(args: argparse.Namespace) -> int:
    """Classify pictures."""
    from nebula_utils.classifier.classifier import load_classifier

    classifier = load_classifier(args.model, with_pictures=False)
    paths = list(expand_paths(args.paths, sys.stdin))
    if not paths:
        raise ImageError("there are no pictures there: name files or another folder")
    records = []
    for path in _with_progress(paths):
        record = classify_path(classifier.classify, path)
        if "error" in record and not args.json:
            logger.warning("%s: %s", path, record["error"])
        else:
            _print_record(record, args.json, _format_answer)
        records.append(record)
    return compute_status(records)


@command(
    "frame",
    argument("picture", type=Path, metavar="PICTURE"),
    argument("--json", action="store_true", help="one JSON object"),
    argument("--votable", type=Path, metavar="FILE", help="write a VOTable"),
    argument(
        "--annotate",
        type=Path,
        metavar="FILE.png",
        help="write the picture with names and outlines drawn in",
    ),
    MODEL,
    examples="""\
  nebula frame orion.fits --annotate orion.png
  nebula frame --json m42.jpg         AVM in it, or m42.wcs or m42.ini beside it

Each nebula is classified by its own crop, if the classifier is there.
""",
)
def do_frame(args: argparse.Namespace) -> int:
    """List the nebulae in a picture that knows its place on the sky."""
    from nebula_utils.catalogue import frame

    decoded, place, found = frame.read_frame(args.picture)
    classify = _load_for_crops(args.model) if found else None
    if classify is not None:
        found = frame.classify_crops(decoded.image, found, classify)
    if args.votable:
        frame.write_votable(args.votable, found)
    if args.annotate:
        from nebula_utils.classifier.rendering import to_png
        from nebula_utils.dataset.stellarium import find_textures
        from nebula_utils.files import write_atomic

        textures = find_textures()
        outlines = frame.read_outlines(textures / "outlines.dat") if textures else {}
        drawn = frame.annotate(decoded.image, place, found, outlines)
        with write_atomic(args.annotate) as temporary:
            temporary.write_bytes(to_png(drawn))
    if args.json:
        print(to_json(frame.as_dict(args.picture, place, found)))
        return 0
    for one in found:
        print(_format_in_frame(one))
    if not found:
        logger.warning("no nebula of the catalogue is in this picture")
    return 0


def _load_for_crops(folder: Path) -> Callable[[Any], dict[str, Any]] | None:
    """Return a function that classifies crops, or None where there is no model."""
    from nebula_utils.classifier.classifier import load_classifier
    from nebula_utils.classifier.rendering import to_png

    try:
        classifier = load_classifier(folder, with_pictures=False)
    except ModelError as error:
        logger.warning("the crops are not classified: %s", error)
        return None

    return lambda crop: classifier.classify(to_png(crop)).as_dict()


def _format_in_frame(one: Any) -> str:
    name = one.name + (f" ({one.aliases[0]})" if one.aliases else "")
    line = f"{name}: {one.type}, x {one.x:.0f}, y {one.y:.0f}"
    if one.share_inside < 0.995:
        line += f", {one.share_inside:.0%} inside"
    if one.answer:
        verdict = {True: "the picture agrees", False: "the picture disagrees"}
        said = f"{one.answer['label']} {one.answer['probability']:.2f}"
        line += f"; {verdict.get(one.agrees, 'the picture is not sure')}: {said}"
    return line


def expand_paths(given: Iterable[str], listed: Iterable[str]) -> Iterator[str]:
    """Give a folder's pictures for it, sorted, and for ``-`` the paths listed."""
    for path in given:
        if path == "-":
            lines = (line.rstrip("\r\n") for line in listed)
            yield from expand_paths((line for line in lines if line not in "-"), ())
        elif Path(path).is_dir():
            from nebula_utils.features.survey import list_pictures

            yield from map(str, list_pictures(Path(path)) or [path])
        else:
            yield path


def classify_path(
    classify: Callable[[Path], Any], path: str | os.PathLike[str]
) -> dict[str, Any]:
    """Return ``path`` as it was given, and the answer or the ``error``."""
    path = os.fspath(path)
    try:
        answer = classify(Path(path)).as_dict()
        return {"path": path} | {k: v for k, v in answer.items() if k != "path"}
    except (NebulaError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        return {"path": path, "error": reason or str(error)}


def _format_answer(record: Mapping[str, Any]) -> str:
    """Return what ``classify --json`` would write as one line to read."""
    ranked = sorted(record["probabilities"].items(), key=lambda item: -item[1])
    best = ", ".join(f"{name} {share:.2f}" for name, share in ranked[:2])
    grey = record["grey_label"]
    without = "the same" if grey == record["label"] else grey
    line = f"{best}; without colour {without}, stability {record['stability']:.2f}"
    others = ", ".join(record["candidates"][1:])
    doubt = "" if record["confident"] else "not sure: "
    return f"{record['path']}: {doubt}{line}" + (f"; or {others}" if others else "")


def _with_progress(paths: list[str]) -> Iterable[str]:
    # Answers that scroll by on the terminal are progress enough.
    if len(paths) < 10 or sys.stdout.isatty() or not sys.stderr.isatty():
        return paths
    from tqdm import tqdm

    return tqdm(paths, unit="image")


def _print_record(
    record: Mapping[str, Any], as_json: bool, write: Callable[[Mapping[str, Any]], str]
) -> None:
    """Print a line, for programs or for people, at once."""
    text = to_json(record) if as_json else make_printable(write(record))
    print(text, flush=True)


def to_json(record: Any) -> str:
    """Return one line of JSON; what is not a finite number becomes null."""
    return json.dumps(_without_nan(record), allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def compute_status(records: Sequence[Mapping[str, Any]]) -> int:
    """Return the exit status: 0 none of the records is an error, 1 some, 2 all."""
    failed = sum("error" in record for record in records)
    return 0 if not failed else 2 if failed == len(records) else 1

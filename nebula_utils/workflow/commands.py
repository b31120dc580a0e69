"""What the subcommands of `nebula` do; each imports only what it needs."""

import argparse
import json
import logging
import math
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nebula_utils import config
from nebula_utils.errors import (
    ClusterError,
    ImageError,
    ModelError,
    NebulaError,
    SourceError,
)

if TYPE_CHECKING:
    from nebula_utils.workflow.pipeline import Run, Step

logger = logging.getLogger(__name__)


def do_run(args: argparse.Namespace) -> int:
    """Run notebooks; print where the report is and the headline numbers."""
    from nebula_utils.workflow import pipeline

    logging.getLogger("papermill").setLevel(logging.WARNING)
    out = (args.out or config.REPORTS).resolve()
    given = dict(args.parameters)
    steps = pipeline.plan_run(args.notebooks, given, out if args.out else None)
    weights = _hash_weights(steps)
    runs = pipeline.run_steps(steps, out, weights, force=args.force)
    # Also after a kill between the last notebook and this.
    if not _is_told(out / "provenance.json", runs):
        _write_provenance(out / "provenance.json", steps, runs, weights)
    print(f"report: {out / 'runs'} (open the .html files in a browser)")
    for line in describe_metrics(out / "metrics.json"):
        print(line)
    return 0


def do_sweep(args: argparse.Namespace) -> int:
    """Run a grid of parameters; print where table and figure are."""
    from nebula_utils.workflow import sweep
    from nebula_utils.workflow.comparison import write_comparison

    if args.workers and not args.scheduler:
        raise ClusterError("--workers only goes with --scheduler")
    logging.getLogger("papermill").setLevel(logging.WARNING)
    grid = sweep.read_grid(args.grid)
    out = (args.out or config.REPORTS / "sweeps" / grid.name).resolve()
    runs = sweep.plan_sweep(grid, out)
    outcomes = sweep.run_sweep(runs, args.scheduler, args.workers)
    failed = [pair for pair in zip(runs, outcomes, strict=True) if pair[1].error]
    for run, outcome in failed:
        logger.warning("failed: %s: %s", run.folder, outcome.error)
    for path in write_comparison(grid, runs, outcomes, out):
        print(path)
    return _status(len(failed), len(runs))


def do_fetch(args: argparse.Namespace) -> int:
    """Get a source's images; print where they are or how many of what."""
    if args.source == "hips":
        from nebula_utils.dataset import hips

        return int(hips.run(args))
    if args.source == "photos":
        from nebula_utils.dataset.photos import load_photos

        manifest = load_photos(args.folder)
        if manifest.empty:
            raise SourceError(f"{args.folder} holds no pictures in class folders")
        for label, rows in manifest.groupby("label"):
            print(f"{label}: {len(rows)} images of {rows.nebula.nunique()} nebulae")
        return 0
    from nebula_utils.dataset.stellarium import fetch_textures

    print(fetch_textures())
    return 0


def do_resolve(args: argparse.Namespace) -> int:
    """Look names up in the catalogue; one line a name."""
    from nebula_utils.catalogue.table import as_record

    records = [as_record(name) for name in args.names]
    for record in records:
        print(_to_json(record) if args.json else _format_resolved(record))
    return _status(sum("error" in record for record in records), len(records))


def do_backbone(args: argparse.Namespace) -> int:
    """Make a feature extractor available; print its folder, alone."""
    from nebula_utils.features import backbone

    if args.list:
        for name, handle in backbone.MOBILENETS.items():
            print(f"{name}  {handle}")
        return 0
    print(backbone.resolve_backbone(args.name))
    return 0


def do_extract(args: argparse.Namespace) -> int:
    """Write the features of a folder or manifest; list what was left out."""
    if not args.images.exists():
        raise SourceError(f"{args.images} does not exist")
    given: dict[str, Any] = {"backbone": args.backbone, "batch_size": args.batch_size}
    if args.scheduler:
        from nebula_utils.features.cluster import extract_source

        given |= {"scheduler": args.scheduler, "n_workers": args.workers}
        unusable = extract_source(args.images, args.out, args.parts, **given)
    elif args.parts or args.workers:  # would silently do nothing
        raise ClusterError("--parts and --workers only go with --scheduler")
    else:
        from nebula_utils.features.extraction import extract_to_npz

        unusable = extract_to_npz(args.images, args.out, **given)
    for path, reason in unusable:
        logger.warning("left out: %s: %s", path, reason)
    print(args.out)
    return 1 if unusable else 0


def do_classify(args: argparse.Namespace) -> int:
    """Classify pictures; one line a file, in input order."""
    from nebula_utils.classifier.classifier import load_classifier

    classifier = load_classifier(args.model)
    failed = 0
    for path in _with_progress(args.paths):
        record = classify_path(classifier.classify, path)
        failed += "error" in record
        if args.json:
            print(_to_json(record), flush=True)
        elif "error" in record:
            logger.warning("%s: %s", path, record["error"])
        else:
            print(format_answer(record), flush=True)
    return _status(failed, len(args.paths))


def do_app(args: argparse.Namespace) -> int:
    """Serve notebook 06 as a web page; returns when the server ends."""
    from nebula_utils.classifier.serving import TEMPLATE, limit_memory, make_environment
    from nebula_utils.workflow.pipeline import KERNEL_ENVIRONMENT, find_notebooks

    (notebook,) = find_notebooks(["06_classifier"])
    if not (config.MODEL / "model.json").is_file():
        raise ModelError(
            f"there is no classifier in {config.MODEL}: run `make reproduce` first"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", args.port))
        except OSError as error:
            raise NebulaError(
                f"port {args.port} can't be used ({error.strerror}): give another "
                "one with --port"
            ) from None
    logger.info("the page will be at http://127.0.0.1:%d/ (Ctrl-C ends)", args.port)
    command = [sys.executable, "-m", "voila", str(notebook), f"--port={args.port}"]
    os.chdir(config.REPOSITORY)  # where voila.json is
    limit_memory()
    os.execve(
        sys.executable,
        [*command, f"--template={TEMPLATE}"],
        {**os.environ, **KERNEL_ENVIRONMENT, **make_environment()},
    )


def classify_path(
    classify: Callable[[Path], Any], path: str | os.PathLike[str]
) -> dict[str, Any]:
    """Classify one file; an unusable one gives a record with the reason.

    Parameters
    ----------
    classify : callable
        Path → a result with ``as_dict()``; raises ImageError.
    path : str or path
        As the user wrote it; the record repeats it.

    Returns
    -------
    dict
        ``path`` and the answer, or ``path`` and ``error``.
    """
    path = os.fspath(path)
    try:
        if Path(path).is_dir():
            raise ImageError("not an image: it is a folder; name the files in it")
        answer = classify(Path(path)).as_dict()
        return {"path": path} | {k: v for k, v in answer.items() if k != "path"}
    except (NebulaError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        return {"path": path, "error": reason or str(error)}


def format_answer(record: Mapping[str, Any]) -> str:
    """Return a classification as one line to read.

    Parameters
    ----------
    record : mapping
        What ``classify --json`` would write.
    """
    ranked = sorted(record["probabilities"].items(), key=lambda item: -item[1])
    best = ", ".join(f"{name} {share:.2f}" for name, share in ranked[:2])
    grey = record["grey_label"]
    without = "the same" if grey == record["label"] else grey
    line = f"{best}; without colour {without}, stability {record['stability']:.2f}"
    return f"{record['path']}: " + ("" if record["confident"] else "not sure: ") + line


def describe_metrics(path: Path) -> list[str]:
    """Return the headline numbers of a ``metrics.json``, one line a head.

    Parameters
    ----------
    path : Path
        The file; if it is not there, or incomplete, less is said.
    """
    try:
        heads = json.loads(path.read_text("utf-8"))["heads"]
    except (OSError, ValueError, KeyError):
        return []
    lines = []
    for name in ("plain", "robust"):
        head = heads.get(name, {})
        parts = [
            _format_score("balanced accuracy", head.get("balanced_accuracy")),
            _format_score("without colour", head.get("grey_balanced_accuracy")),
            _format_score("flips", (head.get("flip_rate") or {}).get("grey")),
        ]
        if any(parts):
            lines.append(f"{name} head: {', '.join(part for part in parts if part)}")
    return lines


def _format_score(name: str, score: Mapping[str, Any] | None) -> str:
    if not score:
        return ""
    low, high = score.get("low"), score.get("high")
    interval = "" if None in (low, high) else f" [{low:.3f}, {high:.3f}]"
    return f"{name} {score['value']:.3f}{interval}"


def _format_resolved(record: Mapping[str, Any]) -> str:
    if "error" in record:  # which names the suggestions, too
        return f"{record['query']}: {record['error']}"
    place = f"RA {record['ra_deg']}°, Dec {record['dec_deg']}°"
    size = record.get("size_arcmin")
    parts = [record["type"], place] + ([f"{size}′"] if size is not None else [])
    also = "; ".join(record.get("aliases") or [])
    return f"{record['query']}: {record['name']}: {', '.join(parts)}" + (
        f"; also {also}" if also else ""
    )


def _hash_weights(steps: "Iterable[Step]") -> dict[str, str]:
    names = {step.parameters.get("BACKBONE") for step in steps} - {None}
    if not names:
        return {}
    from nebula_utils.features import backbone

    return {
        name: backbone.compute_weights_sha256(backbone.resolve_backbone(name))
        for name in sorted(map(str, names))
    }


def _is_told(path: Path, runs: "Iterable[Run]") -> bool:
    """Tell whether a provenance record is of these very executions."""
    try:
        told = json.loads(path.read_text("utf-8"))["wall_seconds"]
    except (OSError, ValueError, KeyError):
        return False
    return all(
        run.skipped and told.get(run.name) == round(run.seconds, 2) for run in runs
    )


def _write_provenance(
    path: Path,
    steps: "Iterable[Step]",
    runs: "Iterable[Run]",
    weights: Mapping[str, str],
) -> None:
    from nebula_utils.workflow.provenance import build_provenance, write_provenance

    try:
        earlier = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        earlier = {}
    # A run of some notebooks keeps what is known of the others.
    parameters = {
        **earlier.get("parameters", {}),
        **{step.name: step.parameters for step in steps},
    }
    seconds = {
        **earlier.get("wall_seconds", {}),
        **{run.name: run.seconds for run in runs},
    }
    write_provenance(path, build_provenance(parameters, seconds, weights))


def _with_progress(paths: list[str]) -> Iterable[str]:
    # Answers that scroll by on the terminal are progress enough.
    if len(paths) < 10 or sys.stdout.isatty() or not sys.stderr.isatty():
        return paths
    from tqdm import tqdm

    return tqdm(paths, unit="image")


def _to_json(record: Any) -> str:
    return json.dumps(_without_nan(record), allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def _status(failed: int, total: int) -> int:
    if failed == 0:
        return 0
    return 2 if failed == total else 1

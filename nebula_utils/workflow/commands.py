"""What the commands of `nebula` take and do; each imports only what it needs.

A command is a function under `command`: its name, arguments and examples stand above
what it does. ``"fetch photos"`` is the subcommand ``photos`` of ``fetch``.
"""

import argparse
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nebula_utils import config
from nebula_utils.errors import (
    ClusterError,
    ModelError,
    NebulaError,
    SourceError,
)

logger = logging.getLogger(__name__)

Do = Callable[[argparse.Namespace], int]
Argument = tuple[tuple[str, ...], dict[str, Any]]


class Command(NamedTuple):
    """A command: what it does, what it takes, and how `--help` tells of it."""

    do: Do
    summary: str
    arguments: Iterable[Argument] | Callable[[argparse.ArgumentParser], None]
    examples: str


COMMANDS: dict[str, Command] = {}  # in the order of `nebula --help`


def argument(*flags: str, **options: Any) -> Argument:
    """Return an argument of a command, as `argparse` would add it."""
    return flags, options


def command(
    name: str,
    summary: str,
    *arguments: Argument,
    examples: str = "",
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
) -> Callable[[Do], Do]:
    """Make a function the command of this name.

    Parameters
    ----------
    name : str
        A word, or two for a subcommand of an earlier one.
    summary : str
        For ``--help``: lower case, without a full stop.
    *arguments : Argument
        From `argument`.
    examples : str
        Lines that stand under "examples:".
    add_arguments : callable, optional
        Instead of ``arguments``, if these are slow to list.
    """

    def register(do: Do) -> Do:
        COMMANDS[name] = Command(do, summary, add_arguments or arguments, examples)
        return do

    return register


def _port(text: str) -> int:
    if text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port (1 to 65535)")


def _positive(text: str) -> int:
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")


def _npz(text: str) -> Path:
    if text.endswith(".npz"):
        return Path(text)
    raise argparse.ArgumentTypeError(f"{text!r}: the name must end in .npz")


@command(
    "run",
    "run notebooks and write the report",
    argument(
        "notebooks",
        nargs="*",
        metavar="NOTEBOOK",
        help="number or name (04, 04_training); default: all, in order",
    ),
    argument(
        "-p",
        "--parameter",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a notebook parameter; may be given several times",
    ),
    argument("--out", type=Path, metavar="DIR", help="write here instead of reports/"),
    argument("--force", action="store_true", help="also run what has not changed"),
    examples="""\
  nebula run                          everything that needs it, in order
  nebula run 05                       only the colour-bias notebook
  nebula run -p CLASSES '[dark, emission]' --out two_classes
                                      the original tool's two-class problem,
                                      written beside the report, not over it

VALUE is a number, a word or a list, as in YAML or JSON; it goes to every chosen
notebook that has such a parameter. Paths in it start from notebooks/.
""",
)
def do_run(args: argparse.Namespace) -> int:
    """Run notebooks; print where the report is and the headline numbers."""
    from nebula_utils.workflow import pipeline, provenance

    logging.getLogger("papermill").setLevel(logging.WARNING)
    out = (args.out or config.REPORTS).resolve()
    given = dict(args.parameters)
    steps = pipeline.plan_run(args.notebooks, given, out if args.out else None)
    weights = provenance.hash_weights(step.parameters for step in steps)
    runs = pipeline.run_steps(steps, out, weights, force=args.force)
    provenance.write_provenance(
        out,
        {step.name: step.parameters for step in steps},
        {run.name: run.seconds for run in runs},
        weights,
    )
    print(f"report: {out / 'runs'} (open the .html files in a browser)")
    for line in describe_metrics(out / "metrics.json"):
        print(line)
    return 0


@command(
    "fetch",
    "get a source's images",
    examples="""\
  nebula fetch                        Stellarium's photographs (246 MB, once)
  nebula fetch photos my_pictures     check class folders of your own pictures:
                                      my_pictures/dark/barnard_150-10.jpg …
  nebula fetch archives               free pictures of public observatories
  nebula fetch hips --help            cut-outs from sky surveys
""",
)
def do_fetch(args: argparse.Namespace) -> int:
    """Get Stellarium's photographs; print where they are."""
    from nebula_utils.dataset.stellarium import fetch_textures

    print(fetch_textures())
    return 0


command("fetch stellarium", "Stellarium's photographs (default)")(do_fetch)


@command(
    "fetch photos",
    "check a folder of your own pictures",
    argument("folder", type=Path, metavar="DIR"),
)
def do_fetch_photos(args: argparse.Namespace) -> int:
    """Read class folders; print how many pictures of how many nebulae."""
    from nebula_utils.dataset.photos import load_photos

    manifest = load_photos(args.folder)
    if manifest.empty:
        raise SourceError(f"{args.folder} holds no pictures in class folders")
    for label, rows in manifest.groupby("label"):
        print(f"{label}: {len(rows)} images of {rows.nebula.nunique()} nebulae")
    return 0


@command("fetch archives", "freely licensed pictures of public observatories")
def do_fetch_archives(args: argparse.Namespace) -> int:
    """Get the pictures that data/archives.csv lists; print where they are."""
    from nebula_utils.dataset.archives import fetch_archives, find_folder

    failures = fetch_archives()
    for file, problem in failures.items():
        logger.warning("%s: %s", file, problem)
    print(find_folder())
    return 1 if failures else 0


def _add_hips_arguments(parser: argparse.ArgumentParser) -> None:
    from nebula_utils.dataset import hips

    hips.add_arguments(parser)


@command("fetch hips", "cut-outs from sky surveys", add_arguments=_add_hips_arguments)
def do_fetch_hips(args: argparse.Namespace) -> int:
    """Get cut-outs from sky surveys; print how many of what."""
    from nebula_utils.dataset import hips

    return int(hips.run(args))


@command(
    "backbone",
    "get a feature extractor",
    argument(
        "name",
        nargs="?",
        default=config.DEFAULT_BACKBONE,
        metavar="NAME|HANDLE|DIR",
        help="default: %(default)s",
    ),
    argument(
        "--list", action="store_true", help="list the known names and their handles"
    ),
    examples="""\
  nebula backbone                     the default, the original tool's MobileNet
  nebula backbone mobilenet_v1_050_160
  nebula backbone https://tfhub.dev/…/feature_vector/5
  nebula backbone --list              the sixteen MobileNets and their handles
""",
)
def do_backbone(args: argparse.Namespace) -> int:
    """Make a feature extractor available; print its folder, alone."""
    from nebula_utils.features import backbone

    if args.list:
        for name, handle in backbone.MOBILENETS.items():
            print(f"{name}  {handle}")
        return 0
    print(backbone.prepare_backbone(args.name))
    return 0


@command(
    "extract",
    "compute features of any images",
    argument(
        "images",
        type=Path,
        metavar="DIR|MANIFEST.csv",
        help="a folder of images, or a table with a column `path`",
    ),
    argument(
        "--out", type=_npz, required=True, metavar="FEATURES.npz", help="file to write"
    ),
    argument(
        "--backbone",
        default=config.DEFAULT_BACKBONE,
        help="name, TF-Hub handle or SavedModel folder; default: %(default)s",
    ),
    argument(
        "--engine",
        choices=("float32", "fast"),
        default="float32",
        help="fast: OpenVINO in bfloat16, if the processor has it, with other last "
        "digits; default: %(default)s",
    ),
    argument(
        "--scheduler",
        metavar="local|ADDRESS",
        help="compute on a Dask cluster: processes on this machine, or an address",
    ),
    argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="processes of --scheduler local; default: one a core",
    ),
    argument(
        "--store",
        metavar="DIR",
        help="where features are kept for the next time, a folder or an address that "
        "all workers see; default: the cache",
    ),
    examples="""\
  nebula extract my_pictures --out features.npz
  nebula extract manifest.csv --out features.npz --backbone mobilenet_v1_100_160
  nebula extract survey/ --out features.npz --scheduler tcp://10.0.0.1:8786
                                      on a Dask cluster (docs/cluster.md)

The file has `features` float32 (n, d), `path` (n,), `backbone` and `preprocessing`.
""",
)
def do_extract(args: argparse.Namespace) -> int:
    """Write the features of a folder or manifest; list what was left out."""
    if not args.images.exists():
        raise SourceError(f"{args.images} does not exist")
    if args.workers and not args.scheduler:  # would silently do nothing
        raise ClusterError("--workers only goes with --scheduler")
    from nebula_utils.features.extraction import extract_to_npz

    unusable = extract_to_npz(
        args.images,
        args.out,
        args.backbone,
        args.engine,
        args.scheduler,
        args.workers,
        args.store,
    )
    for path, reason in unusable:
        logger.warning("left out: %s: %s", path, reason)
    print(args.out)
    return 1 if unusable else 0


@command(
    "app",
    "serve the classifier as a web page on 127.0.0.1",
    argument("--port", type=_port, default=8866, help="default: %(default)s"),
    argument(
        "--public",
        action="store_true",
        help="for others, behind a proxy (docs/serving.md): takes files up to 60 MB",
    ),
)
def do_app(args: argparse.Namespace) -> int:
    """Serve notebook 06 as a web page; returns when the server ends."""
    from nebula_utils.classifier.serving import (
        limit_memory,
        list_options,
        make_environment,
    )
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
        [*command, *list_options()],
        {**os.environ, **KERNEL_ENVIRONMENT, **make_environment(args.public)},
    )


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

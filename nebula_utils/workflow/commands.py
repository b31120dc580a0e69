"""What the commands of `nebula` take and do; each imports only what it needs.

A command is a function under `command`: its name, arguments and examples stand above
what it does, its docstring is what ``--help`` tells of it.
"""

import argparse
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from nebula_utils import config
from nebula_utils.errors import ClusterError, ModelError, NebulaError, SourceError

logger = logging.getLogger(__name__)

SCORED_BY = "05"  # the notebook that writes metrics.json
Do = Callable[[argparse.Namespace], int]
Argument = tuple[tuple[str, ...], dict[str, Any]]
AddArguments = Callable[[argparse.ArgumentParser], None]


class Command(NamedTuple):
    """A command: what it does, what it takes, and lines to stand under "examples:"."""

    do: Do
    arguments: Iterable[Argument] | AddArguments
    examples: str

    @property
    def summary(self) -> str:
        """What it does, in a few words without a full stop."""
        return str(self.do.__doc__).rstrip(".")


COMMANDS: dict[str, Command] = {}  # in the order of `nebula --help`


def argument(*flags: str, **options: Any) -> Argument:
    """Return an argument of a command, as `argparse` would add it."""
    return flags, options


def command(
    name: str,
    *arguments: Argument,
    examples: str = "",
    add_arguments: AddArguments | None = None,
) -> Callable[[Do], Do]:
    """Make a function the command of this name.

    ``"fetch photos"`` is the subcommand ``photos`` of ``fetch``; ``add_arguments``
    stands instead of arguments that are slow to list.
    """

    def register(do: Do) -> Do:
        COMMANDS[name] = Command(do, add_arguments or arguments, examples)
        return do

    return register


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
    """Run notebooks and write the report."""
    from nebula_utils.report.results import read_json
    from nebula_utils.report.tables import MAIN, tabulate_scores
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
    print(f"report: {out / provenance.RUNS} (open the .html files in a browser)")
    if any(
        step.name.startswith(SCORED_BY) for step in steps
    ):  # else the file is an older run's
        heads = read_json(out / "metrics.json")["heads"]
        print(tabulate_scores(heads).loc[list(MAIN)].to_string() if heads else "")
    else:
        print(f"its scores come with notebook {SCORED_BY}, which writes metrics.json")
    return 0


@command(
    "fetch",
    examples="""\
  nebula fetch                        Stellarium's photographs (246 MB, once)
  nebula fetch photos my_pictures     check class folders of your own pictures:
                                      my_pictures/dark/barnard_150-10.jpg …
  nebula fetch archives               free pictures of public observatories
  nebula fetch hips --help            cut-outs from sky surveys
""",
)
def do_fetch(args: argparse.Namespace) -> int:
    """Get a source's images."""
    from nebula_utils.dataset.stellarium import fetch_textures

    print(fetch_textures())
    return 0


@command("fetch stellarium")
def do_fetch_stellarium(args: argparse.Namespace) -> int:
    """Get Stellarium's photographs (default)."""
    return do_fetch(args)


@command(
    "fetch photos",
    argument("folder", type=Path, metavar="DIR"),
)
def do_fetch_photos(args: argparse.Namespace) -> int:
    """Check a folder of your own pictures."""
    from nebula_utils.dataset.photos import load_photos

    manifest = load_photos(args.folder)
    if manifest.empty:
        raise SourceError(f"{args.folder} holds no pictures in class folders")
    for label, rows in manifest.groupby("label"):
        print(f"{label}: {len(rows)} images of {rows.nebula.nunique()} nebulae")
    return 0


@command("fetch archives")
def do_fetch_archives(args: argparse.Namespace) -> int:
    """Freely licensed pictures of public observatories."""
    from nebula_utils.dataset.download import fetch_archives, find_archives

    failures = fetch_archives()
    for file, problem in failures.items():
        logger.warning("%s: %s", file, problem)
    print(find_archives())
    return 1 if failures else 0


def _add_hips_arguments(parser: argparse.ArgumentParser) -> None:
    from nebula_utils.dataset import hips

    hips.add_arguments(parser)


@command("fetch hips", add_arguments=_add_hips_arguments)
def do_fetch_hips(args: argparse.Namespace) -> int:
    """Cut-outs from sky surveys."""
    from nebula_utils.dataset import hips

    return int(hips.run(args))


@command(
    "backbone",
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
    """Get a feature extractor."""
    from nebula_utils.features import backbone

    if args.list:
        for name, handle in backbone.MOBILENETS.items():
            print(f"{name}  {handle}")
        return 0
    print(backbone.prepare_backbone(args.name))
    return 0


@command(
    "extract",
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
    """Compute features of any images."""
    if not args.images.exists():
        raise SourceError(f"{args.images} does not exist")
    if args.workers and not args.scheduler:  # would silently do nothing
        raise ClusterError("--workers only goes with --scheduler")
    from nebula_utils.features.survey import extract_to_npz

    how = (args.backbone, args.engine, args.scheduler, args.workers, args.store)
    unusable = extract_to_npz(args.images, args.out, *how)
    for path, reason in unusable:
        logger.warning("left out: %s: %s", path, reason)
    print(args.out)
    return 1 if unusable else 0


@command(
    "app",
    argument("--port", type=_positive, default=8866, help="default: %(default)s"),
    argument(
        "--public",
        action="store_true",
        help="for others, behind a proxy (docs/serving.md): takes files up to 60 MB",
    ),
)
def do_app(args: argparse.Namespace) -> int:
    """Serve the classifier as a web page on 127.0.0.1."""
    from nebula_utils.classifier import serving
    from nebula_utils.workflow.pipeline import KERNEL_ENVIRONMENT, find_notebooks

    (notebook,) = find_notebooks(["06"])
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
    words = [sys.executable, "-m", "voila", str(notebook), f"--port={args.port}"]
    variables = KERNEL_ENVIRONMENT | serving.make_environment(args.public)
    os.chdir(config.REPOSITORY)  # where voila.json is
    serving.limit_memory()
    os.execve(words[0], words + serving.list_options(), {**os.environ, **variables})

"""The command `nebula`: what each subcommand takes, and how errors reach a user."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nebula_utils import __version__, config
from nebula_utils.errors import NebulaError

EPILOG = """\
Results go to stdout, messages to stderr. Exit status: 0 all well, 1 some input could
not be used, 2 wrong usage or nothing could be done.
Downloads and weights are kept in $NEBULA_CACHE (now: {cache}).
"""

RUN_EXAMPLES = """\
examples:
  nebula run                          everything that needs it, in order
  nebula run 05                       only the colour-bias notebook
  nebula run -p CLASSES '[dark, emission]' --out two_classes
                                      the original tool's two-class problem,
                                      written beside the report, not over it

VALUE is a number, a word or a list, as in YAML or JSON; it goes to every chosen
notebook that has such a parameter. Paths in it start from notebooks/.
"""

FETCH_EXAMPLES = """\
examples:
  nebula fetch                        Stellarium's photographs (246 MB, once)
  nebula fetch photos my_pictures     check class folders of your own pictures:
                                      my_pictures/dark/barnard_150-10.jpg …
  nebula fetch hips --help            cut-outs from sky surveys
"""

RESOLVE_EXAMPLES = """\
examples:
  nebula resolve "Thor's Helmet" S155 M42
  nebula resolve --json "Barnard 33" | python3 -m json.tool
"""

BACKBONE_EXAMPLES = """\
examples:
  nebula backbone                     the default, the original tool's MobileNet
  nebula backbone mobilenet_v1_050_160
  nebula backbone https://tfhub.dev/…/feature_vector/5
  nebula backbone --list              the sixteen MobileNets and their handles
"""

EXTRACT_EXAMPLES = """\
examples:
  nebula extract my_pictures --out features.npz
  nebula extract manifest.csv --out features.npz --backbone mobilenet_v1_100_160
  nebula extract survey/ --out features.npz --scheduler tcp://10.0.0.1:8786
                                      on a Dask cluster (docs/cluster.md)

The file has `features` float32 (n, d), `path` (n,), `backbone` and `preprocessing`.
"""

SWEEP_EXAMPLES = """\
examples:
  nebula sweep benchmarks/grids/input_size.yaml
  nebula sweep GRID.yaml --scheduler local --workers 2

The table, the figure and each run's own folder go to reports/sweeps/NAME/. Runs that
are done are kept; docs/cluster.md tells what a grid looks like.
"""

CLASSIFY_EXAMPLES = """\
examples:
  nebula classify orion.jpg
  nebula classify --json pictures/*.png > answers.jsonl
  nebula classify --model two_classes/model orion.jpg

Needs the classifier that `make reproduce` (or `nebula run`) writes.
"""


def build_parser(with_hips: bool = False) -> argparse.ArgumentParser:
    """Return the parser of all subcommands.

    Parameters
    ----------
    with_hips : bool, default=False
        Also the options of ``fetch hips``, whose module is slow to import.
    """
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show a traceback on errors",
    )
    parser = argparse.ArgumentParser(
        prog="nebula",
        description="Classify photographs of nebulae, and see what is looked at.",
        epilog=EPILOG.format(cache=config.cache_dir()).replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"nebula {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(
        name: str, summary: str, examples: str | None = None
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[common],
        )
        command.set_defaults(command=name)
        return command

    _add_run(add("run", "run notebooks and write the report", RUN_EXAMPLES))
    _add_fetch(add("fetch", "get a source's images", FETCH_EXAMPLES), with_hips)
    _add_sweep(add("sweep", "run notebooks over a grid of parameters", SWEEP_EXAMPLES))
    _add_resolve(add("resolve", "look a nebula up by any name", RESOLVE_EXAMPLES))
    _add_backbone(add("backbone", "get a feature extractor", BACKBONE_EXAMPLES))
    _add_extract(add("extract", "compute features of any images", EXTRACT_EXAMPLES))
    _add_classify(add("classify", "classify pictures", CLASSIFY_EXAMPLES))
    app = add("app", "serve the classifier as a web page on 127.0.0.1")
    app.add_argument("--port", type=_port, default=8866, help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; default: the process's own.

    Returns
    -------
    int
        Exit status: 0 all well; 1 some input could not be used; 2 wrong usage or
        nothing could be done; 130 interrupted; 141 the reader of stdout left.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    _set_up_streams()
    try:
        with_hips = "fetch" in argv and "hips" in argv
        parser = build_parser(with_hips)
        args = parser.parse_args(argv)
        if not hasattr(args, "command"):
            parser.print_help(sys.stderr)
            return 2
        from nebula_utils.workflow import commands

        status: int = getattr(commands, f"do_{args.command}")(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("\nnebula: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Nobody reads on (`| head`). Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if "--debug" in argv:
            raise
        print(f"nebula: error: {_explain(error)}", file=sys.stderr)
        return 2


def _explain(error: Exception) -> str:
    if isinstance(error, NebulaError):
        return str(error)
    name = type(error).__name__
    return f"{error or name} ({name}; --debug shows where it came from)"


def _set_up_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # File names need not be text in the terminal's encoding.
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    package = logging.getLogger("nebula_utils")
    package.handlers[:] = [handler]
    package.setLevel(logging.INFO)
    package.propagate = False


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


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "notebooks",
        nargs="*",
        metavar="NOTEBOOK",
        help="number or name (04, 04_training); default: all, in order",
    )
    parser.add_argument(
        "-p",
        "--parameter",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a notebook parameter; may be given several times",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write here instead of reports/"
    )
    parser.add_argument(
        "--force", action="store_true", help="also run what has not changed"
    )


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grid", type=Path, metavar="GRID.yaml")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write here instead of reports/sweeps/NAME/",
    )
    _add_scheduler(parser, "do the runs")


def _add_fetch(parser: argparse.ArgumentParser, with_hips: bool) -> None:
    sources = parser.add_subparsers(title="sources", metavar="SOURCE", dest="source")
    sources.add_parser("stellarium", help="Stellarium's photographs (default)")
    photos = sources.add_parser("photos", help="check a folder of your own pictures")
    photos.add_argument("folder", type=Path, metavar="DIR")
    hips = sources.add_parser("hips", help="cut-outs from sky surveys")
    if with_hips:
        from nebula_utils.dataset import hips as module

        module.add_arguments(hips)


def _add_resolve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, one line a name"
    )


def _add_backbone(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        default=config.DEFAULT_BACKBONE,
        metavar="NAME|HANDLE|DIR",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--list", action="store_true", help="list the known names and their handles"
    )


def _add_extract(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        type=Path,
        metavar="DIR|MANIFEST.csv",
        help="a folder of images, or a table with a column `path`",
    )
    parser.add_argument(
        "--out", type=_npz, required=True, metavar="FEATURES.npz", help="file to write"
    )
    parser.add_argument(
        "--backbone",
        default=config.DEFAULT_BACKBONE,
        help="name, TF-Hub handle or SavedModel folder; default: %(default)s",
    )
    parser.add_argument(
        "--batch-size",
        type=_positive,
        default=32,
        metavar="N",
        help="images a forward pass; default: %(default)s",
    )
    _add_scheduler(parser, "write the features")
    parser.add_argument(
        "--parts",
        metavar="DIR",
        help="with --scheduler: where workers write, a folder or an address that all "
        "of them see; default: FEATURES.npz.parts",
    )


def _add_scheduler(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--scheduler",
        metavar="local|ADDRESS",
        help=f"{what} on a Dask cluster: processes on this machine, or an address",
    )
    parser.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="processes of --scheduler local; default: one a core",
    )


def _add_classify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="picture files")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, one line a file"
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=config.MODEL,
        metavar="DIR",
        help="folder of an exported classifier; default: reports/model",
    )

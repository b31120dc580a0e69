"""The command `nebula`: its parser, and how results and errors reach a user."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from nebula_utils import __version__, config
from nebula_utils.errors import NebulaError, make_printable
from nebula_utils.workflow import answers  # noqa: F401  (its commands)
from nebula_utils.workflow.commands import COMMANDS

EPILOG = """\
Results go to stdout, messages to stderr. Exit status: 0 all well, 1 some input could
not be used, 2 wrong usage or nothing could be done.
Downloads and weights are kept in $NEBULA_CACHE (now: {cache}).
"""


def build_parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of all commands in `commands.COMMANDS`.

    Arguments that are slow to list are added only where ``argv``, which will be
    parsed, has the words of their command.
    """
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--debug", action="store_true", help="show a traceback on errors"
    )
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="nebula",
        description="Classify photographs of nebulae, and see what is looked at.",
        epilog=EPILOG.format(cache=config.cache_dir()).replace("%", "%%"),
        formatter_class=shape,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"nebula {__version__}")
    parsers: dict[str, argparse.ArgumentParser] = {}
    families = {"": parser.add_subparsers(title="commands", metavar="COMMAND")}
    for name, command in COMMANDS.items():
        family, _, word = name.rpartition(" ")
        if family and family not in families:
            families[family] = parsers[family].add_subparsers(
                title="sources", metavar="SOURCE"
            )
        parsers[name] = added = families[family].add_parser(
            word,
            help=command.summary[0].lower() + command.summary[1:],
            description=f"{command.summary}.",
            epilog=command.examples and f"examples:\n{command.examples}",
            formatter_class=shape,
            parents=[common],
        )
        added.set_defaults(do=command.do)
        if not callable(command.arguments):
            for flags, options in command.arguments:
                added.add_argument(*flags, **options)
        elif set(name.split()) <= set(argv):
            command.arguments(added)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says, by default the process's own.

    Returns
    -------
    int
        Exit status: 0 all well; 1 some input could not be used; 2 wrong usage or
        nothing could be done; 130 interrupted; 141 the reader of stdout left.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    _set_up_streams()
    try:
        parser = build_parser(argv)
        args = parser.parse_args(argv)
        if not hasattr(args, "do"):
            parser.print_help(sys.stderr)
            return 2
        status: int = args.do(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        # A kernel that died with us would be told of at exit, with a traceback.
        logging.getLogger("asyncio").disabled = True
        print("\nnebula: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Nobody reads on (`| head`). Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if "--debug" in argv:
            raise
        print(f"nebula: error: {make_printable(_explain(error))}", file=sys.stderr)
        return 2


def _explain(error: Exception) -> str:
    if isinstance(error, NebulaError):
        return str(error)
    name = type(error).__name__
    return f"{error or name} ({name}; --debug shows where it came from)"


class _Printable(logging.Formatter):
    """Keep what file names may hold from steering the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(make_printable, super().format(record).split("\n")))


def _set_up_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # File names need not be text in the terminal's encoding.
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(message)s"))
    package = logging.getLogger("nebula_utils")
    package.handlers[:] = [handler]
    package.setLevel(logging.INFO)
    package.propagate = False

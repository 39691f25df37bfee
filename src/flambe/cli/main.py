"""Arguments and exit codes. What a command needs is imported when it is run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from flambe._version import __version__

DESCRIPTION = "Run what a YAML file describes: on this machine, or on a cluster."
USAGE = """\
flambe CONFIG [options]
       flambe validate CONFIG"""
EPILOG = """\
commands:
  flambe CONFIG            run the file (an experiment, a script, any Runnable)
  flambe validate CONFIG   say what is wrong with the file, and what it would run; build nothing

exit codes:
  0  done      1  the run failed      2  the configuration is wrong      130  interrupted

examples:
  flambe examples/digits.yaml
  flambe examples/digits.yaml --resume     go on after an interruption
  flambe examples/digits.yaml --force      start anew; earlier results are moved aside
"""


def _parser(command: str) -> argparse.ArgumentParser:
    validating = command == "validate"
    parser = argparse.ArgumentParser(
        prog="flambe validate" if validating else "flambe",
        usage=None if validating else USAGE,
        description="Say what is wrong with a file, and what it would run; nothing is built."
        if validating
        else DESCRIPTION,
        epilog=None if validating else EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", metavar="CONFIG", help="the YAML file")
    parser.add_argument(
        "-i",
        "--install-extensions",
        action="store_true",
        help="install the extensions that the file declares first",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show everything, tracebacks included"
    )
    if not validating:
        _add_run_options(parser)
    parser.add_argument("--version", action="version", version=f"flambe {__version__}")
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--cluster", metavar="CLUSTER", help="run on the cluster of a file")
    parser.add_argument(
        "-f", "--force", action="store_true", help="start anew; results in the way are moved aside"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted run; what is done is kept"
    )
    parser.add_argument(
        "--resume-from",
        metavar="STAGES",
        help="use the saved results of stages (a,b) and of all before; run what follows anew",
    )
    parser.add_argument(
        "-s",
        "--secrets",
        metavar="FILE",
        help="an INI file of secrets (by default ~/.flambe/secrets.ini)",
    )
    parser.add_argument(
        "-d", "--debug", action="store_true", help="stop in a debugger before each step"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = "run"
    if arguments and arguments[0] in ("run", "validate"):
        command = arguments.pop(0)
    parser = _parser(command)
    if not arguments:
        parser.print_help()
        return 2
    options = parser.parse_args(arguments)
    from flambe.cli import commands

    return commands.guarded(commands.COMMANDS[command], options)


def run() -> None:
    """Exit with what :func:`main` returns."""
    sys.exit(main())

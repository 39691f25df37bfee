"""Arguments and exit codes. What a command needs is imported when it is run."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from flambe._version import __version__

DESCRIPTION = "Run what a YAML file describes: on this machine, or on a cluster."
USAGE = """\
flambe CONFIG [options]
       flambe COMMAND ..."""
EPILOG = """\
commands:
  flambe CONFIG            run the file: an experiment, a script, a cluster, any Runnable
  flambe validate CONFIG   say what is wrong with the file, and what it would run; build nothing
  flambe site FOLDER       see a run in a browser: one that goes on, or one that is over
  flambe results FOLDER    show the results of a run, and which variant is the best
  flambe plan CONFIG       say what a run would do, with --cluster also what is sent; run nothing

commands for clusters (CLUSTER is a file, or the name of one that was used before):
  flambe status [CLUSTER]              its hosts, and what runs there
  flambe logs CLUSTER [-f]             what its run says
  flambe stop CLUSTER                  end its run
  flambe exec CLUSTER [--all] -- CMD   run a command on its hosts
  flambe ssh CLUSTER [HOST]            log in
  flambe fetch CLUSTER [TO]            bring the results here
  flambe down CLUSTER                  take it down
  flambe gc [--yes]                    list what flambe has on AWS; remove orphans
  flambe aws policy                    the permissions that AWSCluster needs

exit codes:
  0  done      1  the run failed      2  the configuration is wrong      130  interrupted

examples:
  flambe examples/digits.yaml
  flambe examples/digits.yaml --resume     go on after an interruption
  flambe examples/digits.yaml --force      start anew; earlier results are moved aside
"""


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flambe",
        usage=USAGE,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_config(parser)
    _add_run_options(parser)
    parser.add_argument("--version", action="version", version=f"flambe {__version__}")
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="the YAML file")
    parser.add_argument(
        "-i",
        "--install-extensions",
        action="store_true",
        help="install the extensions that the file declares first",
    )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--cluster", metavar="CLUSTER", help="run on a cluster: its file, or its name"
    )
    parser.add_argument(
        "--detach", action="store_true", help="with --cluster: start the run, and don't show it"
    )
    parser.add_argument(
        "--fetch",
        metavar="TO",
        nargs="?",
        const="",
        help="with --cluster: bring results to a folder as they are made (fetched/CLUSTER)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be made, sent and run; touch nothing",
    )
    parser.add_argument(
        "-f", "--force", action="store_true", help="start anew; results in the way are moved aside"
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="of a cluster: remove the hosts that were created and are no longer in its file",
    )
    parser.add_argument(
        "--setup", action="store_true", help="of a cluster: run its setup commands again"
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
        "--stale",
        choices=("rerun", "reuse"),
        default="rerun",
        help="with --resume: run again what has results of other code or resources (rerun, the "
        "default), or use these results all the same (reuse)",
    )
    _add_secrets(parser)
    parser.add_argument(
        "-d", "--debug", action="store_true", help="stop in a debugger before each step"
    )
    parser.add_argument(
        "--site", action="store_true", help="serve the Report Site of the run while it goes on"
    )


def _add_secrets(parser: argparse.ArgumentParser, default: str = "~/.flambe/secrets.ini") -> None:
    parser.add_argument(
        "-s",
        "--secrets",
        metavar="FILE",
        help=f"an INI file of secrets (by default {default})",
    )


def _plan(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    _add_run_options(parser)
    parser.set_defaults(dry_run=True)


def _results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="FOLDER", help="the output of a run, or the folder that it is in"
    )
    parser.add_argument("stage", metavar="STAGE", nargs="?", help="of this stage; all by default")
    parser.add_argument("--all", action="store_true", help="all variants, not only the best")


def _site(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="the output of a run, or the folder that it is in; or a cluster",
    )
    parser.add_argument("--port", type=int, help="49558 by default, or another where it is taken")
    parser.add_argument(
        "--host", default="127.0.0.1", help="listen on this address; by default for this machine"
    )
    parser.add_argument(
        "--name", action="append", metavar="HOST", help="a name that it is opened by as well"
    )
    parser.add_argument("--open", action="store_true", help="open a browser")
    parser.add_argument("--certificate", metavar="FILE", help="speak TLS: a PEM file ...")
    parser.add_argument("--key", metavar="FILE", help="... and its key")
    parser.add_argument(
        "--token-file", metavar="FILE", help="the token of the address; a new one by default"
    )
    parser.add_argument(
        "--tensorboard-port",
        type=int,
        help="start TensorBoard at once, and lead to it at this port",
    )
    _add_secrets(parser, "those that the cluster was made with, or ~/.flambe/secrets.ini")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)


# -- commands for clusters ----------------------------------------------------------------------


def _add_cluster(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    parser.add_argument(
        "cluster",
        metavar="CLUSTER",
        nargs="?" if optional else None,
        help="the file of a cluster, or the name of one that was used before",
    )
    _add_secrets(parser, "those that the cluster was made with, or ~/.flambe/secrets.ini")


def _add_host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", metavar="HOST", help="orchestrator (default), factory_1, ...")


def _status(parser: argparse.ArgumentParser) -> None:
    _add_cluster(parser, optional=True)


def _logs(parser: argparse.ArgumentParser) -> None:
    _add_cluster(parser)
    _add_host(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="until the run ends")


def _exec(parser: argparse.ArgumentParser) -> None:
    _add_cluster(parser)
    where = parser.add_mutually_exclusive_group()
    _add_host(where)  # type: ignore[arg-type]
    where.add_argument("--all", action="store_true", help="on every host")
    parser.add_argument("command", metavar="-- CMD", nargs="+", help="what to run")


def _ssh(parser: argparse.ArgumentParser) -> None:
    _add_cluster(parser)
    parser.add_argument("host", metavar="HOST", nargs="?", help="by default the orchestrator")


def _fetch(parser: argparse.ArgumentParser) -> None:
    _add_cluster(parser)
    parser.add_argument("to", metavar="TO", nargs="?", help="a folder; fetched/CLUSTER")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="as they are made, until the run ends"
    )


def _down(parser: argparse.ArgumentParser) -> None:
    _add_cluster(parser, optional=True)
    parser.add_argument("--all", action="store_true", help="all clusters that were used from here")
    parser.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="though something runs on it, results would be lost, or hosts are not reached",
    )


def _aws(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["policy"], help="the IAM policy, as JSON")


def _gc(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--region", action="append", metavar="REGION", help="list this region; may be repeated"
    )
    parser.add_argument("--profile", metavar="NAME", help="a profile of the AWS configuration")
    parser.add_argument("--yes", action="store_true", help="remove what is orphaned")


# Name → what it does, and its arguments.
COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "validate": (
        "Say what is wrong with a file, and what it would run; nothing is built.",
        _add_config,
    ),
    "plan": ("Say what a run would make, send and run; nothing is touched.", _plan),
    "results": (
        "Show the results of a run in tables, and the best variant of a stage: of the last one "
        "that has a figure, by default.",
        _results,
    ),
    "site": ("See a run in a browser: its stages, variants, curves and logs, live.", _site),
    "status": ("Show the hosts of a cluster, or of all that were used, and what runs.", _status),
    "logs": ("Show what the run of a cluster says.", _logs),
    "stop": ("End the run of a cluster, and all that it started.", _add_cluster),
    "exec": (
        "Run a command on hosts of a cluster; one host is given what stands on the input.",
        _exec,
    ),
    "ssh": ("Log in to a host of a cluster.", _ssh),
    "fetch": ("Bring the results of a cluster here; what was begun is continued.", _fetch),
    "down": (
        "Take a cluster down: remove its keys, what it started, and the hosts that it created.",
        _down,
    ),
    "gc": (
        "List what flambe has on AWS, by its tags, for every cluster and creator. With --yes, "
        "remove what is orphaned: instances that were never ready or have lost their orchestrator, "
        "volumes without an instance, alarms of instances that are gone.",
        _gc,
    ),
    "aws": ("Print the IAM policy with the fewest permissions that AWSCluster needs.", _aws),
}


# Where the function of a command is; its module is imported when it runs.
HANDLERS = {
    "run": "run:run",
    "validate": "run:validate",
    "plan": "run:run",
    "results": "results:show_results",
    "site": "site:site",
    "status": "status:status",
    "logs": "remote_run:logs",
    "stop": "remote_run:stop",
    "exec": "remote_shell:execute",
    "ssh": "remote_shell:login",
    "fetch": "fetch:fetch",
    "down": "down:down",
    "gc": "aws:collect",
    "aws": "aws:aws",
}


def _handler(command: str) -> Callable[[argparse.Namespace], int]:
    """Return the function of a command."""
    module, _, name = HANDLERS[command].partition(":")
    handler: Callable[[argparse.Namespace], int] = getattr(
        importlib.import_module(f"flambe.cli.{module}"), name
    )
    return handler


def _parser(command: str) -> argparse.ArgumentParser:
    if command == "run":
        parser = _run_parser()
    else:
        description, add = COMMANDS[command]
        usage = "flambe exec CLUSTER [--host HOST | --all] -- CMD [ARGUMENT ...]"
        parser = argparse.ArgumentParser(
            prog=f"flambe {command}",
            usage=usage if command == "exec" else None,
            description=description,
            allow_abbrev=False,
        )
        add(parser)
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show everything, tracebacks included"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = "run"
    if arguments and arguments[0] in ("run", *COMMANDS):
        command = arguments.pop(0)
    parser = _parser(command)
    if len(arguments) > 1 and command == "run" and not os.path.exists(arguments[0]):
        from flambe.errors import did_you_mean

        if hint := did_you_mean(arguments[0], COMMANDS):
            parser.error(f"there is no command {arguments[0]!r}: {hint}")
    if not arguments and command not in ("status", "gc"):
        parser.print_help()
        return 2
    options = parser.parse_args(arguments)
    from flambe._files import guard_umask
    from flambe.cli import exit_handling

    guard_umask()
    return exit_handling.guarded(_handler(command), options)


def run() -> None:
    """Exit with what :func:`main` returns."""
    sys.exit(main())

"""The command line: every command, its arguments, and its help."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field
from functools import partial

from flambe._version import __version__
from flambe.cli.command import Command, add_flag
from flambe.cli.runs import arguments as runs

DESCRIPTION = "Run what a YAML file describes, on this machine or on a cluster."
USAGE = """\
flambe CONFIG [KEY=VALUE ...] [options]
       flambe COMMAND ..."""
EPILOG = """\
commands:
  flambe CONFIG            run a file: an experiment, a script, a cluster or any Runnable
  flambe validate CONFIG   check a file and show what it would run, without building anything
  flambe site FOLDER       open a run in a browser, whether it is still running or finished
  flambe results FOLDER    show the results of a run and its best variant
  flambe plan CONFIG       show what a run would do; with --cluster, also what would be sent
  flambe completion SHELL  print a completion script for bash or zsh

runs (RUN is an output folder, or the name of a run):
  flambe ls [FOLDER]         list runs: state, when, the best variant of each
  flambe show RUN [FILTER]   show its variants, filtered and sorted
  flambe compare RUN RUN     show what differs between runs
  flambe rerun RUN           run its very configuration again, after comparing the code
  flambe clean RUN           show how much room it takes, and remove what nothing builds on
  flambe export RUN --csv    write its variants, or every figure (--steps), as CSV or Parquet

cluster commands (CLUSTER is a file, or the name of a cluster used before):
  flambe status [CLUSTER]              show its hosts and what runs on them
  flambe logs CLUSTER [-f]             show the output of its run
  flambe stop CLUSTER                  stop its run
  flambe exec CLUSTER [--all] -- CMD   run a command on its hosts
  flambe ssh CLUSTER [HOST]            log in to a host
  flambe fetch CLUSTER [TO]            copy its results to this machine
  flambe down CLUSTER                  take it down
  flambe gc [--yes]                    list what flambe has on AWS; with --yes, remove orphans
  flambe aws policy                    print the IAM policy that AWSCluster needs

exit codes:
  0  success      1  the run failed      2  invalid configuration      130  interrupted

examples:
  flambe examples/digits.yaml
  flambe examples/digits.yaml --resume     continue an interrupted run
  flambe examples/digits.yaml --force      start over; earlier results are moved aside
  flambe examples/digits.yaml train.max_steps=5 'train.optimizer.lr=!g [0.1, 0.01]'
"""
#: What a folder is hardly called, and an override is.
_OVERRIDE = re.compile(r"""\+?[\w.\-\[\]'"]+=|~\w[^/]*$""")
CLUSTER_HELP = "the file of a cluster, or the name of a cluster used before"
CLUSTER_SECRETS = "the file the cluster was created with, or ~/.flambe/secrets.ini"


@dataclass(frozen=True)
class ValidateOptions:
    """The options of ``flambe validate``."""

    config: str
    install_extensions: bool = False
    overrides: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RunOptions(ValidateOptions):
    """The options of ``flambe CONFIG`` and ``flambe plan``.

    Here, not beside the function: runs on a cluster need them too.
    """

    cluster: str | None = None
    detach: bool = False
    fetch: str | None = None
    dry_run: bool = False
    json: bool = False
    force: bool = False
    prune: bool = False
    setup: bool = False
    resume: bool = False
    resume_from: str | None = None
    stale: str = "rerun"
    secrets: str | None = None
    debug: bool = False
    site: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        # For argparse, what comes behind "--fetch" is its folder, whatever it looks like.
        if self.fetch and _OVERRIDE.match(self.fetch):
            object.__setattr__(self, "overrides", [self.fetch, *self.overrides])
            object.__setattr__(self, "fetch", "")

    @property
    def stages_to_resume(self) -> list[str]:
        """The stages that ``--resume-from`` names."""
        return [name.strip() for name in (self.resume_from or "").split(",") if name.strip()]

    @property
    def resumes(self) -> bool:
        """Whether the run continues an earlier one."""
        return self.resume or bool(self.resume_from)


# -- flambe CONFIG, validate, plan -------------------------------------------------------------


def _run(parser: argparse.ArgumentParser) -> None:
    _validate(parser)
    _add_run_options(parser)


def _validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="the YAML file")
    parser.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        help="change a value of the file for this call: train.optimizer.lr=0.1; "
        "+KEY=VALUE adds a key, ~KEY removes one",
    )
    add_flag(
        parser,
        "-i",
        "--install-extensions",
        help="install the extensions that the file declares before reading it",
    )


def _plan(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    parser.set_defaults(dry_run=True)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--cluster", metavar="CLUSTER", help=f"run on a cluster: {CLUSTER_HELP}"
    )
    add_flag(parser, "--detach", help="with --cluster: start the run without showing its output")
    parser.add_argument(
        "--fetch",
        metavar="TO",
        nargs="?",
        const="",
        help="with --cluster: copy results to a folder while the run writes them "
        "(default: fetched/CLUSTER)",
    )
    add_flag(parser, "--dry-run", help="show what would be created, sent and run; change nothing")
    add_flag(parser, "--json", help="with --dry-run, and for flambe plan: print JSON")
    add_flag(parser, "-f", "--force", help="start over; existing results are moved aside")
    add_flag(
        parser, "--prune", help="for a cluster: remove created hosts that are no longer in its file"
    )
    add_flag(parser, "--setup", help="for a cluster: run its setup commands again")
    add_flag(
        parser, "--resume", help="continue an interrupted run, keeping the variants that are done"
    )
    parser.add_argument(
        "--resume-from",
        metavar="STAGES",
        help="reuse the saved results of these stages (a,b) and of all stages before them; "
        "run the rest again",
    )
    parser.add_argument(
        "--stale",
        choices=("rerun", "reuse"),
        default="rerun",
        help="with --resume: what to do with results of other code or resources: run the "
        "variants again (rerun, the default) or keep the results (reuse)",
    )
    _add_secrets(parser)
    add_flag(parser, "-d", "--debug", help="stop in a debugger before each step")
    add_flag(parser, "--site", help="serve the Report Site while the run is in progress")


def _add_secrets(parser: argparse.ArgumentParser, default: str = "~/.flambe/secrets.ini") -> None:
    parser.add_argument(
        "-s", "--secrets", metavar="FILE", help=f"an INI file with secrets (default: {default})"
    )


# -- runs on this machine ----------------------------------------------------------------------


def _results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="FOLDER", help="the output folder of a run, or its parent folder"
    )
    parser.add_argument(
        "stage", metavar="STAGE", nargs="?", help="show only this stage (default: all)"
    )
    add_flag(parser, "--all", help="show every variant, not only the best")


def _site(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="the output folder of a run, or its parent folder; or a cluster",
    )
    parser.add_argument("--port", type=int, help="the port (default: 49558, or any if taken)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default: this machine only)"
    )
    parser.add_argument(
        "--name", action="append", metavar="HOST", help="another host name to accept; repeatable"
    )
    add_flag(parser, "--open", help="open a browser")
    parser.add_argument("--certificate", metavar="FILE", help="serve HTTPS with this PEM file ...")
    parser.add_argument("--key", metavar="FILE", help="... and its private key")
    parser.add_argument(
        "--token-file", metavar="FILE", help="read the access token from a file (default: random)"
    )
    parser.add_argument(
        "--tensorboard-port",
        type=int,
        help="start TensorBoard immediately, and serve it at this port",
    )
    _add_secrets(parser, CLUSTER_SECRETS)
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)


# -- clusters ----------------------------------------------------------------------------------


def _cluster(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    parser.add_argument(
        "cluster", metavar="CLUSTER", nargs="?" if optional else None, help=CLUSTER_HELP
    )
    _add_secrets(parser, CLUSTER_SECRETS)


def _add_host(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--host", metavar="HOST", help="orchestrator (the default), factory_1, ..., or an address"
    )


def _logs(parser: argparse.ArgumentParser) -> None:
    _cluster(parser)
    _add_host(parser)
    add_flag(parser, "-f", "--follow", help="show new output until the run ends")


def _exec(parser: argparse.ArgumentParser) -> None:
    _cluster(parser)
    hosts = parser.add_mutually_exclusive_group()
    _add_host(hosts)
    add_flag(hosts, "--all", help="run on every host")
    parser.add_argument("command", metavar="-- CMD", nargs="+", help="the command to run")


def _ssh(parser: argparse.ArgumentParser) -> None:
    _cluster(parser)
    parser.add_argument(
        "host", metavar="HOST", nargs="?", help="the host (default: the orchestrator)"
    )


def _fetch(parser: argparse.ArgumentParser) -> None:
    _cluster(parser)
    parser.add_argument(
        "to", metavar="TO", nargs="?", help="the folder to copy to (default: fetched/CLUSTER)"
    )
    add_flag(parser, "-f", "--follow", help="copy results while the run writes them, until it ends")


def _down(parser: argparse.ArgumentParser) -> None:
    _cluster(parser, optional=True)
    add_flag(parser, "--all", help="take down every cluster used from this machine")
    add_flag(
        parser,
        "-f",
        "--force",
        help="proceed even if a run is in progress, results would be lost, or hosts are "
        "unreachable",
    )


def _aws(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["policy"], help="the IAM policy, as JSON")


def _gc(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--region", action="append", metavar="REGION", help="list this region; repeatable"
    )
    parser.add_argument("--profile", metavar="NAME", help="a profile of the AWS configuration")
    add_flag(parser, "--yes", help="remove what is orphaned")


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=["bash", "zsh"], help="bash or zsh")


COMMANDS: dict[str, Command] = {
    "run": Command(DESCRIPTION, _run, "run:run"),
    "validate": Command(
        "Check a file and show what it would run. Nothing is built.", _validate, "run:validate"
    ),
    "plan": Command(
        "Show what a run would create, send and run. Nothing is changed.", _plan, "run:run"
    ),
    "results": Command(
        "Show the results of a run in tables, and the best variant of a stage: by default, of "
        "the last stage that has a metric.",
        _results,
        "results:show_results",
    ),
    **runs.COMMANDS,
    "site": Command(
        "Open a run in a browser: its stages, variants, curves and logs, live.", _site, "site:site"
    ),
    "status": Command(
        "Show the hosts of a cluster, or of every cluster used from this machine, and what runs "
        "on them.",
        partial(_cluster, optional=True),
        "status:status",
        needs_arguments=False,
    ),
    "logs": Command("Show the output of the run of a cluster.", _logs, "remote_run:logs"),
    "stop": Command(
        "Stop the run of a cluster and every process it started.", _cluster, "remote_run:stop"
    ),
    "exec": Command(
        "Run a command on the hosts of a cluster. A single host also gets standard input.",
        _exec,
        "remote_shell:execute",
    ),
    "ssh": Command("Log in to a host of a cluster.", _ssh, "remote_shell:login"),
    "fetch": Command(
        "Copy the results of a cluster to this machine. An interrupted copy is continued.",
        _fetch,
        "fetch:fetch",
    ),
    "down": Command(
        "Take a cluster down: remove its keys, the processes it started, and the hosts it created.",
        _down,
        "down:down",
    ),
    "gc": Command(
        "List what flambe has on AWS, by its tags, for every cluster and creator. With --yes, "
        "remove what is orphaned: instances that were never ready or have lost their orchestrator, "
        "volumes without an instance, and alarms of instances that are gone.",
        _gc,
        "aws:collect",
        needs_arguments=False,
    ),
    "aws": Command(
        "Print the IAM policy with the fewest permissions that AWSCluster needs.", _aws, "aws:aws"
    ),
    "completion": Command(
        "Print a shell completion script. For bash: flambe completion bash > "
        "~/.local/share/bash-completion/completions/flambe. For zsh: flambe completion zsh > "
        "DIRECTORY/_flambe, with a DIRECTORY in $fpath.",
        _completion,
        "main:print_completion",
    ),
}
_USAGES = {
    "run": USAGE,
    "exec": "flambe exec CLUSTER [--host HOST | --all] -- CMD [ARGUMENT ...]",
}


def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    command, is_run = COMMANDS[name], name == "run"
    parser = argparse.ArgumentParser(
        prog="flambe" if is_run else f"flambe {name}",
        usage=_USAGES.get(name),
        description=command.description,
        epilog=EPILOG if is_run else None,
        formatter_class=argparse.RawDescriptionHelpFormatter if is_run else argparse.HelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    if is_run:
        parser.add_argument("--version", action="version", version=f"flambe {__version__}")
    add_flag(parser, "-v", "--verbose", help="show all messages and full tracebacks")
    return parser

"""The arguments of the commands about runs."""

from __future__ import annotations

import argparse

from flambe.cli.command import Command, add_flag

RUN_HELP = "a run: its output folder, or its name below flambe-output or fetched"


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)


def _add_json(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "--json", help="print JSON, for programs")


def _ls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        default=".",
        help="where to look: in it, and in its flambe-output and fetched (default: here)",
    )
    add_flag(parser, "--stale", help="list results that are kept, and belong to their runs no more")
    _add_json(parser)


def _show(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument(
        "filter",
        metavar="FILTER",
        nargs="*",
        help="show only variants that match, as on the Report Site: 'lr=0.01' 'best>0.9' "
        "state=failed, or any text",
    )
    parser.add_argument("--stage", metavar="STAGE", help="show only this stage (default: all)")
    parser.add_argument(
        "--sort",
        metavar="COLUMN",
        help="sort by a column: figures from the largest, text from A (default: the best first)",
    )
    add_flag(parser, "-r", "--reverse", help="with --sort: the other way round")
    parser.add_argument(
        "--columns", metavar="NAMES", help="show these columns (a,b), in this order"
    )
    parser.add_argument(
        "-n", "--limit", type=int, default=50, metavar="N", help="show N variants of a stage (50)"
    )
    add_flag(parser, "--all", help="show every variant")
    _add_json(parser)


def _compare(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("others", metavar="OTHER", nargs="*", help="the runs to compare it with")
    add_flag(parser, "--all", help="show all differences and all variants")
    _add_json(parser)


def _export(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument(
        "filter", metavar="FILTER", nargs="*", help="only variants that match, as for flambe show"
    )
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument(
        "--csv", metavar="FILE", nargs="?", const="", help="write CSV (default: print it)"
    )
    formats.add_argument(
        "--parquet",
        metavar="FILE",
        nargs="?",
        const="",
        help="write Parquet (default: RUN.parquet)",
    )
    parser.add_argument("--stage", metavar="STAGE", help="only this stage (default: all)")
    add_flag(
        parser, "--steps", help="every figure that was logged, step by step, instead of variants"
    )


def _rerun(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument(
        "--name", metavar="NAME", help="the name of the new run (default: RUN-rerun)"
    )
    add_flag(parser, "-y", "--yes", help="run it even if code, packages or data have changed")
    add_flag(parser, "--dry-run", help="show what has changed; run nothing")
    add_flag(parser, "--patch", help="print the changes since the commits, as git apply takes them")
    add_flag(parser, "--resume", help="continue the latest rerun, which was interrupted")
    parser.add_argument(
        "-c", "--cluster", metavar="CLUSTER", help="run on a cluster: its file, or its name"
    )
    parser.add_argument(
        "-s",
        "--secrets",
        metavar="FILE",
        help="an INI file with secrets (default: ~/.flambe/secrets.ini)",
    )


def _clean(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument(
        "--only",
        metavar="KINDS",
        help="of what can be removed, only: dropped, earlier, part, aside (a,b; default: all)",
    )
    add_flag(parser, "-y", "--yes", help="remove it without asking")
    add_flag(parser, "--dry-run", help="show what would be removed; remove nothing")
    add_flag(parser, "--json", help="print what would be removed as JSON; remove nothing")
    parser.add_argument(
        "-s", "--secrets", metavar="FILE", help="an INI file with the credentials of a bucket"
    )


COMMANDS: dict[str, Command] = {
    "ls": Command(
        "List runs: how they stand, when they ran, and the best variant of each.",
        _ls,
        "runs.listing:list_runs",
        needs_arguments=False,
    ),
    "show": Command(
        "Show the variants of a run in tables. They can be filtered, sorted, and printed as JSON.",
        _show,
        "runs.show:show",
    ),
    "compare": Command(
        "Show what differs between runs: configuration, code, packages, and figures side by side.",
        _compare,
        "runs.compare:compare",
    ),
    "export": Command(
        "Write the variants of a run, or every figure that they logged, as CSV or Parquet.",
        _export,
        "runs.export:export",
    ),
    "rerun": Command(
        "Run the very configuration of a run again, into a new folder. What differs from then in "
        "code, packages and data is shown first.",
        _rerun,
        "runs.rerun:rerun",
    ),
    "clean": Command(
        "Show how much room a run takes, by stage, and remove checkpoints that nothing builds on: "
        "of variants that reduce dropped, of earlier configurations and of earlier runs. Asks "
        "first.",
        _clean,
        "runs.clean:clean",
    ),
}

"""``flambe rerun``: the very configuration of a run again, after its code was compared."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from flambe.cli.arguments import RunOptions
from flambe.cli.exit_handling import print_message
from flambe.cli.runs.compare import changed_files, configuration_text
from flambe.cli.runs.selection import run_name, select_run, wide_console
from flambe.errors import ConfigError, Problem, counted
from flambe.logging.redact import MASK
from flambe.progress import (
    Invocation,
    Repository,
    RunRecord,
    choices_text,
    read_invocations,
    read_lines,
    run_folders,
)

if TYPE_CHECKING:  # imported when a run is made again
    from flambe.compile.reader.source import Document

_REREAD = re.compile(r"!(include|env)\b")
MOST_PACKAGES = 10  # that a difference names


@dataclass(frozen=True)
class RerunOptions:
    """The options of ``flambe rerun``."""

    run: str
    name: str | None = None
    yes: bool = False
    dry_run: bool = False
    patch: bool = False
    resume: bool = False
    cluster: str | None = None
    secrets: str | None = None
    verbose: bool = False


def rerun(options: RerunOptions) -> int:
    """Run the very configuration of a run again, under another name."""
    record = select_run(options.run, "rerun")
    starts = read_invocations(record.folder.invocations)
    start = starts[-1] if starts else None
    if options.patch:
        return _print_patches(record, start)
    name = options.name or _new_name(record, resume=options.resume)
    document = _read(record, start, name)
    differences = list(_differences(record, start, document))
    _print_differences(record, differences)
    if options.dry_run:
        return 0
    if differences and not options.yes:
        _ask(record)
    print_message(f"running {record.run.name} again as {name}")
    return _run(document, options)


def _run(document: Document, options: RerunOptions) -> int:
    from flambe.cli.run import run_document

    return run_document(
        document,
        RunOptions(
            document.source.name,
            cluster=options.cluster,
            secrets=options.secrets,
            resume=options.resume,
            verbose=options.verbose,
        ),
    )


def _new_name(record: RunRecord, *, resume: bool) -> str:
    """Return the name of the new run; to resume, that of the latest one."""
    base = f"{record.run.name}-rerun"
    taken = {run_name(folder) for folder in run_folders(record.folder.root.absolute().parent)}
    names = [base, *(f"{base}-{number}" for number in range(2, len(taken) + 3))]
    used = [name for name in names if name in taken]
    if resume and used:
        return used[-1]
    return next(name for name in names if name not in taken)


# -- the configuration --------------------------------------------------------------------------


def _read(record: RunRecord, start: Invocation | None, name: str) -> Document:
    """Read the configuration of a run.

    The text as it was written, where it says everything; else, as it was resolved.

    Raises
    ------
    ConfigError
        If it was not recorded, or cannot be read any more.
    """
    from flambe.cli.run import check_document
    from flambe.compile.reader.document import read_text

    text, overrides = _text(record, start)
    file = Path(start.file) if start is not None and start.file else Path()
    folder = file.parent if file.parent.is_dir() and file != Path() else Path.cwd()
    # Where it is the file that the run kept, errors name that.
    source = str(record.folder.config) if text == _kept(record) else f"<{record.run.name}>"
    return check_document(
        read_text(text, source, str(folder), overrides=[*overrides, f"name={name}"])
    )


def _text(record: RunRecord, start: Invocation | None) -> tuple[str, list[str]]:
    written = configuration_text(record, None) if start is None else start.config
    overrides = start.overrides if start is not None else []
    earlier = [each for each in overrides if not each.startswith("name=")]
    if written and not _REREAD.search(" ".join([written, *earlier])):
        return written, earlier
    resolved = start.resolved if start is not None else ""
    if resolved and MASK not in resolved:
        return resolved, []
    if written:  # what was masked is read again
        return written, earlier
    text = f"the configuration of {record.run.name} was not recorded"
    raise ConfigError(Problem(text, hint="it was made in Python: run that again"))


def _kept(record: RunRecord) -> str:
    try:
        return record.folder.config.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return ""


# -- what differs -------------------------------------------------------------------------------


def _differences(
    record: RunRecord, start: Invocation | None, document: Document
) -> Iterator[tuple[str, str]]:
    """Yield what is not as it was: what it is, and what helps."""
    if start is None or not start.complete:
        yield "its code and packages were not recorded", ""
    if start is not None:
        here = _start_here(document)
        for title, before, now in (
            ("flambe", start.flambe, here.flambe),
            ("Python", start.python, here.python),
        ):
            if before and before != now:
                yield f"{title}: {before}, now {now}", ""
        yield from _package_differences(start.packages)
        yield from _repository_differences(start.repositories, here.repositories)
    for changes, count in _stale_results(record, document).items():
        yield f"{counted(count, 'variant')}: {changes}", ""


def _start_here(document: Document) -> Invocation:
    """Return what a run of the document would record here, but for its packages."""
    from flambe.packaging.provenance import Source, collect, describe_start

    kept = document.source.name
    source = Source(
        kept if os.path.isfile(kept) else "",
        folder=document.source.folder,
        extensions=tuple(document.extensions),
    )
    here = describe_start(source)
    collect(here, source, machine=False)
    return here


def _package_differences(recorded: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    changed, commands = [], []
    for name, version in recorded.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = "not installed"
        # A label such as +cpu names a build of the same version.
        if installed.partition("+")[0] != version.partition("+")[0]:
            changed.append(f"{name} {version}, now {installed}")
            commands.append(f"'{name}=={version}'")
    if changed:
        more = f", and {len(changed) - MOST_PACKAGES} more" if len(changed) > MOST_PACKAGES else ""
        hint = f"pip install {' '.join(commands[:MOST_PACKAGES])}"
        yield f"packages: {'; '.join(changed[:MOST_PACKAGES])}{more}", "" if more else hint


def _repository_differences(
    before: list[Repository], here: list[Repository]
) -> Iterator[tuple[str, str]]:
    now = {repository.folder: repository for repository in here}
    for repository in before:
        name = Path(repository.folder).name
        other = now.get(repository.folder)
        if other is None:
            yield f"{name}: the repository {repository.folder} is not used here", ""
            continue
        if repository.commit != other.commit:
            hint = f"git -C {repository.folder} checkout {repository.commit[:12]}"
            yield f"{name}: commit {repository.commit[:12]}, now {other.commit[:12]}", hint
        old, new = changed_files(repository), changed_files(other)
        files = [file for file in dict.fromkeys([*old, *new]) if old.get(file) != new.get(file)]
        if files:
            more = f" and {len(files) - 5} more" if len(files) > 5 else ""
            hint = "flambe rerun RUN --patch   prints the changes of that time"
            yield f"{name}: other changes in {', '.join(files[:5])}{more}", hint


def _stale_results(record: RunRecord, document: Document) -> Mapping[str, int]:
    """Return why results of the run would not be used again: how code and data have changed."""
    from flambe.compile.build import outlined
    from flambe.experiment.experiment import Experiment
    from flambe.experiment.planning.decisions import Action
    from flambe.experiment.planning.earlier import EarlierRuns
    from flambe.experiment.planning.plan import make_plan
    from flambe.experiment.variants.lineage import EarlierResults
    from flambe.experiment.variants.recognition import read_record

    experiment = outlined(document.root)
    if not isinstance(experiment, Experiment):
        return {}
    results = EarlierResults.read(read_lines(record.folder.variants))
    earlier = EarlierRuns(results, read_record(record.folder))
    plan = make_plan(experiment.spec(), earlier)
    done = {
        (row.variant.stage, choices_text(row.variant.choices))
        for row in record.rows()
        if row.variant.status.done
    }
    return Counter(
        decision.reason
        for stage in plan.stages
        for decision in stage.decided.decisions
        if decision.action is Action.RUN and (stage.stage.stage, decision.variant) in done
    )


def _print_differences(record: RunRecord, differences: list[tuple[str, str]]) -> None:
    if not differences:
        print_message(f"{record.run.name}: the code, the packages and the data are the same")
        return
    print_message(f"{record.run.name} was made differently:")
    for text, hint in differences:
        print_message(f"  {text}")
        if hint:
            print_message(f"      {hint}")


def _ask(record: RunRecord) -> None:
    """Ask whether to run anyway.

    Raises
    ------
    ConfigError
        If the answer is no, or nobody can be asked.
    """
    if not sys.stdin.isatty():
        text = f"{record.run.name} would not be run as it was"
        raise ConfigError(Problem(text, hint="--yes runs it anyway"))
    answer = input("run it anyway? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigError("not run")


def _print_patches(record: RunRecord, start: Invocation | None) -> int:
    """Print the changes of the repositories since their commits, as git apply takes them."""
    repositories = [each for each in (start.repositories if start is not None else []) if each.diff]
    if not repositories:
        raise ConfigError(f"no changes since a commit were recorded with {record.run.name}")
    screen = wide_console()
    for repository in repositories:
        screen.out(f"# {repository.folder}, changes since {repository.commit}", highlight=False)
        screen.out(repository.diff, end="", highlight=False)
    return 0

"""``flambe clean``: how much room a run takes, and checkpoints that nothing builds on removed."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from flambe.cli.exit_handling import print_message
from flambe.cli.runs.selection import (
    parse_names,
    plain_table,
    print_json,
    print_table,
    run_name,
    select_run,
    wide_console,
)
from flambe.errors import ConfigError, Problem, RunError, counted
from flambe.progress import RunFolder, RunRecord, Status, is_alive, run_folders

if TYPE_CHECKING:  # imported when a run is cleaned: they import pyarrow
    from flambe.experiment.storage.checkpoints import Checkpoints
    from flambe.experiment.storage.disk_use import DiskUse

ASIDE = "aside"
#: What can be removed → what it is, and what is lost with it.
KINDS = {
    "dropped": ("checkpoints of variants that reduce dropped", "--resume would run these again"),
    "earlier": (
        "checkpoints of earlier configurations and of results that --resume-from replaced",
        "going back to such a configuration would run its variants again",
    ),
    "part": ("checkpoints that were never completed", "nothing reads them"),
    ASIDE: ("runs that --force moved aside", "all that is left of them"),
}


@dataclass(frozen=True)
class CleanOptions:
    """The options of ``flambe clean``."""

    run: str
    only: str | None = None
    yes: bool = False
    dry_run: bool = False
    json: bool = False
    secrets: str | None = None


@dataclass(frozen=True)
class Removable:
    """Something that can be removed.

    Attributes
    ----------
    kind
        Of :data:`KINDS`.
    path
        What is removed, for people.
    stage
        The stage; empty for a whole run.
    size
        In bytes.
    remove
        Removes it.
    """

    kind: str
    path: str
    stage: str
    size: int
    remove: Callable[[], None]


def clean(options: CleanOptions) -> int:
    """Show how much room a run takes, and remove what nothing builds on."""
    from flambe.experiment.storage.disk_use import measure
    from flambe.experiment.storage.folder_lock import FolderLock

    record = select_run(options.run, "clean")
    kinds = parse_names(options.only, KINDS, "--only") if options.only else list(KINDS)
    if record.run.status is Status.RUNNING and is_alive(record.run):
        hint = "wait for it, or stop it"
        raise ConfigError(Problem(f"the run {record.run.name} is in progress", hint=hint))
    with FolderLock(record.folder.root, print_message):
        bucket = _bucket(record, options.secrets or "")
        use = measure(record.folder, bucket, record.variants.values())
        removable = [each for each in _removable(record, use, bucket) if each.kind in kinds]
        if options.json:
            print_json(_document(use, removable))
            return 0
        _print(record, use, removable)
        if options.dry_run or not removable:
            return 0
        if not options.yes:
            _ask()
        return _remove(removable)


def _bucket(record: RunRecord, secrets: str) -> Checkpoints | None:
    """Return the checkpoints of a run in a bucket; None where they are in its folder."""
    from flambe.experiment.storage.checkpoint_storage import Storage

    if not record.run.storage:
        return None
    storage = Storage(str(record.folder.root), url=record.run.storage, secrets=secrets)
    try:
        return storage.checkpoints()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{record.run.storage} cannot be reached: {error}") from None


def _removable(record: RunRecord, use: DiskUse, bucket: Checkpoints | None) -> Iterator[Removable]:
    from flambe.experiment.storage.checkpoints import Checkpoints

    local = Checkpoints(str(record.folder.root))
    for stored in use.checkpoints:
        if stored.purpose.value in KINDS:
            in_bucket = bucket is not None and stored.path.startswith(f"{bucket.root}/")
            source = bucket if in_bucket and bucket is not None else local
            yield Removable(
                stored.purpose.value,
                stored.path,
                stored.stage,
                stored.size,
                partial(source.remove, stored.path),
            )
    for folder in _moved_aside(record):
        root = folder.root
        yield Removable(ASIDE, str(root), "", _folder_size(root), partial(shutil.rmtree, root))


def _moved_aside(record: RunRecord) -> list[RunFolder]:
    """Return what ``--force`` moved aside of a run: beside it, with a time behind its name."""
    root = record.folder.root.absolute()
    aside = re.compile(rf"{re.escape(run_name(record.folder))}\.\d{{8}}-\d{{6}}(-\d+)?")
    return [
        folder
        for folder in run_folders(root.parent)
        if aside.fullmatch(run_name(folder)) and not folder.root.is_symlink()
    ]


def _folder_size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _remove(removable: Sequence[Removable]) -> int:
    """Remove things, one after the other; where one fails, the others are removed all the same."""
    freed, problems = 0, []
    for each in removable:
        try:
            each.remove()
            freed += each.size
        except OSError as error:
            problems.append(f"{each.path}: {error.strerror or error}")
    print(f"freed {size_text(freed)}")
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems[:10])
        raise RunError(f"{counted(len(problems), 'folder')} could not be removed:{lines}")
    return 0


def _ask() -> None:
    """Ask whether to remove.

    Raises
    ------
    ConfigError
        If the answer is no, or nobody can be asked.
    """
    if not sys.stdin.isatty():
        raise ConfigError(Problem("nothing was removed", hint="--yes removes it without asking"))
    if input("remove it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was removed")


# -- output -----------------------------------------------------------------------------------


def _document(use: DiskUse, removable: Sequence[Removable]) -> dict[str, object]:
    stages = _stages(use)
    return {
        "bytes": use.total,
        "stages": {
            name: {"checkpoints": use.size(name), "other": use.other.get(name, 0)}
            for name in stages
        },
        "removable": [
            {"kind": each.kind, "path": each.path, "stage": each.stage, "bytes": each.size}
            for each in removable
        ],
    }


def _stages(use: DiskUse) -> list[str]:
    names = [*(stored.stage for stored in use.checkpoints), *filter(None, use.other)]
    return list(dict.fromkeys(names))


def _print(record: RunRecord, use: DiskUse, removable: Sequence[Removable]) -> None:
    screen = wide_console()
    kinds = [kind for kind in KINDS if any(each.kind == kind for each in removable)]
    own = [kind for kind in kinds if kind != ASIDE]
    table = plain_table()
    for name in ("stage", "checkpoints", *own, "logs and figures"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    order = [stage.name for stage in record.run.stages]
    for name in sorted(_stages(use), key=lambda n: order.index(n) if n in order else len(order)):
        sizes = [_total(removable, {kind}, name) for kind in own]
        table.add_row(
            name,
            size_text(use.size(name)),
            *(Text(size_text(size), "yellow") for size in sizes),
            size_text(use.other.get(name, 0)),
        )
    table.add_row(
        Text("all", "bold"),
        size_text(use.size()),
        *(Text(size_text(_total(removable, {kind})), "yellow") for kind in own),
        size_text(sum(use.other.values())),
    )
    print_table(screen, table)
    if not removable:
        screen.print("there is nothing to remove", style="dim")
        return
    screen.print()
    for kind in kinds:
        title, loss = KINDS[kind]
        items = [each for each in removable if each.kind == kind]
        size = size_text(_total(items, {kind}))
        text = Text.assemble((f"{size}  ", "bold"), f"{len(items)} × {title}: ", (loss, "yellow"))
        screen.print(text, soft_wrap=True)
    screen.print(f"{size_text(_total(removable, set(kinds)))} in all", soft_wrap=True)


def _total(removable: Sequence[Removable], kinds: Collection[str], stage: str | None = None) -> int:
    return sum(e.size for e in removable if e.kind in kinds and stage in (None, e.stage))


def size_text(size: float) -> str:
    """Return a number of bytes for people: ``512 B``, ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"

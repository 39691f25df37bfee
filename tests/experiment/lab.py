"""Where experiments of tests are run: a folder, a YAML text, and what became of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flambe._hints import use_command
from flambe.cli.main import main
from flambe.compile.checks.calls import check
from flambe.compile.reader.document import read_file
from flambe.errors import FlambeError
from flambe.experiment.executors.base import Executor
from flambe.experiment.executors.inline import InlineExecutor
from flambe.progress import RunFolder, RunState, Status, VariantState, read_lines

EXTENSIONS = Path(__file__).parent / "ext"
HEADER = "pieces: ./pieces\n---\n"


class Watcher:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []
        self.notes: list[str] = []
        self.states: list[tuple[str, str]] = []
        self.calls: list[str] = []
        self.run: RunState | None = None
        self.on_line: Callable[[str], None] = lambda text: None

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        self.calls.append("begun")
        self.run = run

    def changed(self) -> None:
        if self.calls[-1] != "changed":
            self.calls.append("changed")

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        self.lines.append((variant.name if variant else "", level, text))
        self.on_line(text)

    def working(self, variant: VariantState | None, text: str) -> None:
        self.states.append((variant.name if variant else "", text))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def ended(self) -> None:
        self.calls.append("ended")


@dataclass
class Outcome:
    """What a run left."""

    folder: RunFolder
    error: FlambeError | None
    watcher: Watcher

    @property
    def state(self) -> RunState:
        state = self.folder.read_state()
        assert state is not None
        return state

    @property
    def variants(self) -> list[VariantState]:
        return list(self.folder.read_variants().values())

    def of(self, stage: str) -> list[VariantState]:
        return [variant for variant in self.variants if variant.stage == stage]

    def statuses(self, stage: str) -> list[Status]:
        return [variant.status for variant in self.of(stage)]

    def metrics(self, stage: str) -> list[float | None]:
        return [variant.metric for variant in self.of(stage)]

    def figures(self, variant: VariantState, tag: str) -> list[tuple[int, Any]]:
        path = self.folder.variant(variant.stage, variant.name) / "metrics.jsonl"
        return [
            (entry["step"], entry["value"]) for entry in read_lines(path) if entry["tag"] == tag
        ]

    def raised(self) -> FlambeError:
        assert self.error is not None, "the run did not fail"
        return self.error

    def fine(self) -> Outcome:
        if self.error is not None:
            raise self.error
        return self


class Lab:
    """A folder with a configuration in it, and ways to run it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.record = root / "record.txt"
        self.name = "trial"

    def write(self, pipeline: str, *, more: str = "", seed: int = 0) -> Path:
        """Write an experiment; RECORD in it stands for the file of records."""
        body = textwrap.dedent(pipeline).strip("\n")
        text = (
            f"{HEADER}!Experiment\nname: {self.name}\nseed: {seed}\n"
            f"save_path: {self.root / 'out'}\n{textwrap.dedent(more)}\n"
            f"pipeline:\n{textwrap.indent(body, '  ')}\n"
        )
        self.config.write_text(text.replace("RECORD", str(self.record)), encoding="utf-8")
        return self.config

    def records(self) -> list[str]:
        """Return what the components wrote down."""
        return self.record.read_text(encoding="utf-8").splitlines() if self.record.exists() else []

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.root / "out" / f"output__{self.name}")

    def experiment(self) -> Any:
        document = read_file(self.config)
        check(document)
        document.raise_problems()
        return document.root()

    def run(
        self,
        pipeline: str | None = None,
        *,
        more: str = "",
        seed: int = 0,
        executor: Callable[[Path], Executor] | None = InlineExecutor,
        **options: Any,
    ) -> Outcome:
        """Run an experiment in this process; a FlambeError is kept, any other is raised."""
        if pipeline is not None:
            self.write(pipeline, more=more, seed=seed)
        use_command()  # messages are those of the command
        watcher = Watcher()
        error: FlambeError | None = None
        try:
            self.experiment().run(observer=watcher, executor=executor, **options)
        except FlambeError as raised:
            error = raised
        return Outcome(self.folder, error, watcher)


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a ``flambe`` that finds the extension of the tests."""
    paths = [str(EXTENSIONS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "120", **more}


COMMAND = "import sys; from flambe.cli.main import main; sys.exit(main(sys.argv[1:]))"


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of ``flambe`` with this Python."""
    return [sys.executable, "-c", COMMAND, *map(str, arguments)]


def flambe(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    settings: dict[str, Any] = {"env": environment(), "timeout": 180, "stdin": subprocess.DEVNULL}
    settings.update(options)
    return subprocess.run(
        command(*arguments), text=True, capture_output=True, check=False, **settings
    )


def flambe_here(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process: quick, for what runs no experiment."""
    output, errors = io.StringIO(), io.StringIO()
    argv = list(map(str, arguments))
    with (
        patch.dict(os.environ, {"COLUMNS": "120", **variables}),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        code = main(argv)
    return subprocess.CompletedProcess(argv, code, output.getvalue(), errors.getvalue())


def until(condition: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    """Wait until a condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def processes_with(mark: str) -> dict[int, str]:
    """Return the processes whose environment holds a text: pid → command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if line:  # a zombie has none
                        found[int(entry.name)] = line
            except OSError:
                continue
    return found


def kill_all(mark: str) -> None:
    """Kill every process that carries a mark in its environment: those that a test started."""
    for pid in processes_with(mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file, each of which must be whole."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)

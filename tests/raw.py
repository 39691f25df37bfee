"""What no person may get to see: words of Ray, rsync and Python that only flambe's authors know.

Each test that is marked ``faults`` fails if a ``flambe`` that it ran printed some, or if a log that
is shown to a person holds some. What ``subprocess`` runs to its end is noted by itself.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

WORDS = re.compile(
    r"""
      \b[\w/]+\.cc:\d+                          # Ray's C++
    | \b(Actor\w*|RayActor|RayTask|RaySystem|WorkerCrashed|ObjectLost|OwnerDied|NodeDied|RayletDied)Error\b
    | \bray\.exceptions\b
    | A\ worker\ died\ or\ was\ killed
    | Raylet\ is\ terminated
    | likely\ discovered\ a\ bug\ in\ Ray
    | \bJSONDecodeError\b
    | \brsync(\ error)?:\ | \(code\ \d+\)\ at\ \w+\.c\b | exit\ code\ \d+:\ rsync
    | \[Errno\ \d+\]
    | (invalid\ literal\ for|missing\ \d+\ required)
    """,
    re.VERBOSE,
)
TRACEBACK = re.compile(r"Traceback \(most recent call last\)|Stack \(most recent call")
FRAME = re.compile(r'File "([^"]+)", line \d+')
# Errors of components are shown with what leads to them.
COMPONENTS = re.compile(r"/(crops|pieces|ext|shipped|site)\b|<string>")
LOGS = ("run.log", "variant.log", "setup.log")


class Outputs:
    """What one test had ``flambe`` say, and where the logs are that it wrote."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, Callable[[], str]]] = []
        self.folders: list[tuple[str, Callable[[], Path]]] = []
        self.begun = 0.0

    def begin(self) -> None:
        """Forget what was said before; folders outlive a test."""
        self.texts.clear()
        self.begun = time.time()

    def note(self, source: str, text: Callable[[], str]) -> None:
        """Remember what is said, which may still grow."""
        self.texts.append((source, text))

    def watch(self, source: str, folder: Callable[[], Path]) -> None:
        """Remember where logs are."""
        self.folders.append((source, folder))

    def findings(self) -> list[str]:
        """Return each raw line, after what said it."""
        texts = [(source, text()) for source, text in self.texts]
        for source, folder in self.folders:
            with contextlib.suppress(Exception):  # the host may be gone
                texts += [(f"{source}: {path}", read(path)) for path in self._logs(folder())]
        return [f"{source}: {line}" for source, text in texts for line in raw_lines(text)]

    def _logs(self, folder: Path) -> Iterator[Path]:
        for name in LOGS:
            for path in folder.rglob(name):
                if path.stat().st_mtime >= self.begun:
                    yield path


OUTPUTS = Outputs()


def read(path: Path) -> str:
    """Return the beginning of a log."""
    with path.open(errors="replace") as file:
        return file.read(10_000_000)


def raw_lines(text: str) -> Iterator[str]:
    """Yield the lines of a text that nobody should see."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if WORDS.search(line) or (TRACEBACK.search(line) and not of_a_component(lines[number:])):
            yield line.strip()


def of_a_component(lines: Iterable[str]) -> bool:
    """Whether a traceback ends in the code of a component."""
    last = ""
    for number, line in enumerate(lines):
        if number and (TRACEBACK.search(line) or number > 200):
            break
        if match := FRAME.search(line):
            last = match[1]
        elif last and not re.match(r"\W*\s{2,}|\W*$", line):
            break
    return bool(COMPONENTS.search(last))


def is_flambe(words: Sequence[str]) -> bool:
    """Whether a command line is that of ``flambe``, or of a program that calls it."""
    program = Path(words[0]).name
    return program == "flambe" or (
        program.startswith("python") and any("flambe" in word for word in words[1:3])
    )


def noted(communicate: Callable[..., Any]) -> Callable[..., Any]:
    """Return what notes what a ``flambe`` said when it ends, too."""

    def note(self: subprocess.Popen[Any], *arguments: Any, **more: Any) -> Any:
        streams = communicate(self, *arguments, **more)
        argv = self.args if isinstance(self.args, (list, tuple)) else [self.args]
        words = [str(word) for word in argv]
        if is_flambe(words):
            texts = [
                s.decode(errors="replace") if isinstance(s, bytes) else s or "" for s in streams
            ]
            source = " ".join(["flambe", *words[3:]])
            OUTPUTS.note(source, lambda: "\n".join(texts))
        return streams

    return note


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test of faults that had flambe say something raw."""
    OUTPUTS.begin()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "communicate", noted(subprocess.Popen.communicate))
        yield
    if item.get_closest_marker("faults"):
        findings = list(dict.fromkeys(OUTPUTS.findings()))
        assert not findings, "raw output:\n" + "\n".join(findings[:40])

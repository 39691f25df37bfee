"""What all benchmarks share: rounds that take turns, figures with their spread, tables."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# What tests stand on, real hosts for one, is of use here too.
sys.path.append(str(ROOT))


def rounds(
    runs: Mapping[str, Callable[[], float]], repeats: int, *, warm: bool = True
) -> dict[str, list[float]]:
    """Measure several things in turn, so that a busy moment strikes all of them.

    Parameters
    ----------
    runs
        Name → what measures it once, and returns the figure.
    repeats
        How many rounds are counted.
    warm
        Whether there is one more round before, which is not counted.

    Returns
    -------
    dict
        Name → its figure in each round.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(-1 if warm else 0, repeats):
        # The order turns, so that nothing always follows the same neighbour.
        names = list(runs)
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            figure = runs[name]()
            if number >= 0:
                found[name].append(figure)
    return found


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the ratio in each round: what slows a whole round down cancels out."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 1) -> str:
    """Return ``median (lowest to highest)``."""
    low, middle, high = (
        f"{scale * value:.{digits}f}"
        for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} ({low} to {high})"


def verdict(ratio: float, target: float) -> str:
    """Return a ratio beside the most that it may be."""
    return f"{ratio:.2f}x, target {target:g}x: {'met' if ratio <= target else 'MISSED'}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns: the first to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        first, *others = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def timed(command: Sequence[str], **options: Any) -> tuple[float, str]:
    """Run a command to its end; return the seconds that it took, and what it printed.

    Raises
    ------
    RuntimeError
        If it failed, with what it said.
    """
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return seconds, done.stdout


def took(command: Sequence[str], **options: Any) -> float:
    """Run a command to its end, as :func:`timed` does; return the seconds that it took."""
    return timed(command, **options)[0]


def elsewhere(script: str, *arguments: object, timeout: float = 900) -> dict[str, Any]:
    """Run a script in a fresh Python; return the JSON object on the last line that it prints.

    Raises
    ------
    RuntimeError
        If it failed, with what it said.
    """
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(
            f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return dict(json.loads(lines[-1]))


class Standing:
    """A script in a Python of its own that measures again and again, when it is asked to.

    What takes long to begin is begun once, and what is compared takes turns within seconds. It
    reads a line, does what the line says, and answers with a line of JSON.
    """

    def __init__(self, script: str, *arguments: object, python: str = sys.executable) -> None:
        self.said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [python, script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            cwd=ROOT,
        )

    def ask(self, line: object = "") -> dict[str, Any]:
        """Send a line, unless it is empty; return the answer.

        Raises
        ------
        RuntimeError
            If it ended instead, with what it said.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if line:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        for answer in self.process.stdout:
            if answer.startswith("{"):
                return dict(json.loads(answer))
        self.said.seek(0)
        raise RuntimeError(f"{self.process.args!r} ended:\n{self.said.read()[-4000:]}")

    def close(self) -> None:
        """End it, and wait until it has."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.said.close()


def machine() -> str:
    """Return a line about where the figures come from."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, load {load:.1f}, Python {sys.version.split()[0]}"

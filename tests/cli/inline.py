"""The command with experiments that run in its own process, without Ray: quick, else the same."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WITH_TORCH = """
import sys
from flambe.experiment.executors.inline import InlineExecutor
from flambe.experiment.run import Run
Run._default_executor = lambda self, root: InlineExecutor(root)
from flambe.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
# Most tests need no torch, and each command would import it for a second.
COMMAND = f"import sys; sys.modules['torch'] = None\n{WITH_TORCH}"
EXTENSION = '''
import sys, time
from flambe.compile import Component

class Says(Component):
    """Prints a text; what it is called is its hyper-parameter."""
    def __init__(self, text="", metric=1.0, steps=1, wait=0.0, fails=False, other=None):
        self.text, self.value, self.steps, self.wait = text, metric, steps, wait
        self.fails, self.done = fails, 0
        self.register_attrs("done")
    def run(self):
        self.done += 1
        print(self.text)
        time.sleep(self.wait)
        if self.fails:
            raise ValueError(f"no luck with {self.text}")
        return self.done < self.steps
    def metric(self):
        return self.value
'''


def write(folder: Path, pipeline: str, more: str = "", name: str = "shown") -> Path:
    """Write an experiment, and the extension ``says`` that it uses."""
    (folder / "says.py").write_text(EXTENSION, encoding="utf-8")
    path = folder / f"{name}.yaml"
    path.write_text(
        f"says: ./says.py\n---\n!Experiment\nname: {name}\n{more}\npipeline:\n{pipeline}\n",
        encoding="utf-8",
    )
    return path


def command(*arguments: str | Path) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-c", COMMAND, *map(str, arguments)]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment: extensions in the folder are found."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "120", **more}


def flambe(folder: Path, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder to its end; its output is bytes of UTF-8, or else escaped."""
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(folder, **more), capture_output=True,
        text=True, errors="backslashreplace", timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, folder: Path, *arguments: str | Path, **more: str) -> None:
        self.drawn = b""
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:  # the child
            os.chdir(folder)
            line = command(*arguments)
            variables = environment(folder, **{"TERM": "xterm", "COLUMNS": "100", **more})
            os.execve(line[0], line, variables)

    def read(self, until: Callable[[str], bool] = lambda drawn: False, seconds: float = 60) -> str:
        """Read what is drawn until that is enough, or the command ends."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not until(self.text):
            ready, _, _ = select.select([self._descriptor], [], [], 0.1)
            try:
                part = os.read(self._descriptor, 65536) if ready else b" "
            except OSError:  # the other end was closed
                break
            self.drawn += part if ready else b""
        return self.text

    @property
    def text(self) -> str:
        """What was drawn until now."""
        return self.drawn.decode(errors="replace")

    def hang_up(self) -> None:
        """Close the terminal: the kernel sends SIGHUP."""
        os.close(self._descriptor)

    def code(self) -> int:
        """Return the exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def state(folder: Path, name: str = "shown") -> Any:
    """Return the state of a run."""
    from flambe.progress import RunFolder

    return RunFolder(folder / "flambe-output" / f"output__{name}").read_state()

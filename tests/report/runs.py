"""Runs of flambe for browsers to look at: as the command makes them, without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from flambe.progress import RunFolder, RunState
from tests.experiment.lab import Lab, environment, until

ROOT = Path(__file__).parents[2]

FINISHED = """
model: !pieces.Weights {size: 3}
train: !pieces.Curve {height: !g [0.1, 0.2, 0.4, 0.8], bonus: !g [0.01, 0.02, 0.03], steps: 6}
talk: !pieces.Talker {name: !g [ann, bob], steps: 3}
tune: !pieces.Tuning {model: !@ model, amount: !g [1.0e-8, 1.0], steps: 2}
judge: !pieces.Fixed {value: !@ train.height, other: !@ tune}
"""
RUNNING = """
walk: !pieces.Walk {rate: !g [1.0, 2.0], steps: 4000, delay: 0.25}
after: !pieces.Fixed {value: !@ walk.rate}
"""
FAILED = """
train: !pieces.Failing {at: 2, rate: !g [1.0, 2.0], only: 1.0, record: RECORD}
"""
RUN = """
import sys
from pathlib import Path
from flambe.cli.display import display
from flambe.errors import FlambeError
from flambe.experiment.executors.inline import InlineExecutor
from tests.experiment.lab import Lab
try:
    Lab(Path(sys.argv[1])).experiment().run(
        observer=display(), executor=InlineExecutor, force="--force" in sys.argv)
except FlambeError as error:
    sys.exit(str(error))
"""


class Runs:
    """Runs in a folder, by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, name: str, pipeline: str, *options: str, more: str = ""
    ) -> tuple[RunFolder, subprocess.Popen[bytes]]:
        """Start a run; it is of no harm that several run at once."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        lab = Lab(folder)
        lab.name = name
        lab.record.touch()
        lab.write(pipeline, more=more)
        path = os.pathsep.join([str(ROOT), environment()["PYTHONPATH"]])
        with open(folder / "said.txt", "wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", RUN, str(folder), *options],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**environment(), "PYTHONPATH": path},
            )
        self.processes.append(process)
        return lab.folder, process

    def finished(self, name: str, pipeline: str, *options: str, more: str = "") -> RunFolder:
        """Run to the end."""
        folder, process = self.start(name, pipeline, *options, more=more)
        process.wait(120)
        assert folder.state.exists(), (folder.root.parents[1] / "said.txt").read_text()
        return folder

    def close(self) -> None:
        """End what still runs."""
        for process in self.processes:
            process.kill()
            process.wait()


def state_where(folder: RunFolder, condition: Callable[[RunState], bool]) -> RunState:
    """Wait for a state of a run."""

    def found() -> RunState | None:
        state = folder.read_state()
        return state if state is not None and condition(state) else None

    state: RunState = until(found, "a state of the run")
    return state

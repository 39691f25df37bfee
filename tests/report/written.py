"""Runs as flambe writes them, written by what writes them, step by step."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from flambe.experiment.journal import Journal
from flambe.experiment.observer import LogObserver
from flambe.experiment.variants.expansion import Variant
from flambe.logging.events import Record
from flambe.logging.recorder import Recorder
from flambe.progress import RunFolder, RunState, StageState, Status, better


class Written:
    """A run that a test writes; its files are closed when the test is over."""

    made: ClassVar[list[Written]] = []

    def __init__(
        self, root: Path, stages: Sequence[StageState] = (), *, name: str = "trial", pid: int = 0
    ) -> None:
        self.folder = RunFolder(root)
        root.mkdir(parents=True, exist_ok=True)
        stages = list(stages) or [StageState("train", "Walk", total=3)]
        run = RunState(
            name,
            version="1.0",
            command=["flambe", "config.yaml"],
            host=socket.gethostname(),
            pid=pid or os.getpid(),
            hosts={socket.gethostname(): {"user": "somebody", "cpus": 2}},
            stages=stages,
        )
        self.journal = Journal(self.folder, run, LogObserver())
        self.recorder = Recorder(root)
        self.made.append(self)
        self.journal.begin()
        # Not before the process that stands for the run.
        run.started = time.time()
        for stage in stages:
            self.journal.stage(stage, Status.RUNNING if stage.runs else Status.WAITING)

    def add(self, identity: str, name: str = "", stage: str = "train", **choices: Any) -> None:
        """Add a variant, and start it."""
        variant = Variant(identity, stage, name or identity, None, choices)
        self.journal.add(variant)
        self.journal.change(
            identity,
            status=Status.RUNNING,
            started=time.time(),
            attempts=1,
            host=socket.gethostname(),
        )
        title = f"{stage} " + ",".join(f"{k}={v}" for k, v in choices.items())
        self.recorder.open(identity, f"{stage}/{variant.name}", title.strip())
        self.record(identity, "config", "", f"!Walk\nrate: {choices}\n")

    def record(self, identity: str, kind: str, tag: str, value: Any, step: int | None = 1) -> None:
        """Record something that a variant said."""
        self.recorder.write([Record(identity, kind, tag, value, step, time.time())])

    def line(self, identity: str, text: str, level: str = "INFO") -> None:
        """Log a line."""
        self.record(identity, "line", level, text, None)

    def step(self, identity: str, step: int, metric: float | None) -> None:
        """Note a step."""
        best = better(self.journal.variants[identity].best, metric)
        self.journal.change(identity, step=step, metric=metric, best=best)
        self.record(identity, "scalar", "metric", metric, step)

    def done(self, identity: str, status: Status = Status.FINISHED, **more: Any) -> None:
        """End a variant."""
        self.journal.change(identity, status=status, ended=time.time(), **more)
        self.record(identity, "end", "", None)

    def end(self, status: Status = Status.FINISHED, error: str = "") -> None:
        """End the run."""
        for stage in self.journal.run.stages:
            if stage.runs:
                self.journal.stage(stage, status)
        self.journal.end(status, error)
        self.recorder.close()

    def walked(self, count: int = 3, steps: int = 4) -> Written:
        """Write some variants to their ends."""
        for number in range(count):
            identity = f"{number:02}" + "ab" * 7
            self.add(identity, f"rate={number}", rate=number, kind="ab"[number % 2])
            for step in range(1, steps + 1):
                self.step(identity, step, number + step / 10)
                self.line(identity, f"step {step} of {number}")
            self.done(identity, kept=number == count - 1)
        return self

    def close(self) -> None:
        """Close the files."""
        self.recorder.close()
        if self.journal._lines is not None:
            self.journal._lines.close()

"""Runs in this process, without Ray: one component, or a whole experiment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flambe.compile import Component, Schema
from flambe.compile.state import random_state
from flambe.compile.stepping import Stepper
from flambe.errors import ConfigError, Problem, RunError
from flambe.experiment import Experiment
from flambe.experiment.executors.inline import InlineExecutor
from flambe.experiment.interactive.run_handle import RunHandle
from flambe.experiment.observer import Observer
from flambe.logging import events

MAX_STEPS = 10_000


@dataclass
class ComponentRun:
    """What a component did when it was run.

    Attributes
    ----------
    component
        The component, after its last step.
    steps
        How many steps it did.
    metric
        What ``metric()`` returned after the last one.
    figures
        What it logged: name → ``(step, value)`` of each, in order.
    """

    component: Component
    steps: int = 0
    metric: float | None = None
    figures: dict[str, list[tuple[int | None, object]]] = field(default_factory=dict)

    def values(self, name: str) -> list[object]:
        """Return the values that it logged under a name, in order."""
        return [value for _, value in self.figures.get(name, [])]

    # -- the channel that takes what is logged ------------------------------------------------

    def send(self, record: events.Record) -> None:
        """Keep a figure."""
        self.figures.setdefault(record.tag, []).append((record.step, record.value))

    def flush(self) -> None:
        """Do nothing: all that was sent is kept."""


def run_component(
    component: Component | Schema, *, seed: int = 0, max_steps: int = MAX_STEPS
) -> ComponentRun:
    """Run a component to its end, as a variant of an experiment runs it.

    What its ``run()`` and ``metric()`` return is interpreted and checked as in an experiment. What
    it prints is printed; nothing is saved.

    Parameters
    ----------
    component
        The component, or its blueprint: ``Trainer.schema(...)``, ``flambe.compile.yaml.load(...)``.
    seed
        The seed of the random numbers; those of the test continue afterwards as if none was drawn.
    max_steps
        After how many steps it must have ended.

    Raises
    ------
    ComponentError
        If it raises an exception, or returns what has no meaning.
    RunError
        If it does not end.
    """
    with random_state.undrawn():
        random_state.seed(seed)
        built = component() if isinstance(component, Schema) else component
        if not isinstance(built, Component):
            raise TypeError(f"{type(built).__name__} is not a Component")
        run, stepper = ComponentRun(built), Stepper(built, interrupt=KeyboardInterrupt)
        events.use(run)
        try:
            more = True
            while more:
                if run.steps == max_steps:
                    raise RunError(f"{type(built).__name__} has not ended after {max_steps} steps")
                events.at_step(run.steps + 1)
                more = stepper.step()
                run.steps += stepper.counts
                run.metric = stepper.metric()
        finally:
            events.use(None)
    return run


def run_experiment(
    experiment: Experiment,
    folder: str | os.PathLike[str],
    *,
    force: bool = False,
    resume: bool | str | Sequence[str] | None = None,
    observer: Observer | None = None,
) -> RunHandle:
    """Run an experiment in this process, one variant after another.

    It writes what a run writes, and ``resume=True`` continues it. Trial schedulers have no effect:
    every variant is run to its end.

    Parameters
    ----------
    experiment
        The experiment: ``flambe.load_config("experiment.yaml")``, or one that is made in Python.
    folder
        Where its output folder is made, instead of its ``save_path``: ``tmp_path``, say.
    force, resume, observer
        As in :meth:`flambe.experiment.Experiment.run`.

    Returns
    -------
    RunHandle
        See :meth:`flambe.experiment.Experiment.run`, which raises the same errors.

    Raises
    ------
    ConfigError
        If a searcher chooses the variants of a stage: searchers need Ray.
    """
    for stage in experiment.spec().stages:
        if stage.search.searcher is not None:
            text = f"search: !{stage.search.searcher.tag} of stage {stage.name!r} needs Ray"
            raise ConfigError(Problem(text, hint="call experiment.run()"))
    save_path, experiment.save_path = experiment.save_path, str(Path(folder))
    try:
        return experiment.run(
            force, show=False, executor=InlineExecutor, resume=resume, observer=observer
        )
    finally:
        experiment.save_path = save_path

"""What runs the variants of a stage: the interface of executors, and what they report to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from flambe.errors import ComponentError
from flambe.experiment.executors.admission import StageQueue
from flambe.experiment.executors.stage_task import StageTask
from flambe.experiment.search.history import EarlierTrial
from flambe.experiment.search.stage_limits import StageLimits
from flambe.experiment.search.stage_search import SearcherOptions
from flambe.experiment.spec import StopSpec
from flambe.experiment.variants.expansion import Variant


class VariantListener(Protocol):
    """Is called as variants run, from the thread that runs their stage."""

    def check(self) -> None:
        """Raise if the stage is to stop."""

    def on_start(self, variant: Variant, host: str) -> None:
        """A variant starts, or starts again."""

    def on_step(
        self,
        variant: Variant,
        step: int,
        metric: float | None,
        host: str,
        seconds: float | None = None,
    ) -> None:
        """A variant finished a step, after having run for so long."""

    def on_copy(
        self, variant: Variant, source: str, step: int, values: Mapping[str, object]
    ) -> None:
        """A member of a population takes the state of another at a step, with other values."""

    def on_end(self, variant: Variant, *, stopped: bool, reason: str = "") -> None:
        """A variant finished, or a scheduler stopped it, or a limit did for a reason."""

    def on_skip(self, variant: Variant, reason: str) -> None:
        """A variant is not run, because its stage is stopped."""

    def on_failure(
        self, variant: Variant, error: ComponentError | None, text: str, final: bool
    ) -> None:
        """A variant failed; unless final it is retried."""

    def on_stored(self, variant: Variant, size: int) -> None:
        """The checkpoints that a variant keeps take so many bytes. Called from any thread."""

    def on_lines(self, lines: Sequence[tuple[str, str, str]]) -> None:
        """Components printed or logged lines: source, level and text. Called from any thread."""


@dataclass(frozen=True)
class StageOptions:
    """How a stage is run.

    Attributes
    ----------
    devices
        What each variant occupies: ``{"cpu": 1, "gpu": 0.5}``.
    max_failures
        How often a variant is retried; -1 for no limit.
    reuse_actors
        Whether one process may run several variants, one after another.
    scheduler
        A trial scheduler of Ray Tune.
    search
        What proposes values for the search spaces of the variants; None where there are none.
    earlier
        What variants of the stage reported before, for the scheduler.
    spaces
        The search spaces of the stage, for a scheduler that explores them: path as text → space.
    limits
        When the stage, or a variant, is stopped before its end.
    """

    devices: Mapping[str, float] = field(default_factory=lambda: {"cpu": 1.0})
    max_failures: int = 1
    reuse_actors: bool = True
    scheduler: object | None = None
    search: SearcherOptions | None = None
    earlier: Sequence[EarlierTrial] = ()
    spaces: Mapping[str, object] = field(default_factory=dict)
    limits: StageLimits = field(default_factory=lambda: StageLimits(StopSpec()))

    def without_search(self) -> StageOptions:
        """Return the options for variants whose values are known."""
        return replace(self, search=None, scheduler=None, earlier=())


class Executor(Protocol):
    """Runs stages, one call each.

    Attributes
    ----------
    parallel
        Whether stages may run at the same time, each called from a thread of its own.
    """

    parallel: bool

    def start(self) -> None:
        """Prepare; called once, before the first stage."""

    def capacity(self) -> dict[str, float]:
        """Return what the largest host offers, ``{"cpu": 4, …}``; empty if there is no limit."""

    def run_stage(
        self,
        task: StageTask,
        variants: StageQueue,
        options: StageOptions,
        listener: VariantListener,
    ) -> None:
        """Run the variants that come out of a queue until it is over, calling the listener.

        Where there is a search, those in it are what the searcher starts from.
        """

    def close(self) -> None:
        """Release everything."""

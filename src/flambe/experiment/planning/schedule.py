"""How long a run takes: its stages side by side, as the queues of a run admit their variants.

Shown by ``tests/experiment/test_schedule.py``.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

MOST_TASKS = 20_000  # that are simulated; of more variants, some are taken together


@dataclass(frozen=True)
class StageLoad:
    """What a stage has to run.

    Attributes
    ----------
    name
        The stage.
    count
        How many variants.
    seconds
        How long one takes.
    limit
        How many of them may run at the same time; None for no limit.
    ancestors
        The stages that it depends on.
    ended_before
        Those of them of which all variants have to end before one of its own starts.
    """

    name: str
    count: int
    seconds: float
    limit: int | None = None
    ancestors: frozenset[str] = frozenset()
    ended_before: frozenset[str] = frozenset()


def makespan(loads: Sequence[StageLoad], slots: int) -> float:
    """Return how many seconds stages take together.

    Which variant waits for which is not looked at: of a stage that starts as soon as its ancestors
    are done, as large a part can start as they have done.

    Parameters
    ----------
    loads
        The stages, in their order; ancestors that run nothing are left out.
    slots
        How many variants run at a time: 1 or more.
    """
    total = sum(load.count for load in loads)
    if total > MOST_TASKS:
        return _bound(loads, slots)
    return _Simulation(loads, slots).run()


def _bound(loads: Sequence[StageLoad], slots: int) -> float:
    """Return the time of that many variants that all slots are busy all the time."""
    work = sum(load.count * load.seconds for load in loads) / slots
    limited = [
        math.ceil(load.count / min(slots, load.limit or slots)) * load.seconds for load in loads
    ]
    return max([work, *limited])


@dataclass
class _Progress:
    load: StageLoad
    urgency: float  # how many variants wait for each of its own
    started: int = 0
    done: int = 0

    @property
    def in_use(self) -> int:
        return self.started - self.done


@dataclass
class _Simulation:
    loads: Sequence[StageLoad]
    slots: int
    stages: dict[str, _Progress] = field(init=False)

    def __post_init__(self) -> None:
        running = {load.name for load in self.loads if load.count}
        waiting = {
            name: sum(load.count for load in self.loads if name in load.ancestors)
            for name in running
        }
        self.stages = {
            load.name: _Progress(load, waiting[load.name] / load.count)
            for load in self.loads
            if load.count
        }

    def run(self) -> float:
        now, ends, position = 0.0, list[tuple[float, int, str]](), 0
        while True:
            while len(ends) < self.slots and (stage := self._next()) is not None:
                stage.started += 1
                position += 1
                heapq.heappush(ends, (now + stage.load.seconds, position, stage.load.name))
            if not ends:
                return now
            now, _, name = heapq.heappop(ends)
            self.stages[name].done += 1

    def _next(self) -> _Progress | None:
        """Return the stage whose variant starts next: see ``StageQueue.precedence``."""
        ready = [stage for stage in self.stages.values() if self._may_start(stage)]
        return min(ready, key=lambda stage: (-stage.urgency, stage.in_use), default=None)

    def _may_start(self, stage: _Progress) -> bool:
        load = stage.load
        if load.limit is not None and stage.in_use >= load.limit:
            return False
        ancestors = [self.stages[name] for name in load.ancestors if name in self.stages]
        if any(a.done < a.load.count for a in ancestors if a.load.name in load.ended_before):
            return False
        return stage.started < min(
            [load.count, *(load.count * a.done // a.load.count for a in ancestors)]
        )

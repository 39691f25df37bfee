"""Which variants start next, of all stages that run at the same time: the most urgent first.

Stages that run at the same time share the slots of the machine, or of the cluster. Each takes its
variants from a queue of its own, and the queues decide together which of them may hand one out.
Shown by ``tests/experiment/test_admission.py``.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Collection, Iterable, Sequence

from flambe.experiment.variants.expansion import Variant


class Admission:
    """The slots that the stages of a run share, and their queues.

    Attributes
    ----------
    slots
        How many variants can run at the same time.
    changed
        Guards the state of all queues, and is notified of changes.
    """

    def __init__(self) -> None:
        self.slots = math.inf
        self.changed = threading.Condition(threading.RLock())
        self._queues: list[StageQueue] = []
        #: The stages that may still start variants, if not all may.
        self._spared: Collection[str] | None = None

    def queue(self, stage: str, *, limit: int | None = None, urgency: int = 0) -> StageQueue:
        """Return a new queue for the variants of a stage.

        Parameters
        ----------
        stage
            The stage.
        limit
            How many of its variants may run at the same time; None for no limit.
        urgency
            How many variants wait for each variant that a searcher suggests.
        """
        with self.changed:
            queue = StageQueue(self, stage, len(self._queues), limit, urgency)
            queue.stopped = self._spared is not None and stage not in self._spared
            self._queues.append(queue)
            return queue

    def remove(self, queue: StageQueue) -> None:
        """Forget a queue: its stage is over."""
        with self.changed:
            if queue in self._queues:
                self._queues.remove(queue)
            self.changed.notify_all()

    def stop_others(self, stages: Collection[str]) -> None:
        """Let only these stages start variants from now on."""
        with self.changed:
            self._spared = set(stages)
            for queue in self._queues:
                queue.stopped = queue.stopped or queue.stage not in stages
            self.changed.notify_all()

    def free(self, queue: StageQueue) -> float:
        """Return how many slots are free for a queue: those of more urgent variants are not."""
        used = sum(other.in_use for other in self._queues)
        ahead = sum(
            other.startable() for other in self._queues if other.precedence() < queue.precedence()
        )
        return self.slots - used - ahead

    def overbooked(self) -> bool:
        """Whether a variant has to wait for the slot of an idle process."""
        idle = sum(queue.idle for queue in self._queues)
        return bool(idle) and sum(queue.in_use for queue in self._queues) + idle > self.slots


class StageQueue:
    """The variants of one stage that may start; the executor of the stage takes them.

    Several threads may use it at the same time.

    Parameters
    ----------
    admission
        The slots, and the queues of the other stages.
    stage
        The stage.
    number
        Its position among the queues, which decides where all else is equal.
    limit
        How many of its variants may run at the same time; None for no limit.
    urgency
        How many variants wait for each variant that a searcher suggests.

    Attributes
    ----------
    in_use, idle
        How many slots its variants have, and how many its idle processes have: the executor keeps
        them up to date.
    eager
        Whether a searcher has more variants to suggest.
    metered
        Whether it waits for free slots. Schedulers that pause variants must have all at once.
    stopped
        Whether none of its variants may start any more.
    """

    def __init__(
        self, admission: Admission, stage: str, number: int, limit: int | None, urgency: int
    ) -> None:
        self.stage = stage
        self.limit = limit
        self.in_use = self.idle = 0
        self.eager = False
        self.metered = True
        self.stopped = False
        self._admission = admission
        self._number = number
        self._urgency = urgency
        self._closed = False
        #: Minus the urgency, the order of arrival, and the variant.
        self._waiting: list[tuple[int, int, Variant]] = []
        self._arrivals = 0

    def put(self, variant: Variant, urgency: int = 0) -> None:
        """Add a variant that may start.

        Parameters
        ----------
        variant
            The variant.
        urgency
            How many variants wait for it.
        """
        with self._admission.changed:
            heapq.heappush(self._waiting, (-urgency, self._arrivals, variant))
            self._arrivals += 1
            self._admission.changed.notify_all()

    def close(self) -> None:
        """Announce that no more variants will be added."""
        with self._admission.changed:
            self._closed = True
            self._admission.changed.notify_all()

    @property
    def over(self) -> bool:
        """Whether no variant will come out of it any more."""
        with self._admission.changed:
            return self.stopped or (self._closed and not self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def precedence(self) -> tuple[int, int, int]:
        """Return what queues are compared by: the lowest comes first."""
        urgency = self._waiting[0][0] if self._waiting else -self._urgency
        # Of two equal stages, both run: the one with fewer variants that run is next.
        return urgency, self.in_use, self._number

    def startable(self) -> int:
        """Return how many of its variants would start if there were slots."""
        if self.stopped or not self.metered:
            return 0
        return int(min(len(self._waiting) or self.eager, self._room()))

    def _room(self) -> float:
        return math.inf if self.limit is None else max(0, self.limit - self.in_use)

    def admits(self) -> bool:
        """Whether another variant of the stage may start now."""
        with self._admission.changed:
            if self.stopped or self._room() < 1:
                return False
            return not self.metered or self._admission.free(self) >= 1

    def take(self) -> Variant | None:
        """Return the next variant, or None if none may start now: see :attr:`over`."""
        with self._admission.changed:
            if not self._waiting or not self.admits():
                return None
            self.in_use += 1
            return heapq.heappop(self._waiting)[2]

    def drain(self) -> list[Variant]:
        """Return all variants in it, for a searcher to start from."""
        with self._admission.changed:
            variants = [variant for _, _, variant in sorted(self._waiting, key=lambda w: w[1])]
            self._waiting.clear()
            return variants

    def discard(self, identities: Collection[str]) -> None:
        """Remove variants that are not to be run."""
        with self._admission.changed:
            self._waiting = [entry for entry in self._waiting if entry[2].id not in identities]
            heapq.heapify(self._waiting)

    def report(self, *, in_use: int, idle: int = 0, eager: bool = False) -> None:
        """Record how many slots the stage has, and whether a searcher has more variants."""
        with self._admission.changed:
            self.in_use, self.idle, self.eager = in_use, idle, eager

    def set_slots(self, slots: float) -> None:
        """Set how many slots there are, for all stages together."""
        with self._admission.changed:
            if slots != self._admission.slots:
                self._admission.slots = slots
                self._admission.changed.notify_all()

    def must_release(self) -> bool:
        """Whether the idle processes of the stage keep variants of another one from starting."""
        with self._admission.changed:
            return bool(self.idle) and self._admission.overbooked()

    def wait(self, seconds: float) -> None:
        """Wait until something changes in any queue, at most so long."""
        with self._admission.changed:
            self._admission.changed.wait(seconds)

    def again(self, variants: Sequence[Variant]) -> StageQueue:
        """Return a queue with variants of the same stage that are to be run again, in its stead."""
        self._admission.remove(self)
        queue = self._admission.queue(self.stage, limit=self.limit)
        queue.stopped = self.stopped
        return filled(queue, variants)

    def end(self) -> None:
        """Give back all slots: the stage is over."""
        self._admission.remove(self)


def filled(queue: StageQueue, variants: Iterable[Variant]) -> StageQueue:
    """Return a queue with variants, to which none will be added."""
    for variant in variants:
        queue.put(variant)
    queue.close()
    return queue

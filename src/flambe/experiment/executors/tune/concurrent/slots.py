"""How many variants the nodes of Ray have room for, as nodes come and go."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping

import ray

from flambe.experiment.executors.admission import StageQueue

PERIOD = 5.0  # seconds between two counts


class Slots:
    """Tells the queues of stages how many slots there are."""

    def __init__(self) -> None:
        self._queue: StageQueue | None = None
        self._devices: Mapping[str, float] = {}
        self._counted = 0.0

    def share(self, queue: StageQueue, devices: Mapping[str, float]) -> None:
        """Count the slots for a stage that starts, and from now on.

        Parameters
        ----------
        queue
            Its queue: it shares the slots with those of all other stages.
        devices
            What each variant occupies; the same in all stages.
        """
        self._queue, self._devices = queue, devices
        self._count()

    def refresh(self) -> None:
        """Count again, from time to time."""
        if time.monotonic() - self._counted > PERIOD:
            self._count()

    def _count(self) -> None:
        self._counted = time.monotonic()
        if self._queue is not None:
            self._queue.set_slots(count_slots(_nodes(), self._devices))


def _nodes() -> list[Mapping[str, float]]:
    """Return what each living node offers, by Ray's names."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def max_concurrent(devices: Mapping[str, float]) -> int:
    """Return how many variants a searcher may try at a time: as many as there is room for.

    Where they occupy nothing, that is as many as there are CPUs.
    """
    nodes = _nodes()
    slots = count_slots(nodes, devices)
    return int(slots if math.isfinite(slots) else max(1, sum(n.get("CPU", 0.0) for n in nodes)))


def count_slots(nodes: Iterable[Mapping[str, float]], devices: Mapping[str, float]) -> float:
    """Return how many variants nodes have room for; at least one, for a node may still join.

    Parameters
    ----------
    nodes
        What each node offers, by Ray's names.
    devices
        What each variant occupies, by flambe's names.
    """
    names = {"cpu": "CPU", "gpu": "GPU"}
    needs = {names.get(name, name): amount for name, amount in devices.items() if amount}
    if not needs:
        return math.inf
    return max(
        1,
        sum(
            min(int(node.get(name, 0.0) / amount + 1e-6) for name, amount in needs.items())
            for node in nodes
        ),
    )

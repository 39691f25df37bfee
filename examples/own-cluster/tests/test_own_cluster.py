"""What ``PoolCluster`` books, finds and gives back, tested without any machine."""

from __future__ import annotations

import pytest
from own_cluster import PoolCluster

from flambe.cluster import Machine
from flambe.errors import RunError
from flambe.testing import fake_machine


class PaperPool:
    """A pool of machines that do not exist."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.machines: dict[tuple[str, str], Machine] = {}

    def machines_of(self, cluster: str) -> list[Machine]:
        return [machine for (owner, _), machine in self.machines.items() if owner == cluster]

    def book(self, cluster: str, name: str) -> Machine:
        if len(self.machines) >= self.size:
            raise RunError(f"the pool has {self.size} machines, and all are booked")
        machine = fake_machine(name, len(self.machines) + 1)
        return self.machines.setdefault((cluster, name), machine)

    def give_back(self, cluster: str, name: str) -> None:
        del self.machines[cluster, name]


@pytest.fixture
def pool() -> PaperPool:
    return PaperPool(size=3)


def test_it_books_what_is_missing_and_finds_it_again(pool: PaperPool) -> None:
    cluster = PoolCluster("mine", pool, factories_num=1)
    assert cluster.missing_machines() == ["orchestrator", "factory_1"]
    machines = cluster.create_machines(cluster.find_machines())
    assert [machine.name for machine in machines] == ["orchestrator", "factory_1"]
    larger = PoolCluster("mine", pool, factories_num=2)
    assert larger.find_machines() == machines
    assert larger.missing_machines() == ["factory_2"]
    assert larger.create_machines(machines)[:2] == machines


def test_what_this_call_booked_is_given_back_when_it_fails(pool: PaperPool) -> None:
    first = PoolCluster("mine", pool, factories_num=1)
    machines = first.create_machines([])
    with pytest.raises(RunError, match="all are booked"):
        PoolCluster("mine", pool, factories_num=4).create_machines(machines)
    assert first.find_machines() == machines


def test_all_is_given_back_and_nothing_of_others(pool: PaperPool) -> None:
    mine, other = PoolCluster("mine", pool, 0), PoolCluster("other", pool, 0)
    mine.create_machines([])
    other.create_machines([])
    mine.remove_machines()
    assert mine.find_machines() == []
    assert [machine.name for machine in other.find_machines()] == ["orchestrator"]

"""Names of factories, which stay with their machines, and who has the token of their Ray."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.cluster_record import ClusterRecord, FormerMachine, WorkerRecord
from flambe.cluster.machine import Machine, order
from flambe.cluster.provisioning import factory_names
from flambe.cluster.services import ray_node, ray_service
from flambe.remote import Address
from flambe.remote.agent.protocol import RunState, RunStatus

pytestmark = pytest.mark.xdist_group("local-cluster")


def machine(host: str, name: str = "", identity: str = "") -> Machine:
    return Machine(name, Address.parse(host), Address.parse(host), "ann", identity=identity)


def record(*machines: Machine, left: Sequence[Machine] = ()) -> ClusterRecord:
    return ClusterRecord(machines=machines, left=tuple(map(FormerMachine, left)))


def recalled(hosts: Sequence[str], known: ClusterRecord) -> list[str]:
    return [one.name for one in factory_names.recalled([machine(host) for host in hosts], known)]


KNOWN = [
    machine("o", "orchestrator"),
    machine("a", "factory_1"),
    machine("b", "factory_2"),
    machine("c", "factory_3"),
]


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        ("oabc", "0123"),
        ("oac", "013"),  # one in the middle leaves
        ("ocba", "0321"),
        ("oacd", "0132"),  # and another one comes: its name is free
        ("obda", "0231"),
        ("aobc", "0123"),  # another orchestrator: the former one becomes a factory
        ("odefg", "01234"),
    ],
)
def test_who_stays_keeps_the_name(hosts: str, names: str) -> None:
    expected = ["orchestrator", *(f"factory_{number}" for number in names[1:])]
    assert recalled(hosts, record(*KNOWN)) == expected


def test_the_name_of_one_that_left_and_was_not_cleaned_is_not_given_away() -> None:
    orchestrator, first, second, third = KNOWN
    known = record(orchestrator, first, third, left=[second])
    assert recalled("oacde", known)[1:] == ["factory_1", "factory_3", "factory_4", "factory_5"]


def test_records_of_an_earlier_version_are_read() -> None:
    content: Any = json.loads(json.dumps(record(*KNOWN).to_json()))
    for entry in content["machines"]:
        del entry["identity"]
    known = ClusterRecord.from_json(content)
    assert recalled("oca", known) == ["orchestrator", "factory_3", "factory_1"]
    assert recalled("oca", ClusterRecord()) == ["orchestrator", "factory_1", "factory_2"]


DAMAGED: list[object] = [
    None,
    [],
    {"machines": 3, "left": {"a": 1}, "workers": "x", "scope": [], "fetched": 1, "file": 2},
    {"machines": [None, {}, {"name": "a", "address": "-o x", "private": 1}], "left": [[]]},
]


@pytest.mark.parametrize("content", DAMAGED)
def test_what_cannot_be_read_in_a_record_is_left_out(content: object) -> None:
    assert ClusterRecord.from_json(content).is_empty


def test_a_record_is_read_as_it_was_written() -> None:
    worker = WorkerRecord("factory_1", "a", cpu=8, gpu=2)
    written = replace(
        record(*KNOWN[:2], left=[machine("b", "factory_2", "i-1")]),
        file="/c.yaml", kind="SSHCluster", scope={"region": "r"}, secrets="/s", remote_dir=".flambe",
        environment="e", workers=(worker,), fetched=("ended", 1.5, 2),
    )  # fmt: skip
    assert ClusterRecord.from_json(json.loads(json.dumps(written.to_json()))) == written


def test_what_hosts_claim_is_checked() -> None:
    claims = ["factory_7", "factory_2", "factory_2", "factory_01", "../x", "orchestrator", ""]
    given = factory_names.assigned(claims, {"factory_3"})
    assert given[0] == "orchestrator"
    assert given[1] == "factory_2"
    assert given[2:] == ["factory_1", "factory_4", "factory_5", "factory_6", "factory_7"]
    names = ["factory_10", "factory_9", "orchestrator"]
    assert sorted(names, key=order) == names[::-1]


@pytest.mark.parametrize("noted", [True, False])
def test_the_name_of_a_node_that_runs(noted: bool) -> None:
    about: dict[str, object] = {"name": "factory_2"} if noted else {"port": 1}
    command = ["python3", "x.pyz", "ray-node", '{"name": "factory_2", "port": 1}']
    status = RunStatus(state=RunState.RUNNING, about=about, command=command)
    assert ray_node.node_name(status) == "factory_2"
    assert ray_node.node_name(replace(status, state=RunState.ENDED)) == ""
    assert ray_node.node_name(RunStatus(state=RunState.RUNNING, command=["x"])) == ""
    assert ray_node.node_name(None) == ""


def looked(members: Sequence[ClusterHost], name: str) -> None:
    for member in members:
        member.refresh(name)


def test_a_machine_knows_its_name_wherever_it_stands_in_the_file(local: Any) -> None:
    from tests.cluster.conftest import connected

    cluster = local(2)
    members = connected(cluster)
    looked(members, cluster.name)
    orchestrator, first, second = members
    assert len({member.identity for member in members}) == 3
    # Somebody else's computer, which remembers nothing, has them in another order.
    factory_names.settle(cluster.name, members, ClusterRecord(), [])
    turned = [orchestrator, second, first]
    second.rename("factory_1")
    first.rename("factory_2")
    looked(turned, cluster.name)
    assert second.name.startswith("factory_2 (")
    assert factory_names.settle(cluster.name, turned, ClusterRecord(), []) == [
        orchestrator,
        first,
        second,
    ]
    # One that is remembered with another identity is another machine, at the same address.
    orchestrator.mark(cluster.name, "name", "")
    for member in (first, second):
        member.mark(cluster.name, "name", "")
    known = record(
        members[0].recorded, replace(first.recorded, identity="another"), second.recorded
    )
    left = FormerMachine(machine("gone", "factory_1"))
    factory_names.settle(cluster.name, turned, known, [left])
    assert [one.machine.name for one in (first, second)] == ["factory_3", "factory_2"]


def test_the_token_is_replaced_when_one_that_had_it_is_not_in_the_cluster(local: Any) -> None:
    from tests.cluster.conftest import connected

    cluster = local(2)
    members = connected(cluster)
    looked(members, cluster.name)
    orchestrator, first, second = members
    nodes = ray_service.RayNodes(cluster.context)
    held = nodes.distribute_token("")
    holders: Any = orchestrator.report.marks[ray_service.TOKEN_HOLDERS]
    assert set(holders) == {one.identity for one in members}
    assert not nodes.has_former_holders()
    cluster.hosts = (orchestrator, first)
    nodes = ray_service.RayNodes(cluster.context)
    assert nodes.has_former_holders()
    nodes.forget_holders(orchestrator, [second.identity])  # it was reached, and cleaned
    assert not nodes.has_former_holders()
    # Of an earlier version nobody knows who has it.
    looked([orchestrator], cluster.name)
    assert not nodes.has_former_holders()
    del orchestrator.report.marks[ray_service.TOKEN_HOLDERS]
    assert nodes.has_former_holders()
    assert nodes.distribute_token("") != held

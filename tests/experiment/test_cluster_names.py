"""Hosts that leave, come back, change places or addresses in the file: names stay with machines.

``make faults`` runs these.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from flambe.progress import Status
from tests.experiment.farm import Farm, eventually, farm_on, running
from tests.metal import Host
from tests.metal.conftest import lent

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.faults,
    pytest.mark.long,
    pytest.mark.xdist_group("metal-names"),
    pytest.mark.timeout(900),
]
SIX = "grow: !crops.Growth {rate: !g [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], steps: 2, seconds: 0.5}"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with lent(4) as metal, farm_on(metal, tmp_path_factory.mktemp("farm")) as farm:
        yield farm


def used(farm: Farm, name: str) -> set[str]:
    """Run an experiment to its end; return the hosts that did it."""
    farm.run(farm.write(name, SIX)).ends()
    variants = farm.output(name).read_variants().values()
    assert {one.status for one in variants} == {Status.FINISHED}
    return {one.host for one in variants}


def names(farm: Farm) -> dict[str, str]:
    """Return the names of the hosts by their addresses, as ``status`` shows them."""
    text = farm.flambe("status", farm.name)
    return {
        address: name
        for name, address in re.findall(r"^(factory_\d+) +([\d.]+)", text, re.MULTILINE)
    }


def file_of(farm: Farm, *factories: str) -> None:
    farm.write_cluster(factories_ips=list(factories))


@contextlib.contextmanager
def hidden(farm: Farm, host: Host) -> Iterator[None]:
    """Let this machine not reach a host; the other hosts do."""
    assert farm.metal is not None
    rule = ["INPUT", "-s", farm.metal.gateway, "-j", "DROP"]
    host.in_network("iptables", "-w", "-I", *rule)
    try:
        yield
    finally:
        host.in_network("iptables", "-w", "-D", *rule)


def test_names_stay_with_machines_and_who_left_takes_no_trial(farm: Farm) -> None:
    _, first, second, third = farm.hosts
    assert used(farm, "all") <= {"factory_1", "factory_2", "factory_3"}
    by_machine = names(farm)
    assert by_machine == {
        first.address: "factory_1",
        second.address: "factory_2",
        third.address: "factory_3",
    }
    # The one in the middle leaves, and cannot be asked to.
    with hidden(farm, second):
        file_of(farm, first.address, third.address)
        assert used(farm, "less") == {"factory_1", "factory_3"}
        assert names(farm) == {first.address: "factory_1", third.address: "factory_3"}
        eventually(lambda: not running(second, "raylet/raylet"), "its node is out of Ray")
    # It comes back in another place, as who it was.
    file_of(farm, third.address, second.address, first.address)
    assert used(farm, "turned") == {"factory_1", "factory_2", "factory_3"}
    assert names(farm) == by_machine
    # Another address, the same machine.
    other = first.address.rsplit(".", 1)[0] + ".200"
    first.in_network("ip", "address", "add", f"{other}/24", "dev", "eth0")
    file_of(farm, third.address, other)
    assert used(farm, "moved") == {"factory_1", "factory_3"}
    assert names(farm) == {other: "factory_1", third.address: "factory_3"}

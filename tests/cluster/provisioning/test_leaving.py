"""Hosts that leave a cluster, files that are wrong while a run goes on, and ends by force."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.place import Place
from tests.experiment.lab import until
from tests.metal import Host, Metal
from tests.metal.conftest import lent

pytestmark = [pytest.mark.integration, pytest.mark.root, pytest.mark.xdist_group("metal-leaving")]


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, installed: Path | None
) -> Iterator[tuple[Place, Metal]]:
    folder = tmp_path_factory.mktemp("leaving")
    with lent(3, layer=installed) as metal:
        made = Place(folder, metal.cluster_yaml("lab"))
        ready = made.flambe(made.cluster)
        assert ready.returncode == 0, ready.stderr
        yield made, metal
        made.flambe("down", "lab", "--force")
    shutil.rmtree(folder, ignore_errors=True)


def described(place: Place, metal: Metal, *hosts: Host, **more: object) -> Path:
    """Write a file of the same cluster with other hosts, the orchestrator first."""
    first, *others = [host.address for host in hosts]
    path = place.folder / "other.yaml"
    entries = {"orchestrator_ip": first, "factories_ips": others, **more}
    path.write_text(metal.cluster_yaml("lab", **entries))
    return path


def holds_key(host: Host, cluster: str = "lab") -> bool:
    folder = host.root / "home" / host.user / ".ssh"
    authorized = (folder / "authorized_keys").read_text()
    assert (f"flambe:{cluster}" in authorized) == (folder / f"flambe-{cluster}").exists()
    return f"flambe:{cluster}" in authorized


def test_a_wrong_file_takes_no_run_away(place: tuple[Place, Metal]) -> None:
    here, metal = place
    started = here.flambe(here.job(steps=400), "--cluster", here.cluster, "--detach")
    assert started.returncode == 0, started.stderr
    note = here.folder / "home/clusters/lab/cluster.json"
    before = note.read_text()
    try:
        typo = described(here, metal, metal.hosts[0], orchestrator_ip="nosuch.invalid")
        wrong = here.flambe(typo)
        assert wrong.returncode == 1
        assert "nosuch.invalid" in wrong.stderr
        assert note.read_text() == before
        until(lambda: "step 0" in here.flambe("logs", "lab").stdout, "the run is found", 60)
        first, second, third = metal.hosts
        swapped = here.flambe(described(here, metal, second, first, third))
        assert swapped.returncode == 1
        assert f"a run is active on {first.address}, which was the orchestrator" in swapped.stderr
        assert "flambe stop lab" in swapped.stderr
        assert note.read_text() == before
        # One that is taken out is not cleaned under the run.
        less = here.flambe(described(here, metal, first, second))
        assert less.returncode == 0, less.stderr
        assert (
            f"{third.address}: no longer in the file; cleaned when the run has ended" in less.stdout
        )
        assert holds_key(third)
        assert "running for" in here.flambe("status", "lab").stdout
    finally:
        stopped = here.flambe("stop", "lab")
    assert stopped.returncode == 0, stopped.stderr
    again = here.flambe(described(here, metal, first, second))
    assert f"{third.address}: no longer in the file; cleaned" in again.stdout
    assert not holds_key(third)
    assert holds_key(second)
    # The results stay where they are, which is said when another host takes over.
    moved = here.flambe(described(here, metal, second, first))
    assert moved.returncode == 0, moved.stderr
    assert f"the results of earlier runs are on {first.address}" in moved.stdout
    assert here.flambe(here.cluster).returncode == 0


def test_names_stay_with_machines_whoever_asks(place: tuple[Place, Metal]) -> None:
    here, metal = place
    first, second, third = metal.hosts
    assert here.flambe(here.cluster).returncode == 0
    less = described(here, metal, first, third)
    done = here.flambe(less)
    assert done.returncode == 0, done.stderr
    assert f"{second.address}: no longer in the file; cleaned" in done.stdout
    status = here.flambe("status", less)
    rows = [line.split()[:2] for line in status.stdout.splitlines() if " 10.213." in line]
    assert rows == [["orchestrator", first.address], ["factory_2", third.address]]
    # From a computer that never saw the cluster, with its hosts in another order, and one new.
    home = here.env["FLAMBE_HOME"]
    here.env["FLAMBE_HOME"] = str(here.folder / "other-home")
    try:
        turned = described(here, metal, first, third, second)
        asked = here.flambe("exec", turned, "--host", "factory_2", "--", "hostname")
        assert asked.stdout.strip() == third.name, asked.stderr
        done = here.flambe(turned)
        assert done.returncode == 0, done.stderr
        known = [
            line for line in done.stdout.splitlines() if " 10.213." in line and "CPU" not in line
        ]
        assert f"factory_1     {second.address}" in done.stdout, known
        assert f"factory_2     {third.address}" in done.stdout, known
    finally:
        here.env["FLAMBE_HOME"] = home
    # The address of one that has another key now is somebody else's.
    assert here.flambe(here.cluster).returncode == 0
    third.new_host_key()
    done = here.flambe(described(here, metal, first, second))
    assert done.returncode == 0, done.stderr
    assert f"{third.address}: no longer in the file, and its host key has changed" in done.stdout
    known_hosts = here.folder / "home/clusters/lab/known_hosts"
    lines = known_hosts.read_text().splitlines(keepends=True)
    known_hosts.write_text("".join(line for line in lines if not line.startswith(third.address)))
    assert here.flambe(here.cluster).returncode == 0


@pytest.mark.long
@pytest.mark.faults
def test_one_that_leaves_while_it_is_not_reached_is_cleaned_later(
    place: tuple[Place, Metal],
) -> None:
    here, metal = place
    first, second, third = metal.hosts
    assert here.flambe(here.cluster).returncode == 0
    rule = ["INPUT", "-s", metal.gateway, "-j", "DROP"]
    third.in_network("iptables", "-w", "-I", *rule)
    try:
        here.flambe("exec", "lab", "--host", "factory_2", "--", "true")
        less = here.flambe(described(here, metal, first, second))
        assert less.returncode == 0, less.stderr
        assert f"{third.address}: no longer in the file, and cannot be reached" in less.stdout
        begun = time.monotonic()
        quick = here.flambe(described(here, metal, first, second))
        assert (quick.returncode, third.address in quick.stdout) == (0, False)
        assert time.monotonic() - begun < 10, "it is not tried each time"
    finally:
        third.in_network("iptables", "-w", "-D", *rule)
    assert holds_key(third)
    down = here.flambe("down", "lab")
    assert down.returncode == 0, down.stderr
    assert f"{third.address}: no longer in the file; cleaned" in down.stdout
    assert "lab is down" in down.stdout
    assert "removes all of it" in down.stdout
    assert [holds_key(host) for host in metal.hosts] == [False] * 3


@pytest.mark.faults
def test_hosts_that_do_not_reach_one_another_are_not_ready(place: tuple[Place, Metal]) -> None:
    here, metal = place
    first, second, third = metal.hosts
    pair = [second.address, "10.99.99.99"]
    file = described(here, metal, first, factories_ips=[pair, third.address])
    for _ in range(2):  # the second time too: what was not seen to work is looked at again
        done = here.flambe(file)
        assert done.returncode == 1
        assert "cannot reach factory_1 at its private address 10.99.99.99" in done.stderr
        assert "= is 10.99.99.99 right?" in done.stderr
    ready = here.flambe(here.cluster)
    assert ready.returncode == 0, ready.stderr
    assert "everything is in place" in here.flambe(here.cluster).stdout


def test_names_of_the_users_configuration_of_ssh(place: tuple[Place, Metal]) -> None:
    here, metal = place
    config = here.folder / "ssh-config"
    names = [f"gpu{n}" for n, _ in enumerate(metal.hosts)]
    config.write_text(
        "".join(
            f"Host {name}\n  HostName {host.address}\n"
            for name, host in zip(names, metal.hosts, strict=True)
        )
        + f"Host *\n  User {metal.user}\n  IdentityFile {metal.key}\n  IdentitiesOnly yes\n"
    )
    program = here.folder / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    program.chmod(0o755)
    before = here.env["PATH"]
    here.env["PATH"] = f"{program.parent}:{before}"
    try:
        file = here.folder / "named.yaml"
        file.write_text(
            f"!SSHCluster {{name: named, orchestrator_ip: gpu0, factories_ips: {names[1:]}}}\n"
        )
        done = here.flambe(file)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("SHA256:") == 3
        # They share hosts with the other cluster, which people should know.
        assert "warning: the cluster lab has orchestrator, factory_1, factory_2" in done.stdout
        run = here.flambe(here.job(steps=1), "--cluster", "named")
        assert run.returncode == 0, run.stderr
        assert run.stdout.count("host content") == 3
        down = here.flambe("down", "named")
        assert down.returncode == 0, down.stderr
    finally:
        here.env["PATH"] = before


@pytest.mark.long
@pytest.mark.faults
def test_a_cluster_of_a_dead_host_is_shown_and_forgotten(place: tuple[Place, Metal]) -> None:
    here, metal = place
    assert here.flambe(here.cluster).returncode == 0
    last = metal.hosts[2]
    last.power_off()
    begun = time.monotonic()
    status = here.flambe("status", "lab")
    assert status.returncode == 1
    assert time.monotonic() - begun < 35
    rows = [line.split() for line in status.stdout.splitlines() if " 10.213." in line]
    assert [row[-1] for row in rows[:3]] == ["ready", "ready", "unreachable"]
    assert "waiting for factory_2" in status.stdout
    assert "flambe down lab --force" in status.stdout
    refused = here.flambe("down", "lab")
    assert refused.returncode == 1
    assert "flambe down lab --force" in refused.stderr
    assert holds_key(metal.hosts[0])
    down = here.flambe("down", "lab", "--force")
    assert down.returncode == 0, down.stderr
    assert f"factory_2 ({last.address}) was not reached, and its record is removed" in down.stdout
    assert [holds_key(host) for host in metal.hosts[:2]] == [False, False]
    assert "no cluster 'lab'" in here.flambe("status", "lab").stderr


def test_all_clusters_are_taken_down_at_once(tmp_path: Path) -> None:
    place = Place(tmp_path, "!LocalCluster {name: one, factories_num: 0}\n")
    other = tmp_path / "two.yaml"
    other.write_text("!LocalCluster {name: two, factories_num: 0}\n")
    for file in (place.cluster, other):
        done = place.flambe(file)
        assert done.returncode == 0, done.stderr
    assert place.flambe("down").returncode == 2
    done = place.flambe("down", "--all")
    assert done.returncode == 0, done.stderr
    assert "one is down" in done.stdout
    assert "two is down" in done.stdout
    assert list((tmp_path / "home" / "clusters").glob("*/cluster.json")) == []
    again = place.flambe("down", other)
    assert again.returncode == 0, again.stderr
    assert "it had no hosts" in again.stdout
    for command in (["logs"], ["stop"], ["exec", "--", "true"], ["fetch"]):
        told = place.flambe(command[0], other, *command[1:])
        assert told.returncode in (1, 2)
        assert "are not running" in told.stderr or "no results of" in told.stderr

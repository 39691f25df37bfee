"""What takes minutes: hosts that are lost and found, and what a run does without them.

``make faults`` runs these.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flambe.experiment.task import read_manifest
from flambe.progress import RunFolder, Status
from tests.experiment.farm import Farm, running
from tests.metal import Metal
from tests.metal.conftest import lent
from tests.metal.machine import kill

pytestmark = [
    pytest.mark.root,
    pytest.mark.faults,
    pytest.mark.long,
    pytest.mark.xdist_group("metal-long"),
    pytest.mark.timeout(900),
]
EIGHT = """
grow: !crops.Growth
  rate: !g [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
  steps: STEPS
  seconds: 1.5
"""
MORE = "max_failures: 0"


@pytest.fixture(scope="module")
def metal() -> Iterator[Metal]:
    with lent(3) as metal:
        yield metal


@pytest.fixture
def farm(metal: Metal, tmp_path: Path) -> Iterator[Farm]:
    for host in metal.hosts:
        if not host.alive:
            host.boot()
    with contextlib.closing(Farm(tmp_path, metal)) as farm:
        yield farm


def written(farm: Farm, steps: int) -> Path:
    return farm.write(farm.folder.name, EIGHT.replace("STEPS", str(steps)), more=MORE)


def done(folder: RunFolder) -> list[Status]:
    return [one.status for one in folder.read_variants().values()]


def test_a_link_that_is_down_for_two_minutes(farm: Farm) -> None:
    run = farm.run(written(farm, 30))
    run.says("step 2 of", times=4)
    farm.hosts[1].cut()
    time.sleep(120)
    farm.hosts[1].mend()
    # The others took over what it ran; it is used again.
    assert "factory_1 is lost: 1 factory left" in run.text
    run.says("factory_1 has joined: 2 factories")
    run.ends(seconds=500)
    assert done(farm.output(farm.folder.name)) == [Status.FINISHED] * 8


def test_a_factory_that_was_rebooted_is_used_again(farm: Farm) -> None:
    run = farm.run(written(farm, 30))
    run.says("step 2 of", times=4)
    farm.hosts[1].reboot()
    run.says("factory_1 has joined: 2 factories")
    run.ends(seconds=500)
    assert done(farm.output(farm.folder.name)) == [Status.FINISHED] * 8
    assert running(farm.hosts[1], "raylet/raylet")


def test_the_last_factory_is_lost_and_the_run_ends_and_is_gone_on_with(farm: Farm) -> None:
    file = written(farm, 12)
    farm.run(file, "--detach", FLAMBE_FACTORIES_DEADLINE="20").ends()
    follow = farm.start("logs", "farm", "-f")
    follow.says("step 3 of", times=4)
    first, second = farm.hosts[1:]
    first.power_off()
    second.power_off()
    follow.says("no factory is left; one has 20 s to come back")
    said = follow.ends(1)
    assert "no factory was left, and none came back within 20 s" in said
    assert "--resume" in said
    folder = farm.output(farm.folder.name)
    steps = {one.id: one.step for one in folder.read_variants().values()}
    assert sum(step >= 2 for step in steps.values()) >= 4
    state = folder.read_state()
    assert state is not None
    assert state.status is Status.FAILED
    first.boot()
    second.boot()
    again = farm.run(file, "--resume").ends(seconds=500)
    assert done(folder) == [Status.FINISHED] * 8
    for one in folder.read_variants().values():
        if steps[one.id] >= 2:
            assert f"step 1 of {one.choices['rate']:g} " not in again


def test_a_factory_that_is_added_while_it_runs(farm: Farm, metal: Metal) -> None:
    run = farm.run(written(farm, 40))
    run.says("step 2 of", times=4)
    new = metal.add()
    farm.write_cluster()
    farm.flambe(farm.cluster)
    run.says("factory_3 has joined: 3 factories")
    run.ends(seconds=500)
    hosts = {one.host for one in farm.output(farm.folder.name).read_variants().values()}
    assert "factory_3" in hosts
    new.kill()
    metal.hosts.remove(new)


@pytest.mark.parametrize("how", ["rebooted", "gcs"])
def test_the_orchestrator_or_what_rules_ray_is_lost(farm: Farm, how: str) -> None:
    file = written(farm, 12)
    run = farm.run(file)
    run.says("step 3 of", times=4)
    orchestrator = farm.hosts[0]
    if how == "rebooted":
        orchestrator.reboot()
        run.process.wait(300)
        assert run.process.returncode == 1
        assert "--resume" in run.text
    else:
        (gcs,) = running(orchestrator, "gcs_server")
        kill(gcs)
        run.process.wait(500)
        assert run.process.returncode != 0
    folder = farm.output(farm.folder.name)
    farm.flambe("status", "farm")
    steps = {one.id: one.step for one in folder.read_variants().values()}
    again = farm.run(file, "--resume").ends(seconds=500)
    # What was told to be running when the power went was interrupted; now all are done.
    assert all(status.done for status in done(folder))
    for one in folder.read_variants().values():
        if steps[one.id] >= 3:
            assert f"step 1 of {one.choices['rate']:g} " not in again


def test_many_trials_reach_an_sshd_that_takes_one_at_a_time(farm: Farm) -> None:
    farm.flambe(farm.cluster)
    farm.hosts[0].restart_sshd("-o", "MaxStartups=1", "-o", "MaxSessions=3")
    try:
        file = farm.write(
            "crowd",
            "grow: !crops.Growth {rate: !g [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], steps: 3}",
            more="max_failures: 0\nreuse_actors: false\ndevices: {cpu: 0.5}",
        )
        farm.run(file).ends(seconds=500)
        assert done(farm.output("crowd")) == [Status.FINISHED] * 8
    finally:
        farm.hosts[0].restart_sshd()


def test_the_disk_of_the_orchestrator_is_full(farm: Farm) -> None:
    assert farm.metal is not None
    farm.flambe(farm.cluster)
    work = f"/home/{farm.metal.user}/.flambe/clusters/farm/work"
    farm.hosts[0].fill(work, 40)
    file = farm.write(
        "full",
        "grow: !crops.Growth\n  rate: !g [0.1, 0.2, 0.3, 0.4]\n  steps: 6\n  seconds: 0.5\n"
        "  padding: 9000000",
        more=MORE,
    )
    said = farm.run(file).ends(1, seconds=500)
    assert "No space left" in said or "ENOSPC" in said or "no space" in said.lower(), said[-3000:]
    assert "full" in said
    folder = farm.output("full")
    state = folder.read_state()
    assert state is not None
    assert state.status in (Status.FAILED, Status.INTERRUPTED)
    # What was whole is still there, and nothing else takes the room.
    for one in folder.read_variants().values():
        for path in folder.variant(one.stage, one.name).glob("checkpoint*"):
            assert read_manifest(path) is not None
    farm.hosts[0].run("umount", "--lazy", work)


def test_a_trial_that_takes_all_memory_harms_no_other(farm: Farm) -> None:
    pipeline = """
grow: !crops.Trouble
  rate: !g [0.1, 0.2, 0.3]
  trouble: 0.2
  how: memory
  seconds: 1.0
"""
    # A limit of this test's own: the memory of this machine is everyone's.
    run = farm.run(
        farm.write("hungry", pipeline, more="max_failures: 0\nstop_on_failure: false"),
    )
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.3):
            for host in farm.hosts[1:]:
                for pid in running(host, "ray::"):
                    if resident(pid) > 3 * 1024**3:
                        kill(pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        run.ends(seconds=500)
    finally:
        over.set()
        thread.join()
    found: dict[Any, Any] = {
        v.choices["rate"]: v for v in farm.output("hungry").read_variants().values()
    }
    assert found[0.1].status is found[0.3].status is Status.FINISHED
    assert found[0.2].status is Status.FAILED
    assert "died" in found[0.2].error


def resident(pid: int) -> int:
    """Return how much memory a process has."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def test_a_clock_that_is_an_hour_off(farm: Farm) -> None:
    """All that is run on one factory has another time; what is measured there goes on as it was."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    host = farm.hosts[1]
    settings = f"LD_PRELOAD={library}\nFAKETIME=+1h\n"
    assert farm.metal is not None
    place = host.root / "home" / farm.metal.user / ".ssh" / "environment"
    place.write_text(settings)
    host.restart_sshd("-o", "PermitUserEnvironment=yes")
    try:
        seen = farm.flambe("exec", farm.cluster, "--host", "factory_1", "--", "date", "+%s")
        assert 3500 < int(seen.split()[-1]) - time.time() < 3700
        said = farm.run(written(farm, 4)).ends()
        folder = farm.output(farm.folder.name)
        variants = folder.read_variants().values()
        assert [one.status for one in variants] == [Status.FINISHED] * 8
        assert {one.host for one in variants} == {"factory_1", "factory_2"}
        assert all(0 <= (one.ended or 0) - (one.started or 0) < 600 for one in variants)
        assert "is lost" not in said
    finally:
        place.unlink()
        host.restart_sshd()

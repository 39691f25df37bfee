"""What takes minutes: hosts that are lost and found, and what a run does without them.

``make faults`` runs these.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flambe.experiment.storage.checkpoints import read_manifest
from flambe.progress import RunFolder, Status
from flambe.report.store import Store
from tests.experiment.buckets import NAME, Bucket
from tests.experiment.farm import Farm, figures, running
from tests.experiment.lab import until
from tests.experiment.test_cluster_local import LEARNING
from tests.metal import Metal
from tests.metal.conftest import lent
from tests.metal.machine import kill
from tests.metal.mounts import share

pytestmark = [
    pytest.mark.integration,
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
    folder = farm.output(farm.folder.name)
    assert done(folder) == [Status.FINISHED] * 8
    # What ran behind the cut went on meanwhile, and does not count.
    entries = list(folder.read_variants().values())
    assert any(one.attempts > 1 for one in entries)
    for one in entries:
        place = folder.variant(one.stage, one.name)
        manifest = read_manifest(place / "checkpoint")
        assert manifest is not None
        assert manifest.attempt == one.attempts
        assert [path.name for path in place.glob("checkpoint*")] == ["checkpoint"]


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
    assert state.status is Status.INTERRUPTED
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
        said = run.ends(1, seconds=500)
        assert "Ray on the orchestrator ended, or was started again" in said
        assert ".cc:" not in said
    folder = farm.output(farm.folder.name)
    said = farm.flambe("status", "farm")
    assert "--resume" in said, said
    # The command, the results and the site say the same of the run.
    store = Store(folder.root)
    store.refresh(now=True)
    assert store.status == "interrupted"
    if how == "rebooted":
        assert "interrupted" in said, said
        assert "interrupted" in farm.flambe("results", str(folder.root))
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
    try:
        said = farm.run(file, FLAMBE_DISK_DEADLINE="20").ends(1, seconds=500)
        assert re.search(r"orchestrator: .*\bfull\b", said), said[-3000:]
        assert "to continue, run the same command with --resume" in said
        assert "Traceback" not in said
        folder = farm.output("full")
        state = folder.read_state()
        assert state is not None
        assert state.status is Status.INTERRUPTED
        # What was whole is still there, and nothing else takes the room.
        for one in folder.read_variants().values():
            for path in folder.variant(one.stage, one.name).glob("checkpoint*"):
                assert read_manifest(path) is not None
    finally:  # later tests have the same hosts
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
        run.ends(code=1, seconds=500)
    finally:
        over.set()
        thread.join()
    found: dict[Any, Any] = {
        v.choices["rate"]: v for v in farm.output("hungry").read_variants().values()
    }
    assert found[0.1].status is found[0.3].status is Status.FINISHED
    assert found[0.2].status is Status.FAILED
    assert "killed by SIGKILL" in found[0.2].error


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


def test_learning_on_real_data_goes_on_when_what_it_needs_is_lost(farm: Farm) -> None:
    """Several trials of a factory at a time; what is learned is what one machine learns."""
    pipeline = LEARNING.replace("max_steps: 3", "max_steps: 40")
    pipeline = pipeline.replace("dropout: 0.3", "dropout: !g [0.2, 0.3]")
    more = "max_failures: 0\ndevices: {cpu: 0.5}"
    run = farm.run(farm.write("digits", pipeline, more=more))
    folder = farm.output("digits")
    until(lambda: len(under_way(folder)) == 8, "eight trials come further", 600)
    assert {one.host for one in under_way(folder)} == {"factory_1", "factory_2"}
    for pid in running(farm.hosts[2], "raylet/raylet"):
        kill(pid)
    until(lambda: any(one.attempts > 1 for one in under_way(folder)), "some go on", 300)
    farm.hosts[1].cut()
    time.sleep(10)
    farm.hosts[1].mend()
    farm.hosts[2].power_off()
    run.ends(seconds=600)
    again = farm.write("alone", pipeline, more="max_failures: 0")
    farm.flambe(again)
    alone = RunFolder(farm.folder / "flambe-output" / "output__alone")
    assert figures(folder) == figures(alone)
    assert all((one.metric or 0) > 0.8 for one in folder.read_variants().values() if one.step)


def under_way(folder: RunFolder) -> list[Any]:
    """Return the variants that run and have made steps."""
    if not folder.variants.exists():
        return []
    known = folder.read_variants().values()
    return [one for one in known if one.status is Status.RUNNING and one.step >= 2]


def test_a_checkpoint_that_is_half_written_when_its_host_dies(farm: Farm) -> None:
    """It takes seconds to write; the host goes in between, and the one before is used."""
    padded = EIGHT.replace("STEPS", "6") + "  padding: 40000000\n"
    run = farm.run(farm.write("heavy", padded, more=MORE))
    folder = farm.output("heavy")

    def half(host: str) -> Path | None:
        known = folder.read_variants().values() if folder.variants.exists() else ()
        for one in known:
            if one.status is Status.RUNNING and one.host == host and one.step >= 2:
                found = list(folder.variant(one.stage, one.name).glob("checkpoint_*"))
                # Older ones are not whole while they are removed.
                if found and read_manifest(max(found)) is None:
                    return max(found)
        return None

    torn = until(lambda: half("factory_2"), "a checkpoint is half written", 300)
    farm.hosts[2].power_off()
    assert read_manifest(torn) is None
    run.ends(seconds=600)
    known = folder.read_variants().values()
    assert [one.status for one in known] == [Status.FINISHED] * 8
    assert any(one.attempts > 1 for one in known)
    alone = farm.write("alone", EIGHT.replace("STEPS", "6").replace("1.5", "0"), more=MORE)
    farm.flambe(alone)
    other = RunFolder(farm.folder / "flambe-output" / "output__alone")
    assert values(folder) == values(other)
    assert all(
        read_manifest(path)
        for path in folder.root.rglob("checkpoint*")
        if path.is_dir() and path.name != "checkpoint.flambe"
    )


def values(folder: RunFolder) -> dict[Any, Any]:
    """Return what came of each rate."""
    known = folder.read_variants().values()
    return {one.choices["rate"]: (one.step, one.metric, one.best) for one in known}


def test_a_bucket_instead_of_the_disk_of_the_orchestrator(farm: Farm) -> None:
    assert farm.metal is not None
    secrets = farm.folder / "secrets.ini"
    with contextlib.closing(Bucket(farm.folder / "log", farm.metal.gateway)) as bucket:
        lines = "".join(f"{name} = {value}\n" for name, value in bucket.variables.items())
        secrets.write_text(f"[flambe]\nfactories = environment\n[environment]\n{lines}")
        secrets.chmod(0o600)
        text = EIGHT.replace("STEPS", "6") + "harvest: !crops.Harvest {of: !@ grow}\n"
        file = farm.write("stored", text, more=f"{MORE}\nstorage: s3://{NAME}/field")
        run = farm.run(file, "--secrets", str(secrets))
        folder = farm.output("stored")
        until(lambda: len(under_way(folder)) >= 2, "trials come further", 300)
        farm.hosts[2].power_off()
        run.says("is lost", seconds=300)
        # The orchestrator is lost as well, with its disk: all is in the bucket.
        until(lambda: b'"finished"' in bucket.read("field/output__stored/variants.jsonl"), "one")
        run.kill()
        farm.flambe("stop", farm.name)
        finished = {k for k, one in folder.read_variants().items() if one.status.done}
        farm.hosts[0].run("rm", "-rf", f"/{folder.root.relative_to(farm.hosts[0].root)}")
        farm.write_cluster()
        said = farm.run(file, "--resume", "--secrets", str(secrets)).ends(seconds=600)
        assert f"earlier run was copied from s3://{NAME}/field/output__stored" in said
        known = folder.read_variants()
        assert {known[k].status for k in finished} == {Status.REUSED}
        assert all(one.status.done for one in known.values())
        keys = bucket.keys("field/output__stored/")
        assert sum(key.endswith("/checkpoint/manifest.json") for key in keys) == 16
        assert not list(folder.root.rglob("checkpoint*"))


def test_a_disk_that_all_hosts_mount(farm: Farm) -> None:
    """Factories write to it themselves; nothing goes over SFTP."""
    assert farm.metal is not None
    first, *others = farm.hosts
    first.run("install", "-d", "-o", first.user, "/srv/field")
    for host in others:
        host.run("mkdir", "-p", "/srv/field")
        share(farm.metal, first, host, "/srv/field")
    farm.flambe(farm.cluster)
    before = first.sshd_log().count("subsystem request for sftp")
    file = farm.write("shared", EIGHT.replace("STEPS", "3"), more="save_path: /srv/field")
    farm.run(file).ends(seconds=500)
    folder = RunFolder(first.root / "srv/field/output__shared")
    assert done(folder) == [Status.FINISHED] * 8
    assert len(list(folder.root.rglob("checkpoint/manifest.json"))) == 8
    for host in others:
        seen = host.run("sh", "-c", "ls -d /srv/field/output__shared/grow/*/checkpoint").stdout
        assert len(seen.split()) == 8
        host.run("umount", "-l", "/srv/field")
    assert first.sshd_log().count("subsystem request for sftp") == before

"""What befalls experiments on real hosts while they run: processes, links and files that fail."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flambe.progress import Status, VariantState
from tests.experiment.farm import Farm, eventually, farm_on, running
from tests.metal.conftest import lent
from tests.metal.machine import kill

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.faults,
    pytest.mark.xdist_group("metal-faults"),
]
FOUR = """
grow: !crops.Growth
  rate: !g [0.1, 0.2, 0.3, 0.4]
  steps: 10
  seconds: 1.5
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, installed: Path | None) -> Iterator[Farm]:
    with (
        lent(3, layer=installed) as metal,
        farm_on(metal, tmp_path_factory.mktemp("farm")) as farm,
    ):
        yield farm


def rate(one: VariantState) -> float:
    """Return the option that tells variants apart; its name has the stage in front of it."""
    return float(next(value for name, value in one.choices.items() if name.endswith("rate")))


def answers(url: str) -> bool:
    """Whether the site is there, as whoever has the printed address sees it."""
    try:
        with httpx.Client(trust_env=False, timeout=10, follow_redirects=True) as client:
            return client.get(url).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.long
def test_a_raylet_a_link_an_sshd_and_the_site_fail_and_the_run_goes_on(farm: Farm) -> None:
    run = farm.run(farm.write("storm", FOUR, more="max_failures: 0"))
    url = run.says(r"Report Site: (http\S+)").split()[-1]
    run.says("step 2 of", times=4)
    orchestrator, first, second = farm.hosts
    folder = farm.output("storm")
    hosts = {one.name: one.host for one in folder.read_variants().values()}
    assert set(hosts.values()) == {"factory_1", "factory_2"}
    # A raylet dies: its node is started again, what it ran goes on from its checkpoints.
    (raylet,) = running(first, "raylet/raylet")
    kill(raylet)
    # A short cut is not even noticed.
    second.cut()
    time.sleep(10)
    second.mend()
    # Everyone who was connected to the orchestrator loses their connection.
    orchestrator.restart_sshd()
    # The site and TensorBoard come back, at the same address.
    sites = running(orchestrator, "--tensorboard-port")
    boards = running(orchestrator, "flambe.report.tensorboard")
    assert len(sites) == 1
    assert len(boards) == 1
    for pid in (*sites, *boards):
        kill(pid, signal.SIGKILL)
    eventually(lambda: answers(url), "the site is back")
    board = eventually(
        lambda: running(orchestrator, "flambe.report.tensorboard"), "TensorBoard is back"
    )
    assert board != boards
    said = run.ends()
    assert "factory_2 is lost" not in said
    variants = list(folder.read_variants().values())
    assert [one.status for one in variants] == [Status.FINISHED] * 4
    attempts = {hosts[one.name]: one.attempts for one in variants}
    assert attempts["factory_1"] > 1
    assert attempts["factory_2"] == 1


@pytest.mark.long
def test_a_driver_that_is_killed_is_told_and_gone_on_from(farm: Farm) -> None:
    pipeline = """
first: !crops.Growth {rate: !g [0.1, 0.2], steps: 2}
grow: !crops.Growth
  rate: !g [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
  steps: 8
  seconds: 0.5
"""
    file = farm.write("killed", pipeline, more="max_failures: 0")
    run = farm.run(file)
    folder = farm.output("killed")

    def begun() -> bool:
        known = [v for v in folder.read_variants().values() if v.stage == "grow"]
        return sum(v.status is Status.FINISHED for v in known) >= 2 and any(
            v.status is Status.RUNNING and v.step >= 2 for v in known
        )

    eventually(begun, "some are done and some are not")
    (driver,) = running(farm.hosts[0], "job/config.yaml")
    kill(driver)
    said = run.ends(137)
    state = eventually(
        lambda: (found := folder.read_state()) and found.status is Status.INTERRUPTED and found,
        "the state says what became of it",
    )
    assert "killed" in state.error
    assert Status.RUNNING not in {one.status for one in folder.read_variants().values()}
    assert "--resume" in said
    # What is on disk is whole but for the last state: the one before counts.
    folder.state.write_bytes(folder.state.read_bytes()[:100])

    def written(one: VariantState) -> float:
        """Return when its last checkpoint was written; it may not have its final name yet."""
        place = folder.variant(one.stage, one.name)
        return max(path.stat().st_mtime for path in place.glob("checkpoint*/manifest.json"))

    before = {one.name: written(one) for one in folder.read_variants().values() if one.status.done}
    assert len(before) >= 4
    steps = {one.id: one.step for one in folder.read_variants().values()}
    refused = farm.flambe(file, "--cluster", farm.cluster, code=2)
    assert "holds the results of an earlier run" in refused
    again = farm.run(file, "--resume").ends()
    variants = list(folder.read_variants().values())
    assert all(one.status.done for one in variants)
    for one in variants:
        if one.name in before:
            assert one.status is Status.REUSED
            assert written(one) == before[one.name]
        elif steps[one.id]:
            assert f"step 1 of {rate(one):g}" not in again


@pytest.mark.long
def test_a_component_that_raises_and_one_that_floods_harm_no_other(farm: Farm) -> None:
    pipeline = """
grow: !crops.Trouble
  rate: !g [0.1, 0.2, 0.3]
  trouble: 0.2
flood: !crops.Trouble
  rate: !g [0.1, 0.2]
  trouble: 0.2
  how: flood
"""
    more = "max_failures: 1\nstop_on_failure: false"
    run = farm.run(farm.write("troubled", pipeline, more=more))
    said = run.ends(code=1)
    folder = farm.output("troubled")
    found = {(v.stage, rate(v)): v for v in folder.read_variants().values()}
    bad = found["grow", 0.2]
    assert bad.status is Status.FAILED
    assert "blight at step 2" in bad.error
    assert "blight at step 2" in bad.traceback
    assert "blight at step 2" in said
    assert bad.attempts == 2
    assert found["grow", 0.1].status is found["grow", 0.3].status is Status.FINISHED
    flood = found["flood", 0.2]
    assert flood.status is Status.FINISHED
    # All 50 MB of it are on the orchestrator, in order.
    log = folder.variant("flood", flood.name) / "variant.log"
    assert log.read_text().count("y" * 99) == 500_000

"""What a run on a cluster lives with: helpers of Ray, its head, the collector, lost hosts."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from flambe.progress import RunFolder, Status, VariantState
from tests.experiment.farm import Farm, eventually
from tests.experiment.lab import processes_with

pytestmark = [
    pytest.mark.integration,
    pytest.mark.faults,
    pytest.mark.long,
    pytest.mark.xdist_group("local-experiment"),
    pytest.mark.timeout(900),
]
FOUR = """
grow: !crops.Growth
  rate: !g [0.1, 0.2, 0.3, 0.4]
  steps: STEPS
  seconds: 1.0
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with contextlib.closing(Farm(tmp_path_factory.mktemp("farm"))) as farm:
        farm.flambe(farm.cluster)
        yield farm


@pytest.fixture(autouse=True)
def free(farm: Farm) -> Iterator[None]:
    """End what a test leaves running on the cluster."""
    yield
    farm.start("stop", farm.name).process.wait(120)


def processes(farm: Farm, *words: str) -> list[int]:
    """Return the processes of the cluster whose command lines hold all of these words."""
    mark = f"FLAMBE_SUPERVISED={farm.name}"
    return [pid for pid, line in processes_with(mark).items() if all(w in line for w in words)]


def kept(farm: Farm) -> set[int]:
    """Return the agents of the raylets: their titles stand where their environment was."""
    found: set[int] = set()
    for pid in set(processes(farm, "ray-keep")) - set(processes(farm, "raylet/raylet")):
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            found |= {int(child) for child in children.split()}
    return found


def known(folder: RunFolder) -> list[VariantState]:
    return list(folder.read_variants().values())


def test_a_helper_of_ray_and_a_raylet_end_and_the_run_continues(farm: Farm) -> None:
    run = farm.run(farm.write("helped", FOUR.replace("STEPS", "300"), more="max_failures: 0"))
    run.says("step 2 of", times=4)
    for helper in (
        "ray_client_server",
        "util.client.server",
        "dashboard/dashboard.py",
        "monitor.py",
    ):
        assert not processes(farm, helper)
    (gcs,) = processes(farm, "gcs/gcs_server")
    raylets = set(processes(farm, "raylet/raylet"))
    assert len(raylets) == 3
    agents = kept(farm)
    assert len(agents) == 6
    for pid in agents:
        os.kill(pid, signal.SIGKILL)
    again = eventually(
        lambda: len(new := kept(farm)) == 6 and not new & agents and new, "they are back"
    )
    assert again
    assert set(processes(farm, "raylet/raylet")) == raylets
    assert processes(farm, "gcs/gcs_server") == [gcs]
    # What a raylet ran is tried again as soon as there is room, not at the end of all others.
    folder = farm.output("helped")
    lost = {one.id for one in known(folder) if one.host == "factory_1"}
    assert len(lost) == 2
    (raylet,) = processes(farm, "raylet/raylet", "factory_1")
    os.kill(raylet, signal.SIGKILL)

    def tried_again() -> bool:
        entries = known(folder)
        if any(one.status.done for one in entries):
            raise AssertionError("they waited for the others to end")
        return all(one.attempts == 2 and one.host for one in entries if one.id in lost)

    eventually(tried_again, "what was lost is tried again")
    assert {one.attempts for one in known(folder) if one.id not in lost} == {1}


@pytest.mark.parametrize("what", ["gcs/gcs_server", "raylet/raylet"])
def test_the_head_of_ray_is_killed_and_the_run_says_so_and_is_continued(
    farm: Farm, what: str
) -> None:
    name = "headless-" + what[:3]
    file = farm.write(name, FOUR.replace("STEPS", "12"), more="max_failures: 0")
    run = farm.run(file)
    run.says("step 3 of", times=4)
    words = [what] if "gcs" in what else [what, "orchestrator"]
    (pid,) = processes(farm, *words)
    os.kill(pid, signal.SIGKILL)
    said = run.ends(1)
    reason = "Ray on the orchestrator ended, or was started again"
    assert f"{reason}\n  to continue, run the same command with --resume" in said
    for raw in (".cc:", "Traceback", "ActorDied", "Check failed", "*** SIG"):
        assert raw not in said, said[-4000:]
    folder = farm.output(name)
    state = folder.read_state()
    assert state is not None
    assert (state.status, state.error) == (Status.INTERRUPTED, reason)
    assert Status.RUNNING not in {one.status for one in known(folder)}
    steps = {one.id: one.step for one in known(folder)}
    again = farm.run(file, "--resume").ends()
    statuses = [one.status for one in known(folder)]
    assert statuses == [Status.REUSED if step == 12 else Status.FINISHED for step in steps.values()]
    for one in known(folder):
        if steps[one.id] >= 3:
            assert f"step 1 of {one.choices['rate']:g} " not in again

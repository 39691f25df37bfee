"""Searches that are killed at random moments, and resumed until they are done."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from flambe.progress import RunFolder, Status, VariantState
from flambe.report.files import RunPath
from flambe.report.metrics import figures
from tests.experiment.farm import Farm, Going
from tests.experiment.lab import kill_all, processes_with, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.faults,
    pytest.mark.xdist_group("local-experiment"),
    pytest.mark.timeout(1800),
]

#: How often each kind of search is killed in each place: 30 times in all on this machine.
KILLS = int(os.environ.get("FLAMBE_KILLS", "10"))
STEPS = 12
PIPELINE = f"train: !crops.Growth {{rate: !tune.uniform [0.1, 1.0], steps: {STEPS}, seconds: 0.05}}"
SEARCHES = {
    "asha": "search: {train: {num_samples: 8}}\n"
    f"schedulers: {{train: !ray.ASHAScheduler {{max_t: {STEPS}, grace_period: 3}}}}",
    "pbt": "search: {train: {num_samples: 4}}\n"
    "schedulers: {train: !ray.PopulationBasedTraining {time_attr: steps, "
    "perturbation_interval: 3}}",
    # One after the other: what it proposes does not depend on which ends first.
    "optuna": "search: {train: {searcher: !ray.OptunaSearch {seed: 1}, num_samples: 8, "
    "max_concurrent_trials: 1}}",
}


class Search:
    """A search on this machine, which can be killed, with all that it has started.

    Parameters
    ----------
    farm, kind
        Where it runs, and what it is.
    """

    def __init__(self, farm: Farm, kind: str) -> None:
        self.farm = farm
        self.file = farm.write(kind, PIPELINE, more=SEARCHES[kind])
        self.name = kind
        self._mark = ""

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.farm.folder / "flambe-output" / f"output__{self.name}")

    def start(self, *options: str) -> Going:
        self._mark = f"flambe-killed-{uuid.uuid4().hex}"
        return self.farm.start(self.file, *options, FLAMBE_MARK=self._mark)

    def kill(self, going: Going) -> None:
        kill_all(self._mark)
        going.process.wait(60)

    def undisturbed(self) -> list[VariantState]:
        """Return the variants of a run of the same file that nothing disturbs."""
        self.farm.flambe(self.file, "save_path=undisturbed")
        folder = self.farm.folder / "undisturbed" / f"output__{self.name}"
        return list(RunFolder(folder).read_variants().values())

    @property
    def resumes(self) -> list[str]:
        return ["--resume"] if self.folder.root.exists() else []

    def lines(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self.folder.variants.read_bytes().count(b"\n")
        return 0


class ClusterSearch(Search):
    """A search on a cluster of this machine, whose driver on the orchestrator is killed."""

    @property
    def folder(self) -> RunFolder:
        return self.farm.output(self.name)

    def start(self, *options: str) -> Going:
        return self.farm.run(self.file, *options)

    def kill(self, going: Going) -> None:
        for pid, line in processes_with(f"FLAMBE_SUPERVISED={self.farm.name}").items():
            if "job/config.yaml" in line:
                os.kill(pid, signal.SIGKILL)
        going.process.wait(120)


def kill_and_resume(search: Search, kills: int) -> int:
    """Kill a search at random moments; return how often it was killed before its end."""
    draw = random.Random(search.name)
    number = 0
    for _ in range(kills):
        enough = search.lines() + draw.randrange(1, 16)
        going = search.start(*search.resumes)
        deadline = time.monotonic() + 180
        while going.process.poll() is None and time.monotonic() < deadline:
            if search.lines() >= enough:
                break
            time.sleep(0.01)
        number += going.process.poll() is None
        search.kill(going)
    search.start(*search.resumes).ends()
    return number


def check(search: Search, expected: Sequence[VariantState]) -> None:
    """Check that a search has ended as one that nothing disturbed, if that is there."""
    entries = list(search.folder.read_variants().values())
    assert len(entries) == len({entry.name for entry in entries})
    assert all(entry.status.done for entry in entries)
    # Values are drawn in the same order. Which ASHA stops depends on which is first at a rung, and
    # which a member copies on when it asks.
    if expected:
        assert {entry.id: entry.values for entry in entries} == {e.id: e.values for e in expected}
    for entry in entries:
        path = RunPath(search.folder.variant("train", entry.name), "metrics.jsonl")
        steps, heights = figures(path)["height"]
        assert steps == list(range(1, entry.step + 1)), "a step is missing"
        assert entry.metric == heights[-1]
        if search.name != "asha":
            assert entry.step == STEPS
        assert {copy["source"] for copy in entry.history} <= {e.id for e in entries} - {entry.id}
    if search.name == "optuna" and expected:
        assert {e.id: e.metric for e in entries} == {e.id: e.metric for e in expected}
    if search.name == "asha":
        assert any(e.status is not Status.STOPPED or e.step == STEPS for e in entries)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    farm = Farm(tmp_path_factory.mktemp("here"))
    yield farm
    farm.end_commands()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with contextlib.closing(Farm(tmp_path_factory.mktemp("cluster"))) as farm:
        farm.flambe(farm.cluster)
        yield farm


def test_one_that_is_killed_ends_with_all_its_variants(here: Farm) -> None:
    """The short form of what follows."""
    search = Search(here, "asha")
    going = search.start("search.train.num_samples=3")
    until(lambda: search.lines() >= 8, f"two variants have begun: {going.text}")
    search.kill(going)
    search.start("search.train.num_samples=3", "--resume").ends()
    check(search, [])


@pytest.mark.long
@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("place", ["here", "cluster"])
def test_one_that_is_killed_often_ends_as_if_undisturbed(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, place: str
) -> None:
    if kind == "optuna":
        pytest.importorskip("optuna")
    farm: Farm = request.getfixturevalue(place)
    make: Callable[[Farm, str], Search] = Search if place == "here" else ClusterSearch
    for name in ("flambe-output", "undisturbed"):
        with contextlib.suppress(FileNotFoundError):
            (farm.folder / name).rename(tmp_path / name)
    search = make(farm, kind)
    assert kill_and_resume(search, KILLS) > 0, "it was never killed"
    check(search, search.undisturbed())

"""Searches that are killed at random moments, and resumed until they are done."""

from __future__ import annotations

import os
import random
import subprocess
import time
import uuid

import pytest

from flambe.progress import Status, read_lines
from tests.experiment.lab import Lab, command, environment, flambe, kill_all

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.long]

#: How often each kind of search is killed: 30 times in all.
KILLS = int(os.environ.get("FLAMBE_KILLS", "10"))
PIPELINE = "train: !pieces.Climber {{rate: {}, steps: 12, delay: 0.05}}"
SEARCHES = {
    "asha": (
        "!tune.uniform [0.0, 1.0]",
        "search: {train: {num_samples: 8}}\n"
        "schedulers: {train: !ray.ASHAScheduler {max_t: 12, grace_period: 3}}",
    ),
    "pbt": (
        "!tune.uniform [0.0, 1.0]",
        "search: {train: {num_samples: 4}}\n"
        "schedulers: {train: !ray.PopulationBasedTraining {time_attr: steps, "
        "perturbation_interval: 3}}",
    ),
    "optuna": (
        "!tune.uniform [0.0, 1.0]",
        "search: {train: {searcher: !ray.OptunaSearch {seed: 1}, num_samples: 8}}",
    ),
}


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_search_that_is_killed_ends_with_all_its_variants(lab: Lab, kind: str) -> None:
    if kind == "optuna":
        pytest.importorskip("optuna")
    space, more = SEARCHES[kind]
    lab.write(PIPELINE.format(space), more=more)
    draw = random.Random(kind)
    for _ in range(KILLS):
        mark = f"flambe-killed-{uuid.uuid4().hex}"
        resume = ["--resume"] if lab.folder.root.exists() else []
        running = subprocess.Popen(
            command(lab.config, *resume),
            env=environment(FLAMBE_MARK=mark),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seen = len(list(read_lines(lab.folder.variants))) if lab.folder.variants.exists() else 0
        lines = seen + draw.randrange(1, 25)
        deadline = time.monotonic() + 120
        while running.poll() is None and time.monotonic() < deadline:
            path = lab.folder.variants
            if path.exists() and len(list(read_lines(path))) >= lines:
                break
            time.sleep(0.02)
        kill_all(mark)
        running.wait()
    done = flambe(lab.config, *(["--resume"] if lab.folder.root.exists() else []), timeout=600)
    assert done.returncode == 0, done.stderr
    entries = list(lab.folder.read_variants().values())
    expected = 4 if kind == "pbt" else 8
    assert len(entries) == len({entry.name for entry in entries}) == expected
    assert all(entry.status.done for entry in entries)
    for entry in entries:
        figures = [
            line["step"]
            for line in read_lines(lab.folder.variant("train", entry.name) / "metrics.jsonl")
            if line["tag"] == "metric"
        ]
        if kind != "pbt":  # a member that copies one that is behind goes back
            assert figures == list(range(1, entry.step + 1)), "a step is missing, or counted twice"
            assert entry.metric == pytest.approx(entry.step * entry.values["train[rate]"])
        if kind != "asha":
            assert entry.step == 12
        for copy in entry.history:
            assert copy["source"] in {other.id for other in entries} - {entry.id}
    if kind == "asha":
        full = [e for e in entries if e.status is not Status.STOPPED or e.step == 12]
        best = max(entries, key=lambda entry: entry.values["train[rate]"])
        assert best in full, "the best of all was stopped early"

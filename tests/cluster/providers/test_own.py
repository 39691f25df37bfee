"""A kind of cluster of one's own, as the example shows: public names only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flambe.cluster import AWSCluster, Cluster, LocalCluster, Machine, SSHCluster
from tests.experiment.lab import COMMAND

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("local-cluster")]
EXAMPLE = Path(__file__).parents[3] / "examples" / "own-cluster" / "src"


class Standing(Cluster):
    def find_machines(self) -> list[Machine]:
        return []


class Rented(Standing):
    def remove_machines(self) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        (Standing, False),
        (Rented, True),
        (SSHCluster, False),
        (LocalCluster, False),
        (AWSCluster, True),
    ],
)
def test_results_go_with_machines_that_are_removed(kind: type[Cluster], *, lost: bool) -> None:
    assert object.__new__(kind).ephemeral is lost


def test_it_creates_finds_rolls_back_and_destroys(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    file = tmp_path / "cluster.yaml"

    def flambe(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(EXAMPLE), "FLAMBE_HOME": str(tmp_path / "home")}
        return subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

    def describe(factories: int) -> None:
        file.write_text(
            f"own_cluster: {EXAMPLE.parent}\n---\n!own_cluster.PoolCluster\nname: pooled\n"
            f"pool: {pool}\nsize: 2\nfactories_num: {factories}\n"
        )

    def booked() -> list[str]:
        return sorted(path.name for path in pool.glob("*")) if pool.exists() else []

    describe(3)
    planned = flambe(str(file), "--dry-run")
    assert "orchestrator, factory_1, factory_2, factory_3" in planned.stdout
    failed = flambe(str(file))
    assert failed.returncode == 1
    assert "all are booked" in failed.stderr
    assert booked() == [], "what could be booked was given back"
    describe(1)
    made = flambe(str(file))
    assert made.returncode == 0, made.stderr
    assert booked() == ["pooled.factory_1", "pooled.orchestrator"]
    again = flambe(str(file))
    assert "everything is in place" in again.stdout
    done = flambe("down", str(file))
    assert done.returncode == 0, done.stderr
    assert booked() == []

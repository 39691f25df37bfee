"""Hosts of tests that have flambe's environments from the start."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.metal import Metal, missing
from tests.metal.layer import layer

# What most programs of a cluster import.
IMPORTS = """
import ray, ray.tune, ray.util.state, flambe.cli.main, flambe.experiment.executors.tune.driver
import flambe.experiment.executors.tune.trainable, flambe.report.app, tensorboard, uvicorn
"""
GROWING = "grow: !crops.Growth {rate: 0.1, steps: 1}"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Return a layer for hosts that has the environments of flambe: alone, with a job, with a farm.

    None where there can be no hosts.
    """
    if os.geteuid() != 0 or missing():
        return None
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = tmp_path_factory.mktemp("installing")
    return layer(shared / "layers" / "installed", lambda metal: install(metal, folder))


def install(metal: Metal, folder: Path) -> None:
    """Install the environments on the only host of a cluster."""
    from tests.cluster.conftest import ssh_cluster
    from tests.cluster.place import Place
    from tests.experiment.farm import Farm

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAMBE_HOME", str(folder / "home"))
        cluster = ssh_cluster(metal)
        cluster.run()
        # What is compiled now is not compiled on each host.
        python = cluster.context.python(cluster.orchestrator)
        cluster.orchestrator.run([python, "-c", IMPORTS], deadline=300)
        place = Place(folder / "place", metal.cluster_yaml())
        done = place.flambe(place.job(steps=0), "-c", place.cluster)
        assert done.returncode == 0, done.stdout + done.stderr
        with contextlib.closing(Farm(folder / "farm", metal, orchestrator_works=True)) as farm:
            farm.run(farm.write("installing", GROWING)).ends()
        cluster.orchestrator.connection.close()

"""An experiment on EC2 as people do it: from nothing to results, then idle to zero instances.

Each instance is a real host; see tests/cloud.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flambe.cluster.providers.aws.api.aws_tags import HOST_NAME
from flambe.progress import Status
from tests.cloud import Cloud
from tests.cloud.conftest import lent
from tests.cluster.providers.aws.conftest import left
from tests.experiment.farm import Farm, eventually

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.xdist_group("metal-aws"),
    pytest.mark.timeout(900),
]

# The file of the documentation, its values filled in.
DOCUMENT = """\
!AWSCluster

name: name-of-the-cluster # Pick a unique identifier for the cluster

factories_num: 1  # The amount of factories

factories_type: g3.4xlarge  # The type of factories. GPU instances are recommended.
orchestrator_type: t3.large # The type of the orchestrator (GPU is not necessary).

orchestrator_timeout: -1  # # -1 means the orchestrator will have to be killed manually (recommended)
factories_timeout: -1 # Factories timeout after being unused for these many hours

creator: user@company.com
key_name: {key_name}

tags:  # Extra tags to add to all instances
    company: my-company

key: {key}

subnet_id: {subnet}
volume_size: 100. # GBs of disk space for all instances

security_group: {security_group}
"""
GRID = """
grow: !crops.Growth
  rate: !g [0.1, 0.2, 0.3]
  steps: 4
harvest: !crops.Harvest
  of: !@ grow
"""


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with lent() as one:
        yield one


def described(cloud: Cloud) -> str:
    """Return the documentation's file, with the values of the cloud."""
    prepared = cloud.prepared
    return DOCUMENT.format(
        key_name=prepared.key_name,
        key=prepared.key,
        subnet=prepared.subnet,
        security_group=prepared.security_group,
    )


def test_from_nothing_to_results_to_nothing(cloud: Cloud, tmp_path: Path) -> None:
    with contextlib.closing(Farm(tmp_path / "farm")) as farm:
        text = described(cloud)
        farm.cluster.write_text(text)
        farm.name = "name-of-the-cluster"
        farm.env.update(cloud.environment)
        file = farm.write("crop", GRID, more="seed: 7\nreduce:\n  grow: 1\n")
        # What it would do is told first, and nothing is touched.
        planned = farm.flambe("plan", file, "--cluster", farm.cluster)
        assert re.search(r"orchestrator.*factory_1", planned, re.DOTALL)
        assert len(left(cloud)) == 0
        assert not cloud.calls.of("RunInstances")
        said = farm.run(file).ends()
        assert "1 x g3.4xlarge as factory" in said
        assert "1 x t3.large as orchestrator" in said
        assert "do not support the GPUs of g3.4xlarge" in said
        assert len(left(cloud)) == 2
        status = farm.flambe("status", farm.name)
        assert re.search(r"factory_1 .* never .*ready", status)
        assert "instance-hours since they were started" in status
        # Its results go with its hosts: they are asked for first.
        refused = farm.flambe("down", farm.name, code=1)
        assert "would be lost with its hosts" in refused
        here = farm.fetched("crop")
        done = [v.status for v in here.read_variants().values()].count(Status.FINISHED)
        assert done == 4
        # New timeouts count on hosts that run; then nobody needs them.
        times = text.replace("orchestrator_timeout: -1", "orchestrator_timeout: 0.005")
        farm.cluster.write_text(times.replace("factories_timeout: -1", "factories_timeout: 0"))
        assert "is ready" in farm.flambe(farm.cluster)
        assert re.search(
            r"factory_1 .*(not while|after|in ).*ready", farm.flambe("status", farm.name)
        )
        eventually(lambda: len(left(cloud)) == 0, "all instances end themselves", 400)
        assert not cloud.calls.of("TerminateInstances")
        assert "its hosts are not running" in farm.flambe("status", farm.name)
        assert "is down" in farm.flambe("down", farm.name)


@pytest.mark.long
@pytest.mark.faults
def test_a_spot_instance_that_is_taken_away(tmp_path: Path) -> None:
    # The notice comes two minutes before, of a clock that runs fast.
    with lent(pace=60.0) as cloud, contextlib.closing(Farm(tmp_path / "farm")) as farm:
        text = described(cloud).replace("g3.4xlarge", "t3.large").replace("num: 1", "num: 2")
        farm.cluster.write_text(text + "spot: true\n")
        farm.name = "name-of-the-cluster"
        farm.env.update(cloud.environment)
        grid = GRID.replace("0.3]", "0.3, 0.4, 0.5, 0.6]")
        grid = grid.replace("steps: 4", "steps: 20\n  seconds: 1.5")
        run = farm.run(farm.write("crop", grid, more="seed: 7\nmax_failures: 0\n"))
        run.says(r"step 2 of", times=4)
        (taken,) = [
            machine.id
            for machine in cloud.instances("running")
            if {tag["key"]: tag["value"] for tag in machine.model.get_tags()}.get(HOST_NAME)
            == "factory_2"
        ]
        cloud.interrupt(taken)
        said = run.ends()
        assert "factory_2 is lost: 1 factory left" in said, said
        done = [v.status for v in farm.fetched("crop").read_variants().values()]
        assert done == [Status.FINISHED] * 12
        assert len(left(cloud)) == 2
        assert "is ready" in farm.flambe(farm.cluster)
        assert len(left(cloud)) == 3
        # All results are here, whatever the clocks say.
        assert "is down" in farm.flambe("down", farm.name)
        assert len(left(cloud)) == 0

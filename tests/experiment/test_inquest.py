"""A host that does not answer is asked once how a process of its ended, and keeps nobody waiting."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flambe.experiment.executors.tune import diagnosis
from flambe.experiment.executors.tune.collector import Collector, Origin
from flambe.experiment.executors.tune.collector_client import CollectorClient
from flambe.experiment.variants.expansion import Variant

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.long]


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The id of a node of a Ray whose raylet answers nobody."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    ray.init(address=cluster.address, log_to_driver=False)
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    raylet = node.all_processes["raylet"][0].process.pid
    os.kill(raylet, signal.SIGSTOP)
    yield node.node_id
    os.kill(raylet, signal.SIGCONT)
    ray.shutdown()
    cluster.shutdown()


def test_a_host_that_does_not_answer_is_asked_once(
    frozen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": here}
    collector: Any = ray.remote(Collector).options(**options).remote(str(tmp_path), [], "run")
    variants = [Variant(f"id{n}", "a", f"v{n}", None) for n in range(2)]
    for variant in variants:
        origin = Origin(f"a/{variant.name}", variant.name, 1, frozen, "/nowhere")
        ray.get(collector.begin.remote(variant.id, origin))
    failures = diagnosis.FailureDiagnosis(CollectorClient(collector))
    monkeypatch.setattr(diagnosis, "HOST_SECONDS", 3)
    assert "its process" in failures.failure_of(variants[0], None).text
    # It would wait for an hour for the next one.
    monkeypatch.setattr(diagnosis, "HOST_SECONDS", 3600)
    assert "its process" in failures.failure_of(variants[1], None).text
    assert "its process" in (tmp_path / "a" / "v1" / "variant.log").read_text()

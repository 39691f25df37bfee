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
from flambe.experiment.executors.tune.local_ray import forget_token
from flambe.experiment.variants.expansion import Variant

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.long]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A Ray of several nodes on this machine, that this process is connected to.

    It has a token as flambe's own has: whether there is one is decided once for a process.
    """
    import ray
    from ray.cluster_utils import Cluster

    token = tmp_path / "token"
    token.write_text("5" * 64)
    token.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    forget_token()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def frozen(cluster: Any) -> Iterator[str]:
    """The id of a node whose raylet answers nobody."""
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    raylet = node.all_processes["raylet"][0].process.pid
    os.kill(raylet, signal.SIGSTOP)
    yield node.node_id
    os.kill(raylet, signal.SIGCONT)


def collector_with(node: str, folder: Path, variants: list[Variant]) -> CollectorClient:
    """Start a collector that knows of attempts at variants on a node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": here}
    collector: Any = ray.remote(Collector).options(**options).remote(str(folder), [], "run")
    for variant in variants:
        origin = Origin(f"a/{variant.name}", variant.name, 1, node, "/nowhere")
        ray.get(collector.begin.remote(variant.id, origin))
    return CollectorClient(collector)


def test_a_host_that_does_not_answer_is_asked_once(
    frozen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = [Variant(f"id{n}", "a", f"v{n}", None) for n in range(2)]
    failures = diagnosis.FailureDiagnosis(collector_with(frozen, tmp_path, variants))
    monkeypatch.setattr(diagnosis, "HOST_SECONDS", 3)
    assert failures.failure_of(variants[0], None).host_lost
    # It would wait for an hour for the next one.
    monkeypatch.setattr(diagnosis, "HOST_SECONDS", 3600)
    assert failures.failure_of(variants[1], None).host_lost


def test_a_process_that_ends_just_before_its_host_did_not_fail(
    cluster: Any, tmp_path: Path
) -> None:
    """A host that goes down may end its processes in any order."""
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    variants = [Variant("id0", "a", "v0", None)]
    failures = diagnosis.FailureDiagnosis(collector_with(node.node_id, tmp_path, variants))
    cluster.remove_node(node, allow_graceful=False)
    error = tmp_path / "error.txt"
    error.write_text("The actor died unexpectedly before finishing this task.")
    failure = failures.failure_of(variants[0], str(error))
    assert failure.host_lost
    assert not (tmp_path / "a" / "v0" / "variant.log").exists()  # nothing is blamed on it

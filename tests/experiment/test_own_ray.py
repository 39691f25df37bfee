"""A run in a process that has started a Ray of its own: it is used, and left running."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.experiment.lab import Lab, environment

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ray")]

SCRIPT = """
import json, sys
import ray
ray.init(num_cpus=2, include_dashboard=False, address="local")
node = ray.get_runtime_context().get_node_id()

@ray.remote(num_cpus=0)
class Mine:
    def answer(self):
        return 42

mine = Mine.remote()
import flambe
run = flambe.load_config(sys.argv[1]).run(show=False)
nodes = [entry["NodeID"] for entry in ray.nodes() if entry["Alive"]]
print(json.dumps({
    "status": run.status,
    "states": list(run.variants.state),
    "running": ray.is_initialized(),
    "same": nodes == [node],
    "actor": ray.get(mine.answer.remote()),
    "free": ray.available_resources().get("CPU"),
}))
"""


def test_a_ray_of_the_user_is_used_and_left_running(lab: Lab) -> None:
    config = lab.write("a: !pieces.Walk {steps: 2, rate: !g [1.0, 2.0]}")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(config)],
        env=environment(),
        cwd=lab.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "status": "finished",
        "states": ["finished", "finished"],
        "running": True,
        "same": True,
        "actor": 42,
        "free": 2.0,
    }

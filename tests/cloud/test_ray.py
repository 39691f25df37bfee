"""Ray's own launcher for AWS takes this for AWS: it makes a head, and logs in to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cloud import Cloud
from tests.cloud.prepared import launched_by_ray

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.faults,  # which are those that may take their time
    pytest.mark.long,
]


def test_ray_up_and_down(cloud: Cloud, tmp_path: Path) -> None:
    config = tmp_path / "cluster.yaml"
    config.write_text(
        json.dumps(launched_by_ray(cloud, "lab", "echo set up by $(id -un) > /tmp/started")),
        encoding="utf-8",
    )
    environment = {
        **cloud.environment,
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "RAY_USAGE_STATS_ENABLED": "0",
    }

    def ray(*words: str) -> str:
        command = [sys.executable, "-m", "ray.scripts.scripts", *words]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    ray("up", "--yes", "--no-config-cache", str(config))
    [head] = cloud.instances("running")
    tags = {tag["key"]: tag["value"] for tag in head.model.get_tags()}
    assert tags["ray-cluster-name"] == "lab"
    assert tags["ray-node-status"] == "up-to-date"
    assert "set up by ubuntu" in cloud.host(head.id).run("cat", "/tmp/started").stdout
    assert "hello" in ray("exec", str(config), "echo hello")
    assert cloud.calls.count("RunInstances") == 1
    assert cloud.calls.count("AuthorizeSecurityGroupIngress") == 1
    ray("down", "--yes", str(config))
    assert not cloud.instances("pending", "running", "stopped")

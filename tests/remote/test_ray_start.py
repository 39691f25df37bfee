"""What keeps up the helpers of a Ray node; the node itself: tests/experiment/test_cluster_life.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.experiment.lab import until

AGENT = "import sys; from flambe.remote.agent.__main__ import main; sys.exit(main())"
# What it runs notes its process id, and waits.
HELPER = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(600)"


def test_a_helper_that_ends_is_started_again_and_ends_with_its_keeper(tmp_path: Path) -> None:
    notes = tmp_path / "pids"
    command = [sys.executable, "-c", AGENT, "ray-keep", sys.executable, "-c", HELPER, str(notes)]
    keeper = subprocess.Popen(command, env={**os.environ, "RAY_RAYLET_PID": str(os.getpid())})

    def started(times: int) -> list[int]:
        pids = [int(line) for line in notes.read_text().split()] if notes.exists() else []
        return pids if len(pids) == times else []

    (first,) = until(lambda: started(1), "it is started")
    os.kill(first, signal.SIGKILL)
    _, second = until(lambda: started(2), "it is started again")
    assert keeper.poll() is None
    keeper.terminate()
    assert keeper.wait(30) == 0
    until(lambda: not Path(f"/proc/{second}").exists(), "it ends with what kept it")

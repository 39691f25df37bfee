"""The smallest ClusterRunnable, usable as ``!hello_cluster.Report``."""

from __future__ import annotations

import platform
import socket
import subprocess
from typing import TYPE_CHECKING, Any

from flambe.runnable import ClusterRunnable, RemoteEnvironment

if TYPE_CHECKING:
    from flambe.cluster import Cluster


class Report(ClusterRunnable):
    """Asks every host what it is.

    Parameters
    ----------
    greeting
        What is written on each host before, and read there.
    folder
        Where; set by :meth:`setup`.
    env
        The cluster; injected.
    """

    def __init__(
        self, greeting: str = "hello", folder: str = "", env: RemoteEnvironment | None = None
    ) -> None:
        super().__init__(env)
        self.greeting = greeting
        self.folder = folder

    def setup(
        self, cluster: Cluster, extensions: dict[str, str], force: bool, **kwargs: Any
    ) -> None:
        """Prepare the hosts: this runs on the machine that starts the run."""
        folder = f"hello-{cluster.name}"
        cluster.create_dirs([folder])
        cluster.send_content(f"{self.greeting}\n", f"{folder}/greeting.txt")
        # It is read in run(), on the cluster: it has to travel there.
        self.set_serializable_attr("folder", folder)

    def run(self, force: bool = False, **kwargs: Any) -> None:
        """Report: on the orchestrator if there is a cluster, else here."""
        if self.env is None:
            print(f"{self.greeting} from {socket.gethostname()}, alone", flush=True)
            return
        print(f"orchestrator: Python {platform.python_version()}", flush=True)
        for name, address in self._hosts(self.env):
            command = f"cat {self.folder}/greeting.txt; uname -n"
            done = subprocess.run(
                [*self.env.ssh(address), command],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            print(f"{name}: {' from '.join(done.stdout.split())}", flush=True)

    def _hosts(self, env: RemoteEnvironment) -> list[tuple[str, str]]:
        names = [f"factory_{number + 1}" for number in range(len(env.factories_ips))]
        return list(
            zip(["orchestrator", *names], [env.orchestrator_ip, *env.factories_ips], strict=True)
        )

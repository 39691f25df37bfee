"""A node of a Ray cluster: resolves what only the host can resolve, then becomes Ray."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys
import time
from typing import NoReturn

PERIOD = 0.1


def become_node(
    python: str,
    name: str,
    address: str,
    head: str,
    port: int,
    cpus: int,
    gpus: int,
    scratch: str,
    store: int,
) -> NoReturn:
    """Become ``ray start --block``, without the parts of Ray that flambe does not use.

    Parameters
    ----------
    python
        The interpreter of the environment that Ray is installed in.
    name
        The name of the host in its cluster: a resource of that name tells nodes apart.
    address
        Of this host, as the others reach it.
    head, port
        Where the head is; this host is the head if ``name`` is ``orchestrator``.
    cpus, gpus
        The resources that it offers.
    scratch
        Ray's temporary folder; a short path, as it contains sockets.
    store
        The size of its object store, in bytes.
    """
    scratch = _fresh(scratch)
    address, head = socket.gethostbyname(address), socket.gethostbyname(head)
    command = [python, os.path.abspath(sys.argv[0]), "ray-start"]
    command += ["start", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", address, "--num-cpus", str(cpus), "--num-gpus", str(gpus)]
    command += ["--resources", json.dumps({name: 1}), "--object-store-memory", str(store)]
    # Ports that Ray takes as it likes: another Ray of this machine has the usual ones.
    command += ["--dashboard-agent-listen-port", "0", "--min-worker-port", "0"]
    command += ["--max-worker-port", "0", "--include-log-monitor", "false"]
    command += ["--log-style", "record", "--log-color", "false"]
    if name == "orchestrator":
        command += ["--head", "--port", str(port), "--include-dashboard", "false"]
        command += ["--temp-dir", scratch]
    else:
        command += ["--address", f"{head}:{port}", "--temp-dir", scratch]
        _wait_for(head, port)
    os.execv(command[0], command)


def _fresh(scratch: str) -> str:
    """Return a new folder for Ray in a private one: Ray makes it accessible to all users."""
    try:
        os.mkdir(scratch, 0o700)
    except FileExistsError:
        status = os.lstat(scratch)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            sys.exit(f"flambe: {scratch} is not a folder of this user: remove it, and run again")
        os.chmod(scratch, 0o700)
    folder = os.path.join(scratch, "r")
    shutil.rmtree(folder, ignore_errors=True)  # of the node that was here before
    return folder


def _wait_for(host: str, port: int, seconds: float = 120.0) -> None:
    """Wait until the head answers: it starts at the same time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"flambe: no answer from the head at {host}:{port}: {error}")
            time.sleep(PERIOD)

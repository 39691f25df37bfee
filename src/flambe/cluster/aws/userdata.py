"""What a new instance is given for its first boot: a host key, and the reaper.

It holds no secret but that host key, by which the instance is known at first contact; then it gets
one that was made on the instance itself.
"""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flambe.logging import redact
from flambe.remote.agent import reaper

MOST = 16 * 1024  # bytes that EC2 takes
FOLDER = "/var/lib/flambe"
SETTINGS = f"{FOLDER}/reaper.json"
READY = f"{FOLDER}/ready"
SEEN = f"{FOLDER}/seen.json"
# What installs packages waits for those who do, in setup_cmds too: apt gives up at once else.
APT = "/etc/apt/apt.conf.d/99flambe"
# cloud-init runs it at each boot, the first one included.
PER_BOOT = "/var/lib/cloud/scripts/per-boot/flambe-reaper"
# The kernel is to kill others first where memory lacks; and it comes back, whoever kills it.
_START = f"""#!/bin/sh
setsid sh -c 'echo -1000 > /proc/self/oom_score_adj
while :; do python3 {FOLDER}/reaper.py {SETTINGS}; sleep 5; done' \\
  < /dev/null >> {FOLDER}/reaper.log 2>&1 &
"""


@dataclass(frozen=True)
class HostKey:
    """A key pair of a host."""

    private: str
    public: str

    @classmethod
    def new(cls) -> HostKey:
        """Make one."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "key")
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
            subprocess.run(command, check=True, capture_output=True)
            public = " ".join(path.with_suffix(".pub").read_text().split()[:2])
            private = path.read_text()
        redact.add(private)
        return cls(private, public)


def settings(timeout: float, provisioning: float, user: str, remote_dir: str) -> dict[str, Any]:
    """Return the settings of the reaper of an instance.

    Parameters
    ----------
    timeout
        Hours that it may be idle; -1 for ever.
    provisioning
        Hours until it must be ready.
    user, remote_dir
        Whose leases count, and where flambe's folder is.
    """
    home = "/root" if user == "root" else f"/home/{user}"
    root = remote_dir if remote_dir.startswith("/") else f"{home}/{remote_dir}"
    return {
        "timeout": timeout,
        "provisioning": provisioning,
        "ready": READY,
        "lease": f"{root}/hosts/*/lease-*.json",
        "command": ["shutdown", "-h", "now"],
        "log": "/dev/console",
        "seen": SEEN,
    }


def user_data(key: HostKey, reaping: dict[str, Any]) -> str:
    """Return the user data of an instance, for cloud-init."""
    code = Path(reaper.__file__).read_bytes()
    files = [
        {
            "path": f"{FOLDER}/reaper.py",
            "encoding": "gz+b64",
            "content": base64.b64encode(gzip.compress(code, 9, mtime=0)).decode(),
        },
        {"path": SETTINGS, "content": json.dumps(reaping)},
        {"path": APT, "content": 'DPkg::Lock::Timeout "600";\n'},
        {"path": PER_BOOT, "permissions": "0755", "content": _START},
    ]
    # Where there are ssh_keys, no others are generated.
    config = {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": key.private, "ed25519_public": key.public},
        "write_files": files,
    }
    text = f"#cloud-config\n{json.dumps(config)}\n"
    assert len(text) < MOST, "the user data is too long for EC2"
    return text

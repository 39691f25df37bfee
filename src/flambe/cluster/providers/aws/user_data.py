"""The user data of a new instance: a host key for its first boot, and the reaper.

That host key is its only secret. It identifies the instance at first contact; then the instance
gets a key that was generated on the instance itself.
"""

from __future__ import annotations

import base64
import bz2
import io
import json
import re
import shlex
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from flambe import _nvidia_smi
from flambe.logging import redact
from flambe.remote import agent

MAX_BYTES = 16 * 1024  # the limit of EC2
FOLDER = "/var/lib/flambe"
SETTINGS = f"{FOLDER}/reaper.json"
FIRST_SETTINGS = f"{FOLDER}/reaper.first.json"  # the settings at launch
READY = f"{FOLDER}/ready"
SEEN = f"{FOLDER}/seen.json"
# Lets apt wait for its lock, in setup_cmds too; by default it fails at once.
APT = "/etc/apt/apt.conf.d/99flambe"
# The modules that the reaper needs; Python runs the folder that holds them.
_REAPER = ("__init__", "escalation", "probe", "reaper", "settings")
_MODULES = ("__init__", "files", *(f"reaper/{name}" for name in _REAPER))
_MAIN = b"""import sys
from flambe.remote.agent.reaper.reaper import main
sys.exit(main(*sys.argv[1:3]))
"""
UNIT = "flambe-reaper.service"
# A shutdown does not stop the reaper, which makes sure that the shutdown completes. A process that
# hangs in the kernel does not delay its restart.
_UNIT = f"""[Unit]
Description=Ends this host when it is no longer needed (flambe)
DefaultDependencies=no
RequiresMountsFor={FOLDER}
After=systemd-remount-fs.service
Before=cloud-final.service
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh -c 'exec python3 {FOLDER}/reaper {SETTINGS} {FIRST_SETTINGS}'
Restart=always
RestartSec=5
OOMScoreAdjust=-1000
KillMode=process
TimeoutStopSec=5
StandardOutput=append:{FOLDER}/reaper.log
StandardError=inherit

[Install]
WantedBy=sysinit.target
"""
# Runs at each boot, before any other step of cloud-init, which could stall. What an image contains
# of another instance is removed: that one was launched with another host key.
_ARM = f"""set -u
umask 022
mkdir -p {FOLDER} && cd {FOLDER} || exit 1
if [ "$(cat launch 2> /dev/null)" != LAUNCH ]; then
  rm -rf ./*
  python3 -c 'import base64, io, sys, tarfile
archive = io.BytesIO(base64.b85decode(sys.argv[1]))
tarfile.open(fileobj=archive).extractall("reaper")' ARCHIVE
  printf %s FIRST > {FIRST_SETTINGS}
  cp {FIRST_SETTINGS} {SETTINGS}
  printf %s LAUNCH > launch
fi
if [ -d /run/systemd/system ]; then
  printf %s UNIT > /etc/systemd/system/{UNIT}
  systemctl daemon-reload
  systemctl enable {UNIT}
  timeout 30 systemctl start --no-block {UNIT} && exit
fi
# Out of memory, the kernel is to kill other processes first; killed, the reaper starts again.
setsid sh -c 'echo -1000 > /proc/self/oom_score_adj
while :; do python3 {FOLDER}/reaper {SETTINGS} {FIRST_SETTINGS}; sleep 5; done' \
  < /dev/null >> {FOLDER}/reaper.log 2>&1 &
"""
# How the host is powered off if the step before fails or hangs. An orderly shutdown waits 90
# seconds for each service that does not stop.
_POWER_OFF: list[EscalationStep] = [
    {"command": ["systemctl", "poweroff"], "patience": 180},
    {"command": ["poweroff", "-f"], "patience": 60},
    {"write": "/proc/sysrq-trigger", "text": "s", "patience": 5},
    {"write": "/proc/sysrq-trigger", "text": "o", "patience": 60},
]


class EscalationStep(TypedDict, total=False):
    """A command, or a file and what is written to it, and the seconds until the next step."""

    command: list[str]
    write: str
    text: str
    patience: float


class ReaperSettings(TypedDict, total=False):
    """The file that a reaper reads; see :mod:`flambe.remote.agent.reaper.settings`."""

    timeout: float
    provisioning: float
    ready: str
    lease: str
    command: list[str]
    patience: float
    escalate: list[EscalationStep]
    log: str
    seen: str
    check: float


@dataclass(frozen=True)
class HostKey:
    """A key pair of a host."""

    private: str
    public: str

    @classmethod
    def new(cls) -> HostKey:
        """Generate a key pair."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "key")
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
            subprocess.run(command, check=True, capture_output=True)
            public = " ".join(path.with_suffix(".pub").read_text().split()[:2])
            private = path.read_text()
        redact.add(private)
        return cls(private, public)


def reaper_settings(
    timeout: float, provisioning: float, user: str, remote_dir: str
) -> ReaperSettings:
    """Return the settings of the reaper of an instance.

    Parameters
    ----------
    timeout
        Hours that it may be idle; -1 for no limit.
    provisioning
        Hours within which it must be ready.
    user, remote_dir
        The user whose leases count, and flambe's folder.
    """
    home = "/root" if user == "root" else f"/home/{user}"
    root = remote_dir if remote_dir.startswith("/") else f"{home}/{remote_dir}"
    return {
        "timeout": timeout,
        "provisioning": provisioning,
        "ready": READY,
        "lease": f"{root}/hosts/*/lease-*.json",
        "command": ["shutdown", "-h", "now"],
        "patience": 300,
        "escalate": _POWER_OFF,
        "log": "/dev/console",
        "seen": SEEN,
    }


def user_data(key: HostKey, reaping: ReaperSettings) -> str:
    """Return the user data of an instance, as cloud-init reads it."""
    # With ssh_keys, cloud-init generates no other keys.
    config = {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": key.private, "ed25519_public": key.public},
        "write_files": [{"path": APT, "content": 'DPkg::Lock::Timeout "600";\n'}],
        "bootcmd": [["sh", "-c", arming(key.public, reaping)]],
    }
    text = f"#cloud-config\n{json.dumps(config)}\n"
    assert len(text) < MAX_BYTES, "the user data is too long for EC2"
    return text


def arming(launch: str, reaping: ReaperSettings) -> str:
    """Return the script that starts the reaper of an instance, now and at each boot.

    Parameters
    ----------
    launch
        Identifies the launch that the instance belongs to.
    reaping
        The settings of the reaper.
    """
    values = {
        "ARCHIVE": shlex.quote(base64.b85encode(archive()).decode()),  # shorter than base 64
        "FIRST": shlex.quote(json.dumps(reaping)),
        "LAUNCH": shlex.quote(launch),
        "UNIT": shlex.quote(_UNIT),
    }
    return re.sub(r"\b(ARCHIVE|FIRST|LAUNCH|UNIT)\b", lambda match: values[match[1]], _ARM)


def archive() -> bytes:
    """Return the reaper as a tar archive: the same bytes everywhere, small enough for user data."""
    folder = Path(agent.__file__).parent
    files = {"__main__.py": _MAIN, "flambe/__init__.py": b"", "flambe/remote/__init__.py": b""}
    files["flambe/_nvidia_smi.py"] = Path(_nvidia_smi.__file__).read_bytes()
    for name in _MODULES:
        files[f"flambe/remote/agent/{name}.py"] = (folder / f"{name}.py").read_bytes()
    archived = io.BytesIO()
    with tarfile.open(fileobj=archived, mode="w", format=tarfile.USTAR_FORMAT) as target:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            target.addfile(entry, io.BytesIO(data))
    return bz2.compress(archived.getvalue())  # smaller than gzip's

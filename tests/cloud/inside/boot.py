#!/usr/bin/python3 -I
"""What a guest does when it boots, as cloud-init does it: ``guest-boot early``, then ``late``.

It runs on the host itself, with the standard library of its Python; early is before its sshd starts.
https://cloudinit.readthedocs.io/en/latest/explanation/boot.html
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds
METADATA = "http://169.254.169.254/latest"
SEED = Path("/var/lib/cloud/seed/plan.json")
PER_BOOT = Path("/var/lib/cloud/scripts/per-boot")
INSTANCE = Path("/var/lib/cloud/data/instance-id")
NEW = Path("/run/cloud-init/first-boot")
FINISHED = Path("/var/lib/cloud/instance/boot-finished")
OUTPUT = Path("/var/log/cloud-init-output.log")
CONSOLE = Path("/var/log/console.log")


def say(text: str) -> None:
    for path in (CONSOLE, OUTPUT):
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def metadata(path: str) -> str:
    """Ask the metadata service, by version 2: with a token. It may take its time to answer."""
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
    token = fetch("api/token", method="PUT", headers=ttl)
    return fetch(path, method="GET", headers={"X-aws-ec2-metadata-token": token})


def fetch(path: str, *, method: str, headers: Mapping[str, str]) -> str:
    ask = urllib.request.Request(f"{METADATA}/{path}", method=method, headers=dict(headers))
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(ask, timeout=10) as reply:
                return str(reply.read().decode())
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return ""
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def run(command: str | Sequence[Any], *, name: str) -> None:
    """Run a command; what it prints goes to the console, and that it fails, too."""
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else [str(w) for w in command]
    env = {**os.environ, "HOME": "/root", "INSTANCE_ID": INSTANCE.read_text().strip()}
    done = subprocess.run(
        argv,
        cwd="/",
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.stdout:
        say(done.stdout.rstrip("\n"))
    if done.returncode:
        say(f"cloud-init[1]: failed: {name} ended with {done.returncode}")


def run_text(text: str, name: str) -> None:
    """Run a script that is given as text, by the interpreter that its first line names."""
    path = Path("/var/lib/cloud/instance/scripts", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o700)
    run([path], name=name)


def write_files(entries: Sequence[Mapping[str, Any]]) -> None:
    for entry in entries:
        path = Path(entry["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if entry.get("append") else "w", encoding="utf-8") as file:
            file.write(entry["content"])
        mode = entry.get("permissions", "0644")
        path.chmod(mode if isinstance(mode, int) else int(mode, 8))
        user, _, group = str(entry.get("owner", "root:root")).partition(":")
        shutil.chown(path, user, group or None)


def host_keys(keys: Mapping[str, str]) -> None:
    """Install the host keys that are given."""
    for name, text in keys.items():
        kind, _, half = name.rpartition("_")
        suffix = ".pub" if half == "public" else ""
        path = Path(f"/etc/ssh/ssh_host_{kind}_key{suffix}")
        path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        path.chmod(0o644 if suffix else 0o600)


def show_host_keys() -> None:
    """Print the host keys on the console, where a client that trusts the account reads them."""
    keys = sorted(Path("/etc/ssh").glob("ssh_host_*_key.pub"))
    say("-----BEGIN SSH HOST KEY KEYS-----")
    for key in keys:
        say(key.read_text(encoding="utf-8").strip())
    say("-----END SSH HOST KEY KEYS-----")


def let_in(plan: Mapping[str, Any]) -> None:
    """Let the key pair of the instance in, as its default user."""
    names = metadata("meta-data/public-keys/").split("\n")
    keys = [
        metadata(f"meta-data/public-keys/{n.partition('=')[0]}/openssh-key") for n in names if n
    ]
    text = "\n".join([*(key.strip() for key in keys), *plan["ssh_authorized_keys"]])
    script = Path("/usr/sbin/guest-add-user").read_text(encoding="utf-8")
    user = Path("/etc/default-user").read_text(encoding="utf-8").strip()
    subprocess.run(
        ["/bin/sh", "-euc", script, "sh", user],
        input=f"{text}\n" if text else "",
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def early(plan: Mapping[str, Any]) -> None:
    say(f"[    0.000000] Linux version {os.uname().release}")
    identity = metadata("meta-data/instance-id")
    first = not INSTANCE.exists() or INSTANCE.read_text().strip() != identity
    INSTANCE.parent.mkdir(parents=True, exist_ok=True)
    INSTANCE.write_text(identity + "\n")
    for hook in plan["boothooks"]:
        run_text(hook, "boothook")
    for command in plan["bootcmd"]:
        run(command, name="bootcmd")
    if first:
        NEW.parent.mkdir(parents=True, exist_ok=True)
        NEW.touch()
        # Before there is its default user, as with cloud-init, who can own no file therefore.
        module("write_files", write_files, plan["write_files"])
        module("ssh_keys", host_keys, plan["ssh_keys"])
        if not plan["login_delay"]:
            module("users", let_in, plan)
        for name in plan["unknown"]:
            say(f"cloud-init[1]: NOT DONE by the test cloud: {name}")
    show_host_keys()


def module(name: str, does: Callable[[Any], None], what: Any) -> None:
    """Do one part; that it fails does not keep the others from being done."""
    try:
        does(what)
    except Exception as error:
        say(f"cloud-init[1]: failed: {name}: {error!r}")


def late(plan: Mapping[str, Any]) -> None:
    first = NEW.exists()
    if first and plan["login_delay"]:
        time.sleep(plan["login_delay"])
        let_in(plan)
    if PER_BOOT.is_dir():
        for script in sorted(PER_BOOT.iterdir()):
            if os.access(script, os.X_OK):
                run([script], name=script.name)
    if first:
        for number, text in enumerate(plan["scripts"], 1):
            run_text(text, f"part-{number:03}")
        if plan["runcmd"]:
            lines = [c if isinstance(c, str) else shlex.join(map(str, c)) for c in plan["runcmd"]]
            run_text("\n".join(["#!/bin/sh", *lines, ""]), "runcmd")
    FINISHED.parent.mkdir(parents=True, exist_ok=True)
    FINISHED.write_text(f"{time.time()}\n")
    say("cloud-init[1]: Cloud-init finished")


def main() -> None:
    plan = json.loads(SEED.read_text(encoding="utf-8"))
    {"early": early, "late": late}[sys.argv[1]](plan)


try:
    main()
except Exception as error:
    say(f"guest-boot: {error!r}")
    raise

"""The setup commands of a cluster: once for each host, boot and content of the list."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence

from flambe._files import private_opener
from flambe.cluster.cluster_host import LOGIN_PATH, ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.environment import proxy
from flambe.cluster.environment.pip_config import provide_pip
from flambe.cluster.layout import in_shell
from flambe.errors import CommandError, DeadlineError
from flambe.logging import redact
from flambe.remote import each, shell
from flambe.remote.transport import OnLine

MARK = "setup"
BOOT_SECONDS = 600.0  # that cloud-init, and those who install packages at boot, are waited for
DEADLINE = 3600.0  # seconds for one command


def digest(commands: Sequence[str]) -> str:
    """Return what a host is marked with when these commands have run on it."""
    return hashlib.sha256(json.dumps(list(commands)).encode()).hexdigest()[:16] if commands else ""


def pending(cluster: ClusterContext) -> list[ClusterHost]:
    """Return the hosts on which the commands have not run since they were started."""
    wanted = digest(cluster.setup_cmds)
    if not wanted:
        return []
    return [host for host in cluster.hosts if host.report["marks"].get(MARK) != wanted]


def run(cluster: ClusterContext, members: Sequence[ClusterHost]) -> None:
    """Run the commands on hosts, one after another, all hosts at the same time.

    Raises
    ------
    RemoteError
        If one fails: with the host, the command, its exit code and what it said last.
    """
    cluster.local.make_folder()
    lock = threading.Lock()
    with open(cluster.local.setup_log, "w", encoding="utf-8", opener=private_opener) as log:

        def on(member: ClusterHost) -> None:
            def take(_: str, text: str) -> None:
                text = redact.hide(text)
                with lock:
                    log.write(f"{member.name} | {text}\n")
                    log.flush()
                cluster.observer.host_line(member.machine.name, text)

            if member.machine.new:
                _await_boot(member, take)
            proxy.give(cluster, member)
            provide_pip(member, cluster.remote_dir)
            for command in cluster.setup_cmds:
                for line in command.strip().splitlines():
                    take("", f"$ {line}")
                _one(cluster, member, command, take)
            _note_path(cluster, member)
            member.mark(cluster.name, MARK, digest(cluster.setup_cmds), boot=True)

        each(on, members)


def _await_boot(member: ClusterHost, take: OnLine) -> None:
    """Wait until a machine that was just started has booted: packages may be installed then."""
    command = member.agent_argv("await-boot", f"{BOOT_SECONDS:g}")
    # As root, who alone may look at the locks of apt; without sudo, the rest is waited for.
    may = member.run(["sudo", "-n", "true"], check=False, repeat=True).code == 0
    member.run(
        [*(["sudo", "-n"] if may else []), *command],
        deadline=BOOT_SECONDS + 60.0,
        take=take,
        repeat=True,
        check=False,
        shown="waiting for the boot",
    )


def _one(cluster: ClusterContext, member: ClusterHost, command: str, take: OnLine) -> None:
    # Where a host has no pip of its own, flambe's is found last.
    path = f'export PATH="$PATH":{in_shell(cluster.remote_dir)}/bin\n'
    script = f"{path}{proxy.line(cluster)}{command}"
    try:
        member.run(shell.login(script), deadline=DEADLINE, take=take, shown=command)
    except DeadlineError:
        raise
    except CommandError as error:
        if hint := _hint(command, error.stderr):
            error.message += f"\n  = {hint}"
        raise


def _note_path(cluster: ClusterContext, member: ClusterHost) -> None:
    # What runs later is started by no login shell, and is to find what was installed all the same.
    # A profile may say something before it, and bash_logout after it, unless the shell is replaced.
    script = "printenv PATH; bash -lc 'echo; exec printenv PATH'"
    said = member.run(["bash", "-c", script]).stdout.splitlines()
    found = ":".join(dict.fromkeys(f"{said[-1]}:{said[0]}".split(":")))
    member.mark(cluster.name, LOGIN_PATH, found, boot=True)
    member.report["marks"][LOGIN_PATH] = found


def _hint(command: str, said: str) -> str:
    if "pip" in command and "Key does not contain dot separated" in said:
        return "write the section of the key too:   pip config set global.index-url URL"
    if "sudo: a password is required" in said or "sudo: a terminal is required" in said:
        return "nobody can type a password: let the user run this by sudo without one"
    if "are you root?" in said or "must be root" in said:
        return f"the user of the cluster is not root:   sudo {command}"
    return ""

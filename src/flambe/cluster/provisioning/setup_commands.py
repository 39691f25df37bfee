"""Setup commands: run once for each host, boot and content of the list."""

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
BOOT_SECONDS = 600.0  # how long cloud-init, and package installations at boot, may take
DEADLINE = 3600.0  # seconds for one command


def digest(commands: Sequence[str]) -> str:
    """Return the mark of a host on which these commands have run."""
    return hashlib.sha256(json.dumps(list(commands)).encode()).hexdigest()[:16] if commands else ""


def pending_hosts(cluster: ClusterContext) -> list[ClusterHost]:
    """Return the hosts on which the commands have not run since their last boot."""
    expected = digest(cluster.setup_cmds)
    if not expected:
        return []
    return [host for host in cluster.hosts if host.report.marks.get(MARK) != expected]


def run(cluster: ClusterContext, hosts: Sequence[ClusterHost]) -> None:
    """Run the commands on hosts, one after another, all hosts at the same time.

    Raises
    ------
    RemoteError
        If one fails: with the host, the command, its exit code and its last lines of output.
    """
    cluster.local.make_folder()
    lock = threading.Lock()
    with open(cluster.local.setup_log, "w", encoding="utf-8", opener=private_opener) as log:

        def set_up(host: ClusterHost) -> None:
            def on_line(_: str, text: str) -> None:
                text = redact.hide(text)
                with lock:
                    log.write(f"{host.name} | {text}\n")
                    log.flush()
                cluster.observer.host_line(host.machine.name, text)

            if host.machine.new:
                _await_boot(host, on_line)
            proxy.give(cluster, host)
            provide_pip(host, cluster.remote_dir)
            for command in cluster.setup_cmds:
                for line in command.strip().splitlines():
                    on_line("", f"$ {line}")
                _run_command(cluster, host, command, on_line)
            _record_path(cluster, host)
            host.mark(cluster.name, MARK, digest(cluster.setup_cmds), boot=True)

        each(set_up, hosts)


def _await_boot(host: ClusterHost, on_line: OnLine) -> None:
    """Wait until a machine that was just started has booted: packages may be installed then."""
    command = host.agent_argv("await-boot", f"{BOOT_SECONDS:g}")
    # Only root can see the locks of apt; without sudo, the rest of the boot is awaited.
    has_sudo = host.run(["sudo", "-n", "true"], check=False, repeat=True).code == 0
    host.run(
        [*(["sudo", "-n"] if has_sudo else []), *command],
        deadline=BOOT_SECONDS + 60.0,
        take=on_line,
        repeat=True,
        check=False,
        shown="waiting for the boot",
    )


def _run_command(cluster: ClusterContext, host: ClusterHost, command: str, on_line: OnLine) -> None:
    # Where a host has its own pip, that one is found before flambe's.
    path = f'export PATH="$PATH":{in_shell(cluster.remote_dir)}/bin\n'
    script = f"{path}{proxy.line(cluster)}{command}"
    try:
        host.run(shell.login(script), deadline=DEADLINE, take=on_line, shown=command)
    except DeadlineError:
        raise
    except CommandError as error:
        if hint := _hint(command, error.stderr):
            error.message += f"\n  = {hint}"
        raise


def _record_path(cluster: ClusterContext, host: ClusterHost) -> None:
    # Runs are not started by a login shell, and must find the programs that were installed. A
    # profile may print before it, and bash_logout after it, unless exec replaces the shell
    # (tests/cluster/test_shells.py).
    script = "printenv PATH; bash -lc 'echo; exec printenv PATH'"
    lines = host.run(["bash", "-c", script]).stdout.splitlines()
    path = ":".join(dict.fromkeys(f"{lines[-1]}:{lines[0]}".split(":")))
    host.mark(cluster.name, LOGIN_PATH, path, boot=True)


def _hint(command: str, output: str) -> str:
    if "pip" in command and "Key does not contain dot separated" in output:
        return "write the section of the key too:   pip config set global.index-url URL"
    if "sudo: a password is required" in output or "sudo: a terminal is required" in output:
        return "there is no terminal for a password: let the user run this by sudo without one"
    if "are you root?" in output or "must be root" in output:
        return f"the user of the cluster is not root:   sudo {command}"
    return ""

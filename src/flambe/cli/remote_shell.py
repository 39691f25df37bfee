"""``flambe exec`` and ``flambe ssh``: commands, and a shell, on the hosts of a cluster."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from flambe.cli.targets import (
    ClusterDisplay,
    find_hosts,
    resolve_names,
    select_host,
    select_hosts,
)
from flambe.cluster.cluster_host import ClusterHost
from flambe.logging import redact
from flambe.remote import each

NOT_FOUND = 127  # the exit code of a shell for a program that it cannot find


@dataclass(frozen=True)
class ExecOptions:
    """The options of ``flambe exec``."""

    cluster: str
    command: Sequence[str]
    host: str | None = None
    all: bool = False
    secrets: str | None = None


@dataclass(frozen=True)
class SshOptions:
    """The options of ``flambe ssh``."""

    cluster: str
    host: str | None = None
    secrets: str | None = None


def execute(options: ExecOptions) -> int:
    """Run a command on hosts, and print its output."""
    name, hosts = find_hosts(options.cluster, options.secrets)
    hosts = resolve_names(name, hosts, options.host)
    selected = select_hosts(hosts, options.host, all_hosts=options.all)
    display = ClusterDisplay()
    is_alone = len(selected) == 1
    has_input = is_alone and sys.stdin is not None and not sys.stdin.isatty()
    content = sys.stdin.buffer.read() or None if has_input else None

    def run(host: ClusterHost) -> int:
        host.connect(notify=display.note)

        def print_line(_: str, text: str) -> None:
            if is_alone:
                print(redact.hide(text), flush=True)
            else:
                display.host_line(host.machine.name, text)

        result = host.run(
            options.command, deadline=float("inf"), take=print_line, check=False, content=content
        )
        if result.code and not is_alone:
            display.note(f"{host.name}: exit code {result.code}")
        if result.code == NOT_FOUND and len(options.command) == 1 and " " in options.command[0]:
            script = shlex.quote(options.command[0])
            display.note(f"  to run a shell script:   -- bash -c {script}")
        return result.code

    return max(each(run, selected))


def login(options: SshOptions) -> int:
    """Log in to a host."""
    name, hosts = find_hosts(options.cluster, options.secrets)
    host = select_host(resolve_names(name, hosts, options.host), options.host)
    host.connect(notify=ClusterDisplay().note)
    return subprocess.call(host.connection.shell_argv())

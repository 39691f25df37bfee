"""``flambe exec`` and ``flambe ssh``: commands, and a shell, on the hosts of a cluster."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys

from flambe.cli.targets import ClusterDisplay, chosen, identified, members_of
from flambe.cluster.cluster_host import ClusterHost
from flambe.logging import redact
from flambe.remote import each

NOT_FOUND = 127  # the exit code of a program that is not there


def execute(options: argparse.Namespace) -> int:
    """Run a command on hosts, and show what it says."""
    name, members = members_of(options.cluster, options.secrets)
    members = identified(name, members, options.host)
    hosts = chosen(members, options.host, every=options.all)
    shown = ClusterDisplay()
    given = len(hosts) == 1 and sys.stdin is not None and not sys.stdin.isatty()
    content = sys.stdin.buffer.read() or None if given else None

    def run(host: ClusterHost) -> int:
        host.connect(note=shown.note)

        def take(_: str, text: str) -> None:
            if len(hosts) == 1:
                print(redact.hide(text), flush=True)
            else:
                shown.host_line(host.machine.name, text)

        done = host.run(
            options.command, deadline=float("inf"), take=take, check=False, content=content
        )
        if done.code and len(hosts) > 1:
            shown.note(f"{host.name}: exit code {done.code}")
        if done.code == NOT_FOUND and len(options.command) == 1 and " " in options.command[0]:
            script = shlex.quote(options.command[0])
            shown.note(f"  a script is for a shell:   -- bash -c {script}")
        return done.code

    return max(each(run, hosts))


def login(options: argparse.Namespace) -> int:
    """Log in to a host."""
    name, members = members_of(options.cluster, options.secrets)
    members = identified(name, members, options.host)
    (host,) = chosen(members, options.host)
    host.connect(note=ClusterDisplay().note)
    return subprocess.call(host.connection.shell_argv())

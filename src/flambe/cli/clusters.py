"""What the commands for clusters do."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Callable

from rich.text import Text

from flambe.cli import ending, running
from flambe.cli.hosts import hosts_table, run_told, standing_told
from flambe.cli.members import ClusterDisplay, chosen, members_of, standing_of
from flambe.cli.results import took
from flambe.cli.runs import experiment_told
from flambe.cluster.cluster import Cluster
from flambe.cluster.member import Member
from flambe.cluster.record import ClusterFiles, known
from flambe.errors import ConfigError, RemoteError, RunError
from flambe.logging import redact
from flambe.remote import each
from flambe.remote.group import outcomes

# How long a host is tried before it is shown as unreachable, in seconds.
PATIENCE = 8.0
NOT_FOUND = 127  # the exit code of a program that is not there


def up(cluster: Cluster, **options: bool) -> int:
    """Make a cluster ready, and show its hosts."""
    shown = ClusterDisplay()
    begun = time.monotonic()
    cluster.run(**options, observer=shown)
    shown.console.print(
        hosts_table(cluster.name, cluster.members, prepared=True, width=shown.console.width)
    )
    shown.note(f"{cluster.name} is ready, in {took(time.monotonic() - begun)}")
    return 0


def status(options: argparse.Namespace) -> int:
    """Show the hosts of one cluster, or of all that were used from here, each as it is known."""
    names = [options.cluster] if options.cluster else known()
    shown = ClusterDisplay()
    if not names:
        shown.console.print("no cluster was used from this machine yet")
    # Many clusters are looked at at once; the errors of their hosts are shown in their tables.
    found = outcomes(
        lambda name: _status(name, shown, options.secrets, alone=len(names) == 1), names
    )
    for one in found:
        if isinstance(one, RemoteError):
            shown.note(str(one))
    return max((code if isinstance(code, int) else 1 for code in found), default=0)


def _status(given: str, shown: ClusterDisplay, secrets: str | None, *, alone: bool) -> int:
    try:
        name, members, standing = standing_of(given, secrets)
    except (ConfigError, RunError) as wrong:
        if alone:
            raise
        raise RemoteError(given, str(wrong)) from None  # the others are shown all the same

    experiments: list[str] = []

    def look(member: Member) -> None:
        member.connect(PATIENCE, shown.note)
        member.look(name)
        runs = member.report["runs"]
        used = runs.get(name, {}).get("about", {}).get("environment", "")
        used = used or ClusterFiles(name).recall().get("environment", "")
        member.look(name, used)
        if member.is_orchestrator and name in runs:
            experiments.append(experiment_told(member, name))

    errors = [one for one in outcomes(look, members) if isinstance(one, RemoteError)]
    with shown.lock:
        shown.console.print(Text(name, "bold"))
        table = hosts_table(name, members, width=shown.console.width, standing=standing)
        shown.console.print(table)
        for text in standing_told(standing, members):
            shown.console.print(text, soft_wrap=True, style="dim")
        for one in members:
            if one.is_orchestrator and one.report:
                told = run_told(one.report["runs"].get(name))
                shown.console.print(told, soft_wrap=True, style="dim")
                for text in filter(None, experiments):
                    shown.console.print(text, soft_wrap=True, style="dim")
        for error in errors:
            shown.console.print(Text(str(error), "red"), soft_wrap=True)
        if errors:
            does = "takes its hosts down, unseen" if standing else "forgets it, if they are gone"
            told = f"flambe down {given} --force   {does}"
            shown.console.print(told, style="dim", soft_wrap=True)
        if not members:
            shown.console.print("its hosts do not run", style="dim")
    return 1 if errors else 0


def execute(options: argparse.Namespace) -> int:
    """Run a command on hosts, and show what it says."""
    _, members = members_of(options.cluster, options.secrets)
    hosts = chosen(members, options.host, every=options.all)
    shown = ClusterDisplay()
    given = len(hosts) == 1 and sys.stdin is not None and not sys.stdin.isatty()
    content = sys.stdin.buffer.read() or None if given else None

    def run(host: Member) -> int:
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
    _, members = members_of(options.cluster, options.secrets)
    (host,) = chosen(members, options.host)
    host.connect(note=ClusterDisplay().note)
    return subprocess.call(host.connection.ssh("-t", "--", host.connection.destination))


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "status": status,
    "logs": running.logs,
    "stop": running.stop,
    "exec": execute,
    "ssh": login,
    "fetch": ending.fetch,
    "down": ending.down,
}

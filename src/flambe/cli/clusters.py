"""What the commands for clusters do."""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from rich.text import Text

from flambe.cli import running
from flambe.cli.display import console, took
from flambe.cli.hosts import hosts_table, run_told
from flambe.cli.members import ClusterDisplay, chosen, members_of, read_cluster
from flambe.cluster import launch
from flambe.cluster.cluster import Cluster
from flambe.cluster.member import Member
from flambe.cluster.record import ClusterFiles, known
from flambe.errors import RemoteError, RunError
from flambe.logging import redact
from flambe.remote import each
from flambe.remote.group import outcomes


def up(cluster: Cluster, *, force: bool) -> int:
    """Make a cluster ready, and show its hosts."""
    shown = ClusterDisplay()
    begun = time.monotonic()
    cluster.run(force=force, observer=shown)
    shown.console.print(hosts_table(cluster.name, cluster.members, prepared=True))
    shown.note(f"{cluster.name} is ready, in {took(time.monotonic() - begun)}")
    return 0


def status(options: argparse.Namespace) -> int:
    """Show the hosts of one cluster, or of all that were used from here."""
    names = [options.cluster] if options.cluster else known()
    shown = console()
    if not names:
        shown.print("no cluster was used from this machine yet")
    worst = 0
    for given in names:
        name, members = members_of(given)

        def look(member: Member, name: str = name) -> Member:
            member.connect()
            member.look(name)
            runs = member.report["runs"]
            used = runs.get(name, {}).get("about", {}).get("environment", "")
            used = used or ClusterFiles(name).recall().get("environment", "")
            member.look(name, used)
            return member

        shown.print(Text(name, "bold"))
        found = outcomes(look, members)
        reached = [one for one in found if isinstance(one, Member)]
        shown.print(hosts_table(name, reached))
        for one in reached:
            if one.is_orchestrator:
                shown.print(run_told(one.report["runs"].get(name)), soft_wrap=True, style="dim")
        for error in found:
            if isinstance(error, RemoteError):
                shown.print(Text(str(error), "red"), soft_wrap=True)
                worst = 1
    return worst


def execute(options: argparse.Namespace) -> int:
    """Run a command on hosts, and show what it says."""
    _, members = members_of(options.cluster)
    hosts = chosen(members, options.host, every=options.all)
    shown = ClusterDisplay()

    def run(host: Member) -> int:
        host.connect()

        def take(_: str, text: str) -> None:
            if len(hosts) == 1:
                print(redact.hide(text), flush=True)
            else:
                shown.host_line(host.machine.name, text)

        return host.run(options.command, deadline=float("inf"), take=take, check=False).code

    return max(each(run, hosts))


def login(options: argparse.Namespace) -> int:
    """Log in to a host."""
    _, members = members_of(options.cluster)
    (host,) = chosen(members, options.host)
    host.connect()
    return subprocess.call(host.connection.ssh("-t", host.connection.destination))


def fetch(options: argparse.Namespace) -> int:
    """Bring the results of a cluster here."""
    name, members = members_of(options.cluster)
    (host,) = chosen(members, None)
    host.connect()
    target = Path(options.to or f"flambe-output/{name}")
    folder = f"{host.agent.root}/clusters/{name}/work/"
    if host.run(["test", "-d", folder], check=False, repeat=True).code:
        raise RunError(f"{host.name}: there are no results yet")
    host.fetch(folder, target)
    files = ClusterFiles(name)
    files.remember({**files.recall(), "fetched": time.time()})
    print(f"the results of {name} are in {target}")
    return 0


def down(options: argparse.Namespace) -> int:
    """Take a cluster down: what is ours on its hosts, and the hosts that were created."""
    name, members = members_of(options.cluster)
    path = options.cluster
    if not os.path.isfile(path):
        path = ClusterFiles(name).recall()["file"]

    def look(member: Member) -> None:
        member.connect()
        member.look(name)

    each(look, members)
    shown = ClusterDisplay()
    running = members[0].report["runs"].get(name)
    if running and running["state"] == launch.RUNNING and not options.force:
        raise RunError(f"{launch.busy(running)}\n  --force stops it")
    cluster = read_cluster(path)
    fetched = ClusterFiles(name).recall().get("fetched", 0)
    lost = running is not None and fetched < running.get("ended", time.time())
    if cluster.ephemeral and lost and not options.force:
        raise RunError(
            f"the results of {name} would be lost with its hosts\n"
            f"  flambe fetch {name}   brings them here; --force takes it down without"
        )
    launch.take_down(cluster, members)
    cluster.remove_machines()
    for member in members:
        member.connection.close()
    ClusterFiles(name).note.unlink(missing_ok=True)
    left = "" if cluster.ephemeral else "; results are still on its hosts"
    shown.note(f"{name} is down{left}")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "status": status,
    "logs": running.logs,
    "stop": running.stop,
    "exec": execute,
    "ssh": login,
    "fetch": fetch,
    "down": down,
}

"""What the commands for clusters do."""

from __future__ import annotations

import argparse
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from flambe.cli.display import COLOURS, console, took
from flambe.cli.hosts import hosts_table, run_told
from flambe.cluster import launch
from flambe.cluster.cluster import Cluster
from flambe.cluster.machine import ORCHESTRATOR, Machine
from flambe.cluster.member import Member
from flambe.cluster.record import ClusterFiles, known
from flambe.errors import (
    ConfigError,
    Problem,
    RemoteError,
    RunError,
    UnreachableError,
    did_you_mean,
)
from flambe.logging import redact
from flambe.remote import Address, each
from flambe.remote.group import outcomes


class ClusterDisplay:
    """Shows what happens to a cluster; a ClusterObserver."""

    def __init__(self) -> None:
        self.console = console()
        self.lock = threading.Lock()

    def note(self, text: str) -> None:
        """Print a note."""
        with self.lock:
            self.console.print(redact.hide(text), markup=False, soft_wrap=True, style="dim")

    def host_line(self, host: str, text: str) -> None:
        """Print a line that a command on a host said."""
        colour = COLOURS[sum(host.encode()) % len(COLOURS)]
        line = Text.assemble((host, colour), (" | ", "dim"), redact.hide(text))
        with self.lock:
            self.console.print(line, soft_wrap=True)


# -- making ready, and running on ---------------------------------------------------------------


def up(cluster: Cluster, *, force: bool) -> int:
    """Make a cluster ready, and show its hosts."""
    shown = ClusterDisplay()
    begun = time.monotonic()
    cluster.run(force=force, observer=shown)
    shown.console.print(hosts_table(cluster.name, cluster.members, prepared=True))
    shown.note(f"{cluster.name} is ready, in {took(time.monotonic() - begun)}")
    return 0


def run_on(
    cluster: Cluster, runnable: Any, extensions: dict[str, str], options: argparse.Namespace
) -> int:
    """Run a ClusterRunnable on a cluster; return the exit code of the run."""
    from flambe.logging.console import home

    shown = ClusterDisplay()
    cluster.observer = shown
    secrets = Path(options.secrets) if options.secrets else home() / "secrets.ini"
    job = launch.Launch(cluster, runnable, extensions, secrets if secrets.exists() else None)
    given = [f"--{name}" for name in ("resume", "verbose") if getattr(options, name)]
    given += ["--resume-from", options.resume_from] if options.resume_from else []
    job.start(given, force=options.force)
    shown.note(f"running on {cluster.orchestrator.name}; it goes on if you leave")
    return 0 if options.detach else _attached(cluster.orchestrator, cluster.name, shown)


def dry_run(cluster: Cluster, extensions: dict[str, str], config: str = "") -> int:
    """Say what would be made, sent and run; no host is touched."""
    from flambe.packaging import lock, wheel

    shown = console()

    def say(title: str, text: str) -> None:
        shown.print(Text.assemble((f"{title:<13}", "bold"), text), soft_wrap=True)

    names = ["flambe", *launch.distributions_of(extensions)]
    found, missing = cluster.find_machines(), cluster.missing_machines()
    say("hosts", ", ".join(f"{m.name} ({m.address})" for m in found) or "none yet")
    if missing:
        say("to be made", ", ".join(missing))
    for command in cluster.setup_cmds:
        say("setup", command)
    wheels = [wheel.wheel_of(name) for name in names]
    size = sum(one.path.stat().st_size for one in wheels)
    told = ", ".join(f"{one.name} {one.version} ({one.content[:8]})" for one in wheels)
    say("code", f"{told}: {size / 1024:.0f} KiB, sent once")
    extras = ",".join(cluster.environment.get("extras") or ())
    versions = lock.closure([f"flambe[{extras}]" if extras else "flambe", *names[1:]]).versions
    how = (
        "sent from here" if cluster.environment.get("offline") else "downloaded by the orchestrator"
    )
    told = f"{len(versions)}, in the versions that are installed here, {how}"
    if cluster.environment.get("system"):
        told = f"those of the hosts' own Python, which must have {len(versions)}"
    say("packages", told)
    if config:
        say("run", f"flambe {config}, on the orchestrator")
    shown.print("nothing was touched", style="dim")
    return 0


def _show(text: str) -> None:
    print(redact.hide(text), flush=True)


def _attached(host: Member, name: str, shown: ClusterDisplay) -> int:
    """Show what a run says until it ends; Ctrl-C leaves it."""
    try:
        code = launch.attach(host, name, _show, shown.note)
    except UnreachableError as error:
        raise UnreachableError(
            host.name,
            f"{error.message}\n  the run goes on if its host does; come back with:\n"
            f"  flambe logs {name} -f",
        ) from None
    except KeyboardInterrupt:
        shown.note(
            f"\nthe run goes on without you; come back with:\n  flambe logs {name} -f\n"
            f"  flambe status {name}\n  flambe stop {name}"
        )
        return 130
    if code is None:
        raise RunError(
            f"{host.name}: the run is gone, and nobody saw how it ended: was it restarted?"
        )
    return code


# -- clusters that are there --------------------------------------------------------------------


def members_of(name: str) -> tuple[str, list[Member]]:
    """Return the hosts of a cluster: of a file, or of the name of one that was used from here.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if os.path.isfile(name):
        cluster = read_cluster(name)
        machines = cluster.find_machines()
        return cluster.name, [Member(m, cluster.local, cluster.remote_dir) for m in machines]
    files = ClusterFiles(name)
    note = files.recall()
    if not note:
        if name.endswith((".yaml", ".yml")) or os.sep in name:
            raise ConfigError(f"there is no file {name}")
        raise ConfigError(
            Problem(
                f"there is no cluster {name!r} that was used from this machine",
                hint=did_you_mean(name, known()) or "give the file that describes it",
            )
        )
    members = []
    for told in note["machines"]:
        machine = Machine(
            told["name"],
            Address.parse(told["address"]),
            Address.parse(told["private"]),
            told["user"],
            Path(told["key"]) if told["key"] else None,
        )
        members.append(Member(machine, files, note["remote_dir"]))
    return name, members


def read_cluster(path: str) -> Cluster:
    """Read the file of a cluster.

    Raises
    ------
    ConfigError
        If it is not one.
    """
    from flambe.compile.check import check
    from flambe.compile.document import read_file

    document = read_file(path)
    check(document)
    document.raise_problems()
    made = document.root() if callable(document.root) else document.root
    if not isinstance(made, Cluster):
        raise ConfigError(f"{path} describes no cluster, but {type(made).__name__}")
    made.parse()
    return made


def _chosen(members: Sequence[Member], host: str | None, *, every: bool = False) -> list[Member]:
    """Return the hosts that a command is for: one by name or address, all, or the orchestrator."""
    if every:
        return list(members)
    wanted = host or ORCHESTRATOR
    for member in members:
        machine = member.machine
        if wanted in (machine.name, str(machine.address), str(machine.private)):
            return [member]
    names = [member.machine.name for member in members]
    hint = did_you_mean(wanted, names) or f"there are: {', '.join(names)}"
    raise ConfigError(Problem(f"there is no host {wanted!r}", hint=hint))


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


def logs(options: argparse.Namespace) -> int:
    """Show what the run of a cluster said."""
    name, members = members_of(options.cluster)
    (host,) = _chosen(members, options.host)
    host.connect()
    if options.follow:
        return _attached(host, name, ClusterDisplay())
    host.agent.follow(name, _show, once=True)
    return 0


def stop(options: argparse.Namespace) -> int:
    """Stop the run of a cluster."""
    name, members = members_of(options.cluster)
    (host,) = _chosen(members, None)
    host.connect()
    found = launch.stop(host, name)
    if found is None:
        raise RunError(f"{host.name}: nothing was run there yet")
    code = f", exit code {found['code']}" if "code" in found else ""
    print(f"{host.name}: the run has {found['state']}{code}")
    return 0


def execute(options: argparse.Namespace) -> int:
    """Run a command on hosts, and show what it says."""
    _, members = members_of(options.cluster)
    hosts = _chosen(members, options.host, every=options.all)
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
    (host,) = _chosen(members, options.host)
    host.connect()
    return subprocess.call(host.connection.ssh("-t", host.connection.destination))


def fetch(options: argparse.Namespace) -> int:
    """Bring the results of a cluster here."""
    name, members = members_of(options.cluster)
    (host,) = _chosen(members, None)
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
    "logs": logs,
    "stop": stop,
    "exec": execute,
    "ssh": login,
    "fetch": fetch,
    "down": down,
}

"""Runs on a cluster: start one, follow its output, open its Report Site, stop it."""

from __future__ import annotations

import contextlib
import time
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flambe.cli import fetch
from flambe.cli.arguments import RunOptions
from flambe.cli.exit_handling import as_interrupt
from flambe.cli.status import INTERRUPTED
from flambe.cli.targets import ClusterDisplay, find_hosts, resolve_names, select_host
from flambe.cluster import job
from flambe.cluster.cluster import Cluster
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.instance_status import describe_down
from flambe.cluster.services import report_site
from flambe.errors import RemoteError, RunError, UnreachableError
from flambe.logging import redact
from flambe.logging.console import home
from flambe.logging.plain import plain
from flambe.runnable import ClusterRunnable


@dataclass(frozen=True)
class LogsOptions:
    """The options of ``flambe logs``."""

    cluster: str
    host: str | None = None
    follow: bool = False
    secrets: str | None = None


@dataclass(frozen=True)
class StopOptions:
    """The options of ``flambe stop``."""

    cluster: str
    secrets: str | None = None


def run_on(
    cluster: Cluster, runnable: ClusterRunnable, extensions: dict[str, str], options: RunOptions
) -> int:
    """Run a ClusterRunnable on a cluster; return the exit code of the run."""
    display = ClusterDisplay()
    cluster.observer = display
    fetch.destination(cluster.local.key, options.fetch)
    secrets = Path(options.secrets) if options.secrets else home() / "secrets.ini"
    spec = job.JobSpec(
        runnable,
        extensions,
        secrets if secrets.exists() else None,
        _forwarded(options),
        force=options.force,
        setup_again=options.setup,
    )
    with as_interrupt():
        job.start(cluster, spec)
    host = cluster.orchestrator
    display.note(f"running on {host.name}; the run continues if you disconnect")
    if options.detach:
        display.note(_commands_to_reconnect(cluster.name, host))
        return 0
    return attach(host, cluster.name, display, options.fetch)


def _forwarded(options: RunOptions) -> list[str]:
    """Return the options that the command on the orchestrator gets too."""
    flags = {"--resume": options.resume, "--verbose": options.verbose}
    arguments = [name for name, is_set in flags.items() if is_set]
    arguments += ["--resume-from", options.resume_from] if options.resume_from else []
    arguments += ["--stale", options.stale] if options.stale != "rerun" else []
    return arguments


def _commands_to_reconnect(name: str, host: ClusterHost) -> str:
    """Return the commands that show or stop a run."""
    commands = [f"flambe logs {name} -f", f"flambe status {name}", f"flambe stop {name}"]
    if report_site.is_running(name, host):
        commands.insert(1, f"flambe site {name}")
    return "reconnect with:" + "".join(f"\n  {command}" for command in commands)


def _print_line(text: str) -> None:
    print(plain(redact.hide(text)), flush=True)


def attach(
    host: ClusterHost, name: str, display: ClusterDisplay, fetch_to: str | None = None
) -> int:
    """Show the output of a run until it ends, and forward its Report Site; Ctrl-C disconnects.

    Results are copied to the folder ``fetch_to`` meanwhile, if it is given.
    """
    try:
        with _site(host, name) as url, contextlib.ExitStack() as stack:
            if fetch_to is not None:
                folder = fetch.destination(host.files.key, fetch_to)
                stack.enter_context(fetch.copied_meanwhile(host, name, folder, display.note))
            if url:
                display.note(f"Report Site: {url}")
            code = host.agent.follow(name, _print_line, notify=display.note)
    except UnreachableError as error:
        raise UnreachableError(
            host.name,
            f"{error.message}\n  the run continues unless its host is down; reconnect with:\n"
            f"  flambe logs {name} -f",
        ) from None
    except KeyboardInterrupt:
        display.note(f"\nthe run continues; {_commands_to_reconnect(name, host)}")
        return 130
    if code is None:
        with contextlib.suppress(RemoteError):
            host.refresh(name)
            job.record_interruption(host, name)
        raise RunError(
            f"{host.name}: the run was {INTERRUPTED}\n"
            "  to continue an experiment, run the same command with --resume"
        )
    if code:
        with contextlib.suppress(RemoteError):
            host.refresh(name)
    display.note(_summary(host, name, code))
    return code


def _summary(host: ClusterHost, name: str, code: int) -> str:
    """Return how a run ended, how to get its results, and what is still running."""
    outcome = "the run has ended" if code == 0 else f"the run ended with exit code {code}"
    if code and (user := job.stopped_by(host, name)):
        outcome = f"the run was stopped by {user}"
    if code > 128:  # by a signal: the run itself could not print this
        outcome += (
            ": it was killed\n  to continue an experiment, run the same command with --resume"
        )
    lines = [outcome, f"  flambe fetch {name}   copies the results to this machine"]
    if report_site.is_running(name, host):
        lines.append(f"  flambe site {name}    shows them, from the orchestrator")
        lines.append(f"  flambe down {name}    {describe_down(host.report.reaper)}")
    return "\n".join(lines)


@contextlib.contextmanager
def _site(host: ClusterHost, name: str, port: int = 0) -> Iterator[str]:
    """Forward the Report Site of a cluster, if it is running; yield its URL, or nothing."""
    address = report_site.find(name, host)
    if address is None:
        yield ""
    elif address.is_local:
        with host.tunnel(address.port, local=port) as local_port:
            yield address.url(local_port)
    else:
        yield address.url()


def forward_site(cluster: str, secrets: str | None, port: int | None, *, open_browser: bool) -> int:
    """Forward the Report Site of a cluster until Ctrl-C."""
    name, hosts = find_hosts(cluster, secrets)
    host = select_host(hosts)
    host.connect()
    host.refresh(name)
    job.record_interruption(host, name)
    with _site(host, name, port or 0) as url:
        if not url:
            hint = "the run of an experiment starts it, and flambe down stops it"
            raise RunError(f"{host.name}: no Report Site is running\n  {hint}")
        print(f"Report Site of {name}: {url}")
        print("  Ctrl-C disconnects; the site keeps running", flush=True)
        if open_browser:
            webbrowser.open(url)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(5)
                host.connection.open()
    return 0


def logs(options: LogsOptions) -> int:
    """Print the output of the run of a cluster."""
    name, hosts = find_hosts(options.cluster, options.secrets)
    host = select_host(resolve_names(name, hosts, options.host), options.host)
    host.connect()
    if options.follow:
        host.refresh(name)
        return attach(host, name, ClusterDisplay())
    host.agent.follow(name, _print_line, once=True)
    return 0


def stop(options: StopOptions) -> int:
    """Stop the run of a cluster."""
    name, hosts = find_hosts(options.cluster, options.secrets)
    host = select_host(hosts)
    host.connect()
    status = job.stop(host, name)
    if status is None:
        raise RunError(f"{host.name}: nothing was run there yet")
    code = f", exit code {status.code}" if status.code is not None else ""
    print(f"{host.name}: the run has {status.state.value}{code}")
    return 0

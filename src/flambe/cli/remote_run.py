"""Running on a cluster, and coming back to what runs there."""

from __future__ import annotations

import argparse
import contextlib
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flambe.cli import fetch as fetching
from flambe.cli.exit_handling import as_interrupt
from flambe.cli.status import INTERRUPTED
from flambe.cli.targets import ClusterDisplay, chosen, identified, members_of
from flambe.cluster import job as launch
from flambe.cluster.cluster import Cluster
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.instance_status import outlook
from flambe.cluster.services import report_site
from flambe.errors import RemoteError, RunError, UnreachableError
from flambe.logging import redact
from flambe.logging.plain import plain


def run_on(
    cluster: Cluster, runnable: Any, extensions: dict[str, str], options: argparse.Namespace
) -> int:
    """Run a ClusterRunnable on a cluster; return the exit code of the run."""
    from flambe.logging.console import home

    shown = ClusterDisplay()
    cluster.observer = shown
    fetching.destination(cluster.local.key, options.fetch)
    secrets = Path(options.secrets) if options.secrets else home() / "secrets.ini"
    job = launch.Launch(cluster, runnable, extensions, secrets if secrets.exists() else None)
    given = [f"--{name}" for name in ("resume", "verbose") if getattr(options, name)]
    given += ["--resume-from", options.resume_from] if options.resume_from else []
    given += ["--stale", options.stale] if options.stale != "rerun" else []
    with as_interrupt():
        job.start(given, force=options.force, setup=options.setup)
    host = cluster.orchestrator
    shown.note(f"running on {host.name}; it goes on if you leave")
    if options.detach:
        shown.note(_ways_back(cluster.name, host))
        return 0
    return attached(host, cluster.name, shown, options.fetch)


def _ways_back(name: str, host: ClusterHost) -> str:
    """Return the commands that come back to a run."""
    commands = [f"flambe logs {name} -f", f"flambe status {name}", f"flambe stop {name}"]
    if report_site.is_running(name, host):
        commands.insert(1, f"flambe site {name}")
    return "come back with:" + "".join(f"\n  {command}" for command in commands)


def _show(text: str) -> None:
    print(plain(redact.hide(text)), flush=True)


def attached(host: ClusterHost, name: str, shown: ClusterDisplay, fetch: str | None = None) -> int:
    """Show what a run says until it ends, and lead to its Report Site; Ctrl-C leaves it.

    Its results are brought here meanwhile, if there is a folder to ``fetch`` them to.
    """
    try:
        with _site(host, name) as url, contextlib.ExitStack() as stack:
            if fetch is not None:
                folder = fetching.destination(host.files.key, fetch)
                stack.enter_context(fetching.streamed(host, name, folder, shown.note))
            if url:
                shown.note(f"Report Site: {url}")
            code = launch.attach(host, name, _show, shown.note)
    except UnreachableError as error:
        raise UnreachableError(
            host.name,
            f"{error.message}\n  the run goes on if its host does; come back with:\n"
            f"  flambe logs {name} -f",
        ) from None
    except KeyboardInterrupt:
        shown.note(f"\nthe run goes on without you; {_ways_back(name, host)}")
        return 130
    if code is None:
        with contextlib.suppress(RemoteError):
            host.refresh(name)
            launch.settle_lost(host, name)
        raise RunError(
            f"{host.name}: the run was {INTERRUPTED}\n"
            "  to continue an experiment, run the same command with --resume"
        )
    if code:
        with contextlib.suppress(RemoteError):
            host.refresh(name)
    shown.note(_ended(host, name, code))
    return code


def _ended(host: ClusterHost, name: str, code: int) -> str:
    """Return how a run ended, where its results are, and what goes on running."""
    told = "the run has ended" if code == 0 else f"the run ended with exit code {code}"
    if code and (by := launch.stopped(host, name)):
        told = f"the run was stopped by {by}"
    if code > 128:  # by a signal: it could not say so itself
        told += ": it was killed\n  to continue an experiment, run the same command with --resume"
    lines = [told, f"  flambe fetch {name}   brings the results here"]
    if report_site.is_running(name, host):
        lines.append(f"  flambe site {name}    shows them, from the orchestrator")
        lines.append(f"  flambe down {name}    {outlook(host.report.get('reaper', {}))}")
    return "\n".join(lines)


@contextlib.contextmanager
def _site(host: ClusterHost, name: str, port: int = 0) -> Iterator[str]:
    """Lead to the Report Site of a cluster, if it runs; yield its address, or nothing."""
    place = report_site.find(name, host)
    if place is None:
        yield ""
    elif place.is_local:
        with host.tunnel(place.port, local=port) as local:
            yield place.url(local)
    else:
        yield place.url()


def site(options: argparse.Namespace) -> int:
    """Lead to the Report Site of a cluster until Ctrl-C."""
    name, members = members_of(options.folder, options.secrets)
    (host,) = chosen(members, None)
    host.connect()
    host.refresh(name)
    launch.settle_lost(host, name)
    with _site(host, name, options.port or 0) as url:
        if not url:
            hint = "it is started with the run of an experiment, and ended by flambe down"
            raise RunError(f"{host.name}: no Report Site runs there\n  {hint}")
        print(f"Report Site of {name}: {url}")
        print("  Ctrl-C leaves it; it goes on there", flush=True)
        if options.open:
            webbrowser.open(url)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(5)
                host.connection.open()
    return 0


def logs(options: argparse.Namespace) -> int:
    """Show what the run of a cluster said."""
    name, members = members_of(options.cluster, options.secrets)
    (host,) = chosen(identified(name, members, options.host), options.host)
    host.connect()
    if options.follow:
        host.refresh(name)
        return attached(host, name, ClusterDisplay())
    host.agent.follow(name, _show, once=True)
    return 0


def stop(options: argparse.Namespace) -> int:
    """Stop the run of a cluster."""
    name, members = members_of(options.cluster, options.secrets)
    (host,) = chosen(members, None)
    host.connect()
    found = launch.stop(host, name)
    if found is None:
        raise RunError(f"{host.name}: nothing was run there yet")
    code = f", exit code {found['code']}" if "code" in found else ""
    print(f"{host.name}: the run has {found['state']}{code}")
    return 0

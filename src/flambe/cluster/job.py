"""A ClusterRunnable on a cluster: prepared from here, run there, under a supervisor of its own."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flambe.cluster.cluster import Cluster
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.provisioning import lock
from flambe.cluster.services import service
from flambe.compile import Schema, source_map, yaml
from flambe.compile.build import run_error
from flambe.errors import ConfigError, FlambeError, Problem, RunError
from flambe.packaging.extras import extras_of
from flambe.packaging.wheel import distribution_of
from flambe.remote import each
from flambe.runnable import ClusterRunnable, RemoteEnvironment, Secrets

RUN = "run"  # a lock: of the run of a cluster
RUNNING, ENDED, LOST = "running", "ended", "lost"
STOPPED = "stopped"  # a mark: who stopped the run last


class Launch:
    """Starts one runnable on a cluster.

    Parameters
    ----------
    cluster
        Where.
    runnable
        What.
    extensions
        Name → origin, as the configuration declares them.
    secrets
        The file of secrets; sent to the orchestrator, and deleted at the end of the run.
    """

    def __init__(
        self,
        cluster: Cluster,
        runnable: ClusterRunnable,
        extensions: Mapping[str, str],
        secrets: Path | None = None,
    ) -> None:
        self.cluster = cluster
        self.runnable = runnable
        self.extensions = dict(extensions)
        self.secrets = secrets

    def start(
        self, options: Sequence[str], *, force: bool = False, setup: bool = False
    ) -> dict[str, Any]:
        """Make the cluster ready and start the run; return its status.

        Parameters
        ----------
        options
            Options of the command to give on: ``--resume``, ``--verbose``.
        force
            Whether a run that is there is stopped first.
        setup
            Whether the setup commands are run though they have.

        Raises
        ------
        RunError
            If another run is there.
        """
        cluster = self.cluster
        origin = vars(self.runnable).get("_flambe_origin")
        needed = needs(origin.schema if origin is not None else None, self.extensions)
        ready = cluster.provision(needed, setup_again=setup, repair=force)
        with lock.held(ready, RUN, "starting a run"):
            self._make_way(force)
            resume = any(option.startswith("--resume") for option in options)
            self._set_up(force=force, resume=resume)
            run_setup = self.runnable.run_setup
            env = remote_environment(ready, run_setup.resources)
            self.runnable.env = env
            self.runnable.set_serializable_attr("env", env)
            folder = f"{ready.folder}/job"
            host = ready.orchestrator
            host.run(["rm", "-rf", folder], repeat=True)
            host.put(yaml.dump(self.runnable), f"{folder}/config.yaml")
            config = host.path(f"{folder}/config.yaml")
            places = {source_map.VARIABLE: host.path(f"{folder}/places.json")}
            if (origin := vars(self.runnable).get("_flambe_origin")) is not None:
                host.put(source_map.source_map(origin.schema), f"{folder}/places.json")
            command = [ready.python(host), "-m", "flambe", config, *options]
            removed, after = self._send_secrets(ready, folder)
            if removed:
                command += ["--secrets", removed[0]]
            if force:
                command.append("--force")
            return _started(
                host,
                host.agent.call(
                    "start",
                    repeat=False,
                    name=cluster.name,
                    command=command,
                    folder=ready.work,
                    env={**service.variables(ready, host), **run_setup.variables, **places},
                    about={**lock.this_process("running"), "environment": ready.environment_name},
                    removed=removed,
                    after=[*after, *map(list, run_setup.cleanup_commands)],
                    lease=ready.stall_timeout,
                ),
            )

    def _set_up(self, **options: bool) -> None:
        """Let the runnable prepare the cluster; what its own code raises is shown at its line."""
        try:
            self.runnable.setup(self.cluster, self.extensions, **options)
        except FlambeError:
            raise
        except Exception as error:
            raise run_error(self.runnable, error, "preparing the cluster for") from error

    def _send_secrets(
        self, cluster: ClusterContext, folder: str
    ) -> tuple[list[str], list[list[str]]]:
        """Send the secrets to the orchestrator, and to the factories what the file gives them.

        Returns
        -------
        tuple
            The files that are deleted at the end of the run, that of the orchestrator first, and
            the commands that do so elsewhere.
        """
        if self.secrets is None:
            return [], []
        # Hosts may share the folder: what the factories get is another file.
        path, all_of_them = f"{folder}/secrets.ini", f"{folder}/orchestrator/secrets.ini"
        orchestrator = cluster.orchestrator
        known = Secrets.read(self.secrets)
        orchestrator.put(known.for_orchestrator(), all_of_them, mode=0o600)
        text = known.for_factories()
        after = []
        if text:
            each(lambda host: host.put(text, path, mode=0o600), cluster.workers)
            for factory in cluster.factories:
                ssh = ["ssh", "-F", cluster.ssh_config, "-o", "BatchMode=yes"]
                after.append([*ssh, cluster.ssh_alias(factory), f"rm -f {path}"])
        removed = [orchestrator.path(all_of_them)]
        if text and orchestrator in cluster.workers:
            removed.append(orchestrator.path(path))
        return removed, after

    def _make_way(self, force: bool) -> None:
        """Stop what runs, if it may be stopped; remove what a run left that could not do it."""
        host, name = self.cluster.orchestrator, self.cluster.name
        known = host.refresh(name)["runs"].get(name)
        if known is None or known["state"] == ENDED:
            return
        if known["state"] != RUNNING:
            host.agent.call("stop", name=name, deadline=120.0)
            return
        if not force:
            raise RunError(f"{host.name}: {busy(known)}\n  --force stops it, and starts this one")
        self.cluster.observer.note(f"stopping the run of {who(known)}")
        stop(host, name)


def remote_environment(cluster: ClusterContext, resources: Mapping[str, str]) -> RemoteEnvironment:
    """Return the cluster as a run on it sees it.

    Parameters
    ----------
    cluster
        The cluster.
    resources
        What was brought to every host for the run: name → path.
    """
    orchestrator, *factories = [host.machine for host in cluster.hosts]
    return RemoteEnvironment(
        key=cluster.key_path,
        orchestrator_ip=str(orchestrator.private),
        factories_ips=[str(machine.private) for machine in factories],
        user=orchestrator.user,
        local_user=getpass.getuser(),
        public_orchestrator_ip=str(orchestrator.address),
        public_factories_ips=[str(machine.address) for machine in factories],
        resources=resources,
        factories_names=[machine.name for machine in factories],
    )


def _started(host: ClusterHost, status: dict[str, Any]) -> dict[str, Any]:
    """Return the status of a run that was started.

    Raises
    ------
    RunError
        If another one was there after all.
    """
    if not status["started_now"]:
        raise RunError(f"{host.name}: {busy(status)}\n  --force stops it, and starts this one")
    return status


def needs(root: Schema | None, extensions: Mapping[str, str]) -> list[str]:
    """Return what hosts need for a runnable: extras of flambe, and its extensions.

    Parameters
    ----------
    root
        The blueprint of the runnable; None for one that was made in Python.
    extensions
        Name → origin, as the configuration declares them.
    """
    extras = sorted(extras_of(root)) if root is not None else []
    return [*(f"flambe[{extra}]" for extra in extras), *distributions_of(extensions)]


def distributions_of(extensions: Mapping[str, str]) -> list[str]:
    """Return the distributions that extensions were installed from here.

    Raises
    ------
    ConfigError
        If one is not installed by pip: it cannot be shipped.
    """
    found = {name: distribution_of(name) for name in extensions}
    missing = [name for name, distribution in found.items() if distribution is None]
    if missing:
        raise ConfigError(
            [
                Problem(
                    f"extension {name!r} was not installed by pip, so that it cannot be shipped",
                    hint=f"run with -i, which installs it from {extensions[name]}",
                )
                for name in missing
            ]
        )
    return list(dict.fromkeys(name for name in found.values() if name))


def who(running: Mapping[str, Any]) -> str:
    """Return who started a run."""
    about = running["about"]
    return f"{about['user']} on {about['host']}"


def stopped(host: ClusterHost, name: str) -> str:
    """Return who stopped the run of a cluster, as it was looked at last; nothing if nobody did."""
    mark = host.report["marks"].get(STOPPED)
    run = host.report["runs"].get(name)
    # Of a run that an earlier version stopped, only the time is noted, by another clock.
    if not mark or not run or mark.get("run", run["started"]) != run["started"]:
        return ""
    if "run" not in mark and mark["at"] < run["started"]:
        return ""
    return f"{mark['user']} on {mark['host']}: {mark['command']}"


def busy(running: Mapping[str, Any]) -> str:
    """Return what people are told of a run that is there."""
    minutes, command = running["started_ago"] / 60, running["about"]["command"]
    ago = f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
    return f"the cluster is in use: {who(running)} started a run {ago} ago\n  {command}"


def attach(
    host: ClusterHost, cluster: str, take: Callable[[str], None], note: Callable[[str], None]
) -> int | None:
    """Give what the run of a cluster says to a function until its end; return its exit code.

    ``note`` is told when the connection is lost, and when it is there again.
    """
    return host.agent.follow(cluster, take, notify=note)


def settle_lost(host: ClusterHost, name: str) -> None:
    """Do at last what follows a run whose supervisor was killed too: it is noted as interrupted.

    Parameters
    ----------
    host, name
        The orchestrator, as it was looked at, and the cluster.
    """
    if host.report["runs"].get(name, {}).get("state") == LOST:
        host.agent.call("stop", name=name, deadline=120.0)


def stop(host: ClusterHost, name: str) -> dict[str, Any] | None:
    """Stop exactly the run of that name, and all that it started; return its status."""
    run = host.refresh(name)["runs"].get(name, {})
    note = {**lock.this_process("stopping"), "at": time.time(), "run": run.get("started", 0.0)}
    host.mark(name, STOPPED, note)
    found = host.agent.call("stop", name=name, deadline=120.0)
    return dict(found) if found is not None else None

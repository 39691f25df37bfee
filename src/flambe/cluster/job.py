"""Jobs on a cluster: prepared on this machine, run on the orchestrator under a supervisor."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flambe.cluster.cluster import Cluster
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.provisioning import lock
from flambe.cluster.services import service
from flambe.compile import Schema, source_map, variables, yaml
from flambe.compile.build import run_error
from flambe.errors import ConfigError, FlambeError, Problem, RunError
from flambe.packaging import provenance
from flambe.packaging.extras import extras_of
from flambe.packaging.wheel import distribution_of
from flambe.remote import each
from flambe.remote.agent.protocol import (
    LockHolder,
    RunState,
    RunStatus,
    StartRequest,
    StopRequest,
)
from flambe.runnable import ClusterRunnable, RemoteEnvironment, Secrets

LOCK = "run"  # held while a run is started
STOPPED = "stopped"  # a mark: who stopped the run last
STOP_SECONDS = 120.0


@dataclass(frozen=True)
class JobSpec:
    """A runnable, and how it is to run on a cluster.

    Attributes
    ----------
    runnable
        The runnable; its ``setup`` prepares the cluster.
    extensions
        Name → origin, as the configuration declares them.
    secrets
        The file of secrets; sent to the orchestrator, and deleted at the end of the run.
    options
        Options of the command that the run gets too: ``--resume``, ``--verbose``.
    force
        Whether an active run is stopped first.
    setup_again
        Whether the setup commands run again.
    """

    runnable: ClusterRunnable
    extensions: Mapping[str, str]
    secrets: Path | None = None
    options: Sequence[str] = ()
    force: bool = False
    setup_again: bool = False

    @property
    def blueprint(self) -> Schema | None:
        """What the runnable was built from; None for one that was made in Python."""
        origin = vars(self.runnable).get("_flambe_origin")
        schema: Schema | None = origin.schema if origin is not None else None
        return schema


@dataclass(frozen=True)
class _SecretFiles:
    """The files of secrets of one run.

    Attributes
    ----------
    on_orchestrator
        Those on the orchestrator, deleted when the run has ended; its own comes first.
    cleanup_commands
        The commands that delete those on other hosts.
    """

    on_orchestrator: tuple[str, ...] = ()
    cleanup_commands: tuple[list[str], ...] = ()


def start(cluster: Cluster, job: JobSpec) -> RunStatus:
    """Provision a cluster and start a job on it; return the status of its run.

    Raises
    ------
    RunError
        If another run is active.
    """
    distributions = required_distributions(job.blueprint, job.extensions)
    record = provenance.record_client(provenance.source_of(job.runnable, job.extensions))
    ready = cluster.provision(distributions, setup_again=job.setup_again, repair=job.force)
    with lock.held(ready, LOCK, "starting a run"):
        _clear_earlier_run(ready, force=job.force)
        _set_up(cluster, job)
        env = remote_environment(ready, job.runnable.run_setup.resources)
        job.runnable.env = env
        job.runnable.set_serializable_attr("env", env)
        host = ready.orchestrator
        status = host.agent.ask(_upload(ready, job, record), repeat=False)
        if not status.started_now:
            raise RunError(_refusal(host, status))
        return status


def _set_up(cluster: Cluster, job: JobSpec) -> None:
    """Let the runnable prepare the cluster; an error of its code is shown at its line."""
    resume = any(option.startswith("--resume") for option in job.options)
    try:
        job.runnable.setup(cluster, dict(job.extensions), force=job.force, resume=resume)
    except FlambeError:
        raise
    except Exception as error:
        raise run_error(job.runnable, error, "preparing the cluster for") from error


def _upload(cluster: ClusterContext, job: JobSpec, record: str) -> StartRequest:
    """Upload the configuration and the secrets of a job; return the request that starts it.

    The record says how it was made, as far as this machine knows.
    """
    folder, host = f"{cluster.folder}/job", cluster.orchestrator
    host.run(["rm", "-rf", folder], repeat=True)
    host.put(yaml.dump(job.runnable), f"{folder}/config.yaml")
    positions = f"{folder}/places.json"
    if job.blueprint is not None:
        host.put(source_map.source_map(job.blueprint), positions)
    invocation = f"{folder}/invocation.json"
    host.put(record, invocation)
    values = f"{folder}/orchestrator/values.json"
    read_here = variables.values_in(job.blueprint)
    host.put(json.dumps(read_here), values, mode=0o600)  # some are secrets
    secrets = _send_secrets(cluster, job.secrets, folder)
    config = host.path(f"{folder}/config.yaml")
    command = [cluster.python(host), "-m", "flambe", config, *job.options]
    if secrets.on_orchestrator:
        command += ["--secrets", secrets.on_orchestrator[0]]
    if job.force:
        command.append("--force")
    run_setup = job.runnable.run_setup
    return StartRequest(
        name=cluster.name,
        command=command,
        folder=cluster.work,
        env={
            **service.variables(cluster, host),
            **run_setup.variables,
            source_map.VARIABLE: host.path(positions),
            provenance.VARIABLE: host.path(invocation),
            variables.FILE: host.path(values),
        },
        about={
            **lock.this_process("running").to_json(),
            "environment": cluster.environment_name,
        },
        removed=[*secrets.on_orchestrator, host.path(values)],
        after=[*secrets.cleanup_commands, *map(list, run_setup.cleanup_commands)],
        lease=cluster.stall_timeout,
    )


def _send_secrets(cluster: ClusterContext, file: Path | None, folder: str) -> _SecretFiles:
    """Send the secrets to the orchestrator, and to the workers those that are meant for them."""
    if file is None:
        return _SecretFiles()
    # Hosts may share the folder: the workers get another file.
    shared, own = f"{folder}/secrets.ini", f"{folder}/orchestrator/secrets.ini"
    orchestrator = cluster.orchestrator
    secrets = Secrets.read(file)
    orchestrator.put(secrets.for_orchestrator(), own, mode=0o600)
    content = secrets.for_factories()
    if not content:
        return _SecretFiles((orchestrator.path(own),))
    each(lambda host: host.put(content, shared, mode=0o600), cluster.workers)
    ssh = ["ssh", "-F", cluster.ssh_config, "-o", "BatchMode=yes"]
    paths = [own, *([shared] if orchestrator in cluster.workers else [])]
    return _SecretFiles(
        tuple(map(orchestrator.path, paths)),
        tuple([*ssh, cluster.ssh_alias(host), f"rm -f {shared}"] for host in cluster.factories),
    )


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


def required_distributions(root: Schema | None, extensions: Mapping[str, str]) -> list[str]:
    """Return what hosts need for a runnable: extras of flambe, and its extensions.

    Parameters
    ----------
    root
        The blueprint of the runnable; None for one that was made in Python.
    extensions
        Name → origin, as the configuration declares them.
    """
    extras = sorted(extras_of(root)) if root is not None else []
    return [*(f"flambe[{extra}]" for extra in extras), *extension_distributions(extensions)]


def extension_distributions(extensions: Mapping[str, str]) -> list[str]:
    """Return the distributions that extensions were installed from here.

    Raises
    ------
    ConfigError
        If one is not installed by pip: it cannot be shipped.
    """
    distributions = {name: distribution_of(name) for name in extensions}
    missing = [name for name, distribution in distributions.items() if distribution is None]
    if missing:
        raise ConfigError(
            [
                Problem(
                    f"extension {name!r} was not installed by pip, and cannot be shipped",
                    hint=f"run with -i, which installs it from {extensions[name]}",
                )
                for name in missing
            ]
        )
    return list(dict.fromkeys(name for name in distributions.values() if name))


# -- the run of a cluster -----------------------------------------------------------------------


def _clear_earlier_run(cluster: ClusterContext, *, force: bool) -> None:
    """Stop an active run, if that is allowed; complete one that could not record its own end.

    Raises
    ------
    RunError
        If a run is active, and not to be stopped.
    """
    host, name = cluster.orchestrator, cluster.name
    status = host.refresh(name).runs.get(name)
    if status is None or status.state is RunState.ENDED:
        return
    if not status.runs:
        host.agent.ask(StopRequest(name), deadline=STOP_SECONDS)
        return
    if not force:
        raise RunError(_refusal(host, status))
    cluster.observer.note(f"stopping the run of {started_by(status)}")
    stop(host, name)


def _refusal(host: ClusterHost, status: RunStatus) -> str:
    return f"{host.name}: {describe_active(status)}\n  --force stops it, and starts this one"


def started_by(status: RunStatus) -> str:
    """Return who started a run: the user, and their machine."""
    holder = LockHolder.from_json(status.about)
    return f"{holder.user} on {holder.host}"


def describe_active(status: RunStatus) -> str:
    """Return a sentence about an active run: who started it, when, and the command."""
    minutes = status.started_ago / 60
    ago = f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
    command = LockHolder.from_json(status.about).command
    return f"the cluster is in use: {started_by(status)} started a run {ago} ago\n  {command}"


def stopped_by(host: ClusterHost, name: str) -> str:
    """Return who stopped the last run of a cluster, by the report of its orchestrator.

    Empty if the run ended by itself.
    """
    mark, run = host.report.marks.get(STOPPED), host.report.runs.get(name)
    if not isinstance(mark, dict) or run is None:
        return ""
    # An earlier version recorded only the time, by another clock.
    if mark.get("run", run.started) != run.started:
        return ""
    if "run" not in mark and not _is_after(mark.get("at"), run.started):
        return ""
    holder = LockHolder.from_json(mark)
    return f"{holder.user} on {holder.host}: {holder.command}"


def _is_after(moment: object, start: float) -> bool:
    return isinstance(moment, int | float) and moment >= start


def record_interruption(host: ClusterHost, name: str) -> None:
    """Record a run whose supervisor was killed as interrupted, and run its cleanup commands.

    Parameters
    ----------
    host, name
        The orchestrator with its report, and the name of the cluster.
    """
    run = host.report.runs.get(name)
    if run is not None and run.state is RunState.LOST:
        host.agent.ask(StopRequest(name), deadline=STOP_SECONDS)


def stop(host: ClusterHost, name: str) -> RunStatus | None:
    """Stop exactly the run of that name, and all that it started; return its status."""
    run = host.refresh(name).runs.get(name)
    holder = lock.this_process("stopping")
    started = run.started if run is not None else 0.0
    host.mark(name, STOPPED, {**holder.to_json(), "at": time.time(), "run": started})
    return host.agent.ask(StopRequest(name), deadline=STOP_SECONDS)

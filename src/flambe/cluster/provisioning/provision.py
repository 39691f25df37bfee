"""Making a cluster ready: found or created, connected, trusted, set up, given its environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flambe.cluster import layout
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.cluster_record import ClusterRecord, FormerMachine, WorkerRecord
from flambe.cluster.context import ClusterContext
from flambe.cluster.environment import host_python, installer, prune
from flambe.cluster.environment.environment import Environment
from flambe.cluster.local_state import shared_machines
from flambe.cluster.machine import Machine, check_machines
from flambe.cluster.machine_provider import MachineProvider
from flambe.cluster.provisioning import (
    cluster_keys,
    connectivity,
    decommission,
    factory_names,
    gpu_selection,
    lock,
    setup_commands,
)
from flambe.errors import HeldError, RunError, counted
from flambe.remote import each, resumable_copy, ssh_config, transfer
from flambe.remote.known_hosts import fingerprints


def provision(
    provider: MachineProvider,
    cluster: ClusterContext,
    distributions: Sequence[str] = (),
    *,
    setup_again: bool = False,
    repair: bool = False,
) -> ClusterContext:
    """Create, connect and set up what is missing of a cluster; return it with its hosts.

    Parameters
    ----------
    provider
        Where its machines come from.
    cluster
        The cluster, as its file describes it.
    distributions
        The extensions that its hosts are given beside flambe.
    setup_again
        Whether the setup commands run again on hosts where they have run.
    repair
        Whether an environment that was altered on a host is made again, in place of an error.
    """
    transfer.check()
    existing = provider.find_machines()
    if provider.ephemeral and cluster.local.recall().is_empty:
        # If this process is killed, what it is about to create can be taken down by its name.
        _remember(replace(cluster, hosts=()), ())
    machines = provider.create_machines(existing)
    try:
        check_machines(provider, machines)
        hosts = [ClusterHost(m, cluster.local, cluster.remote_dir) for m in machines]
        previous = cluster.local.recall()
        cluster = replace(cluster, hosts=tuple(hosts), environment_name=previous.environment)
        if len(machines) > len(existing):
            # From here on there is something to take down.
            _remember(cluster, previous.left)
        cluster = _connect(provider, cluster)
        return _set_up(provider, cluster, distributions, setup_again=setup_again, repair=repair)
    except HeldError:
        raise  # Another process uses what was created.
    except BaseException:
        if new := [machine for machine in machines if _is_new(machine)]:
            provider.discard_machines(new)
        raise


def _is_new(machine: Machine) -> bool:
    return isinstance(machine, Machine) and machine.new


def _connect(provider: MachineProvider, cluster: ClusterContext) -> ClusterContext:
    """Connect to all hosts and identify them; clean those that they replaced."""
    hosts = cluster.hosts
    each(lambda host: host.connect(notify=cluster.observer.note), hosts)
    provider.trust(hosts)
    _report_new_keys(cluster)
    # Mostly it is the environment of the last time: one report is enough then.
    _refresh(cluster)
    each(lambda host: host.connection.check_shell(), hosts)
    decommission.refuse_another_orchestrator(provider, cluster)
    previous = cluster.local.recall()
    waiting = decommission.clean_former_hosts(provider, cluster)
    if provider.lasting:
        named = factory_names.settle(cluster.name, hosts, previous, waiting)
        cluster = replace(cluster, hosts=tuple(named))
    machines = [host.recorded for host in cluster.hosts]
    if machines != list(previous.machines):
        for other, names in shared_machines(cluster.local, machines).items():
            text = f"warning: the cluster {other} has {', '.join(names)} of this one too"
            cluster.observer.note(f"{text}: what runs on both shares their CPUs and GPUs")
    _remember(cluster, waiting)
    return cluster


def _set_up(
    provider: MachineProvider,
    cluster: ClusterContext,
    distributions: Sequence[str],
    *,
    setup_again: bool,
    repair: bool,
) -> ClusterContext:
    """Give connected hosts all that they lack, and verify it."""
    environment = Environment.of(cluster, distributions)
    if environment.name != cluster.environment_name:
        cluster = replace(cluster, environment_name=environment.name)
        _refresh(cluster)
    altered = _altered(cluster, environment) if repair or setup_again else []
    if setup_again or altered or _is_incomplete(cluster):
        with lock.held(cluster, lock.PROVISION, "preparing the cluster"):
            # Another process may have prepared it while this one waited.
            _discard(cluster, altered)
            _refresh(cluster)
            _prepare(cluster, environment, setup_again=setup_again)
            _refresh(cluster)
            verify(cluster, environment)
            prune.prune(cluster)
    else:
        verify(cluster, environment)
        cluster.observer.note("everything is in place")
    if environment.system:
        for warning in host_python.version_warnings(environment, cluster.hosts):
            cluster.observer.note(warning)
    _select_gpus(cluster)
    _remember(cluster, cluster.local.recall().left)
    provider.settle(cluster.hosts)
    return cluster


def _refresh(cluster: ClusterContext) -> None:
    """Have every host report on itself, and on the environment of the cluster."""
    name, system = cluster.environment_name, cluster.environment.system
    each(lambda host: host.refresh(cluster.name, name, system=system), cluster.hosts)


def verify(cluster: ClusterContext, environment: Environment) -> None:
    """See that every host has the code that is here, as recomputed from its files.

    Raises
    ------
    RunError
        If one differs: it names the host and what differs.
    """
    if environment.system:
        host_python.refuse_missing(environment, cluster.hosts)
    for host in cluster.hosts:
        if differences := environment.differences(host.report.environment):
            raise RunError(
                f"{host.name}: the environment {environment.name} is not what is here: "
                + "; ".join(differences[:5])
                + "\n  --force makes it again, and so does, before the next run:\n"
                f"  flambe exec {cluster.name} --host {host.machine.name} -- "
                f"rm -r {layout.environment(host.agent.root, environment.name)}"
            )


def _altered(cluster: ClusterContext, environment: Environment) -> list[ClusterHost]:
    """Return the hosts that have the environment, but not as it should be."""
    having = [host for host in cluster.hosts if host.report.environment is not None]
    return [host for host in having if environment.differences(host.report.environment)]


def _discard(cluster: ClusterContext, hosts: Sequence[ClusterHost]) -> None:
    """Invalidate the environment on hosts: it is made again then."""
    if hosts:
        names = ", ".join(host.machine.name for host in hosts)
        cluster.observer.note(f"environment: altered on {names}, and made again")
    folder = layout.environment(cluster.remote_dir, cluster.environment_name)
    each(lambda host: host.run(["rm", "-f", f"{folder}/flambe.json"], repeat=True), hosts)


def _select_gpus(cluster: ClusterContext) -> None:
    """Record on each host which GPUs may be used; its report says who uses them."""
    for host in cluster.hosts:
        gpus = host.facts.gpus
        usable = gpu_selection.free_gpus(gpus, cluster.name) if cluster.gpus == "free" else gpus
        host.gpus = [gpu.uuid for gpu in usable]
        if len(usable) < len(gpus):
            summary = gpu_selection.summarize(gpus, cluster.name, len(usable))
            cluster.observer.note(f"{host.name}: gpus: free leaves {summary}")


def _is_incomplete(cluster: ClusterContext) -> bool:
    """Whether a host lacks something that provisioning gives it."""
    return (
        not cluster_keys.agree(cluster.name, cluster.hosts)
        or connectivity.is_unverified(cluster.hosts)
        or bool(setup_commands.pending_hosts(cluster))
        or any(host.report.environment is None for host in cluster.hosts)
    )


def _prepare(cluster: ClusterContext, environment: Environment, *, setup_again: bool) -> None:
    hosts = cluster.hosts
    if not cluster_keys.agree(cluster.name, hosts):
        cluster.observer.note("keys: a new pair for the cluster")
        cluster_keys.distribute(cluster.name, hosts)
        _refresh(cluster)
    if connectivity.is_unverified(hosts):
        connectivity.verify(cluster)
    pending = list(hosts) if setup_again else setup_commands.pending_hosts(cluster)
    if pending and cluster.setup_cmds:
        commands = counted(len(cluster.setup_cmds), "command")
        cluster.observer.note(f"setup: {commands} on {counted(len(pending), 'host')}")
        setup_commands.run(cluster, pending)
    without_environment = [host for host in hosts if host.report.environment is None]
    if without_environment:
        _check_rsync(cluster)
        installer.install(cluster, environment, without_environment)


def _check_rsync(cluster: ClusterContext) -> None:
    """See that all hosts have rsync, before anything is downloaded; setup commands may install it.

    Raises
    ------
    RemoteError
        If one has none.
    """
    if not all(host.facts.rsync for host in cluster.hosts):
        _refresh(cluster)

    def check(host: ClusterHost) -> None:
        if not host.facts.rsync:
            raise resumable_copy.missing(host.name)

    each(check, cluster.hosts)


def _report_new_keys(cluster: ClusterContext) -> None:
    for host in cluster.hosts:
        if host.connection.new_key:
            # ssh knows the keys by the address that an alias stands for.
            address = ssh_config.resolve(host.machine.address, host.machine.user).address
            prints = fingerprints(cluster.local.known_hosts, address)
            cluster.observer.note(
                f"{host.name}: seen for the first time, its key is kept: {' '.join(prints)}"
            )


def _remember(cluster: ClusterContext, left: Sequence[FormerMachine]) -> None:
    """Record the cluster on this machine."""
    origin = cluster.origin
    workers = [
        WorkerRecord(
            host.machine.name,
            str(host.machine.private),
            cpu=host.facts.cpus,
            gpu=len(host.gpus),
        )
        for host in (cluster.workers if cluster.hosts else ())
    ]
    cluster.local.remember(
        ClusterRecord(
            file=origin.file,
            kind=origin.kind,
            scope=origin.scope,
            secrets=origin.secrets,
            remote_dir=cluster.remote_dir,
            environment=cluster.environment_name,
            workers=tuple(workers),
            machines=tuple(host.recorded for host in cluster.hosts),
            left=tuple(left),
            fetched=cluster.local.recall().fetched,
        )
    )

"""Making a cluster ready: found or created, connected, trusted, set up, given its environment."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import socket
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flambe.cluster import local_state
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.environment import host_python, installer, prune
from flambe.cluster.environment.environment import Environment
from flambe.cluster.machine import check_machines
from flambe.cluster.provisioning import (
    cluster_keys,
    connectivity,
    decommission,
    factory_names,
    gpu_selection,
    setup_commands,
)
from flambe.errors import HeldError, RemoteError, RunError, counted
from flambe.remote import each, identity, resumable_copy, shell, ssh_config, transfer
from flambe.remote.connection import fingerprints

if TYPE_CHECKING:
    from flambe.cluster.cluster import Cluster

PROVISION = "provision"
# A lock whose holder is gone expires after so many seconds.
LOCK_SECONDS, RENEW_SECONDS = 60.0, 15.0
LEASE_SECONDS = 60.0


def make_ready(
    cluster: Cluster,
    distributions: Sequence[str] = (),
    *,
    setup_again: bool = False,
    repair: bool = False,
) -> Environment:
    """Make a cluster ready, as far as it is not; return the environment of its hosts.

    Parameters
    ----------
    cluster
        The cluster.
    distributions
        The extensions that its hosts are given beside flambe.
    setup_again
        Whether the setup commands are run though they have.
    repair
        Whether an environment is made anew on hosts where it was altered, in place of an error.
    """
    try:
        return _make_ready(cluster, distributions, setup_again=setup_again, repair=repair)
    except HeldError:
        raise  # What was created is used by whoever holds it.
    except BaseException:
        new = [member.machine for member in cluster.members if member.machine.new]
        if new:
            cluster.discard_machines(new)
        raise


def _make_ready(
    cluster: Cluster, distributions: Sequence[str], *, setup_again: bool, repair: bool
) -> Environment:
    transfer.check()
    found = cluster.find_machines()
    if cluster.ephemeral and not cluster.local.recall():
        # Whatever becomes of this process: what it is about to make can be taken down by its name.
        _remember(cluster, "", ())
    machines = cluster.create_machines(found)
    check_machines(cluster, machines)
    members = [ClusterHost(machine, cluster.local, cluster.remote_dir) for machine in machines]
    cluster.members = members
    note = cluster.local.recall()
    known = str(note.get("environment", ""))
    if len(machines) > len(found):
        # From here on there is something to take down.
        _remember(cluster, known, note.get("left", ()))
    each(lambda member: member.connect(note=cluster.observer.note), members)
    cluster.trust(members)
    _tell_new_keys(cluster, members)
    # Mostly it is the environment of the last time: one look is enough then.
    _look(cluster, members, known)
    each(lambda member: shell.refuse(member.connection), members)
    decommission.refuse_another_orchestrator(cluster, members)
    _settle(cluster, members, known)
    wanted = Environment.of(cluster, members, distributions)
    if wanted.name != known:
        _look(cluster, members, wanted.name)
    broken = _broken(members, wanted) if repair or setup_again else []
    if setup_again or broken or _missing(cluster, members, wanted):
        with held(cluster, PROVISION, "preparing the cluster"):
            # Somebody else may have prepared it while we waited.
            _discard(cluster, wanted, broken)
            _look(cluster, members, wanted.name)
            _prepare(cluster, members, wanted, setup_again=setup_again)
            _look(cluster, members, wanted.name)
            verify(cluster, members, wanted)
            prune.prune(cluster, members, wanted.name)
    else:
        verify(cluster, members, wanted)
        cluster.observer.note("everything is in place")
    if wanted.system:
        for text in host_python.differing(wanted, members):
            cluster.observer.note(text)
    _choose_gpus(cluster, members)
    _remember(cluster, wanted.name, cluster.local.recall().get("left", ()))
    cluster.installed = wanted.name
    cluster.settle(members)
    return wanted


def _settle(cluster: Cluster, members: list[ClusterHost], known: str) -> None:
    """Remember who the hosts are, now that all answered; see to those that they replaced."""
    before = cluster.local.recall()
    waiting = decommission.clean_left(cluster, members)
    if cluster.lasting:
        factory_names.settle(cluster, members, before, waiting)
    machines = [member.machine for member in members]
    if _notes(members) != before.get("machines"):
        for other, names in local_state.sharing(cluster.local, machines).items():
            text = f"warning: the cluster {other} has {', '.join(names)} of this one too"
            cluster.observer.note(f"{text}: what runs on both shares their CPUs and GPUs")
    _remember(cluster, known, waiting)


def _notes(members: Sequence[ClusterHost]) -> list[dict[str, str]]:
    return [local_state.note_of(member.machine, member.identity) for member in members]


def _look(cluster: Cluster, members: Sequence[ClusterHost], environment: str) -> None:
    own = bool(cluster.environment.get("system"))
    each(lambda member: member.refresh(cluster.name, environment, system=own), members)


def verify(cluster: Cluster, members: Sequence[ClusterHost], wanted: Environment) -> None:
    """See that every host has the code that is here, as recomputed from its files.

    Raises
    ------
    RunError
        If one differs: it names the host and what differs.
    """
    if wanted.system:
        host_python.refuse(wanted, members)
    for member in members:
        told = wanted.differences(member.report["environment"])
        if told:
            raise RunError(
                f"{member.name}: the environment {wanted.name} is not what is here: "
                + "; ".join(told[:5])
                + "\n  --force makes it anew, and so does, before the next run:\n"
                f"  flambe exec {cluster.name} --host {member.machine.name} -- "
                f"rm -r {member.agent.root}/envs/{wanted.name}"
            )


def _broken(members: Sequence[ClusterHost], wanted: Environment) -> list[ClusterHost]:
    """Return the hosts whose environment is there, and is not what it should be."""
    there = [member for member in members if member.report["environment"] is not None]
    return [member for member in there if wanted.differences(member.report["environment"])]


def _discard(cluster: Cluster, wanted: Environment, members: Sequence[ClusterHost]) -> None:
    """Forget an environment on hosts: it is made anew then."""
    if members:
        names = ", ".join(member.machine.name for member in members)
        cluster.observer.note(f"environment: altered on {names}, and made anew")
    folder = f"{cluster.remote_dir}/envs/{wanted.name}"
    each(lambda member: member.run(["rm", "-f", f"{folder}/flambe.json"], repeat=True), members)


def _choose_gpus(cluster: Cluster, members: Sequence[ClusterHost]) -> None:
    """Note which GPUs may be used; who uses them was seen with everything else."""
    for member in members:
        there = member.facts["gpus"]
        usable = gpu_selection.free(there, cluster.name) if cluster.gpus == "free" else there
        member.gpus = [gpu["uuid"] for gpu in usable]
        if len(usable) < len(there):
            told = gpu_selection.told(there, cluster.name, len(usable))
            cluster.observer.note(f"{member.name}: gpus: free leaves {told}")


def _missing(cluster: Cluster, members: Sequence[ClusterHost], wanted: Environment) -> bool:
    return (
        not cluster_keys.agree(cluster.name, members)
        or connectivity.pending(members)
        or bool(setup_commands.pending(cluster, members))
        or any(member.report["environment"] is None for member in members)
    )


def _prepare(
    cluster: Cluster, members: Sequence[ClusterHost], wanted: Environment, *, setup_again: bool
) -> None:
    if not cluster_keys.agree(cluster.name, members):
        cluster.observer.note("keys: a new pair for the cluster")
        cluster_keys.distribute(cluster.name, members)
        _look(cluster, members, wanted.name)
    if connectivity.pending(members):
        connectivity.check(cluster, members)
    todo = list(members) if setup_again else setup_commands.pending(cluster, members)
    if todo and cluster.setup_cmds:
        commands, hosts = counted(len(cluster.setup_cmds), "command"), counted(len(todo), "host")
        cluster.observer.note(f"setup: {commands} on {hosts}")
        setup_commands.run(cluster, todo)
    lacking = [member for member in members if member.report["environment"] is None]
    if lacking:
        _check_rsync(cluster, members, wanted.name)
        installer.make(cluster, wanted, lacking)


def _check_rsync(cluster: Cluster, members: Sequence[ClusterHost], environment: str) -> None:
    """See that all hosts have rsync, before anything is downloaded; setup commands may install it.

    Raises
    ------
    RemoteError
        If one has none.
    """
    if not all(member.facts["rsync"] for member in members):
        _look(cluster, members, environment)

    def check(member: ClusterHost) -> None:
        if not member.facts["rsync"]:
            raise resumable_copy.missing(member.name)

    each(check, members)


def _tell_new_keys(cluster: Cluster, members: Sequence[ClusterHost]) -> None:
    for member in members:
        if member.connection.new_key:
            # ssh knows the keys by the address that an alias stands for.
            where = ssh_config.ask(member.machine.address, member.machine.user).address
            prints = fingerprints(cluster.local.known_hosts, where)
            cluster.observer.note(
                f"{member.name}: seen for the first time, its key is kept: {' '.join(prints)}"
            )


def _remember(cluster: Cluster, wanted: str, left: Sequence[Any]) -> None:
    # Whoever takes it down from another folder, or without the option, needs the same ones.
    secrets = getattr(cluster.config, "origin", "")
    cluster.local.remember(
        {
            "fetched": cluster.local.recall().get("fetched", 0),
            "file": cluster.file,
            "scope": cluster.scope,
            "kind": type(cluster).__name__,
            "remote_dir": cluster.remote_dir,
            "secrets": os.path.abspath(secrets) if secrets else "",
            "environment": wanted,
            "workers": [
                {
                    "name": member.machine.name,
                    "private": str(member.machine.private),
                    "cpu": member.facts.get("cpus", 0),
                    "gpu": len(member.gpus),
                }
                for member in (cluster.workers if cluster.members else ())
            ],
            "machines": _notes(cluster.members),
            "left": list(left),
        }
    )


# -- locks --------------------------------------------------------------------------------------


def holder(what: str) -> dict[str, Any]:
    """Return who we are, for those who find a lock of ours."""
    return {
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process": identity.of_process(os.getpid()),
        "what": what,
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
    }


def _is_gone(who: dict[str, Any]) -> bool:
    """Whether a holder was a process of this machine that is no more.

    Of one whose machine nobody knows, since an earlier version took the lock, that is not known.
    """
    process = who.get("process")
    return isinstance(process, dict) and identity.is_gone(process)


@contextlib.contextmanager
def held(cluster: Cluster, name: str, what: str) -> Iterator[None]:
    """Hold a lock of the cluster.

    Raises
    ------
    HeldError
        If somebody else holds it: it names them.
    """
    orchestrator, token = cluster.orchestrator, uuid.uuid4().hex
    lock = f"{cluster.name}/{name}"
    given: dict[str, Any] = {
        "name": lock,
        "token": token,
        "holder": holder(what),
        "seconds": LOCK_SECONDS,
    }
    answer = orchestrator.agent.call("lock", **given)
    if not answer["taken"] and _is_gone(answer["holder"]):
        orchestrator.agent.call("unlock", name=lock, token=answer["token"])
        answer = orchestrator.agent.call("lock", **given)
    if not answer["taken"]:
        raise HeldError(orchestrator.name, _busy(answer))
    over = threading.Event()

    def renew() -> None:
        while not over.wait(RENEW_SECONDS):
            with contextlib.suppress(RemoteError):
                orchestrator.agent.call("lock", **given)
            with contextlib.suppress(RemoteError):
                _lease(cluster)

    thread = threading.Thread(target=renew, name="flambe-lock", daemon=True)
    thread.start()
    try:
        _lease(cluster)
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(RemoteError):
            orchestrator.agent.call("unlock", name=lock, token=token)


def _lease(cluster: Cluster) -> None:
    """See that no host ends while it is prepared, or waits for another one; it lapses by itself."""
    if cluster.is_reaped:
        given: dict[str, Any] = {"name": PROVISION, "seconds": LEASE_SECONDS}
        each(lambda member: member.agent.call("lease", **given), cluster.members)


def _busy(answer: dict[str, Any]) -> str:
    import time

    who = answer["holder"]
    since = time.strftime("%H:%M:%S", time.localtime(answer["since"]))
    return (
        f"the cluster is in use: {who['user']} on {who['host']} is {who['what']} since {since}"
        f"\n  {who['command']}\n  try again when that is done; a lock whose holder is gone "
        f"expires after {LOCK_SECONDS:.0f} s"
    )

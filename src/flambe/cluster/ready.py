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

from flambe.cluster import gpus, keys, maker, setup, system
from flambe.cluster.environment import Environment
from flambe.cluster.member import Member
from flambe.errors import RemoteError, RunError
from flambe.remote import each, transfer
from flambe.remote.connection import fingerprints

if TYPE_CHECKING:
    from flambe.cluster.cluster import Cluster

PROVISION = "provision"
# A lock whose holder is gone expires after so many seconds.
LOCK_SECONDS, RENEW_SECONDS = 60.0, 15.0


def make_ready(
    cluster: Cluster, distributions: Sequence[str] = (), *, setup_again: bool = False
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
    """
    transfer.check()
    found = cluster.find_machines()
    machines = cluster.create_machines(found)
    members = [Member(machine, cluster.local, cluster.remote_dir) for machine in machines]
    cluster.members = members
    # From here on there is something to take down.
    known = str(cluster.local.recall().get("environment", ""))
    _remember(cluster, known)
    each(Member.connect, members)
    _tell_new_keys(cluster, members)
    # Mostly it is the environment of the last time: one look is enough then.
    _look(cluster, members, known)
    wanted = Environment.of(cluster, members, distributions)
    if wanted.name != known:
        _look(cluster, members, wanted.name)
    if setup_again or _missing(cluster, members, wanted):
        with held(cluster, PROVISION, "preparing the cluster"):
            # Somebody else may have prepared it while we waited.
            _look(cluster, members, wanted.name)
            _prepare(cluster, members, wanted, setup_again=setup_again)
            _look(cluster, members, wanted.name)
    else:
        cluster.observer.note("everything is in place")
    verify(members, wanted)
    if wanted.system:
        for text in system.differing(wanted, members):
            cluster.observer.note(text)
    _choose_gpus(cluster, members)
    _remember(cluster, wanted.name)
    cluster.installed = wanted.name
    return wanted


def _look(cluster: Cluster, members: Sequence[Member], environment: str) -> None:
    own = bool(cluster.environment.get("system"))
    each(lambda member: member.look(cluster.name, environment, system=own), members)


def verify(members: Sequence[Member], wanted: Environment) -> None:
    """See that every host has the code that is here, as recomputed from its files.

    Raises
    ------
    RunError
        If one differs: it names the host and what differs.
    """
    if wanted.system:
        system.refuse(wanted, members)
    for member in members:
        told = wanted.differences(member.report["environment"])
        if told:
            raise RunError(
                f"{member.name}: the environment {wanted.name} is not what is here: "
                + "; ".join(told[:5])
                + f"\n  have it made anew:   rm -r {member.agent.root}/envs/{wanted.name}   there"
            )


def _choose_gpus(cluster: Cluster, members: Sequence[Member]) -> None:
    """Note which GPUs may be used; who uses them was seen with everything else."""
    for member in members:
        there = member.facts["gpus"]
        usable = gpus.free(there, cluster.name) if cluster.gpus == "free" else there
        member.gpus = [gpu["uuid"] for gpu in usable]
        if len(usable) < len(there):
            told = gpus.told(there, cluster.name, len(usable))
            cluster.observer.note(f"{member.name}: gpus: free leaves {told}")


def _missing(cluster: Cluster, members: Sequence[Member], wanted: Environment) -> bool:
    return (
        not keys.agree(cluster.name, members)
        or bool(setup.pending(cluster, members))
        or any(member.report["environment"] is None for member in members)
    )


def _prepare(
    cluster: Cluster, members: Sequence[Member], wanted: Environment, *, setup_again: bool
) -> None:
    if not keys.agree(cluster.name, members):
        cluster.observer.note("keys: a new pair for the cluster")
        keys.distribute(cluster.name, members)
    todo = list(members) if setup_again else setup.pending(cluster, members)
    if todo and cluster.setup_cmds:
        cluster.observer.note(f"setup: {len(cluster.setup_cmds)} commands on {len(todo)} hosts")
        setup.run(cluster, todo)
    lacking = [member for member in members if member.report["environment"] is None]
    if lacking:
        maker.make(cluster, wanted, lacking)


def _tell_new_keys(cluster: Cluster, members: Sequence[Member]) -> None:
    for member in members:
        if member.connection.new_key:
            prints = fingerprints(cluster.local.known_hosts, member.machine.address)
            cluster.observer.note(
                f"{member.name}: seen for the first time, its key is kept: {' '.join(prints)}"
            )


def _remember(cluster: Cluster, wanted: str) -> None:
    origin: Any = vars(cluster).get("_flambe_origin")
    place = origin.schema.place if origin is not None else None
    cluster.local.remember(
        {
            "fetched": cluster.local.recall().get("fetched", 0),
            "file": os.path.abspath(place.file) if place is not None and place.folder else "",
            "kind": type(cluster).__name__,
            "remote_dir": cluster.remote_dir,
            "environment": wanted,
            "offers": {
                "cpu": sum(m.facts.get("cpus", 0) for m in cluster.members[1:]),
                "gpu": sum(len(m.gpus) for m in cluster.members[1:]),
            },
            "machines": [
                {
                    "name": m.machine.name,
                    "address": str(m.machine.address),
                    "private": str(m.machine.private),
                    "user": m.machine.user,
                    "key": str(m.machine.key) if m.machine.key else "",
                }
                for m in cluster.members
            ],
        }
    )


# -- locks --------------------------------------------------------------------------------------


def holder(what: str) -> dict[str, Any]:
    """Return who we are, for those who find a lock of ours."""
    return {
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "what": what,
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
    }


def _is_gone(who: dict[str, Any]) -> bool:
    """Whether a holder was a process of this machine that is no more."""
    if who.get("host") != socket.gethostname() or who.get("user") != getpass.getuser():
        return False
    try:
        os.kill(who["pid"], 0)
    except ProcessLookupError:
        return True
    except (PermissionError, KeyError):
        pass
    return False


@contextlib.contextmanager
def held(cluster: Cluster, name: str, what: str) -> Iterator[None]:
    """Hold a lock of the cluster.

    Raises
    ------
    RemoteError
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
        raise RemoteError(orchestrator.name, _busy(answer))
    over = threading.Event()

    def renew() -> None:
        while not over.wait(RENEW_SECONDS):
            with contextlib.suppress(RemoteError):
                orchestrator.agent.call("lock", **given)

    thread = threading.Thread(target=renew, name="flambe-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(RemoteError):
            orchestrator.agent.call("unlock", name=lock, token=token)


def _busy(answer: dict[str, Any]) -> str:
    import time

    who = answer["holder"]
    since = time.strftime("%H:%M:%S", time.localtime(answer["since"]))
    return (
        f"the cluster is in use: {who['user']} on {who['host']} is {who['what']} since {since}"
        f"\n  {who['command']}\n  try again when that is done; a lock whose holder is gone "
        f"expires after {LOCK_SECONDS:.0f} s"
    )

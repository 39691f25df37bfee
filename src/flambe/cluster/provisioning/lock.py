"""Locks of a cluster: each names its holder, and expires when the holder is gone."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator

from flambe.cluster.context import ClusterContext
from flambe.errors import HeldError, RemoteError
from flambe.remote import each, identity
from flambe.remote.agent.protocol import (
    LeaseRequest,
    LockAnswer,
    LockHolder,
    LockRequest,
    UnlockRequest,
)

PROVISION = "provision"
# A lock whose holder is gone expires after so many seconds.
LOCK_SECONDS, RENEW_SECONDS = 60.0, 15.0
LEASE_SECONDS = 60.0


def this_process(action: str) -> LockHolder:
    """Return the holder of a lock that this process takes, for other users to see.

    Parameters
    ----------
    action
        What the lock is held for: "starting a run".
    """
    return LockHolder(
        user=getpass.getuser(),
        host=socket.gethostname(),
        pid=os.getpid(),
        process=identity.of_process(os.getpid()),
        doing=action,
        command=shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
    )


def _is_gone(holder: LockHolder) -> bool:
    """Whether a holder was a process of this machine that has ended.

    An earlier version did not record the machine: then it is unknown, and false.
    """
    return bool(holder.process) and identity.is_gone(holder.process)


@contextlib.contextmanager
def held(cluster: ClusterContext, name: str, action: str) -> Iterator[None]:
    """Hold a lock of the cluster.

    Raises
    ------
    HeldError
        If another process holds it: it names the holder.
    """
    orchestrator, token = cluster.orchestrator, uuid.uuid4().hex
    lock = f"{cluster.name}/{name}"
    agent = orchestrator.agent
    request = LockRequest(lock, token, this_process(action), LOCK_SECONDS)
    answer = agent.ask(request)
    if not answer.taken and _is_gone(answer.holder):
        agent.ask(UnlockRequest(lock, answer.token))
        answer = agent.ask(request)
    if not answer.taken:
        raise HeldError(orchestrator.name, _busy(answer))
    released = threading.Event()

    def renew() -> None:
        while not released.wait(RENEW_SECONDS):
            with contextlib.suppress(RemoteError):
                agent.ask(request)
            with contextlib.suppress(RemoteError):
                _lease(cluster)

    thread = threading.Thread(target=renew, name="flambe-lock", daemon=True)
    thread.start()
    try:
        _lease(cluster)
        yield
    finally:
        released.set()
        thread.join()
        with contextlib.suppress(RemoteError):
            agent.ask(UnlockRequest(lock, token))


def _lease(cluster: ClusterContext) -> None:
    """Keep hosts from ending while they are provisioned; the lease lapses by itself."""
    if cluster.is_reaped:
        request = LeaseRequest(PROVISION, LEASE_SECONDS)
        each(lambda host: host.agent.ask(request), cluster.hosts)


def _busy(answer: LockAnswer) -> str:
    holder = answer.holder
    since = time.strftime("%H:%M:%S", time.localtime(answer.since))
    return (
        f"the cluster is in use: {holder.user} on {holder.host} is {holder.doing} since {since}"
        f"\n  {holder.command}\n  try again when that is done; a lock whose holder is gone "
        f"expires after {LOCK_SECONDS:.0f} s"
    )

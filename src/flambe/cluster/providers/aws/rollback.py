"""What one call did on AWS, and how it is undone when the cluster cannot be made ready."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flambe.errors import RunError, counted

if TYPE_CHECKING:
    from flambe.cluster.providers.aws.aws_cluster import AWSCluster

LOOK_SECONDS = 30.0  # that instances are looked for, of a launch whose answer was lost


@dataclass
class Changes:
    """What this call changed on AWS.

    Attributes
    ----------
    created, started
        The ids of the instances that it launched, and of those that it started.
    unanswered
        The host keys of launches whose answers were lost: they may have happened.
    is_over
        Set when no more of it is to be done.
    """

    created: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    def clear(self) -> None:
        """Forget them: there is nothing to undo any more."""
        self.created, self.started, self.unanswered = [], [], []
        self.is_over.clear()


def undo(cluster: AWSCluster, changes: Changes) -> None:
    """Terminate what was created, and stop what was started.

    Raises
    ------
    RunError
        If something is left: it is named, with the command that removes it.
    """
    problems: list[str] = []
    try:
        for step in (_find_unanswered, _terminate, _stop):
            try:
                step(cluster, changes)
            except RunError as error:
                problems.append(str(error))
    except KeyboardInterrupt:
        left = ", ".join([*changes.created, *changes.started]) or "instances"
        _note(
            cluster,
            f"AWS: interrupted: these may be left: {left}\n"
            f"  flambe down {cluster.name} --force   terminates them",
        )
        raise
    changes.clear()
    if problems:
        raise RunError("\n".join(problems))


def _note(cluster: AWSCluster, text: str) -> None:
    """Say something; where nobody is there any more to read it, it is undone all the same."""
    with contextlib.suppress(OSError, SystemExit):
        cluster.observer.note(text)


def _find_unanswered(cluster: AWSCluster, changes: Changes) -> None:
    """See whether launches happened of which nothing was heard."""
    if not changes.unanswered:
        return
    _note(cluster, "AWS: looking for what was launched though the answer was lost")
    try:
        ids = cluster.ec2.launched_with(changes.unanswered, LOOK_SECONDS)
    except RunError as error:
        ids, why = [], f"{error}\n"
    else:
        why = ""
    changes.created += [identity for identity in ids if identity not in changes.created]
    if not ids:
        hours = f"{cluster.provisioning_timeout:g} h"
        raise RunError(
            f"{why}AWS: the answer to a launch was lost: instances of {cluster.name} may run all "
            f"the same, and end by themselves after {hours}"
            f"\n  flambe down {cluster.name} --force   terminates them"
        )


def _terminate(cluster: AWSCluster, changes: Changes) -> None:
    if changes.created:
        summary = counted(len(changes.created), "instance")
        _note(cluster, f"AWS: terminating {summary}, created just now")
        cluster.terminate(changes.created)


def _stop(cluster: AWSCluster, changes: Changes) -> None:
    if changes.started:
        cluster.journal.write("stop", ids=changes.started)
        cluster.ec2.stop(changes.started)

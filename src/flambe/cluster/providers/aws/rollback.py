"""What one call changed on AWS, and how it is undone when the cluster does not become ready."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field

from flambe.cluster.providers.aws.fleet import Fleet
from flambe.errors import RunError, counted

SEARCH_SECONDS = 30.0  # how long the instances of a launch whose answer was lost are looked for


@dataclass
class Changes:
    """What this call changed on AWS.

    Attributes
    ----------
    created, started
        The ids of the instances that it launched, and of those that it started.
    unanswered
        The host keys of launches whose answers were lost: they may have happened.
    is_cancelled
        Set when nothing more may be launched.
    """

    created: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    is_cancelled: threading.Event = field(default_factory=threading.Event)

    def clear(self) -> None:
        """Forget them: there is nothing left to undo."""
        self.created, self.started, self.unanswered = [], [], []
        self.is_cancelled.clear()


def undo(fleet: Fleet, changes: Changes) -> None:
    """Terminate what was created, and stop what was started.

    Raises
    ------
    RunError
        If something is left: it is named, with the command that removes it.
    """
    failures: list[str] = []
    try:
        for step in (_find_unanswered, _terminate_created, _stop_started):
            try:
                step(fleet, changes)
            except RunError as error:
                failures.append(str(error))
    except KeyboardInterrupt:
        ids = ", ".join([*changes.created, *changes.started]) or "instances"
        _notify(
            fleet,
            f"AWS: interrupted: these may be left: {ids}\n"
            f"  flambe down {fleet.config.name} --force   terminates them",
        )
        raise
    changes.clear()
    if failures:
        raise RunError("\n".join(failures))


def _notify(fleet: Fleet, text: str) -> None:
    """Print a line; the rollback goes ahead even if the terminal that would show it is closed."""
    with contextlib.suppress(OSError, SystemExit):
        fleet.notify(text)


def _find_unanswered(fleet: Fleet, changes: Changes) -> None:
    """Find the instances of launches whose answers were lost."""
    if not changes.unanswered:
        return
    _notify(fleet, "AWS: the answer to a launch was lost; looking for its instances")
    failure = ""
    try:
        ids = fleet.instances.find_launched(changes.unanswered, SEARCH_SECONDS)
    except RunError as error:
        ids, failure = [], f"{error}\n"
    changes.created += [instance_id for instance_id in ids if instance_id not in changes.created]
    if not ids:
        name, hours = fleet.config.name, fleet.config.ready_within
        raise RunError(
            f"{failure}AWS: the answer to a launch was lost: instances of {name} may be running "
            f"all the same; they terminate themselves after {hours} h"
            f"\n  flambe down {name} --force   terminates them"
        )


def _terminate_created(fleet: Fleet, changes: Changes) -> None:
    if changes.created:
        summary = counted(len(changes.created), "instance")
        _notify(fleet, f"AWS: terminating {summary} created by this command")
        fleet.terminate(changes.created)


def _stop_started(fleet: Fleet, changes: Changes) -> None:
    if changes.started:
        fleet.stop(changes.started)

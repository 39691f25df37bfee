"""Where the machines of a cluster come from: the methods that a kind of cluster overrides."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.instance_status import InstanceStatus
from flambe.cluster.machine import Machine


class MachineProvider:
    """Finds, creates and removes the machines of one cluster.

    A kind of cluster overrides :meth:`find_machines`, :meth:`create_machines` and
    :meth:`remove_machines`; the other methods have defaults.
    """

    #: Whether machines outlive their place in the file: they are cleaned when they leave it.
    lasting: ClassVar[bool] = False
    #: Whether the orchestrator runs variants too.
    orchestrator_works: bool = False

    @abc.abstractmethod
    def find_machines(self) -> list[Machine]:
        """Return the machines that exist already, the orchestrator first; there may be none."""

    def create_machines(self, found: Sequence[Machine]) -> list[Machine]:
        """Create what is missing, and return all machines, the orchestrator first.

        If it fails, it undoes what it created itself before it raises.
        """
        return list(found)

    def missing_machines(self) -> list[str]:
        """Return what :meth:`create_machines` would create, for people; for ``--dry-run``."""
        return []

    def hourly_price(self) -> float | None:
        """Return what all hosts cost per hour; None if that is not known."""
        return None

    def planned(self) -> list[tuple[str, str]]:
        """Return further lines of ``flambe plan`` about the machines: titles and texts.

        It is called after :meth:`find_machines`.
        """
        return []

    def discard_machines(self, machines: Sequence[Machine]) -> None:
        """Take down machines that this call created: provisioning failed."""

    def trust(self, hosts: Sequence[ClusterHost]) -> None:
        """Prepare hosts as soon as all are connected, before anything else is done on them."""

    def settle(self, hosts: Sequence[ClusterHost]) -> None:
        """Finish the hosts when provisioning has succeeded."""

    def former_machines(self) -> list[Machine]:
        """Return machines that run, and that the file no longer names.

        Where machines are :attr:`lasting`, the machines on record are used instead.
        """
        return []

    def release_machine(self, machine: Machine) -> None:
        """Give up a machine that left the file, after it was cleaned."""

    def remove_machines(self) -> None:
        """Take down the machines that :meth:`create_machines` created."""

    def instance_statuses(self) -> dict[str, InstanceStatus]:
        """Return the status of each instance that was created, as its provider reports it."""
        return {}

    @property
    def ephemeral(self) -> bool:
        """Whether :meth:`remove_machines` destroys the results on them: they are fetched before.

        By default, wherever a kind of cluster overrides that method.
        """
        return type(self).remove_machines is not MachineProvider.remove_machines

    @property
    def scope(self) -> dict[str, str]:
        """What the name of the cluster is unique in: a region, an owner. Empty if everywhere."""
        return {}

    @property
    def has_workers(self) -> bool:
        """Whether the file describes a host that runs variants; true where it cannot tell."""
        return self.orchestrator_works or self._factories_written() != 0

    def _factories_written(self) -> int | None:
        """Return how many factories the file describes; None where it cannot tell."""
        count = getattr(self, "factories_num", None)
        return count if isinstance(count, int) else None

"""What this machine records of a cluster in ``cluster.json``, checked when it is read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from flambe.cluster.machine import Machine
from flambe.remote import Address


@dataclass(frozen=True)
class WorkerRecord:
    """A host that runs variants, as it was when the cluster was provisioned last.

    Attributes
    ----------
    name
        ``factory_1``, ``factory_2`` …
    private
        Its address in the cluster.
    cpu, gpu
        How many CPUs and GPUs it offers.
    """

    name: str
    private: str = ""
    cpu: float = 0
    gpu: float = 0


@dataclass(frozen=True)
class FormerMachine:
    """A machine that left the cluster, and that still has something of it.

    Attributes
    ----------
    machine
        The machine, as it was recorded.
    tried
        When it could not be reached last; 0 if it was not tried.
    """

    machine: Machine
    tried: float = 0


@dataclass(frozen=True)
class ClusterRecord:
    """A cluster that was used from this machine.

    Attributes
    ----------
    file, kind, scope, secrets
        See :class:`~flambe.cluster.local_state.ClusterOrigin`; an earlier version recorded no
        scope.
    remote_dir
        flambe's folder on its hosts.
    environment
        The environment of its hosts; empty until they have one.
    workers
        The hosts that run variants.
    machines
        All of its machines, the orchestrator first.
    left
        Machines that are no longer in the file, and were not cleaned yet.
    fetched
        The state, start and end of the run whose results were fetched last; empty if none were.
    """

    file: str = ""
    kind: str = ""
    scope: Mapping[str, str] = field(default_factory=dict)
    secrets: str = ""
    remote_dir: str = ""
    environment: str = ""
    workers: tuple[WorkerRecord, ...] = ()
    machines: tuple[Machine, ...] = ()
    left: tuple[FormerMachine, ...] = ()
    fetched: tuple[str | float, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is recorded: the cluster was not used from this machine."""
        return self == ClusterRecord()

    @classmethod
    def from_json(cls, content: object) -> ClusterRecord:
        """Return a record that was read; what is missing, or of another kind, has its default."""
        if not isinstance(content, Mapping):
            return cls()
        scope = content.get("scope")
        fetched = content.get("fetched")
        return cls(
            file=_text(content, "file"),
            kind=_text(content, "kind"),
            scope={str(k): str(v) for k, v in scope.items()} if isinstance(scope, Mapping) else {},
            secrets=_text(content, "secrets"),
            remote_dir=_text(content, "remote_dir"),
            environment=_text(content, "environment"),
            workers=tuple(
                WorkerRecord(
                    name=_text(entry, "name"),
                    private=_text(entry, "private"),
                    cpu=_number(entry, "cpu"),
                    gpu=_number(entry, "gpu"),
                )
                for entry in _entries(content, "workers")
            ),
            machines=tuple(machine for machine, _ in _machines(content, "machines")),
            left=tuple(
                FormerMachine(machine, _number(entry, "tried"))
                for machine, entry in _machines(content, "left")
            ),
            fetched=tuple(v for v in fetched if isinstance(v, str | int | float))
            if isinstance(fetched, list)
            else (),
        )

    def to_json(self) -> dict[str, object]:
        """Return what is written: earlier versions read it too."""
        return {
            "fetched": list(self.fetched) or 0,
            "file": self.file,
            "scope": dict(self.scope),
            "kind": self.kind,
            "remote_dir": self.remote_dir,
            "secrets": self.secrets,
            "environment": self.environment,
            "workers": [vars(worker) for worker in self.workers],
            "machines": [_machine_to_json(machine) for machine in self.machines],
            "left": [
                {
                    **_machine_to_json(former.machine),
                    **({"tried": former.tried} if former.tried else {}),
                }
                for former in self.left
            ],
        }


def recorded(machine: Machine, identity: str = "") -> Machine:
    """Return a machine as far as it is recorded: what finds it again, and reaches it."""
    return replace(machine, new=False, host_keys=(), identity=identity or machine.identity)


def _machine_to_json(machine: Machine) -> dict[str, object]:
    return {
        "name": machine.name,
        "address": str(machine.address),
        "private": str(machine.private),
        "user": machine.user,
        "key": str(machine.key) if machine.key else "",
        "identity": machine.identity,
    }


def _machines(
    content: Mapping[str, object], name: str
) -> Iterator[tuple[Machine, Mapping[str, object]]]:
    """Yield the machines of a list, each with its entry; one that cannot be used is left out."""
    for entry in _entries(content, name):
        with contextlib.suppress(ValueError):
            key = _text(entry, "key")
            machine = Machine(
                _text(entry, "name"),
                Address.parse(_text(entry, "address")),
                Address.parse(_text(entry, "private")),
                _text(entry, "user"),
                Path(key) if key else None,
                identity=_text(entry, "identity"),  # an earlier version did not record it
            )
            yield machine, entry


def _entries(content: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    entries = content.get(name)
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, Mapping)]


def _text(content: Mapping[str, object], name: str) -> str:
    value = content.get(name)
    return value if isinstance(value, str) else ""


def _number(content: Mapping[str, object], name: str) -> float:
    value = content.get(name)
    return value if isinstance(value, int | float) else 0

"""The requests and answers between a client and the agent of a host, and the files of agents.

Both sides use these definitions. A client sends a :class:`Request` as JSON on the agent's standard
input, and reads its answer from the output. Older files and older clients are read too: see
:mod:`flambe.remote.agent.message`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar, Generic, Optional, TypeVar

from flambe.remote.agent.inventory import (
    ClusterKeys,
    EnvironmentContents,
    Facts,
    Gpu,
    GpuProcess,
    OwnDistribution,
    SystemDistribution,
)
from flambe.remote.agent.message import (
    Message,
    anything,
    by_name,
    choice,
    flag,
    integer,
    list_of,
    nested,
    number,
    optional,
    read_integer,
    read_number,
    read_object,
    read_text,
    several,
    text,
)
from flambe.remote.agent.reaper.settings import Observation, ReaperSettings

__all__ = [
    "ClusterKeys",
    "EnvironmentContents",
    "Facts",
    "ForgetKeysRequest",
    "ForgetRequest",
    "Gpu",
    "GpuProcess",
    "HostReport",
    "KeysRequest",
    "LeaseRequest",
    "Lock",
    "LockAnswer",
    "LockHolder",
    "LockRequest",
    "MarkRequest",
    "Order",
    "OwnDistribution",
    "ReaperStatus",
    "ReportRequest",
    "Request",
    "RunRecord",
    "RunState",
    "RunStatus",
    "StartRequest",
    "StopRequest",
    "SystemDistribution",
    "UnlockRequest",
]

A = TypeVar("A")

# -- processes that outlive their client ----------------------------------------------------------


class RunState(str, enum.Enum):
    """The state of a supervised process; lost: its supervisor is gone, and its end is unknown."""

    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"


@dataclass
class RunRecord(Message):
    """The state of a supervised process on disk.

    ``about`` is what its client noted. Files in ``removed`` are deleted at its end, and the
    commands in ``after`` run. With ``keep`` it is started again whenever it ends (``restarts``).
    ``supervisor`` is a process id and its start. ``started`` and ``ended`` are by the time of day,
    ``…_counted`` by the clock of the boot, which is never set. ``generation`` counts the processes
    of its name on its host: the later of two has the higher one, whatever the clock was set to.
    """

    state: RunState = choice(RunState.LOST)
    command: list[str] = several(read_text)
    about: dict[str, object] = by_name(anything)
    marker: str = text()
    boot: str = text()
    started: float = number()
    started_counted: float | None = optional(read_number)
    log: str = text()
    removed: list[str] = several(read_text)
    after: list[list[str]] = several(list_of(read_text))
    keep: bool = flag()
    restarts: int = integer()
    lease: float = number()
    supervisor: list[int] = several(read_integer)
    pid: int = integer()
    code: int | None = optional(read_integer)
    ended: float | None = optional(read_number)
    ended_counted: float | None = optional(read_number)
    generation: int = integer()

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return self.state is RunState.RUNNING


@dataclass
class RunStatus(RunRecord):
    """The state of a supervised process, as the agent answers.

    ``started_ago`` and ``ended_ago`` are in seconds, by the host's own clock. ``started_now`` is
    whether the request started it: it may have run already.
    """

    started_ago: float = number()
    ended_ago: float | None = optional(read_number)
    started_now: bool = flag()


@dataclass
class LockHolder(Message):
    """Who holds a lock or started a run: for people, and to see whether they are gone.

    ``doing`` reads on: "ann on laptop is starting a run". ``process`` is what
    :func:`flambe.remote.identity.of_process` returns; it is empty for an earlier version's.
    """

    user: str = text("an unknown user")
    host: str = text()
    pid: int = integer()
    process: dict[str, str] = by_name(read_text)
    doing: str = text(key="what")
    command: str = text()


@dataclass
class Lock(Message):
    """A lock on disk: who holds it since when, and until when it lasts without a renewal."""

    token: str = text()
    holder: LockHolder = nested(LockHolder)
    since: float = number()
    until: float = number()
    boot: str = text()


# -- requests and answers -------------------------------------------------------------------------


@dataclass
class ReaperStatus(Message):
    """What the reaper of a host is to do, and what it saw last.

    ``ready`` is whether the host was reported to be ready, ``now`` the time of its clock.
    """

    settings: ReaperSettings = nested(ReaperSettings)
    seen: Observation = nested(Observation)
    ready: bool = flag(True)
    now: float = number()


@dataclass
class HostReport(Message):
    """All that the agent knows of a host.

    Attributes
    ----------
    facts
        What the host is.
    marks
        What clients noted there for the cluster: see :class:`MarkRequest`.
    keys
        The key pair of the cluster.
    runs
        The supervised processes by name, of all clusters.
    locks
        The locks that are held, by name.
    reaper
        What ends the host, or what the cluster runs there; None if nothing does.
    environment
        The environment that was asked for; None if the host does not have it.
    system
        The distributions of the host's own Python, if they were asked for.
    """

    facts: Facts = nested(Facts)
    marks: dict[str, object] = by_name(anything)
    keys: ClusterKeys = nested(ClusterKeys)
    runs: dict[str, RunStatus] = by_name(RunStatus.from_json)
    locks: dict[str, Lock] = by_name(Lock.from_json)
    reaper: ReaperStatus | None = optional(read_object(ReaperStatus))
    environment: EnvironmentContents | None = optional(read_object(EnvironmentContents))
    system: dict[str, SystemDistribution] = by_name(SystemDistribution.from_json)

    def to_json(self) -> dict[str, object]:
        """Return the report for :mod:`json`; what the host does not have is there, and empty."""
        return {"environment": None, "reaper": {}, **super().to_json()}


@dataclass
class LockAnswer(Message):
    """Whether a lock was taken or renewed, and who holds it now, with which token."""

    taken: bool = flag()
    holder: LockHolder = nested(LockHolder)
    since: float = number()
    token: str = text()


@dataclass
class Request(Message, Generic[A]):
    """What a client asks of an agent: the fields are sent as JSON, to the command of that name."""

    verb: ClassVar[str]

    @classmethod
    def read_answer(cls, value: object) -> A:
        """Return the answer that a JSON value holds."""
        raise NotImplementedError


@dataclass
class Order(Request[None]):
    """A request that has no answer."""

    @classmethod
    def read_answer(cls, value: object) -> None:
        """Return nothing: that there is an answer says that it was done."""


@dataclass
class ReportRequest(Request[HostReport]):
    """Asks for all that is known; ``system`` includes the distributions of the host's Python."""

    verb: ClassVar[str] = "report"
    cluster: str = text()
    environment: str = text()
    system: bool = flag()

    @classmethod
    def read_answer(cls, value: object) -> HostReport:
        """Return the report."""
        return HostReport.from_json(value)


@dataclass
class StartRequest(Request[RunStatus]):
    """Starts a command under a supervisor, unless one of that name runs.

    Attributes
    ----------
    name, command, folder, env
        The process: ``env`` is added to the environment of the agent.
    about
        What is noted with it.
    log
        The file of its output; by default it has one of its own.
    removed, after
        Files that are deleted, and commands that run, when it has ended.
    keep
        Whether it is started again whenever it ends, until it is stopped.
    lease
        For how many seconds the host is needed after the last line of its output.
    """

    verb: ClassVar[str] = "start"
    name: str = text()
    command: list[str] = several(read_text)
    folder: str = text(".")
    env: dict[str, str] = by_name(read_text)
    about: dict[str, object] = by_name(anything)
    log: str = text()
    removed: list[str] = several(read_text)
    after: list[list[str]] = several(list_of(read_text))
    keep: bool = flag()
    lease: float = number()

    @classmethod
    def read_answer(cls, value: object) -> RunStatus:
        """Return the status of the process, or of the one that ran already."""
        return RunStatus.from_json(value)


@dataclass
class StopRequest(Request[Optional[RunStatus]]):  # noqa: UP045 (read by Python 3.8)
    """Stops a process and all that it started; ``grace`` is in seconds."""

    verb: ClassVar[str] = "stop"
    name: str = text()
    grace: float = number(20.0)

    @classmethod
    def read_answer(cls, value: object) -> RunStatus | None:
        """Return its status; None if it is not known there."""
        return RunStatus.from_json(value) if isinstance(value, dict) else None


@dataclass
class LockRequest(Request[LockAnswer]):
    """Takes a lock for some seconds, or renews it with the same token."""

    verb: ClassVar[str] = "lock"
    name: str = text()
    token: str = text()
    holder: LockHolder = nested(LockHolder)
    seconds: float = number()

    @classmethod
    def read_answer(cls, value: object) -> LockAnswer:
        """Return whether it was taken."""
        return LockAnswer.from_json(value)


@dataclass
class UnlockRequest(Order):
    """Gives a lock back, if it is held with this token."""

    verb: ClassVar[str] = "unlock"
    name: str = text()
    token: str = text()


@dataclass
class LeaseRequest(Order):
    """Says that the host is needed for some seconds."""

    verb: ClassVar[str] = "lease"
    name: str = text()
    seconds: float = number()


@dataclass
class MarkRequest(Order):
    """Notes a value for a cluster; with ``boot``, until the host is started again."""

    verb: ClassVar[str] = "mark"
    cluster: str = text()
    name: str = text()
    value: object = optional(anything)
    boot: bool = flag()


@dataclass
class ForgetRequest(Order):
    """Forgets all that was noted for a cluster."""

    verb: ClassVar[str] = "forget"
    cluster: str = text()


@dataclass
class KeysRequest(Order):
    """Installs a key pair, and what it takes to reach other hosts; None leaves a file alone."""

    verb: ClassVar[str] = "keys"
    cluster: str = text()
    private: str | None = optional(read_text)
    public: str | None = optional(read_text)
    config: str | None = optional(read_text)
    known_hosts: str | None = optional(read_text)


@dataclass
class ForgetKeysRequest(Order):
    """Removes the key pair of a cluster, and every line that was added for it."""

    verb: ClassVar[str] = "forget_keys"
    cluster: str = text()

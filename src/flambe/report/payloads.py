"""What the API and the pages send, as JSON: the names of the fields are its contract."""

from __future__ import annotations

from typing import TypedDict

#: Steps and values of a curve, in JSON two lists; a value that is not finite is None.
Points = tuple[list[int], list[float | None]]
#: A row of the table of a stage: the identity of a variant, and some or all of its fields.
RowFields = dict[str, object]


class VariantSummary(TypedDict):
    """A variant where it is one of the best, or failed."""

    metric: float | None
    best: float | None
    not_finite: dict[str, str]
    id: str
    stage: str
    choices: dict[str, object]
    status: str
    kept: bool | None
    stale: str


class FailureSummary(VariantSummary):
    """A variant that failed."""

    error: str
    host: str
    attempts: int
    ended: float | None


class StageSummary(TypedDict):
    """A stage: its progress, and its best variants."""

    name: str
    tag: str
    links: list[str]
    runs: bool
    status: str
    reduce: int | None
    done: int
    planned: int
    lost: int
    counts: dict[str, int]
    started: float | None
    ended: float | None
    until: int | None
    stored_bytes: int
    best: list[VariantSummary]


class _RunSummary(TypedDict):
    name: str
    status: str
    lost: int
    stages: list[StageSummary]
    failures: list[FailureSummary]


class RunSummary(_RunSummary, total=False):
    """A run: its progress, its best variant, and its failures.

    The fields here are missing from a run that has not written anything yet.
    """

    started: float | None
    ended: float | None
    error: str
    done: int
    planned: int
    best: VariantSummary | None
    stored_bytes: int
    idle: bool
    failed: int


class RunFacts(TypedDict, total=False):
    """What does not change during a run."""

    command: str
    version: str
    host: str
    user: object
    seed: int
    storage: str
    folder: str


class ListChanges(TypedDict, total=False):
    """What changed in a list: ``items``, and ``keys`` in their order where that changed."""

    items: list[dict[str, object]]
    keys: list[object]


class Changes(TypedDict, total=False):
    """What a page does not know yet; see :class:`~flambe.report.change_feed.ChangeFeed`."""

    rows: list[RowFields]
    run: dict[str, object]
    stages: ListChanges
    failures: ListChanges
    hosts: ListChanges


class LogLine(TypedDict):
    """A line of a log: its position in bytes, and its parts."""

    at: int
    time: str
    level: str
    source: str
    text: str


class LogPage(TypedDict):
    """Lines before a position: ``start`` and ``end`` are where to continue in each direction."""

    lines: list[LogLine]
    start: int
    end: int
    size: int
    more: bool


class _LogTail(TypedDict):
    lines: list[LogLine]
    at: int
    size: int


class LogTail(_LogTail, total=False):
    """Lines after a position: ``at`` is where to continue, ``skipped`` counts omitted bytes."""

    skipped: int
    restarted: bool


class ParameterImportance(TypedDict):
    """How much a hyper-parameter matters."""

    name: str
    mean: float
    std: float


class Importance(TypedDict, total=False):
    """The importance of hyper-parameters, or the ``reason`` why it is unknown."""

    reason: str
    estimator: str
    parameters: list[ParameterImportance]
    score: float
    variants: int


class FileEntry(TypedDict):
    """A file of a run; ``path`` is empty where no URL can hold it."""

    name: str
    path: str
    size: int

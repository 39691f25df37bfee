"""Which checkpoints of a variant are kept: ``keep`` of an experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from flambe.progress import is_number, ranked


class Record(Protocol):
    """What a checkpoint says of itself: a ``Manifest``."""

    @property
    def attempt(self) -> int:
        """Which attempt at the variant wrote it."""

    @property
    def step(self) -> int:
        """How many steps were done."""

    @property
    def metric(self) -> float | None:
        """The latest figure."""

    @property
    def age(self) -> tuple[int, int, bool]:
        """What checkpoints are sorted by, the newest last."""


@dataclass(frozen=True)
class Selection:
    """The checkpoints of a variant that are kept, by their paths.

    Attributes
    ----------
    latest
        The newest.
    best
        Those with the best figures, the best first.
    others
        Those that are kept for another reason.
    """

    latest: str
    best: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()

    def __contains__(self, path: object) -> bool:
        return path == self.latest or path in self.best or path in self.others


@dataclass(frozen=True)
class Retention:
    """Which checkpoints of a variant are kept.

    Attributes
    ----------
    last
        How many of the latest: 1 or more, for later stages and ``--resume`` build on the latest.
    best
        How many of those with the best figures. Of equal ones, the earlier is better; one whose
        figure is NaN, or that has none, is not among them.
    every
        Each checkpoint whose step is a multiple of it; 0 for none.
    """

    last: int = 1
    best: int = 0
    every: int = 0

    def at_least(self, last: int) -> Retention:
        """Return the same, with more of the latest."""
        return Retention(max(last, self.last), self.best, self.every)

    def select(self, manifests: Mapping[str, Record]) -> Selection | None:
        """Return which checkpoints of a variant are kept; None if there is none.

        Parameters
        ----------
        manifests
            Path → manifest. Of several for the same step of an attempt, the first is taken. What
            an earlier attempt did after the step that a later one started from does not count.
        """
        own = _of_one_history(manifests)
        if not own:
            return None
        best = ranked([p for p in own if is_number(own[p].metric)], lambda p: own[p].metric)
        paths = list(own)
        kept = set(paths[-self.last :])
        kept |= {path for path in paths if self.every and own[path].step % self.every == 0}
        return Selection(paths[-1], tuple(best[: self.best]), frozenset(kept - {paths[-1]}))


def _of_one_history(manifests: Mapping[str, Record]) -> dict[str, Record]:
    """Return the checkpoints that led to the newest one, the oldest first."""
    ages: dict[tuple[int, int, bool], str] = {}
    for path, manifest in manifests.items():
        ages.setdefault(manifest.age, path)
    own: list[str] = []
    for age in sorted(ages, reverse=True):
        earlier = manifests[ages[age]]
        newer = manifests[own[-1]] if own else None
        # An attempt that continues from a step writes later ones.
        if newer is None or newer.attempt == earlier.attempt or earlier.step < newer.step:
            own.append(ages[age])
    return {path: manifests[path] for path in reversed(own)}


def by_stage(keep: object) -> bool:
    """Whether ``keep`` maps stages to the checkpoints to keep, and is not these itself."""
    return isinstance(keep, Mapping) and any(isinstance(v, Mapping) for v in keep.values())


def retention_of(keep: object, stage: object) -> Retention:
    """Return which checkpoints ``keep`` of an experiment keeps in a stage.

    What is wrong with it is found by :func:`problems`.
    """
    value = keep.get(stage) if isinstance(keep, Mapping) and by_stage(keep) else keep
    if not isinstance(value, Mapping) or any(problems(value)):
        return Retention()
    return Retention(**{str(name): count for name, count in value.items()})


def problems(value: object) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the checkpoints to keep: a message and a hint for each mistake."""
    example = "expected {last: 1, best: 1, every: 10}, or some of these"
    if not isinstance(value, Mapping):
        yield f"keep: {value!r} does not say which checkpoints", example
        return
    least = {"last": 1, "best": 0, "every": 1}
    for name, count in value.items():
        if name not in least:
            yield f"keep: {name!r} names no checkpoints", example
        elif type(count) is not int or count < least[str(name)]:
            hint = f"a whole number from {least[str(name)]}"
            if name == "last":
                hint += ": later stages and --resume build on the last one"
            yield f"keep: {name} cannot be {count!r}", hint

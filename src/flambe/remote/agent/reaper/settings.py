"""The settings of a reaper: those in its file, or the last ones that were good; and what it saw."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields

from flambe.remote.agent.files import publish_json, read_text
from flambe.remote.agent.reaper.probe import DEADLINE, say

PATIENCE = 60.0  # seconds that a step has


class Unusable(ValueError):
    """Settings that a reaper could not work with; says why."""


@dataclass
class Step:
    """One way to end a host: a command, or a text to write to a file."""

    command: list[str] = field(default_factory=list)
    write: str = ""
    text: str = ""
    patience: float = PATIENCE

    def __str__(self) -> str:
        return self.write or " ".join(self.command)

    @classmethod
    def from_json(cls, value: object) -> Step:
        """Return a step that does something; raise Unusable for any other."""
        step = cls(**_checked(cls, value))  # type: ignore[arg-type]
        if not step.command and not (step.write and step.text):
            raise Unusable(f"{value} is not a command")
        return step

    def to_json(self) -> dict[str, object]:
        """Return the step for :mod:`json`."""
        return _changed(self, Step())


@dataclass
class ReaperSettings:
    """What a reaper is to do: see :mod:`flambe.remote.agent.reaper.reaper`."""

    command: list[str] = field(default_factory=list)
    timeout: float = -1.0
    provisioning: float = -1.0
    ready: str = ""
    lease: str = ""
    typing: float = 1.0
    check: float = 30.0
    deadline: float = DEADLINE
    patience: float = PATIENCE
    escalate: list[Step] = field(default_factory=list)
    log: str = ""
    seen: str = ""
    cluster: str = ""
    once: bool = False

    @property
    def steps(self) -> list[Step]:
        """What ends the host, and what does if that does not."""
        return [Step(self.command, patience=self.patience), *self.escalate]

    @classmethod
    def from_json(cls, value: object) -> ReaperSettings:
        """Return settings that are usable.

        Raises
        ------
        Unusable
            If they are not.
        """
        values = _checked(cls, value)
        steps = values.get("escalate", [])
        if not isinstance(steps, list):
            raise Unusable("escalate is not a list")
        values["escalate"] = [Step.from_json(step) for step in steps]
        settings = cls(**values)  # type: ignore[arg-type]
        if not settings.command:
            raise Unusable("there is no command")
        return settings

    def to_json(self) -> dict[str, object]:
        """Return the settings for :mod:`json`.

        Defaults are left out: reapers of earlier versions ask whether a name is there.
        """
        return {**_changed(self, ReaperSettings()), **self._steps()}

    def _steps(self) -> dict[str, object]:
        return {"escalate": [step.to_json() for step in self.escalate]} if self.escalate else {}


@dataclass
class Observation:
    """What a reaper saw last: for how many seconds the host is idle, or what uses it, and when."""

    idle: float = 0.0
    use: str = ""
    problems: list[str] = field(default_factory=list)
    time: float = 0.0

    @classmethod
    def from_json(cls, value: object) -> Observation:
        """Return an observation; raise ValueError for anything else."""
        return cls(**_checked(cls, value))  # type: ignore[arg-type]

    def to_json(self) -> dict[str, object]:
        """Return the observation for :mod:`json`."""
        return asdict(self)


def _changed(value: object, default: object) -> dict[str, object]:
    """Return the fields of a dataclass that differ from another one."""
    others = vars(default)
    return {name: part for name, part in vars(value).items() if part != others[name]}


def _checked(kind: type[object], value: object) -> dict[str, object]:
    """Return the fields of an object that a class has, each of the declared kind."""
    if not isinstance(value, dict):
        raise Unusable("it holds no settings")
    values: dict[str, object] = {}
    for declared in fields(kind):  # type: ignore[arg-type]
        name, kind_name = declared.name, declared.type  # a string, as annotations are postponed
        if name not in value:
            continue
        part = values[name] = value[name]
        if kind_name == "float":
            if not isinstance(part, (int, float)) or not math.isfinite(part):
                raise Unusable(f"{name} is not a number of seconds or hours")
        elif kind_name == "str" and not isinstance(part, str):
            raise Unusable(f"{name} is not a text")
        elif kind_name == "list[str]" and not _is_texts(part):
            raise Unusable(f"{part} is not a list of texts")
    return values


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


class SettingsFile:
    """The settings in a file, or the last good ones."""

    def __init__(self, path: str, fallback: str) -> None:
        self.path = path
        self.kept = f"{path}.good"
        self.sources = [path, self.kept, *filter(None, [fallback])]
        self.good: ReaperSettings | None = None
        self.problem = ""

    def read(self) -> ReaperSettings | None:
        """Return them; None, as long as there were none."""
        problem = ""
        for source in self.sources:
            try:
                settings = ReaperSettings.from_json(json.loads(read_text(source)))
            except (ValueError, RecursionError) as error:
                reason = error if isinstance(error, Unusable) else "it holds no settings"
                problem = problem or f"{source} cannot be used: {reason}"
                if self.good:  # those that were read last
                    break
                continue
            if source == self.path and settings != self.good:
                publish_json(self.kept, settings.to_json())
            self.good = settings
            break
        if problem != self.problem:
            kind = "those before it" if self.good else "none"
            say(f"{problem}; {kind} count" if problem else f"{self.path} can be used again")
            self.problem = problem
        return self.good

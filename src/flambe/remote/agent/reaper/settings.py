"""The settings of a reaper: those in its file, or the last ones that were good."""

from __future__ import annotations

import json
import math
from typing import Any

from flambe.remote.agent.files import publish_json, read_text
from flambe.remote.agent.reaper.probe import say

NUMBERS = ("timeout", "provisioning", "typing", "check", "deadline", "patience")
TEXTS = ("ready", "lease", "log", "seen", "cluster")


class Unusable(ValueError):
    """Settings that a reaper could not work with; says why."""


class Settings:
    """The settings in a file, or the last good ones."""

    def __init__(self, path: str, fallback: str) -> None:
        self.path = path
        self.kept = f"{path}.good"
        self.sources = [path, self.kept, *filter(None, [fallback])]
        self.good: dict[str, Any] = {}
        self.problem = ""

    def read(self) -> dict[str, Any]:
        """Return them; nothing, as long as there were none."""
        problem = ""
        for source in self.sources:
            try:
                settings = checked(json.loads(read_text(source)))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                reason = error if isinstance(error, Unusable) else "it holds no settings"
                problem = problem or f"{source} cannot be used: {reason}"
                if self.good:  # those that were read last
                    break
                continue
            if source == self.path and settings != self.good:
                publish_json(self.kept, settings)
            self.good = settings
            break
        if problem != self.problem:
            kind = "those before it" if self.good else "none"
            say(f"{problem}; {kind} count" if problem else f"{self.path} can be used again")
            self.problem = problem
        return self.good


def checked(settings: Any) -> dict[str, Any]:
    """Return settings that are usable; raise what is wrong with them otherwise."""
    for name in NUMBERS:
        if not math.isfinite(float(settings.get(name, 0))):
            raise Unusable(f"{name} is not a number of seconds or hours")
    for step in steps(settings):
        texts = step["command"] if "command" in step else [step["write"], step["text"]]
        if not texts or isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise Unusable(f"{texts} is not a command")
        if not math.isfinite(float(step.get("patience", 0))):
            raise Unusable(f"the patience of {texts} is not a number of seconds")
    if not all(isinstance(settings.get(name, ""), str) for name in TEXTS):
        raise Unusable(f"{', '.join(TEXTS)} are texts")
    return dict(settings)


def steps(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what ends the host, and what does if that does not."""
    return [{"command": settings["command"], **settings}, *settings.get("escalate", [])]

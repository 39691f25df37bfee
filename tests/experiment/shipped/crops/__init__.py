"""Components for experiments on clusters: shipped to hosts, and each of them says what it sees."""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path
from typing import Any

import flambe
from flambe.compile import Component


class Growth(Component):
    """A noisy climb: each step depends on all before it, so that a step done twice is seen."""

    def __init__(
        self,
        rate: float = 1.0,
        size: int = 1,
        steps: int = 5,
        seconds: float = 0.0,
        padding: int = 0,
    ) -> None:
        self.rate, self.size, self.steps, self.seconds = rate, size, steps, seconds
        self.done, self.height = 0, 0.0
        self.padding = "x" * padding
        self.random = random.Random(random.random())
        self.register_attrs("done", "height", "padding")

    def run(self) -> bool:
        time.sleep(self.seconds)
        self.done += 1
        self.height = 0.9 * self.height + self.rate * self.size * self.random.random()
        print(f"step {self.done} of {self.rate:g} {self.size}")
        flambe.log("height", self.height)
        return self.done < self.steps

    def metric(self) -> float:
        return self.height

    def _state(self, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "random": self.random.getstate()}

    def _load_state(self, values: dict[str, Any]) -> dict[str, Any]:
        version, numbers, gauss = values.pop("random")
        self.random.setstate((version, tuple(numbers), gauss))
        return values


class Harvest(Component):
    """Evaluates what has grown."""

    def __init__(self, of: Growth) -> None:
        self.of = of

    def run(self) -> bool:
        print(f"harvested {self.of.done} {self.of.height:.6f}")
        return False

    def metric(self) -> float:
        return 10 * self.of.height


class Trouble(Growth):
    """Grows as well, unless its rate is that of trouble."""

    def __init__(
        self,
        rate: float = 1.0,
        trouble: float = 0.0,
        how: str = "raise",
        at: int = 2,
        steps: int = 4,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(rate, 1, steps, seconds)
        self.trouble, self.how, self.at = trouble, how, at

    def run(self) -> bool:
        if self.rate == self.trouble and self.done + 1 == self.at:
            if self.how == "raise":
                raise ValueError(f"blight at step {self.at}")
            if self.how == "memory":
                self.hoard = [b"x" * 10_000_000 for _ in range(100_000)]
            if self.how == "flood":
                line = "y" * 99
                for _ in range(10):
                    print("\n".join([line] * 50_000))
        return super().run()


class Look(Component):
    """Says what it is given: a resource, and environment variables as far as they may be told."""

    def __init__(
        self, path: str = "", variable: str = "", n: int = 0, seconds: float = 0.0
    ) -> None:
        self.path, self.variable, self.n, self.seconds = path, variable, n, seconds

    def run(self) -> bool:
        time.sleep(self.seconds)
        print(f"gpus {os.environ.get('CUDA_VISIBLE_DEVICES', 'none')!r}")
        if self.path:
            place = Path(self.path)
            files = sorted(place.rglob("*")) if place.is_dir() else [place]
            for file in files:
                told = file.stat()
                print(f"found {file} {told.st_ino} {file.read_text()!r}")
        if self.variable:
            value = os.environ.get(self.variable, "")
            print(f"variable {hashlib.sha256(value.encode()).hexdigest()[:16]}")
            print(f"a leak: {value}")
        return False

    def metric(self) -> float:
        return float(self.n)

"""For random small pipelines and random edits, resumed results equal those of a fresh run."""

from __future__ import annotations

import copy
import importlib
import itertools
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flambe.progress import Status
from tests.examples import examples
from tests.experiment.lab import Lab, Outcome

_numbers = itertools.count()

CODE = """
from flambe.compile import Component

GAIN = 1

class Net(Component):
    def __init__(self, rate=1.0, start=None, shift=0):
        self.rate, self.start, self.shift = rate, start, shift
        self.figure = 0.0
        self.register_attrs("figure")

    def run(self):
        self.figure = self.rate * GAIN + self.shift
        self.figure += 0.5 * self.start.figure if self.start else 0
        return False

    def metric(self):
        return self.figure
"""


@dataclass
class Stage:
    """A stage; it may link to the one at an earlier position."""

    name: str
    rates: list[float]
    start: int | None = None
    shift: int = 0
    reduce: int | None = None


@dataclass
class Model:
    """An experiment, and the code of its component."""

    stages: list[Stage]
    gain: int = 1
    names: Iterator[int] = field(default_factory=lambda: itertools.count(10))

    def write(self, lab: Lab, extension: str) -> None:
        text = CODE.replace("GAIN = 1", f"GAIN = {self.gain}")
        (lab.root / f"{extension}.py").write_text(text, encoding="utf-8")
        # The module stays imported, and its class sees the constant that is in the file.
        vars(importlib.import_module(extension))["GAIN"] = self.gain
        lines = []
        for stage in self.stages:
            rates = ", ".join(map(str, stage.rates))
            rate = f"!g [{rates}]" if len(stage.rates) > 1 else rates
            start = (
                f", start: !@ {self.stages[stage.start].name}" if stage.start is not None else ""
            )
            lines.append(
                f"{stage.name}: !{extension}.Net {{rate: {rate}, shift: {stage.shift}{start}}}"
            )
        reduce = ", ".join(f"{s.name}: {s.reduce}" for s in self.stages if s.reduce is not None)
        lab.write("\n".join(lines), more=f"reduce: {{{reduce}}}")
        text = lab.config.read_text(encoding="utf-8")
        text = text.replace("pieces: ./pieces", f"{extension}: ./{extension}")
        lab.config.write_text(text, encoding="utf-8")


# Values that are powers of two: sums of different ones are never equal, so that no rank is shared.
RATES = st.lists(st.sampled_from([1.0, 2.0, 4.0, 8.0]), min_size=1, max_size=3, unique=True)


@st.composite
def models(draw: st.DrawFn) -> Model:
    stages: list[Stage] = []
    for position in range(draw(st.integers(1, 3))):
        start = draw(st.none() | st.integers(0, position - 1)) if position else None
        reduce = draw(st.none() | st.integers(1, 2))
        stages.append(Stage(f"s{position}", draw(RATES), start, 0, reduce))
    return Model(stages)


EDITS = st.tuples(
    st.sampled_from(["rates", "rename", "shift", "reduce", "gain", "add", "back"]),
    st.integers(0, 2),
    RATES,
    st.integers(1, 3),
)


def edit(model: Model, kind: str, position: int, rates: list[float], number: int) -> None:
    stage = model.stages[position % len(model.stages)]
    if kind == "rates":
        stage.rates = rates
    elif kind == "rename":
        stage.name = f"s{next(model.names)}"
    elif kind == "shift":
        stage.shift = 100 * number
    elif kind == "reduce":
        stage.reduce = number if number < 3 else None
    elif kind == "gain":
        model.gain = number
    elif kind == "add":
        model.stages.append(Stage(f"s{next(model.names)}", rates, position % len(model.stages)))


def results(outcome: Outcome) -> dict[tuple[str, str], tuple[float | None, bool, bool | None]]:
    """Return the figure of each variant, whether it is done, and whether it is kept."""
    assert all(v.status.done or v.status is Status.MASKED for v in outcome.variants)
    return {
        (v.stage, repr(sorted(v.choices.items()))): (v.metric, v.status.done, v.kept)
        for v in outcome.variants
    }


def clear(lab: Lab) -> None:
    shutil.rmtree(lab.root / "out", ignore_errors=True)


@pytest.mark.torch
@settings(
    max_examples=examples(12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(model=models(), edits=st.lists(EDITS, min_size=1, max_size=3))
def test_resumed_results_equal_those_of_a_fresh_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, model: Model, edits: list[Any]
) -> None:
    monkeypatch.setattr(sys, "path", [str(lab.root), *sys.path])
    clear(lab)
    extension, first = f"spun{next(_numbers)}", copy.deepcopy(model)
    resumed = None
    for kind, *arguments in [("none", 0, [], 0), *edits]:
        if kind == "back":
            model = copy.deepcopy(first)
        edit(model, kind, *arguments)
        model.write(lab, extension)
        resumed = results(lab.run(resume=resumed is not None).fine())
    again = lab.run(resume=True).fine()
    assert all(v.status in (Status.REUSED, Status.MASKED) for v in again.variants)
    assert results(again) == resumed
    clear(lab)
    assert results(lab.run().fine()) == resumed

"""How long a plan says that a run takes: stages share slots as they do in a run."""

from __future__ import annotations

import json

import pytest

from flambe.cli.main import main
from flambe.cli.plan import _Report, _report_cost
from flambe.experiment.executors.inline import InlineExecutor
from flambe.experiment.planning.earlier import read_folder
from flambe.experiment.planning.plan import make_plan
from flambe.experiment.planning.schedule import MOST_TASKS, StageLoad, makespan
from flambe.progress import change_line
from tests.experiment.lab import Lab

A = frozenset("a")


@pytest.mark.parametrize(
    ("loads", "slots", "seconds"),
    [
        ([], 2, 0),
        ([StageLoad("a", 5, 10)], 2, 30),
        ([StageLoad("a", 5, 10, limit=1)], 4, 50),
        # Independent stages run side by side.
        ([StageLoad("a", 2, 10), StageLoad("b", 2, 10)], 4, 10),
        ([StageLoad("a", 2, 10), StageLoad("b", 2, 10)], 2, 20),
        ([StageLoad("a", 2, 10, limit=1), StageLoad("b", 2, 10)], 2, 20),
        # A later stage starts as soon as a part of the earlier one is done ...
        ([StageLoad("a", 3, 10), StageLoad("b", 3, 10, ancestors=A)], 1, 60),
        ([StageLoad("a", 3, 10, limit=1), StageLoad("b", 3, 10, ancestors=A)], 2, 40),
        # ... or when all of it is, where its variants are compared.
        (
            [
                StageLoad("a", 3, 10, limit=1),
                StageLoad("b", 3, 10, ancestors=A, ended_before=A),
            ],
            3,
            40,
        ),
        # What others wait for goes first.
        (
            [
                StageLoad("c", 1, 10),
                StageLoad("a", 1, 10),
                StageLoad("b", 1, 10, ancestors=A),
            ],
            2,
            20,
        ),
        ([StageLoad("a", MOST_TASKS, 1), StageLoad("b", MOST_TASKS, 1)], 4, MOST_TASKS / 2),
        ([StageLoad("a", 2 * MOST_TASKS, 1, limit=1)], 4, 2 * MOST_TASKS),
    ],
)
def test_how_long_stages_take(loads: list[StageLoad], slots: int, seconds: float) -> None:
    assert makespan(loads, slots) == pytest.approx(seconds)


PIPELINE = """
a: !pieces.Walk {steps: 1, rate: !g [1.0, 2.0]}
b: !pieces.Walk {steps: 1, rate: !g [1.0, 2.0]}
c: !pieces.Walk {steps: 1, start: !@ a}
"""


def timed(lab: Lab, more: str = "") -> None:
    """Run, and let the journal say that each variant took 100 seconds; then change all values."""
    lab.run(PIPELINE, more=more, executor=InlineExecutor).fine()
    with lab.folder.variants.open("a") as journal:
        for variant in lab.folder.read_variants().values():
            journal.write(change_line({"id": variant.id, "started": 1000.0, "ended": 1100.0}))
    lab.write(PIPELINE.replace("1.0, 2.0", "3.0, 4.0"), more=more)


@pytest.mark.parametrize(
    ("more", "slots", "seconds", "waves"),
    [
        ("", 2, 300, [1, 1, 1]),
        ("", 4, 200, [1, 1, 1]),
        ("max_parallel: {a: 1}", 4, 300, [2, 1, 1]),
        ("reduce: {a: 1}", 4, 200, [1, 1, 1]),
    ],
)
def test_the_time_of_a_plan(
    lab: Lab, more: str, slots: int, seconds: float, waves: list[int]
) -> None:
    timed(lab, more)
    spec = lab.experiment().spec()
    plan = make_plan(spec, read_folder(spec), slots=slots)
    assert plan.seconds == pytest.approx(seconds)
    assert [stage.waves for stage in plan.stages] == waves
    assert plan.untimed == []
    assert make_plan(spec, read_folder(spec)).seconds is None  # the slots are not known


def test_the_cost_of_a_plan(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    timed(lab)
    spec = lab.experiment().spec()
    plan = make_plan(spec, read_folder(spec), slots=4)
    report = _Report(as_json=True)
    _report_cost(report, plan, None)
    assert report.content == {}  # no prices
    _report_cost(report, plan, 9.0)
    assert report.content == {"hourly_price": 9.0, "cost": pytest.approx(9.0 * 200 / 3600)}
    _report_cost(_Report(as_json=False), plan, 9.0)
    assert "about 0.50, and what hosts cost while they start" in capsys.readouterr().out
    # How long a new stage takes is not known, and so neither is what it costs.
    lab.write(PIPELINE + "d: !pieces.Walk {steps: 1}\n")
    assert main(["plan", str(lab.config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["untimed_stages"] == ["d"]
    spec = lab.experiment().spec()
    _report_cost(report, make_plan(spec, read_folder(spec), slots=4), 9.0)
    assert report.content["cost"] is None

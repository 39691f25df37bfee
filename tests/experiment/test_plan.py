"""``flambe plan``: what would be reused and run, and why; nothing is built."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flambe.cli.main import main
from flambe.cluster.providers.aws import AWSCluster, aws_validation
from flambe.experiment.counting import count_variants
from flambe.progress import Status
from tests.experiment.lab import Lab

PIPELINE = """
a: !pieces.Walk {steps: 1, rate: !g [1.0, 2.0, 3.0], extra: {x: !g [1, 2], y: !g [p, q]}}
b: !pieces.Walk {steps: 1, start: !@ a}
c: !pieces.Walk {steps: 1, rate: !g [5, 6]}
"""
REDUCE = "reduce: {a: 2}"


def plan(lab: Lab, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["plan", str(lab.config), "--json", *options]) == 0
    return dict(json.loads(capsys.readouterr().out))


def stages(planned: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in planned["stages"]}


def reasons(stage: dict[str, Any], action: str) -> list[str]:
    return [d["reason"] for d in stage["decisions"] if d["action"] == action]


def test_a_first_run(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.write(PIPELINE, more=REDUCE)
    planned = plan(lab, capsys)
    assert planned["earlier_results"] is False
    assert planned["seconds"] is None
    a, b, c = stages(planned).values()
    assert (a["variants"], a["product"], a["run"], a["reused"]) == (12, [3, 2, 2], 12, 0)
    # Which two of them b is built upon is decided by the run.
    assert (b["variants"], b["product"], b["run"], b["certain"]) == (12, [3, 2, 2], 2, False)
    assert (c["run"], c["certain"], c["waves"]) == (2, True, -(-2 // planned["slots"]))
    assert not lab.folder.root.exists()
    assert main(["plan", str(lab.config)]) == 0
    shown = capsys.readouterr().out
    assert "3 × 2 × 2 = 12, 2 kept" in shown
    assert "≤ 2" in shown
    assert "at a time on this machine" in shown


def test_what_is_planned_is_what_is_run(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.write(PIPELINE, more=REDUCE)
    lab.run().fine()
    edited = PIPELINE.replace("[1.0, 2.0, 3.0]", "[1.0, 3.0]").replace("[5, 6]", "[6, 7]")
    lab.write(edited, more=REDUCE.replace("2", "3"))
    planned = plan(lab, capsys)
    assert planned["earlier_results"] is True
    outcome = lab.run(resume=True).fine()
    for name, stage in stages(planned).items():
        assert stage["certain"]
        statuses = outcome.statuses(name)
        assert stage["reused"] == statuses.count(Status.REUSED)
        assert stage["run"] == statuses.count(Status.FINISHED)
        assert stage["skipped"] == statuses.count(Status.MASKED)
        variants = outcome.of(name)
        run = [v.reason for v in variants if v.status is Status.FINISHED]
        assert sorted(reasons(stage, "run")) == sorted(run)
        skipped = [v.reason for v in variants if v.status is Status.MASKED]
        assert sorted(reasons(stage, "skip")) == sorted(skipped)
    assert reasons(stages(planned)["c"], "run") == ["new value c.rate=7"]
    # Earlier runs tell how long it takes.
    assert 0 < planned["seconds"] < 60
    assert planned["untimed_stages"] == []


def test_starting_over(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.write(PIPELINE)
    lab.run().fine()
    assert main(["plan", str(lab.config)]) == 0
    shown = capsys.readouterr().out
    assert "26 of 26 variants are done" in shown
    assert "--resume runs what is planned here, --force starts over" in shown
    planned = plan(lab, capsys, "--force")
    assert [stage["run"] for stage in planned["stages"]] == [12, 12, 2]


def test_an_unfinished_variant(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.write("a: !pieces.Failing {at: 2}", more="max_failures: 0")
    assert lab.run().error is not None
    a = stages(plan(lab, capsys))["a"]
    assert a["run"] == a["continued"] == 1
    assert reasons(a, "continue") == ["it failed before"]


def test_what_it_costs() -> None:
    """Without prices in the file nothing is said about costs: none is invented."""

    def cost(**prices: float) -> float | None:
        cluster = object.__new__(AWSCluster)
        cluster.orchestrator_type, cluster.factories_type = "t3.large", "g5.xlarge"
        cluster.factories_num, cluster.prices = (
            2,
            {k.replace("_", "."): v for k, v in prices.items()},
        )
        return cluster.hourly_price()

    assert cost() is None
    assert cost(t3_large=0.1) is None
    assert cost(t3_large=0.1, g5_xlarge=1.0) == pytest.approx(2.1)
    findings = list(aws_validation.findings({"prices": {"t3.large": -1}}))
    assert any(path == ("prices", "t3.large") for path, _, _ in findings)


def test_json_is_for_plans(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.write("a: !pieces.Walk {steps: 1}")
    assert main([str(lab.config), "--json"]) == 2
    assert "--json applies to plans only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pipeline", "stage", "factors"),
    [
        ("a: !pieces.Walk {steps: 1}", "a", ()),
        ("a: !pieces.Walk {steps: !s [1, 9, 4]}", "a", (4,)),
        ("a: !pieces.Walk {steps: !g [1, 2]}\nb: !pieces.Walk {start: !@ a, rate: !g [1, 2, 3]}", "b", (2, 3)),
    ],
)  # fmt: skip
def test_the_factors_of_a_count(
    lab: Lab, pipeline: str, stage: str, factors: tuple[int, ...]
) -> None:
    lab.write(pipeline)
    assert count_variants(lab.experiment().spec())[stage].factors == factors

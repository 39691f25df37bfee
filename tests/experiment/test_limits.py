"""Stages, variants and runs that are stopped before their end: by a time, a figure or a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flambe._durations import parse_duration
from flambe.errors import ConfigError, HaltedError
from flambe.experiment.search.stage_limits import StageLimits
from flambe.experiment.spec import StopSpec
from flambe.progress import Status
from tests.experiment.lab import Lab

CLIMB = "train: !pieces.Climber {{rate: !g [{}], steps: {}, delay: {}}}"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(90, 90.0), (0.5, 0.5), ("90s", 90.0), ("30m", 1800.0), ("1.5h", 5400.0), ("1d", 86400.0)],
)
def test_durations_are_numbers_or_have_units(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written", [0, -1, True, "", "2", "2 hours", "h", "0m", None, float("inf")]
)
def test_what_is_not_a_duration(written: object) -> None:
    assert parse_duration(written) is None


def test_a_stage_stops_when_a_variant_gets_to_a_figure(lab: Lab) -> None:
    pipeline = (
        CLIMB.format("1.0, 2.0, 3.0", 4, 0) + "\nread: !pieces.Fixed {value: !@ train.height}"
    )
    outcome = lab.run(pipeline, more="stop: {train: {metric: 5}}").fine()
    first, second, third = outcome.of("train")
    assert (first.status, first.step, first.stopped_by) == (Status.FINISHED, 4, "")
    assert (second.status, second.step) == (Status.STOPPED, 3)
    assert second.stopped_by == "the stage reached a metric of 5"
    assert third.status is Status.MASKED
    assert third.reason == second.stopped_by
    read = {v.metric for v in outcome.of("read") if v.status is Status.FINISHED}
    assert read == {4.0, 6.0}  # what was stopped counts
    assert outcome.statuses("read").count(Status.MASKED) == 1


def test_a_stage_stops_after_so_many_variants(lab: Lab) -> None:
    more = "stop: {train: {variants: 2}}"
    outcome = lab.run(CLIMB.format("1.0, 2.0, 3.0", 2, 0), more=more).fine()
    assert outcome.statuses("train") == [Status.FINISHED, Status.FINISHED, Status.MASKED]
    assert outcome.of("train")[2].reason == "2 variants are done in the stage"
    # What is there counts when it is resumed.
    again = lab.run(resume=True).fine()
    assert again.statuses("train") == [Status.REUSED, Status.REUSED, Status.MASKED]
    more = "stop: {train: {variants: 3}}"
    last = lab.run(CLIMB.format("1.0, 2.0, 3.0", 2, 0), more=more, resume=True).fine()
    assert last.statuses("train") == [Status.REUSED, Status.REUSED, Status.FINISHED]


def test_a_variant_has_a_time_limit(lab: Lab) -> None:
    outcome = lab.run(CLIMB.format("1.0, 2.0", 50, 0.05), more="limits: {variant: 0.12}").fine()
    for variant in outcome.of("train"):
        assert variant.status is Status.STOPPED
        assert variant.stopped_by == "the limit of 0.12 s for a variant"
        assert 1 <= variant.step < 50


def test_a_run_has_a_time_limit_and_continues_later(lab: Lab) -> None:
    pipeline = CLIMB.format("1.0, 2.0", 20, 0.05)
    outcome = lab.run(pipeline, more="limits: {run: 0.4s}")
    error = outcome.raised()
    assert isinstance(error, HaltedError)
    assert "the run reached its limit of 0.4 s" in str(error)
    assert "--resume" in str(error)
    assert outcome.state.status is Status.INTERRUPTED
    assert "limit of 0.4 s" in outcome.state.error
    resumed = lab.run(pipeline, resume=True).fine()
    assert resumed.metrics("train") == [pytest.approx(20.0), pytest.approx(40.0)]


def test_time_of_a_stage_counts_from_its_start() -> None:
    now = [100.0]
    limits = StageLimits(StopSpec(time=60.0), clock=lambda: now[0])
    assert limits
    assert limits.after_step(None, 1.0) == ""
    now[0] = 160.0
    assert limits.after_step(None, 1.0) == "the stage ran for 60 s"
    assert not StageLimits(StopSpec())


def test_mistakes_are_told_with_their_places(lab: Lab) -> None:
    more = """
    stop: {train: {time: soon, variants: 0, metrics: 1}, tain: {time: 2h}}
    limits: {variant: 0, runs: 8h}
    """
    lab.write(CLIMB.format("1.0", 2, 0), more=more)
    with pytest.raises(ConfigError) as caught:
        lab.experiment()
    messages = {problem.message for problem in caught.value.problems}
    assert messages == {
        "stop: there is no stage 'tain'",
        "stop: unknown keyword 'metrics'",
        "stop: time cannot be 'soon'",
        "stop: variants cannot be 0",
        "limits: unknown keyword 'runs'",
        "limits: variant cannot be 0",
    }
    assert all(problem.place is not None for problem in caught.value.problems)


@pytest.mark.integration
def test_tune_stops_what_runs_and_starts_nothing_more(lab: Lab, one_ray: None) -> None:
    pipeline = CLIMB.format("1.0, 2.0, 3.0, 4.0, 5.0, 6.0", 200, 0.05)
    outcome = lab.run(pipeline, more="stop: {train: {metric: 9}}", executor=None).fine()
    statuses = outcome.statuses("train")
    assert set(statuses) == {Status.STOPPED, Status.MASKED}
    for variant in outcome.of("train"):
        assert "the stage reached a metric of 9" in (variant.stopped_by + variant.reason)
        if variant.status is Status.STOPPED:
            checkpoint: Path = outcome.folder.checkpoint("train", variant.name)
            assert checkpoint.is_dir()
        else:
            assert variant.step == 0


def test_limits_without_a_stage_decide_nothing() -> None:
    limits: Any = StageLimits(StopSpec())
    assert limits.after_step(1e9, 1e9) == ""
    limits.after_end()
    assert limits.reason == ""

"""What an experiment does, shown with the executor that needs no Ray."""

from __future__ import annotations

import http.server
import itertools
import json
import math
import os
import re
import shutil
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import flambe
from flambe.compile import Grid, Link, Schema
from flambe.errors import ComponentError, ConfigError, ResourceError, RunError, StateError
from flambe.experiment import Experiment
from flambe.experiment.executors.debugger import Debugger
from flambe.experiment.executors.inline import InlineExecutor
from flambe.progress import Status
from tests.experiment.lab import Lab, Watcher, json_lines

GRID = """
train: !pieces.Walk {steps: 2, rate: !g [1.0, 2.0, 3.0], record: RECORD}
"""


# -- stages and links ---------------------------------------------------------------------------


def test_every_variant_is_run_and_recorded(lab: Lab) -> None:
    outcome = lab.run(GRID).fine()
    assert outcome.statuses("train") == [Status.FINISHED] * 3
    for variant in outcome.of("train"):
        assert variant.step == variant.attempts + 1 == 2
        values = [value for _, value in outcome.figures(variant, "metric")]
        assert [step for step, _ in outcome.figures(variant, "metric")] == [1, 2]
        assert variant.metric == values[-1]
        assert variant.best == max(values)
    assert sorted(lab.records()) == sorted(
        line for rate in (1, 2, 3) for line in (f"built {rate}", f"step {rate} 1", f"step {rate} 2")
    )


def test_a_link_gives_the_matching_ancestor_with_its_trained_state(lab: Lab) -> None:
    outcome = lab.run(
        """
        train: !pieces.Walk {steps: 2, rate: !g [1.0, 2.0, 3.0]}
        more: !pieces.Walk {steps: 1, start: !@ train, rate: !g [10.0, 20.0]}
        read: !pieces.Fixed {value: !@ train.value, other: !@ more}
        """
    ).fine()
    trained = {variant.id: variant for variant in outcome.of("train")}
    assert len(outcome.of("more")) == len(outcome.of("read")) == 6
    for variant in outcome.of("more"):
        parent = trained[variant.parents["train"]]
        saved = flambe.load(outcome.folder.checkpoint("more", variant.name))
        assert saved.began == pytest.approx(parent.metric)
        assert variant.choices["train.rate"] == parent.choices["train.rate"]
    for variant in outcome.of("read"):
        assert variant.metric == pytest.approx(trained[variant.parents["train"]].metric)
        more = next(v for v in outcome.of("more") if v.id == variant.parents["more"])
        assert more.parents["train"] == variant.parents["train"]


def test_names_may_start_with_a_digit(lab: Lab) -> None:
    pipeline = """
        1_train: !pieces.Walk {steps: 2, rate: !g [1.0, 2.0]}
        '2': !pieces.Fixed {value: !@ 1_train.value, other: !@ "1_train"}
        """
    outcome = lab.run(pipeline, more="reduce: {1_train: 1}").fine()
    (best,) = [v for v in outcome.of("2") if v.status is Status.FINISHED]
    assert best.metric == pytest.approx(max(v.metric or 0 for v in outcome.of("1_train")))
    assert outcome.folder.checkpoint("2", best.name).is_dir()
    again = lab.run(resume=["1_train"]).fine()
    assert again.statuses("2") == outcome.statuses("2")


def test_a_link_may_walk_into_a_trained_stage(lab: Lab) -> None:
    lab.run(
        """
        train: !pieces.Tuning {model: !pieces.Weights {size: 3}, amount: !g [1.0, 5.0], steps: 2}
        look: !pieces.Watch {models: [!@ 'train[model]'], record: RECORD}
        """
    ).fine()
    assert lab.records() == ["[2.0, 2.0, 2.0]", "[10.0, 10.0, 10.0]"]


def test_a_checkpoint_is_where_the_specification_says(lab: Lab) -> None:
    outcome = lab.run(
        "train: !pieces.Walk {steps: 2, rate: !g [1.0, 2.0], extra: !g [a/b, c d]}"
    ).fine()
    for variant in outcome.of("train"):
        folder = lab.root / "out" / "output__trial" / "train" / variant.name
        assert sorted(os.listdir(folder)) == [
            "checkpoint",
            "config.yaml",
            "metrics.jsonl",
            "tensorboard",
        ]
        assert re.match(r"rate=[12],extra=(a-b|c-d)_[0-9a-f]{8}$", variant.name)
        loaded = flambe.load(folder / "checkpoint" / "checkpoint.flambe")
        assert (loaded.done, loaded.value) == (2, variant.metric)
    assert sorted(os.listdir(outcome.folder.root)) == [
        "experiment.yaml",
        "invocations.jsonl",
        "lineage.json",
        "run.log",
        "state.json",
        "state.previous.json",
        "train",
        "variants.jsonl",
    ]


# -- isolation ----------------------------------------------------------------------------------

TWICE = """
{model}
one: !pieces.Tuning {{model: {link}, amount: 1.0, steps: 1}}
two: !pieces.Tuning {{model: {link}, amount: 10.0, steps: 2}}
look: !pieces.Watch {{models: [!@ 'one[model]', !@ 'two[model]'{third}], record: RECORD}}
"""


def test_two_tunings_of_one_model_do_not_share_its_weights(lab: Lab) -> None:
    model = "model: !pieces.Weights {size: 1}"
    lab.run(TWICE.format(model=model, link="!@ model", third=", !@ model")).fine()
    assert lab.records() == ["[1.0] [20.0] [0.0]"]


def test_two_tunings_do_not_share_what_is_inside_of_their_model(lab: Lab) -> None:
    """The part that is changed is a stage of its own, two links away."""
    model = """
inner: !pieces.Weights {size: 1}
model: !pieces.Weights {size: 1, inner: !@ inner}"""
    lab.run(TWICE.format(model=model, link="!@ model", third="")).fine()
    assert lab.records() == ["[1.0] inner [1.0] [20.0] inner [20.0]"]


def test_two_tunings_go_on_from_one_training(lab: Lab) -> None:
    model = """
pre: !pieces.Tuning {model: !pieces.Weights {size: 1}, amount: 100.0, steps: 1}"""
    lab.run(TWICE.format(model=model, link="!@ 'pre[model]'", third=", !@ 'pre[model]'")).fine()
    assert lab.records() == ["[101.0] [120.0] [100.0]"]


def test_two_tunings_go_on_from_one_training_of_a_linked_model(lab: Lab) -> None:
    """The model is a stage; it was trained by another; both tunings reach it through that."""
    model = """
model: !pieces.Weights {size: 1}
pre: !pieces.Tuning {model: !@ model, amount: 100.0, steps: 1}"""
    lab.run(TWICE.format(model=model, link="!@ 'pre[model]'", third=", !@ 'pre[model]'")).fine()
    assert lab.records() == ["[101.0] [120.0] [100.0]"]


def test_a_chain_of_tunings_adds_up(lab: Lab) -> None:
    lab.run(
        """
        model: !pieces.Weights {size: 1}
        one: !pieces.Tuning {model: !@ model, amount: 1.0, steps: 1}
        two: !pieces.Tuning {model: !@ 'one[model]', amount: 10.0, steps: 1}
        three: !pieces.Tuning {model: !@ 'two[model]', amount: 100.0, steps: 1}
        look: !pieces.Watch {models: [!@ 'one[model]', !@ 'two[model]', !@ 'three[model]'], record: RECORD}
        """
    ).fine()
    assert lab.records() == ["[1.0] [11.0] [111.0]"]


def test_what_nobody_changed_is_shared(lab: Lab) -> None:
    lab.run(
        """
        data: !pieces.Weights {size: 1, record: RECORD}
        one: !pieces.Fixed {value: 1.0, other: !@ data}
        two: !pieces.Fixed {value: 2.0, other: !@ data}
        look: !pieces.Watch {models: [!@ one.other, !@ two.other], record: RECORD}
        """
    ).fine()
    # Once for each stage that runs, though the last one reaches it twice.
    assert lab.records() == ["built weights 1"] * 3 + ["[0.0] [0.0]"]


# -- reduce -------------------------------------------------------------------------------------


def test_reduce_keeps_the_best_and_masks_what_builds_on_the_others(lab: Lab) -> None:
    outcome = lab.run(
        """
        train: !pieces.Fixed {value: !g [3.0, 9.0, 1.0, 7.0]}
        next: !pieces.Walk {start: !@ train, rate: !g [1.0, 2.0], steps: 1}
        last: !pieces.Fixed {value: 1.0, other: !@ next, record: RECORD}
        """,
        more="reduce: {train: 2, next: 1}",
    ).fine()
    assert [variant.kept for variant in outcome.of("train")] == [False, True, False, True]
    masked = [v.choices["value"] for v in outcome.of("next") if v.status is Status.MASKED]
    assert sorted(masked) == [1.0, 1.0, 3.0, 3.0]
    best = max(
        (v for v in outcome.of("next") if v.status.done), key=lambda v: v.metric or -math.inf
    )
    finished = [v for v in outcome.of("last") if v.status.done]
    assert [v.parents["next"] for v in finished] == [best.id]
    assert lab.records() == ["built 1.0"], "a masked variant was built"
    assert len([v for v in outcome.of("last") if v.status is Status.MASKED]) == 7
    stage = outcome.state.stage("last")
    assert (stage.total, stage.counts) == (8, {"finished": 1, "masked": 7})


def test_reduce_keeps_all_where_there_are_fewer(lab: Lab) -> None:
    outcome = lab.run(
        "train: !pieces.Fixed {value: !g [1.0, 2.0]}", more="reduce: {train: 5}"
    ).fine()
    assert [variant.kept for variant in outcome.of("train")] == [True, True]


def test_reduce_passes_over_what_is_not_a_number(lab: Lab) -> None:
    outcome = lab.run(
        """
        train: !pieces.Fixed {value: !g [.nan, 2.0, -.inf, 1.0]}
        """,
        more="reduce: {train: 1}",
    ).fine()
    assert [v.choices["value"] for v in outcome.of("train") if v.kept] == [2.0]


def test_reduce_needs_a_metric(lab: Lab) -> None:
    outcome = lab.run("train: !pieces.Reader {path: RECORD, record: RECORD}")
    lab.record.touch()
    lab.record.write_text("")
    outcome = lab.run(
        "train: !pieces.Reader {path: RECORD, record: RECORD}",
        more="reduce: {train: 1}",
        force=True,
    )
    assert "no variant of stage 'train' has a metric" in str(outcome.raised())


# -- failures -----------------------------------------------------------------------------------

HALF = """
train: !pieces.Failing {at: 2, record: RECORD, rate: !g [1.0, 2.0, 3.0], only: 2.0, steps: 3}
next: !pieces.Fixed {value: 1.0, other: !@ train}
"""


def test_a_failure_stops_the_run_after_its_stage(lab: Lab) -> None:
    outcome = lab.run(HALF, more="max_failures: 0")
    error = outcome.raised()
    assert isinstance(error, RunError)
    assert error.exit_code == 1
    assert "1 of 3 variants of stage 'train' failed" in str(error)
    assert "no luck at step 2" in str(error)
    assert "variant.log" in str(error)
    assert outcome.statuses("train") == [Status.FINISHED, Status.FAILED, Status.FINISHED]
    assert outcome.statuses("next") == [Status.WAITING] * 3
    assert outcome.of("next")[0].reason.startswith("the run ended: 1 of 3 variants of stage")
    state = outcome.state
    assert (state.status, state.stage("train").status) == (Status.FAILED, Status.FAILED)
    assert state.stage("next").status is Status.WAITING
    assert "no luck" in state.error


def test_or_the_run_goes_on_without_it(lab: Lab) -> None:
    outcome = lab.run(HALF, more="max_failures: 0\nstop_on_failure: false")
    assert str(outcome.raised()).startswith("1 of 5 variants failed;")
    assert outcome.statuses("train") == [Status.FINISHED, Status.FAILED, Status.FINISHED]
    assert outcome.statuses("next") == [Status.FINISHED, Status.MASKED, Status.FINISHED]
    assert outcome.of("next")[1].reason == "train rate=2 failed"
    assert outcome.state.status is Status.FINISHED
    assert outcome.state.outcome == "finished with 1 failed"
    assert "no luck at step 2" in outcome.state.error


ALONE = """
fit: !pieces.Failing {at: 1, record: RECORD, rate: !g [1.0, 2.0]}
upon: !pieces.Fixed {value: 1.0, other: !@ fit}
further: !pieces.Fixed {value: 1.0, other: !@ upon}
alone: !pieces.Fixed {value: !g [2.0, 3.0]}
"""


def test_a_stage_in_which_all_failed_leaves_the_independent_ones(lab: Lab) -> None:
    outcome = lab.run(ALONE, more="max_failures: 0\nstop_on_failure: false")
    error = str(outcome.raised())
    assert error.startswith("2 of 4 variants failed; the run finished without them\n")
    assert "fit rate=1, and 1 other alike: " in error
    assert error.count("variant.log") == 1
    assert outcome.metrics("alone") == [2.0, 3.0]
    for stage in ("upon", "further"):
        assert outcome.statuses(stage) == [Status.MASKED, Status.MASKED]
        assert [v.reason for v in outcome.of(stage)] == ["fit rate=1 failed", "fit rate=2 failed"]
    state = outcome.state
    assert [stage.status.value for stage in state.stages] == [
        *("failed", "masked", "masked", "finished")
    ]
    assert (state.status, state.failed) == (Status.FINISHED, 2)
    assert "upon is skipped: fit rate=1 failed" in outcome.watcher.notes
    # What was not kept is not run for another reason.
    kept = lab.run(
        """
        fit: !pieces.Fixed {value: !g [1.0, 2.0]}
        upon: !pieces.Fixed {value: 1.0, other: !@ fit}
        """,
        more="reduce: {fit: 1}", force=True,
    ).fine()  # fmt: skip
    assert kept.of("upon")[0].reason == "fit value=1 was not kept by reduce"
    # Failed ones are tried again.
    lab.record.write_text("")
    again = lab.run(
        ALONE.replace("at: 1", "at: 9"), more="stop_on_failure: false", force=True
    ).fine()
    assert again.state.outcome == "finished"


def test_each_failure_is_in_the_logs(lab: Lab) -> None:
    outcome = lab.run(
        "train: !pieces.Failing {at: 2, record: RECORD, rate: !g [1.0, 2.0], only: 2.0}",
        more="max_failures: 1",
    )
    failed = outcome.of("train")[1]
    for log in (
        outcome.folder.log,
        outcome.folder.variant("train", failed.name) / "variant.log",
    ):
        assert log.read_text().count("ValueError: no luck at step 2") == 2
    assert sum("no luck at step 2" in text for _, _, text in outcome.watcher.lines) == 2


@pytest.mark.parametrize("limit", [1, 2, -1])
def test_a_variant_is_tried_again_from_its_last_checkpoint(lab: Lab, limit: int) -> None:
    times = {1: 1, 2: 2, -1: 4}[limit]
    outcome = lab.run(
        f"train: !pieces.Failing {{at: 3, times: {times}, record: RECORD, steps: 4}}",
        more=f"max_failures: {limit}",
    ).fine()
    (variant,) = outcome.of("train")
    again = ["built 1", "fail 1"] * (times - 1)
    assert lab.records() == [
        *("built 1", "step 1 1", "step 1 2", "fail 1"),
        *again,
        *("built 1", "step 1 3", "step 1 4"),
    ]
    assert (variant.attempts, variant.step, variant.error) == (times + 1, 4, "")
    assert sum("is tried again" in note for note in outcome.watcher.notes) == times


def test_max_failures_is_a_limit(lab: Lab) -> None:
    outcome = lab.run("train: !pieces.Failing {at: 1, record: RECORD}", more="max_failures: 2")
    assert isinstance(outcome.raised(), RunError)
    assert lab.records() == ["built 1", "fail 1"] * 3


@pytest.mark.parametrize("at", [0, 1])
def test_an_exception_of_a_component_names_its_place(lab: Lab, at: int) -> None:
    outcome = lab.run(
        f"""
        train: !pieces.Failing
          at: {at}
          record: RECORD
        """,
        more="max_failures: 0",
    )
    (variant,) = outcome.of("train")
    doing = "building" if at == 0 else "running"
    text = lab.config.read_text().splitlines()
    line = next(n for n, content in enumerate(text, 1) if "!pieces.Failing" in content)
    expected = f"{lab.config}:{line}:{text[line - 1].index('!') + 1}: {doing} !pieces.Failing"
    assert variant.error.startswith(f"{expected}: ValueError: no luck at step {at}")
    assert expected in str(outcome.raised())
    assert "pieces/__init__.py" in variant.traceback
    assert 'raise ValueError(f"no luck' in variant.traceback


def test_a_component_error_survives_pickling() -> None:
    import pickle

    from flambe.errors import Place

    error = ComponentError("m", Place("f.yaml", 1, 2, 3, "text"), "running !X", "Traceback")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.traceback, copy.place) == (str(error), error.traceback, error.place)


def test_an_error_below_says_what_it_says(lab: Lab) -> None:
    outcome = lab.run(
        "train: !pieces.Failing {at: 1, record: RECORD, how: config}", more="max_failures: 0"
    )
    assert "a configuration error from below" in str(outcome.raised())


def test_what_cannot_be_saved_is_named(lab: Lab) -> None:
    class Odd:
        pass

    experiment = Experiment(
        "trial",
        {"a": Schema("pieces:Walk", "pieces.Walk", [], {"start": 1})},
        save_path=str(lab.root / "out"),
        max_failures=0,
    )
    import pieces  # type: ignore[import-not-found]

    original = pieces.Walk._state
    pieces.Walk._state = lambda self, values: {**values, "odd": Odd()}
    try:
        with pytest.raises(RunError, match="its 'odd' is a .*Odd, which would need pickle"):
            experiment.run(executor=InlineExecutor)
    finally:
        pieces.Walk._state = original


def test_a_generator_is_run_step_by_step(lab: Lab) -> None:
    outcome = lab.run("train: !pieces.Epochs {record: RECORD}").fine()
    (variant,) = outcome.of("train")
    assert (variant.step, variant.metric) == (3, 30.0)
    assert outcome.figures(variant, "total") == [(1, 10), (2, 20), (3, 30)]
    assert outcome.figures(variant, "metric") == [(1, 10), (2, 20), (3, 30)]
    loaded = flambe.load(outcome.folder.checkpoint("train", variant.name))
    assert loaded.total == 30
    assert outcome.folder.checkpoint("train", variant.name).parent.name == "checkpoint"


def test_a_generator_that_is_interrupted_begins_again(lab: Lab) -> None:
    """From a checkpoint between two of its steps it would do them twice."""
    pipeline = "train: !pieces.Epochs {record: RECORD, fail_after: 2}"
    lab.run(pipeline, more="max_failures: 0").raised()
    outcome = lab.run(pipeline, resume=True).fine()
    assert outcome.metrics("train") == [30.0]
    assert lab.records() == ["epoch 0", "epoch 1", "failed", "epoch 0", "epoch 1", "epoch 2"]
    (variant,) = outcome.of("train")
    assert variant.step == 3
    log = (outcome.folder.variant("train", variant.name) / "variant.log").read_text()
    assert "run() of Epochs is a generator" in log


@pytest.mark.parametrize("value", ["text", "[1, 2]"])
def test_a_metric_that_is_no_number_is_an_error_of_the_component(lab: Lab, value: str) -> None:
    outcome = lab.run(f"train: !pieces.Fixed {{value: {value}}}", more="max_failures: 0")
    assert "running !pieces.Fixed" in str(outcome.raised())


# -- state and journal --------------------------------------------------------------------------


def test_the_state_says_everything_that_a_site_shows(lab: Lab) -> None:
    pipeline = """
    model: !pieces.Weights {size: !g [1, 2]}
    train: !pieces.Tuning {model: !@ model, amount: !g [1.0, 5.0], steps: 2}
    look: !pieces.Watch {models: [!@ 'train[model]'], record: RECORD}
    """
    outcome = lab.run(pipeline, more="reduce: {train: 1}", seed=3).fine()
    state = outcome.state
    assert (state.name, state.format, state.status, state.seed) == ("trial", 1, Status.FINISHED, 3)
    assert state.version == flambe.__version__
    assert state.pid == os.getpid()
    assert state.command
    assert state.host in state.hosts
    assert state.started and state.ended and state.updated
    assert state.started <= state.ended <= state.updated
    assert [stage.name for stage in state.stages] == ["model", "train", "look"]
    assert [stage.tag for stage in state.stages] == [
        "pieces.Weights",
        "pieces.Tuning",
        "pieces.Watch",
    ]
    assert [stage.links for stage in state.stages] == [[], ["model"], ["train"]]
    assert [stage.runs for stage in state.stages] == [False, True, True]
    assert [stage.reduce for stage in state.stages] == [None, 1, None]
    assert [stage.total for stage in state.stages] == [2, 4, 4]
    assert [stage.counts for stage in state.stages] == [
        {"finished": 2},
        {"finished": 4},
        {"finished": 1, "masked": 3},
    ]
    for stage in state.stages:
        assert stage.status is Status.FINISHED
        if stage.runs:
            assert stage.started and stage.ended and stage.started <= stage.ended
    for variant in outcome.of("train"):
        assert variant.host == state.host
        assert variant.started and variant.ended and variant.started <= variant.ended
        assert variant.choices.keys() == {"size", "amount"}
        config = (outcome.folder.variant("train", variant.name) / "config.yaml").read_text()
        assert f"amount: {variant.choices['amount']}" in config
        assert "!@ model" in config
        assert list(variant.parents) == ["model"]
        assert variant.kept is (variant.choices == {"size": 2, "amount": 5.0})
    assert outcome.folder.config.read_text() == lab.config.read_text()
    assert outcome.watcher.calls[0] == "begun"
    assert outcome.watcher.calls[-1] == "ended"
    assert list(json_lines(outcome.folder.variants))
    json.loads(outcome.folder.state.read_text())


def test_what_components_say_is_kept_by_variant(lab: Lab) -> None:
    outcome = lab.run("talk: !pieces.Talker {name: !g [ann, bob]}").fine()
    log = outcome.folder.log.read_text()
    for variant in outcome.of("talk"):
        name = variant.choices["name"]
        other = "bob" if name == "ann" else "ann"
        own = (outcome.folder.variant("talk", variant.name) / "variant.log").read_text()
        for text in ("printed by", "grumbled by", "pieces: logged by", "pieces: warned by"):
            assert f"{text} {name}2\n" in own
            assert re.search(rf"talk name={name} \| {text} {name}1\n", log)
        assert other not in own
        assert (variant.name, "stderr", f"grumbled by {name}1") in outcome.watcher.lines
        assert (variant.name, "WARNING", f"pieces: warned by {name}1") in outcome.watcher.lines
        assert outcome.figures(variant, "figure") == [(1, 1.0), (2, 2.0)]
        assert outcome.figures(variant, "many/two") == [(1, 2.5), (2, 2.5)]
        assert outcome.figures(variant, "words")[0] == (1, f"text of {name}1")


def test_a_metric_that_is_not_finite_is_strict_json(lab: Lab) -> None:
    outcome = lab.run("train: !pieces.Fixed {value: !g [.nan, .inf]}").fine()
    for variant in outcome.of("train"):
        path = outcome.folder.variant("train", variant.name) / "metrics.jsonl"
        for text in (path.read_text(), outcome.folder.variants.read_text()):
            assert "NaN" not in text
            assert "Infinity" not in text


# -- the output folder --------------------------------------------------------------------------


def test_results_are_never_overwritten(lab: Lab) -> None:
    before = lab.run(GRID).fine().folder.state.read_bytes()
    error = lab.run(GRID).raised()
    assert isinstance(error, ConfigError)
    assert "--force" in str(error)
    assert "--resume" in str(error)
    assert lab.folder.state.read_bytes() == before


def test_force_moves_them_aside(lab: Lab) -> None:
    before = lab.run(GRID).fine().folder.state.read_bytes()
    outcome = lab.run(GRID, force=True).fine()
    (aside,) = [p for p in (lab.root / "out").iterdir() if p.name != "output__trial"]
    assert re.fullmatch(r"output__trial\.\d{8}-\d{6}", aside.name)
    assert (aside / "state.json").read_bytes() == before
    assert str(aside) in outcome.watcher.notes[0]
    lab.run(GRID, force=True).fine()
    lab.run(GRID, force=True).fine()
    assert len(list((lab.root / "out").iterdir())) == 4
    assert len(lab.records()) == 4 * 9


def test_force_without_results_is_fine(lab: Lab) -> None:
    lab.run(GRID, force=True).fine()


def test_a_folder_that_cannot_be_made_is_an_error(lab: Lab) -> None:
    (lab.root / "out").write_text("a file")
    assert "cannot make the output folder" in str(lab.run(GRID).raised())


def test_a_run_that_never_started_a_variant_left_no_results(lab: Lab) -> None:
    """The mistake is put right, and the same command works."""
    pipeline = "read: !pieces.Reader {path: !@ data, record: RECORD}"
    failed = lab.run(pipeline, more="resources: {data: ./data.txt}")
    assert "there is no" in str(failed.raised())
    (lab.root / "data.txt").write_text("here")
    lab.run(pipeline, more="resources: {data: ./data.txt}").fine()


# -- resume -------------------------------------------------------------------------------------


def test_resume_runs_only_what_is_not_finished(lab: Lab) -> None:
    pipeline = """
    train: !pieces.Failing {at: 3, times: 1, record: RECORD, rate: !g [1.0, 2.0, 3.0], only: 2.0}
    next: !pieces.Walk {start: !@ train.rate, steps: 1}
    """
    first = lab.run(pipeline, more="max_failures: 0")
    first.raised()
    before = len(lab.records())
    outcome = lab.run(resume=True).fine()
    # The one that failed goes on from step 2.
    steps = [line for line in lab.records()[before:] if line.startswith("step")]
    assert steps == ["step 2 3", "step 2 4"]
    assert outcome.statuses("train") == [Status.REUSED, Status.FINISHED, Status.REUSED]
    assert outcome.metrics("train") == [4.0, 8.0, 12.0]
    assert outcome.statuses("next") == [Status.FINISHED] * 3
    assert outcome.state.stage("train").counts == {"reused": 2, "finished": 1}
    for variant in outcome.of("train"):
        assert variant.error == ""
        assert variant.step == 4
        folder = outcome.folder.variant("train", variant.name)
        assert [p for p in os.listdir(folder) if p.startswith("checkpoint")] == ["checkpoint"]


def test_resume_gives_what_a_run_without_interruption_gives(lab: Lab) -> None:
    # Each step is worse than the one before: the best one is from before the interruption.
    pipeline = "train: !pieces.Walk {steps: 6, start: 100.0, rate: !g [1.0, 2.0, 3.0]}\n"
    whole = lab.run(pipeline, seed=5).fine()
    expected = whole.metrics("train")

    class Stop(InlineExecutor):
        """Interrupts in the middle of the second variant."""

        def run_stage(self, task: Any, variants: Any, options: Any, listener: Any) -> None:
            on_step, count = listener.on_step, itertools.count()

            def tell(*args: Any) -> None:
                on_step(*args)
                if next(count) == 8:
                    raise KeyboardInterrupt

            listener.on_step = tell
            super().run_stage(task, variants, options, listener)

    lab.name = "other"
    broken = lab.run(pipeline, seed=5, executor=Stop)
    assert "--resume" in str(broken.raised())
    assert broken.state.status is Status.INTERRUPTED
    assert broken.statuses("train")[:2] == [Status.FINISHED, Status.INTERRUPTED]
    outcome = lab.run(pipeline, seed=5, resume=True).fine()
    assert outcome.metrics("train") == expected
    assert outcome.of("train")[1].best is not None
    assert [one.best for one in outcome.of("train")] == [one.best for one in whole.of("train")]


def test_resume_of_a_finished_run_runs_nothing(lab: Lab) -> None:
    lab.run(GRID).fine()
    before = lab.records()
    outcome = lab.run(GRID, resume=True).fine()
    assert lab.records() == before
    assert outcome.statuses("train") == [Status.REUSED] * 3
    assert [note for note in outcome.watcher.notes if "Ray" in note] == []


def test_resume_after_a_change_runs_what_is_new(lab: Lab) -> None:
    lab.run(GRID).fine()
    before = len(lab.records())
    outcome = lab.run(GRID.replace("3.0]", "4.0]"), resume=True).fine()
    assert lab.records()[before:] == ["built 4", "step 4 1", "step 4 2"]
    assert outcome.watcher.run is not None
    assert outcome.watcher.run.stage("train").counts == {"reused": 2, "finished": 1}


def test_a_variant_of_an_earlier_configuration_is_not_one_of_this_run(lab: Lab) -> None:
    lab.run(GRID).fine()
    outcome = lab.run(GRID.replace("3.0]", "4.0]"), resume=True).fine()
    assert [v.choices["rate"] for v in outcome.of("train")] == [1.0, 2.0, 4.0]


def test_a_lost_checkpoint_is_made_again(lab: Lab) -> None:
    outcome = lab.run(GRID).fine()
    lost = outcome.of("train")[1]
    shutil.rmtree(outcome.folder.variant("train", lost.name) / "checkpoint")
    before = len(lab.records())
    again = lab.run(GRID, resume=True).fine()
    assert lab.records()[before:] == ["built 2", "step 2 1", "step 2 2"]
    assert again.metrics("train") == outcome.metrics("train")


def test_a_disk_that_fails_is_told_with_what_to_do(lab: Lab) -> None:
    folder = lab.run(GRID).fine().folder
    shutil.rmtree(folder.root / "train")
    (folder.root / "train").write_text("a file in the way")
    error = str(lab.run(GRID, resume=True).raised())
    assert str(folder.root / "train") in error
    assert error.endswith("\n  to continue, run the same command with --resume")
    (folder.root / "train").unlink()
    lab.run(GRID, resume=True).fine()


STAGES = """
one: !pieces.Walk {steps: 1, label: one, record: RECORD}
two: !pieces.Walk {steps: 1, label: two, start: !@ one, record: RECORD}
three: !pieces.Walk {steps: 1, label: three, start: !@ two, record: RECORD}
"""


@pytest.mark.parametrize(
    ("resume", "again"),
    [
        ("one", ["two", "three"]),
        ("two", ["three"]),
        (["one", "two"], ["three"]),
        (["two", "one"], ["three"]),
        ("three", []),
    ],
)
def test_resume_from_stages_runs_what_follows_anew(
    lab: Lab, resume: str | list[str], again: list[str]
) -> None:
    first = lab.run(STAGES).fine()
    kept = len(lab.records())
    outcome = lab.run(resume=resume).fine()
    done = [line.removeprefix("step ").removesuffix(" 1") for line in lab.records()[kept:]]
    assert [name for name in done if name in ("one", "two", "three")] == again
    for stage in ("one", "two", "three"):
        expected = Status.FINISHED if stage in again else Status.REUSED
        assert outcome.statuses(stage) == [expected]
        assert outcome.metrics(stage) == first.metrics(stage)
    if again:
        (stamp,) = (outcome.folder.root / "earlier").iterdir()
        assert sorted(os.listdir(stamp)) == sorted(again)


def test_resume_from_a_stage_without_results_is_an_error(lab: Lab) -> None:
    outcome = lab.run(STAGES, resume="two")
    assert isinstance(outcome.error, ConfigError)
    assert "holds no results to resume from" in str(outcome.error)
    assert not lab.folder.root.exists()


def test_resume_from_a_stage_whose_results_are_gone_is_an_error(lab: Lab) -> None:
    lab.run(STAGES).fine()
    shutil.rmtree(lab.folder.root / "two")
    error = lab.run(STAGES, resume="two").raised()
    assert isinstance(error, ConfigError)
    assert "has no saved result" in str(error)


def test_what_a_changed_configuration_leaves_behind_is_said(lab: Lab) -> None:
    lab.run("train: !pieces.Walk {steps: 1, rate: 1.0}").fine()
    again = lab.run("train: !pieces.Walk {steps: 2, rate: 1.0}", resume=True).fine()
    assert any("the configuration has changed; 1 earlier" in n for n in again.watcher.notes)


def test_resume_in_the_configuration_names_a_stage_that_exists(lab: Lab) -> None:
    error = lab.run(STAGES, more="resume: tow").raised()
    assert "resume: there is no stage 'tow'" in str(error)
    assert "did you mean 'two'?" in str(error)


def test_resume_on_the_command_line_names_a_stage_that_exists(lab: Lab) -> None:
    lab.run(STAGES).fine()
    error = lab.run(STAGES, resume=["tow"]).raised()
    assert isinstance(error, ConfigError)
    assert "there is no stage 'tow'" in str(error)


# -- stages with nothing to run -----------------------------------------------------------------


def test_a_stage_with_nothing_to_run_is_built_where_it_is_used(lab: Lab) -> None:
    outcome = lab.run(
        """
        model: !pieces.Weights {size: !g [1, 2], record: RECORD}
        train: !pieces.Tuning {model: !@ model}
        """
    ).fine()
    assert lab.records() == ["built weights 1", "built weights 2"]
    assert outcome.statuses("model") == [Status.FINISHED] * 2
    assert not (outcome.folder.root / "model").exists()


def test_one_that_nobody_uses_is_built_alone(lab: Lab) -> None:
    outcome = lab.run("model: !pieces.Weights {size: !g [1, 2], record: RECORD}").fine()
    assert lab.records() == ["built weights 1", "built weights 2"]
    assert outcome.state.stage("model").runs
    for variant in outcome.of("model"):
        assert (variant.step, variant.metric) == (1, None)
        loaded = flambe.load(outcome.folder.checkpoint("model", variant.name))
        assert len(loaded.numbers) == variant.choices["size"]


def test_a_stage_that_runs_in_some_of_its_options_only(lab: Lab) -> None:
    outcome = lab.run(
        """
        model: !g [!pieces.Weights {size: 1}, !pieces.Tuning {model: !pieces.Weights {size: 1}}]
        look: !pieces.Fixed {value: 1.0, other: !@ model}
        """
    ).fine()
    assert outcome.statuses("look") == [Status.FINISHED] * 2


def test_stages_that_are_plain_values(lab: Lab) -> None:
    outcome = lab.run(
        """
        settings: {size: !g [1, 2], names: [a, b]}
        train: !pieces.Walk {steps: 1, start: !@ 'settings[size]', extra: !@ 'settings[names]'}
        """
    ).fine()
    assert len(outcome.of("train")) == 2
    assert sorted(v.choices["size"] for v in outcome.of("train")) == [1, 2]


# -- resources ----------------------------------------------------------------------------------

READ = "read: !pieces.Reader {path: !@ data, record: RECORD}"


def test_a_local_resource_is_found_from_the_folder_of_the_configuration(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab.root / "files").mkdir()
    (lab.root / "files" / "data.txt").write_text("seven")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    lab.run(READ, more="resources: {data: files/data.txt}").fine()
    assert lab.records() == [f"{lab.root}/files/data.txt: seven"]


class Server(http.server.BaseHTTPRequestHandler):
    """Answers with what a test wants."""

    answers: dict[str, list[tuple[int, bytes, int | None]]]
    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        queue = type(self).answers.get(self.path, [(404, b"no", None)])
        status, body, length = queue.pop(0) if len(queue) > 1 else queue[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name there)
        pass


@pytest.fixture
def web() -> Iterator[tuple[str, type[Server]]]:
    kind = type("Kind", (Server,), {"answers": {}, "asked": []})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", kind
        server.shutdown()
        thread.join()


Web = tuple[str, type[Server]]


def test_a_resource_from_the_web_is_fetched_once(lab: Lab, web: Web) -> None:
    url, server = web
    server.answers["/a/data.txt?x=1"] = [(200, b"eight", None)]
    more = f"resources: {{data: '{url}/a/data.txt?x=1'}}"
    outcome = lab.run(READ, more=more).fine()
    assert lab.records() == [f"{outcome.folder.resources}/data/data.txt: eight"]
    lab.run(READ, more=more, resume=True).fine()
    assert server.asked == ["/a/data.txt?x=1"]


def test_an_answer_that_is_cut_off_is_asked_for_again(lab: Lab, web: Web) -> None:
    url, server = web
    server.answers["/d"] = [(200, b"ni", 4), (503, b"busy", None), (200, b"nine", None)]
    lab.run(READ, more=f"resources: {{data: {url}/d}}").fine()
    assert lab.records()[0].endswith("/d: nine")
    assert len(server.asked) == 3


def test_one_that_is_always_cut_off_is_an_error(lab: Lab, web: Web) -> None:
    url, server = web
    server.answers["/d"] = [(200, b"ni", 4)]
    error = lab.run(READ, more=f"resources: {{data: {url}/d}}").raised()
    assert isinstance(error, ResourceError)
    assert error.exit_code == 1
    assert f"{url}/d" in str(error)
    assert len(server.asked) == 3
    assert lab.records() == []


def test_what_is_not_there_is_not_asked_for_again(lab: Lab, web: Web) -> None:
    url, server = web
    error = lab.run(READ, more=f"resources: {{data: {url}/missing}}").raised()
    assert isinstance(error, ResourceError)
    assert "resource 'data': 404" in str(error)
    assert server.asked == ["/missing"]


def test_a_server_that_is_not_there_is_an_error(lab: Lab) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), Server) as server:
        port = server.server_address[1]
    error = lab.run(READ, more=f"resources: {{data: 'http://127.0.0.1:{port}/x'}}").raised()
    assert isinstance(error, ResourceError)
    assert "cannot fetch" in str(error)


def test_resources_from_s3(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto.server")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    try:
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="data.txt", Body=b"ten")
        client.put_object(Bucket="bucket", Key="data.txt.other", Body=b"wrong")
        client.put_object(Bucket="bucket", Key="folder/deep/x.txt", Body=b"eleven")
        client.put_object(Bucket="bucket", Key="folder2/x.txt", Body=b"wrong")
        outcome = lab.run(
            """
            one: !pieces.Reader {path: !@ data, record: RECORD}
            two: !pieces.Walk {steps: 1, extra: !@ folder}
            """,
            more="resources: {data: 's3://bucket/data.txt', folder: 's3://bucket/folder'}",
        ).fine()
        assert lab.records()[0].endswith("data.txt: ten")
        place = outcome.folder.resources / "folder" / "folder"
        assert [str(p.relative_to(place)) for p in place.rglob("*.txt")] == ["deep/x.txt"]
        error = lab.run(READ, more="resources: {data: 's3://bucket/none'}", force=True).raised()
        assert isinstance(error, ResourceError)
        assert "nothing at s3://bucket/none" in str(error)
        error = lab.run(READ, more="resources: {data: 's3://no-bucket/x'}", force=True).raised()
        assert "s3://no-bucket/x" in str(error)
    finally:
        server.stop()


def test_a_cluster_resource_is_an_error_here(lab: Lab) -> None:
    error = lab.run(READ, more="resources: {data: !cluster /mnt/data}").raised()
    assert isinstance(error, ConfigError)
    assert "resource 'data' is on a cluster (!cluster /mnt/data)" in str(error)
    assert not lab.folder.root.exists()


# -- devices, debug, users ----------------------------------------------------------------------


def test_debug_stops_before_each_step(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, str, int]] = []

    class Stop(Debugger):
        def user_line(self, frame: FrameType) -> None:
            component = frame.f_locals["self"]
            seen.append((frame.f_code.co_name, type(component).__name__, component.done))
            self.set_continue()

    def executor(root: Path) -> InlineExecutor:
        return InlineExecutor(root, debugger=Stop())

    lab.run("talk: !pieces.Talker {steps: 2}", executor=executor, debug=True).fine()
    assert seen == [("run", "Talker", 0), ("run", "Talker", 1)]
    # A debugger needs the terminal: what is printed is not taken.
    assert "printed by a1" in capsys.readouterr().out


def test_the_user_is_who_the_provider_says(lab: Lab) -> None:
    experiment = Experiment(
        "trial",
        {"a": Schema("pieces:Fixed", "pieces.Fixed", [], {"value": Grid((1.0, 2.0))})},
        save_path=str(lab.root / "out"),
        user_provider=lambda: "somebody",
    )
    experiment.run(executor=InlineExecutor)
    state = lab.folder.read_state()
    assert state is not None
    assert state.hosts[state.host]["user"] == "somebody"
    assert "user_provider" in lab.folder.config.read_text()


def test_an_experiment_made_in_python(lab: Lab) -> None:
    import pieces

    experiment = Experiment(
        "trial",
        {
            "train": pieces.Walk.schema(steps=2, rate=Grid((1.0, 2.0))),
            "read": pieces.Fixed.schema(value=Link("train", (), ("value",))),
        },
        save_path=str(lab.root / "out"),
        reduce={"train": 1},
    )
    watcher = Watcher()
    experiment.run(executor=InlineExecutor, observer=watcher)
    assert watcher.run is not None
    assert watcher.run.stage("read").counts == {"finished": 1, "masked": 1}


# -- seeds --------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_results(lab: Lab) -> None:
    pipeline = "train: !pieces.Walk {steps: 3, rate: !s [0.1, 1.0, 3]}"
    first = lab.run(pipeline, seed=1).fine().metrics("train")
    assert lab.run(pipeline, seed=1, force=True).fine().metrics("train") == first
    other = lab.run(pipeline, seed=2, force=True).fine().metrics("train")
    assert not set(first) & set(other)


@pytest.mark.torch
def test_each_stage_is_built_from_its_own_numbers(lab: Lab) -> None:
    """Whatever was built before it, and in whatever process."""
    lab.run(
        """
        one: !pieces.Drawn {record: RECORD}
        two: !pieces.Drawn {record: RECORD}
        three: !pieces.Drawn {other: !@ two, record: RECORD}
        """
    ).fine()
    drawn = lab.records()
    assert len(drawn) == 4  # the second one again, for the third
    assert drawn[1] == drawn[2]
    assert len(set(drawn)) == 3
    lab.record.unlink()
    lab.run("two: !pieces.Drawn {record: RECORD}", force=True).fine()
    assert lab.records() == [drawn[1]]


def test_a_missing_checkpoint_of_an_ancestor_is_named(lab: Lab) -> None:
    class Careless(InlineExecutor):
        def run_stage(self, task: Any, variants: Any, options: Any, listener: Any) -> None:
            if task.stage == "two":
                for folder in (self.root / "one").iterdir():
                    shutil.rmtree(folder / "checkpoint")
            super().run_stage(task, variants, options, listener)

    outcome = lab.run(STAGES, executor=Careless, more="max_failures: 0")
    assert "the checkpoint of stage 'one' is missing" in str(outcome.raised())
    assert not isinstance(outcome.raised(), StateError)

"""The same over Ray Tune: trials, actors, live lines, retries, schedulers and searches.

What needs Ray is tested here, so that Ray is started once: the rest of test_endings, test_isolation
and test_engines_ranked needs none.
"""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from flambe.errors import ConfigError, RunError
from flambe.progress import Status
from tests.experiment import test_endings, test_engines_ranked, test_isolation
from tests.experiment.lab import Lab, Outcome, environment, flambe

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ray")]


def events(outcome: Outcome, name: str) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = outcome.folder.root.glob(f"*/{name}/tensorboard")
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


PIPELINE = """
train: !pieces.Walk {steps: 3, rate: !g [1.0, 2.0], extra: !s [0.1, 0.9, 2]}
next: !pieces.Walk {steps: 2, start: !@ train, rate: !g [1.0, 5.0]}
read: !pieces.Fixed {value: !@ next.value, other: !@ train}
"""


def test_the_same_inline_and_by_tune(lab: Lab, tuned: Any) -> None:
    more = "reduce: {train: 2, next: 3}"
    outcome = tuned(PIPELINE, more=more, seed=4).fine()
    lab.name = "inline"
    inline = lab.run(PIPELINE, more=more, seed=4).fine()
    for stage in ("train", "next", "read"):
        by_id = {variant.id: variant for variant in inline.of(stage)}
        assert [v.id for v in outcome.of(stage)] == list(by_id)
        for variant in outcome.of(stage):
            same = by_id[variant.id]
            assert (variant.status, variant.metric, variant.best, variant.step, variant.kept) == (
                same.status,
                same.metric,
                same.best,
                same.step,
                same.kept,
            )
            assert outcome.figures(variant, "metric") == inline.figures(same, "metric")
    assert outcome.state.stage("read").counts == {"finished": 3, "masked": 5}
    _check_layout(lab, outcome)


def _check_layout(lab: Lab, outcome: Outcome) -> None:
    """Everything is where the specification says, and nothing else."""
    assert sorted({*os.listdir(outcome.folder.root)} - {"hosts.jsonl"}) == [
        "experiment.yaml",
        "invocations.jsonl",
        "lineage.json",
        "next",
        "read",
        "run.log",
        "state.json",
        "state.previous.json",
        "train",
        "variants.jsonl",
    ]
    for stage in ("train", "next", "read"):
        started = sorted(v.name for v in outcome.of(stage) if v.attempts)
        assert sorted(os.listdir(outcome.folder.root / stage)) == started
        for name in started:
            folder = outcome.folder.variant(stage, name)
            assert sorted(os.listdir(folder)) == [
                "checkpoint",
                "config.yaml",
                "metrics.jsonl",
                "tensorboard",
            ]
            assert sorted(os.listdir(folder / "checkpoint")) == [
                "checkpoint.flambe",
                "manifest.json",
                "random.flambe",
            ]
    assert not [p for p in outcome.folder.root.rglob("*") if p.suffix == ".pkl"]


SAID = (
    ("stdout", "printed by"),
    ("stderr", "grumbled by"),
    ("INFO", "pieces: logged by"),
    ("WARNING", "pieces: warned by"),
    ("stdout", "spawned by"),
    ("stderr", "whispered by"),
)


@pytest.mark.parametrize("reuse", [True, pytest.param(False, marks=pytest.mark.long)])
def test_what_components_say_reaches_everyone(tuned: Any, reuse: bool) -> None:
    """Every line, under the right variant, while processes go from one variant to the next."""
    names = ["ann", "bob", "cid", "dot", "eve"] if reuse else ["ann", "bob"]
    outcome = tuned(
        f"talk: !pieces.Talker {{name: !g [{', '.join(names)}]}}",
        more=f"reuse_actors: {str(reuse).lower()}",
    ).fine()
    run_log = outcome.folder.log.read_text()
    assert [v.choices["name"] for v in outcome.of("talk")] == names
    for variant in outcome.of("talk"):
        name = variant.choices["name"]
        own = (outcome.folder.variant("talk", variant.name) / "variant.log").read_text()
        for level, text in SAID:
            for step in (1, 2):
                line = f"{text} {name}{step}"
                assert re.search(rf" {level} +{line}\n", own)
                assert re.search(rf" {level} +talk name={name} \| {line}\n", run_log)
                assert (variant.name, level, line) in outcome.watcher.lines
        assert len(own.splitlines()) == 2 * len(SAID)


def test_figures_reach_the_metrics_and_tensorboard(tuned: Any) -> None:
    outcome = tuned("talk: !pieces.Talker {name: ann, steps: 3}").fine()
    (variant,) = outcome.of("talk")
    assert outcome.figures(variant, "figure") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert outcome.figures(variant, "many/two") == [(1, 2.5), (2, 2.5), (3, 2.5)]
    found = events(outcome, variant.name)
    for tag in ("figure", "metric"):
        assert [(e.step, e.value) for e in found.Scalars(tag)] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert {"many/one", "many/two"} <= set(found.Tags()["scalars"])
    (words, *_) = found.Tensors("words/text_summary")
    assert b"text of ann1" in words.tensor_proto.string_val[0]


def test_a_failing_variant_is_tried_again_from_its_checkpoint(lab: Lab, tuned: Any) -> None:
    outcome = tuned(
        "train: !pieces.Failing {at: 3, times: 1, record: RECORD, rate: !g [1.0, 2.0], only: 2.0}"
    ).fine()
    assert outcome.metrics("train") == [4.0, 8.0]
    assert [v.attempts for v in outcome.of("train")] == [1, 2]
    second = [line for line in lab.records() if line.split()[1] == "2"]
    assert second == [
        *("built 2", "step 2 1", "step 2 2", "fail 2"),
        *("built 2", "step 2 3", "step 2 4"),
    ]
    assert [v.error for v in outcome.of("train")] == ["", ""]
    assert any("is tried again" in note for note in outcome.watcher.notes)


def test_one_that_fails_for_good_says_where_and_why(lab: Lab, tuned: Any) -> None:
    outcome = tuned(
        "train: !pieces.Failing {at: 2, record: RECORD, rate: !g [1.0, 2.0], only: 2.0}"
    )
    error = outcome.raised()
    assert isinstance(error, RunError)
    assert "1 of 2 variants of stage 'train' failed" in str(error)
    failed = outcome.of("train")[1]
    assert (failed.status, failed.attempts) == (Status.FAILED, 2)
    assert re.match(
        rf"{re.escape(str(lab.config))}:\d+:\d+: running !pieces.Failing: ValueError: no luck",
        failed.error,
    )
    assert "pieces/__init__.py" in failed.traceback
    assert failed.host
    log = (outcome.folder.variant("train", failed.name) / "variant.log").read_text()
    assert "no luck at step 2" in log
    assert [line for line in lab.records() if line.startswith("fail")] == ["fail 2"] * 2


def test_one_that_cannot_be_built_fails_the_same_way(lab: Lab, tuned: Any) -> None:
    outcome = tuned(
        """
        train: !pieces.Failing {at: 0, record: RECORD, rate: !g [1.0, 2.0], only: 2.0, steps: 1}
        """,
        more="max_failures: 0\nstop_on_failure: false",
    )
    assert str(outcome.raised()).startswith("1 of 2 variants failed")
    assert outcome.statuses("train") == [Status.FINISHED, Status.FAILED]
    assert "building !pieces.Failing: ValueError" in outcome.of("train")[1].error


def test_a_process_that_is_killed_is_replaced(lab: Lab, tuned: Any) -> None:
    outcome = tuned(
        """
        train: !pieces.Failing
          {at: 3, times: 1, record: RECORD, rate: !g [1.0, 2.0], only: 2.0, how: kill}
        """
    ).fine()
    assert outcome.metrics("train") == [4.0, 8.0]
    second = [line for line in lab.records() if line.split()[1] == "2"]
    assert second[:4] == ["built 2", "step 2 1", "step 2 2", "fail 2"]
    assert second[4] == "built 2"
    # At most one step is lost.
    assert second[-2:] == ["step 2 3", "step 2 4"]
    assert second[5:-2] in ([], ["step 2 2"])


def test_fractions_of_devices(tuned: Any) -> None:
    outcome = tuned(
        "train: !pieces.Walk {steps: 1, rate: !g [1.0, 2.0, 3.0]}", more="devices: {cpu: 0.5}"
    ).fine()
    assert outcome.statuses("train") == [Status.FINISHED] * 3


@pytest.mark.parametrize(
    ("devices", "message", "hint"),
    [
        ("cpu: 4000", "a variant needs 4000 cpu, and the largest host has", "ask for at most"),
        ("gpu: 64", "a variant needs 64 gpu, and (the largest host has|this machine has none)", ""),
        ("npu: 1", "a variant needs 1 npu, and no host has that", "did you mean '[cg]pu'"),
    ],
)
def test_devices_that_no_host_has_are_an_error(
    tuned: Any, devices: str, message: str, hint: str
) -> None:
    outcome = tuned("train: !pieces.Walk {steps: 1}", more=f"devices: {{{devices}}}")
    error = outcome.raised()
    assert isinstance(error, ConfigError)
    assert re.search(message, str(error))
    assert re.search(hint, str(error))
    assert outcome.state.status is Status.FAILED


def test_a_scheduler_stops_variants(tuned: Any) -> None:
    outcome = tuned(
        """
        train: !pieces.Curve {height: !g [4.0, 3.0, 2.0, 1.0], steps: 8}
        read: !pieces.Walk {steps: 1, start: !@ train.done}
        """,
        more="""
        schedulers:
          train: !ray.AsyncHyperBandScheduler {grace_period: 1, reduction_factor: 2, max_t: 100}
        devices: {cpu: 2}
        """,
    ).fine()
    statuses = outcome.statuses("train")
    assert statuses[0] is Status.FINISHED
    assert Status.STOPPED in statuses
    assert set(statuses) == {Status.FINISHED, Status.STOPPED}
    for variant, status in zip(outcome.of("train"), statuses, strict=True):
        assert (variant.step < 8) is (status is Status.STOPPED)
        # Its results count, as far as they go.
        assert outcome.folder.checkpoint("train", variant.name).is_dir()
        (reader,) = [v for v in outcome.of("read") if v.parents["train"] == variant.id]
        assert reader.status is Status.FINISHED


def test_a_search_with_a_searcher(tuned: Any) -> None:
    pytest.importorskip("optuna")
    outcome = tuned(
        """
        train: !pieces.Curve
          height: !tune.loguniform [0.001, 10.0]
          bonus: !g [0.0, 100.0]
          steps: 1
        read: !pieces.Fixed {value: !@ train.height}
        """,
        more="""
        search:
          train:
            searcher: !ray.OptunaSearch {seed: 1}
            num_samples: 5
            max_concurrent_trials: 2
        reduce: {train: 2}
        """,
    ).fine()
    tried = outcome.of("train")
    assert len(tried) == len({v.id for v in tried}) == 5
    for variant in tried:
        assert variant.status is Status.FINISHED
        assert 0.001 <= variant.choices["height"] <= 10.0
        assert variant.choices["bonus"] in (0.0, 100.0)
        assert variant.metric == pytest.approx(variant.choices["height"] + variant.choices["bonus"])
        assert variant.name.startswith(
            f"bonus={variant.choices['bonus']:g},height={variant.choices['height']:.6g}"
        ) or variant.name.startswith(
            f"height={variant.choices['height']:.6g},bonus={variant.choices['bonus']:g}"
        )
    stage = outcome.state.stage("train")
    assert (stage.total, stage.counts) == (5, {"finished": 5})
    ranked = sorted(tried, key=lambda v: -(v.metric or 0))
    assert {v.id for v in tried if v.kept} == {v.id for v in ranked[:2]}
    read = [v for v in outcome.of("read") if v.status is Status.FINISHED]
    assert {v.metric for v in read} == {v.choices["height"] for v in ranked[:2]}
    # Nothing is tried twice when it is resumed.
    again = tuned(resume=True).fine()
    assert {v.id for v in again.of("train")} == {v.id for v in tried}
    assert set(again.statuses("train")) == {Status.REUSED}


def test_a_search_that_is_resumed_knows_what_it_tried(lab: Lab, tuned: Any) -> None:
    pytest.importorskip("optuna")
    pipeline = """
    train: !pieces.Curve {height: !tune.uniform [0.0, 1.0], bonus: !g [0.0, 5.0], steps: 1}
    """
    more = """
    search:
      train:
        searcher: !pieces.searchers.Recording {{record: RECORD, seed: 1}}
        num_samples: {}
        max_concurrent_trials: 1
    """
    first = tuned(pipeline, more=more.format(3)).fine()
    assert lab.records() == [f"suggests, knowing {n}" for n in range(3)]
    tried = {v.id: v.metric for v in first.of("train")}
    again = tuned(pipeline, more=more.format(5), resume=True).fine()
    # Its seed makes it suggest the same again, which a copy of it shows: that is answered, not run.
    assert lab.records()[3:5] == ["suggests, knowing 0", "suggests, knowing 1"]
    assert lab.records()[5:] == [f"suggests, knowing {n}" for n in range(5)]
    assert len(again.of("train")) == 5
    assert {v.id for v in again.of("train") if v.status is Status.REUSED} == set(tried)


def test_what_is_stopped_settles_before_others_build_on_it(tuned: Any) -> None:
    """It is given the state of its last step, and brings its best forward."""
    outcome = tuned(
        """
        train: !pieces.Settling {height: !g [4.0, 1.0], steps: 6}
        read: !pieces.Fixed {value: !@ train.settled}
        """,
        more="""
        schedulers: {train: !ray.AsyncHyperBandScheduler {reduction_factor: 2, max_t: 100}}
        devices: {cpu: 2}
        """,
    ).fine()
    assert outcome.statuses("train") == [Status.FINISHED, Status.STOPPED]
    assert outcome.metrics("read") == [0.0, 1.0]


def test_random_draws_without_a_searcher(lab: Lab, tuned: Any) -> None:
    pipeline = """
    train: !pieces.Curve
      height: !tune.uniform [1.0, 2.0]
      bonus: !tune.choice [[10, 20, 30]]
      steps: !g [1, 2]
    read: !pieces.Fixed {value: !@ train.height}
    """
    more = "search: {train: {num_samples: 3}}"
    outcome = tuned(pipeline, more=more, seed=1).fine()
    assert len(outcome.of("train")) == len(outcome.of("read")) == 6
    for variant in outcome.of("train"):
        height, bonus, steps = (variant.choices[k] for k in ("height", "bonus", "steps"))
        assert 1.0 <= height <= 2.0
        assert bonus in (10, 20, 30)
        assert variant.metric == pytest.approx((height + bonus) * steps)
    lab.name = "again"
    inline = lab.run(pipeline, more=more, seed=1).fine()
    assert [v.id for v in inline.of("train")] == [v.id for v in outcome.of("train")]
    assert inline.metrics("train") == outcome.metrics("train")


@pytest.mark.long
def test_a_search_that_repeats_itself(lab: Lab, tuned: Any) -> None:
    """Each trial is a variant of its own, and begins with other random numbers."""
    lab.write(
        "a: !pieces.Drawn {other: !tune.choice [[1, 2]]}",
        more="search: {a: {searcher: !ray.BasicVariantGenerator {random_state: 1}, "
        "num_samples: 6}}",
    )
    variants = tuned().fine().variants
    assert len(variants) == len({v.name for v in variants}) == 6
    assert {v.status for v in variants} == {Status.FINISHED}
    for value in (1, 2):
        same = [v for v in variants if v.values == {"a[other]": value}]
        assert sorted(v.repetition for v in same) == list(range(len(same)))
        assert len({v.metric for v in same}) == len(same)
    before = {v.id: v.metric for v in variants}
    kept = tuned(resume=True).fine().variants
    assert {v.id: v.metric for v in kept} == before
    assert {v.status for v in kept} == {Status.REUSED}


def test_a_retry_after_resuming_goes_on_from_the_resumed_checkpoint(lab: Lab, tuned: Any) -> None:
    pipeline = "train: !pieces.Failing {at: 3, times: 3, record: RECORD, steps: 4}"
    tuned(pipeline, more="max_failures: 0").raised()
    outcome = tuned(pipeline, more="max_failures: 2", resume=True).fine()
    assert outcome.metrics("train") == [4.0]
    steps = [line for line in lab.records() if line.startswith("step")]
    assert steps == ["step 1 1", "step 1 2", "step 1 3", "step 1 4"]


def test_a_stage_that_builds_on_many_files_of_the_driver(
    lab: Lab, tuned: Any, tmp_path: Path
) -> None:
    """Paths are those of the driver, whatever folder a trial works in."""
    (lab.root / "data.txt").write_text("here")
    tuned(
        "read: !pieces.Reader {path: !@ data, record: RECORD}",
        more="resources: {data: ./data.txt}",
    ).fine()
    assert lab.records() == [f"{tmp_path}/data.txt: here"]


def test_whatever_ends_a_variant_by_tune(tuned: Any) -> None:
    endings = {**test_endings.HERE, **test_endings.DEATHS}
    pipeline = f"""
    end: !pieces.Ending {{how: !g [{", ".join(endings)}]}}
    """
    outcome = tuned(pipeline, more=test_endings.MORE)
    for how, text in endings.items():
        test_endings.check(outcome, how, text)


def test_variants_of_one_worker_find_the_same_process(lab: Lab, tuned: Any) -> None:
    """Or a process of their own, where one left what cannot be taken back."""
    outcome = tuned(
        "a: !pieces.Leaky {number: !g [1, 2, 3, 4, 5], record: RECORD, thread_of: 3}",
        more=f"devices: {{cpu: {os.cpu_count()}}}",
    ).fine()
    assert outcome.statuses("a") == [Status.FINISHED] * 5
    assert outcome.metrics("a") == [1.0, 2.0, 3.0, 4.0, 5.0]
    records = test_isolation.found(lab)
    assert test_isolation.differences(records) == []
    pids = [one["pid"] for one in records]
    assert pids[0] == pids[1] == pids[2] != pids[3] == pids[4]
    told = [text for _, _, text in outcome.watcher.lines if "is not reused for another" in text]
    assert len(told) == 1
    assert "it left the thread 'forgotten'" in told[0]
    assert random.random() != 0  # ray leaves this process as it was
    assert Path.cwd().exists()


@pytest.mark.long
def test_schedulers_of_a_run_rank_what_has_no_figure_last(tuned: Any) -> None:
    outcome = tuned(
        f"asha: !pieces.Measured {{figures: {test_engines_ranked.FIGURES}}}\n"
        f"bands: !pieces.Measured {{figures: !g [{test_engines_ranked.BANDS}]}}\n"
        f"median: !pieces.Measured {{figures: {test_engines_ranked.FIGURES}}}\n",
        more="""
        devices: {cpu: 2}
        schedulers:
          asha: !ray.ASHAScheduler {max_t: 100, grace_period: 2, reduction_factor: 2}
          bands: !ray.HyperBandScheduler {max_t: 4, reduction_factor: 2, time_attr: steps}
          median: !ray.MedianStoppingRule
            {time_attr: steps, grace_period: 1, min_samples_required: 1, mode: max}
        """,
    ).fine()
    steps = {stage: [v.step for v in outcome.of(stage)] for stage in ("asha", "bands", "median")}
    assert steps["asha"] == [4, 2, 2, 2]
    assert steps["median"] == [4, 1, 1, 1]
    assert steps["bands"][:3] == [4, 4, 4]
    assert sorted(steps["bands"][3:5]) == [2, 4]  # of the two, one may stay
    assert steps["bands"][5] == 4
    for stage in ("asha", "median"):
        good, bad, undefined, none = outcome.of(stage)
        assert good.status in (Status.FINISHED, Status.STOPPED)
        assert (good.best, none.best, undefined.best) == (4.0, None, None)
        assert repr(undefined.metric) == "nan"
        assert bad.best is not None


@pytest.mark.long
def test_a_point_without_a_figure_is_one_that_failed_and_not_the_run(lab: Lab, tuned: Any) -> None:
    pytest.importorskip("optuna")

    def run(samples: int, **options: Any) -> Any:
        return tuned(
            "walk: !pieces.Sometimes {x: !tune.uniform [0.0, 1.0]}",
            more=f"""
            search:
              walk:
                searcher: !pieces.searchers.States {{record: RECORD, metric: metric, mode: max}}
                num_samples: {samples}
                max_concurrent_trials: 1
            schedulers: {{walk: !ray.ASHAScheduler {{max_t: 100}}}}
            """,
            **options,
        ).fine()

    outcome = run(6)
    tried = outcome.of("walk")
    assert {variant.status for variant in tried} == {Status.FINISHED}
    states = [
        f"COMPLETE {v.choices['x']:.6f} {v.metric}"
        if v.choices["x"] > 0.6
        else f"FAIL {v.choices['x']:.6f} None"
        for v in tried
    ]
    assert lab.records() == states
    kinds = {variant.metric is None for variant in tried if variant.choices["x"] <= 0.6}
    assert kinds == {True, False}  # both missing ones and NaN
    said = [note for note in outcome.watcher.notes if "counts the point as failed" in note]
    assert len(said) == 1
    again = run(7, resume=True)
    assert [v.status for v in again.of("walk")].count(Status.REUSED) == 6
    assert len(again.of("walk")) == 7


def test_another_ray_is_not_joined_whatever_its_address_says(lab: Lab, tmp_path: Path) -> None:
    """The address of one that is gone made a run hang for minutes."""
    lab.write("a: !pieces.Walk {steps: 1}")
    done = flambe(lab.config, env=environment(RAY_ADDRESS="127.0.0.1:1"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("RAY_ADDRESS is not used") == 1

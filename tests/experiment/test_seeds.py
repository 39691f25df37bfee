"""Several seeds: which variants there are, what ``reduce`` keeps, and what is run again."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from flambe.compile.checks.calls import check
from flambe.compile.reader.document import read_text
from flambe.errors import ConfigError
from flambe.experiment.counting import count_variants
from flambe.experiment.planning.decisions import Action, Decider
from flambe.experiment.planning.earlier import read_folder
from flambe.experiment.planning.plan import plan_stages
from flambe.experiment.spec import ExperimentSpec
from flambe.experiment.variants.expansion import Expander, Variant
from flambe.progress import Status, VariantState, group_seeds, ranked_groups
from tests.experiment.lab import Lab

PIPELINE = """
walk: !pieces.Walk
  steps: 2
  rate: !g [1.0, 2.0, 3.0]
  record: RECORD
next: !pieces.Walk
  steps: 1
  start: !@ walk
  extra: !g [a, b]
  record: RECORD
"""


def identities(lab: Lab, **options: object) -> dict[str, list[str]]:
    spec = lab.experiment().spec()
    expander = Expander(spec.pipeline, spec.seed, spec.resources, seeds=spec.seeds)
    variants: dict[str, list[Variant]] = {}
    for stage in spec.pipeline:
        variants[stage] = expander.expand(stage, variants)
    return {stage: [variant.id for variant in own] for stage, own in variants.items()}


def test_each_variant_is_run_under_each_seed(lab: Lab) -> None:
    outcome = lab.run(PIPELINE, more="seeds: 3").fine()
    walks, later = outcome.of("walk"), outcome.of("next")
    assert [(v.choices["rate"], v.choices["seed"], v.seed) for v in walks] == [
        (rate, seed, seed) for rate in (1.0, 2.0, 3.0) for seed in (0, 1, 2)
    ]
    assert len({v.metric for v in walks}) == 9
    assert len(later) == 18
    by_id = {v.id: v for v in walks}
    for variant in later:  # it builds upon the same seed
        assert by_id[variant.parents["walk"]].seed == variant.seed
        assert by_id[variant.parents["walk"]].choices["rate"] == variant.choices["rate"]
    assert len(group_seeds(walks)) == 3
    assert len(group_seeds(later)) == 6
    assert outcome.state.seeds == [0, 1, 2]
    assert [stage.total for stage in outcome.state.stages] == [9, 18]


def test_a_seed_among_several_has_the_figures_and_the_identity_of_that_seed_alone(lab: Lab) -> None:
    several = lab.run(PIPELINE, more="seeds: [7, 3]").fine()
    lab.name = "alone"
    for seed in (7, 3):
        alone = lab.run(PIPELINE, seed=seed, force=True).fine()
        for stage in ("walk", "next"):
            own = [variant for variant in several.of(stage) if variant.seed == seed]
            assert [v.id for v in own] == [v.id for v in alone.of(stage)]
            assert [v.metric for v in own] == [v.metric for v in alone.of(stage)]


def test_one_seed_alone_keeps_identities_and_files(lab: Lab) -> None:
    lab.write(PIPELINE)
    plain = identities(lab)
    lab.write(PIPELINE, more="seeds: [0]")
    assert identities(lab) == plain
    outcome = lab.run(PIPELINE).fine()
    for line in outcome.folder.variants.read_text().splitlines():
        assert '"group": "' not in line or '"group": ""' in line
    assert {v.seed for v in outcome.variants} == {None}
    assert all("seed" not in v.choices for v in outcome.variants)


def test_reduce_keeps_the_best_configurations_under_all_seeds(lab: Lab) -> None:
    outcome = lab.run(PIPELINE, more="seeds: 4\nreduce: {walk: 1}").fine()
    walks = outcome.of("walk")
    means: dict[object, float] = {}
    for rate in (1.0, 2.0, 3.0):
        figures = [v.metric for v in walks if v.choices["rate"] == rate and v.metric is not None]
        means[rate] = statistics.fmean(figures)
    best = max(means, key=lambda rate: means[rate])
    kept = [v for v in walks if v.kept]
    assert [(v.choices["rate"], v.seed) for v in kept] == [(best, seed) for seed in range(4)]
    done = [v for v in outcome.of("next") if v.status.done]
    assert len(done) == 8
    assert {v.choices["rate"] for v in done} == {best}
    masked = [v for v in outcome.of("next") if v.status is Status.MASKED]
    assert len(masked) == 16
    counts = count_variants(lab.experiment().spec())
    assert (counts["next"].count, counts["next"].running) == (24, 8)


def test_a_seed_that_is_added_runs_only_what_is_new(lab: Lab) -> None:
    lab.run(PIPELINE).fine()
    lab.record.unlink()
    outcome = lab.run(PIPELINE, more="seeds: 2", resume=True).fine()
    assert (
        sum(line.startswith("built") for line in lab.records())
        == len([v for v in outcome.variants if v.status is Status.FINISHED]) + 6
    )  # each variant of the second stage builds its ancestor again
    by_seed = {seed: {v.status for v in outcome.variants if v.seed == seed} for seed in (0, 1)}
    assert by_seed == {0: {Status.REUSED}, 1: {Status.FINISHED}}
    again = lab.run(PIPELINE, more="seeds: [1, 0]", resume=True).fine()
    assert {v.status for v in again.variants} == {Status.REUSED}


def test_what_is_drawn_is_the_same_under_each_seed(lab: Lab) -> None:
    pipeline = """
walk: !pieces.Walk
  steps: 1
  rate: !s [0.5, 2.0, 2]
  extra: !tune.uniform [0, 1]
"""
    outcome = lab.run(pipeline, more="seeds: 3\nsearch: {walk: {num_samples: 2}}").fine()
    groups = group_seeds(outcome.of("walk"))
    assert len(outcome.of("walk")) == 12
    assert [len(group.variants) for group in groups] == [3, 3, 3, 3]
    for group in groups:
        assert len({(v.choices["rate"], v.choices["extra"]) for v in group.variants}) == 1
    lab.name = "alone"
    alone = {
        v.id for v in lab.run(pipeline, more="search: {walk: {num_samples: 2}}").fine().variants
    }
    assert alone == {v.id for v in outcome.variants if v.seed == 0}


def test_a_hyper_parameter_that_is_called_seed_keeps_its_name(lab: Lab) -> None:
    pipeline = """
data: !pieces.Walk {steps: 1, extra: {seed: !g [5, 6]}}
walk: !pieces.Walk {steps: 1, start: !@ data}
"""
    outcome = lab.run(pipeline, more="seeds: 2").fine()
    choices = [(v.choices["seed"], v.choices["run_seed"]) for v in outcome.of("walk")]
    assert choices == [(5, 0), (5, 1), (6, 0), (6, 1)]


def test_several_stages_that_share_an_ancestor_agree_on_the_seed(lab: Lab) -> None:
    pipeline = """
a: !pieces.Walk {steps: 1, rate: !g [1.0, 2.0]}
b: !pieces.Walk {steps: 1, start: !@ a}
c: !pieces.Walk {steps: 1}
d: !pieces.Walk {steps: 1, start: !@ b, extra: [!@ a, !@ c]}
"""
    outcome = lab.run(pipeline, more="seeds: 2").fine()
    assert [len(outcome.of(stage)) for stage in "abcd"] == [4, 4, 2, 4]
    by_id = {v.id: v for v in outcome.variants}
    for variant in outcome.of("d"):
        assert {by_id[parent].seed for parent in variant.parents.values()} == {variant.seed}
        assert by_id[variant.parents["b"]].parents["a"] == variant.parents["a"]
    assert [count_variants(lab.experiment().spec())[stage].count for stage in "abcd"] == [
        4,
        4,
        2,
        4,
    ]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ("seeds: 0", "there cannot be 0 seeds"),
        ("seeds: []", "there cannot be 0 seeds"),
        ("seeds: [1, 2, 1]", "the seed 1 is listed twice"),
        ("seeds: many", "'seeds' of !Experiment cannot be 'many'"),
        ("seeds: [a]", "'seeds[0]' of !Experiment cannot be 'a'"),
        ("seeds: 2\nsearch: {walk: !ray.OptunaSearch {}}", "seeds: stage 'walk' has a searcher"),
        ("seeds: 4000", "there cannot be 4000 seeds"),
        (
            "max_variants: 8\nseeds: 3",
            "stage 'walk' has 3 × 3 = 9 variants, more than max_variants (8)",
        ),
    ],
)
def test_mistakes(lab: Lab, keywords: str, message: str) -> None:
    pipeline = PIPELINE.replace("record: RECORD", "label: !tune.choice [a, b]", 1)
    lab.write(PIPELINE if "search" not in keywords else pipeline, more=keywords)
    with pytest.raises(ConfigError) as caught:
        lab.experiment()
    assert message in str(caught.value)


def figures(*groups: list[float | None]) -> list[VariantState]:
    return [
        VariantState(f"{group}-{seed}", "walk", "", metric=metric, seed=seed, group=str(group))
        for group, metrics in enumerate(groups)
        for seed, metric in enumerate(metrics)
    ]


def test_means_and_their_order() -> None:
    nan = float("nan")
    groups = group_seeds(figures([1, 2, 3], [9, None, nan], [4, 4, 4], [None, None, None]))
    assert [group.text() for group in groups] == ["2 ± 1", "9", "4 ± 0", ""]
    assert [group.count_text() for group in groups] == ["3", "1 of 3", "3", "0 of 3"]
    assert [group.mean for group in ranked_groups(groups)] == [4, 2, 9, None]


@pytest.mark.torch
def test_the_counts_of_a_plan_are_those_of_the_run(tmp_path: Path) -> None:
    text = "!Experiment\nname: x\nseeds: [4, 8]\npipeline:\n  a: !torch.Linear\n"
    text += "    in_features: !g [1, 2]\n    out_features: !s [1, 9, 3]\n"
    document = read_text(text)
    check(document)
    spec = ExperimentSpec.from_keywords(document.root.kwargs)
    expanded = Expander(spec.pipeline, spec.seed, seeds=spec.seeds).expand("a", {})
    assert count_variants(spec)["a"].count == len(expanded) == 12


def test_a_plan_knows_what_the_mean_keeps(lab: Lab) -> None:
    more = "seeds: 2\nreduce: {walk: 1}"
    outcome = lab.run(PIPELINE, more=more).fine()
    spec = lab.experiment().spec()
    decided = Decider(spec, read_folder(spec)).decide()
    assert decided["walk"].count(Action.REUSE) == 6
    assert decided["next"].count(Action.REUSE) == 4
    assert decided["next"].count(Action.SKIP) == 8
    assert [stage.variants for stage in plan_stages(spec)] == ["6, 2 kept", "4"]
    assert plan_stages(spec)[1].product == "4 of 3 × 2 × 2 = 12"
    assert len([v for v in outcome.of("next") if v.status.done]) == 4

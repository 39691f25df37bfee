"""Search spaces over components, in lists and in options: what is drawn, and what counts of it."""

from __future__ import annotations

from typing import Any

import pytest

from flambe.compile.reader.document import read_file
from flambe.errors import ConfigError
from flambe.experiment.counting import count_variants
from flambe.experiment.spec import ExperimentSpec
from flambe.experiment.variants.dimensions import dimensions, joint_dimensions, put_values
from flambe.progress import Status
from tests.experiment.lab import Lab

OPTIMIZERS = """
train: !pieces.Fixed
  value: !tune.choice
    - !torch.Adam {params: null, lr: !tune.loguniform [1e-5, 1e-1]}
    - !torch.SGD {params: null, lr: !tune.loguniform [1e-3, 1], momentum: !tune.uniform [0, 0.99]}
"""
# What is chosen is built, and its parts are figures of their own.
CHOICES = """
train: !pieces.Chosen
  part: !tune.choice
    - !pieces.Part {kind: 1, size: !tune.randint [1, 4]}
    - !pieces.Part {kind: 2, size: !tune.randint [10, 13], more: [!tune.choice [5, 6], 7]}
"""


def config_of(lab: Lab, pipeline: str, stage: str = "train") -> Any:
    lab.write(pipeline)
    return read_file(lab.config).root.kwargs["pipeline"][stage]


def test_the_spaces_of_an_option_are_dimensions_of_their_own(lab: Lab) -> None:
    found = dimensions(config_of(lab, OPTIMIZERS), ("train",))
    assert list(found) == [
        "train[value]",
        "train[value][lr]~torch.Adam",
        "train[value][lr]~torch.SGD",
        "train[value][momentum]~torch.SGD",
    ]
    assert found["train[value]"].args == [["torch.Adam", "torch.SGD"]]


def test_values_of_options_that_are_not_chosen_do_not_count(lab: Lab) -> None:
    values = {
        "train[value]": "torch.Adam",
        "train[value][lr]~torch.Adam": 0.01,
        "train[value][lr]~torch.SGD": 0.5,
        "train[value][momentum]~torch.SGD": 0.9,
    }
    config: Any
    config, used = put_values(config_of(lab, OPTIMIZERS), ("train",), values)
    assert used == {"train[value]": "torch.Adam", "train[value][lr]~torch.Adam": 0.01}
    assert config.kwargs["value"].tag == "torch.Adam"
    assert config.kwargs["value"].kwargs == {"params": None, "lr": 0.01}


def test_elements_of_a_grid_have_dimensions_of_their_own_where_they_differ(lab: Lab) -> None:
    configs: list[Any] = [
        (config_of(lab, f"train: !pieces.Walk {{rate: !tune.uniform [0, {top}], steps: 1}}"), p)
        for top, p in ((1, ("train",)), (2, ("train",)), (2, ("train",)))
    ]
    joint = joint_dimensions(configs)
    assert len(joint) == 2
    for key, space in joint.items():
        assert key.startswith("train[rate]~")
        top = space.args[1]
        config: Any
        config, used = put_values(configs[top - 1][0], ("train",), dict.fromkeys(joint, 0.5))
        assert used == {key: 0.5}
        assert config.kwargs["rate"] == 0.5


def test_components_are_drawn_with_what_is_theirs(lab: Lab) -> None:
    outcome = lab.run(CHOICES, more="search: {train: {num_samples: 30}}").fine()
    found = outcome.of("train")
    # 3 sizes of the first kind, and 3 × 2 of the second: each once.
    assert len(found) == len({v.id for v in found}) == 9
    assert {v.metric for v in found} == {
        *(1000.0 + size for size in (1, 2, 3)),
        *(2000.0 + size + more for size in (10, 11, 12) for more in (500, 600)),
    }
    for variant in found:
        first = variant.metric is not None and variant.metric < 2000
        assert variant.choices["part"] == f"pieces.Part#{0 if first else 1}"
        assert ("0" in variant.choices or "more.0" in variant.choices) is (not first)
        assert variant.choices["size"] in ((1, 2, 3) if first else (10, 11, 12))
    assert {v.id for v in lab.run(resume=True).fine().of("train")} == {v.id for v in found}
    assert set(lab.run(resume=True).statuses("train")) == {Status.REUSED}


def test_they_are_counted_before_they_are_drawn(lab: Lab) -> None:
    lab.write(CHOICES, more="search: {train: {num_samples: 30}}")
    spec = ExperimentSpec.from_keywords(read_file(lab.config).root.kwargs)
    assert count_variants(spec)["train"].count == 9


def test_links_and_grids_in_grids(lab: Lab) -> None:
    pipeline = """
    one: !pieces.Fixed {value: 3.0}
    two: !pieces.Fixed {value: 4.0}
    train: !pieces.Fixed {value: !tune.choice [!@ one.value, !@ two.value, 5.0]}
    grid: !pieces.Fixed {value: !g [!g [1.0, 2.0], 3.0]}
    """
    outcome = lab.run(pipeline, more="search: {train: {num_samples: 9}}").fine()
    assert sorted(v.metric or 0 for v in outcome.of("train")) == [3.0, 4.0, 5.0]
    assert [v.metric for v in outcome.of("grid")] == [1.0, 2.0, 3.0]


def test_other_spaces_draw_plain_values(lab: Lab) -> None:
    lab.write("train: !pieces.Fixed {value: !tune.choice [!pieces.Fixed {value: !g [1, 2]}, 3]}")
    with pytest.raises(ConfigError, match="!tune.choice does not draw options"):
        lab.experiment()
    lab.write("train: !pieces.Walk {rate: !tune.uniform [!pieces.Fixed , 3]}")
    with pytest.raises(ConfigError, match="!tune.uniform"):
        lab.experiment()


@pytest.mark.integration
def test_a_searcher_searches_components_and_grids(lab: Lab, one_ray: None) -> None:
    pytest.importorskip("optuna")
    pipeline = """
    train: !pieces.Chosen
      part: !tune.choice
        - !pieces.Part {kind: 1, size: !tune.randint [1, 4]}
        - !pieces.Part {kind: 2, size: !tune.uniform [10.0, 20.0]}
      extra: !g [0, !pieces.Part {kind: 0, size: !tune.uniform [0.0, 0.5]}]
    """
    more = "search: {{train: {{searcher: !ray.OptunaSearch {{seed: 1}}, num_samples: {}}}}}"
    outcome = lab.run(pipeline, more=more.format(8), executor=None).fine()
    tried = outcome.of("train")
    assert len(tried) == len({v.id for v in tried}) == 8
    assert set(outcome.statuses("train")) == {Status.FINISHED}
    for variant in tried:
        kind = 1 if variant.choices["part"] == "pieces.Part#0" else 2
        assert (variant.metric or 0) // 1000 == kind
        assert len([key for key in variant.values if "part" in key]) == 2
    # The search is extended: what is there stays, with its values.
    more_of_it = lab.run(pipeline, more=more.format(11), executor=None, resume=True).fine()
    statuses = more_of_it.statuses("train")
    assert statuses.count(Status.REUSED) == 8
    assert len(statuses) == 11

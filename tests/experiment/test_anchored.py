"""A component that is anchored in a stage: one object in each variant."""

from __future__ import annotations

import flambe
from flambe.progress import Status
from tests.experiment.lab import Lab


def test_options_in_it_make_one_variant_for_each(lab: Lab) -> None:
    outcome = lab.run(
        """
        both: !pieces.Fixed
          value: 1.0
          other: [&m !pieces.Weights {size: !g [2, 3], record: RECORD}, *m, *m]
        """
    ).fine()
    assert outcome.statuses("both") == [Status.FINISHED] * 2
    assert [variant.choices for variant in outcome.of("both")] == [{"size": 2}, {"size": 3}]
    assert lab.records() == ["built weights 2", "built weights 3"]
    for variant in outcome.of("both"):
        saved = flambe.load(outcome.folder.checkpoint("both", variant.name))
        assert saved.other[0] is saved.other[1] is saved.other[2]
        assert list(saved.get_state()) == ["", "other/0"]


def test_a_run_goes_on_with_one_object(lab: Lab) -> None:
    pipeline = """
        train: !pieces.Fixed
          value: 0.5
          other: [&m !pieces.Weights {size: 2, record: RECORD}, %s]
        """
    first = lab.run(pipeline % "*m").fine()
    same = lab.run(pipeline % "*m", resume=True).fine()
    assert [v.id for v in same.of("train")] == [v.id for v in first.of("train")]
    assert len(lab.records()) == 1
    # Two equal ones are another variant: it is not taken for done.
    lab.run(pipeline % "!pieces.Weights {size: 2, record: RECORD}", resume=True).fine()
    assert len(lab.records()) == 3

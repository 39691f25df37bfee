"""Stages that Ray Tune runs at the same time; test_pipeline has what needs no Ray."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from flambe.errors import Interrupted
from flambe.progress import Status
from tests.experiment.lab import Lab, Outcome, until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ray")]


@pytest.fixture
def tuned(lab: Lab, one_ray: None) -> Any:
    (lab.root / "meeting").mkdir()

    def run(pipeline: str, **options: Any) -> Outcome:
        pipeline = pipeline.replace("MEETING", str(lab.root / "meeting"))
        return lab.run(pipeline, executor=None, **options)

    return run


def test_two_independent_stages_meet(tuned: Any) -> None:
    outcome = tuned(
        """
        one: !pieces.Meeting {folder: MEETING, name: one, awaits: two}
        two: !pieces.Meeting {folder: MEETING, name: two, awaits: one}
        """
    ).fine()
    assert [stage.status for stage in outcome.state.stages] == [Status.FINISHED] * 2


def test_a_later_variant_runs_while_the_earlier_stage_does(tuned: Any) -> None:
    """It gets the slot of its ancestor, whose process the earlier stage has no use for."""
    outcome = tuned(
        """
        train: !g
          - !pieces.Meeting {folder: MEETING, name: a}
          - !pieces.Meeting {folder: MEETING, name: b, awaits: next-a}
        next: !pieces.Meeting {folder: MEETING, name: next, of: !@ train}
        """,
        more="devices: {cpu: 1}",
    ).fine()
    assert outcome.statuses("next") == [Status.FINISHED] * 2


def test_a_bounded_stage_leaves_slots_free(lab: Lab, tuned: Any) -> None:
    outcome = tuned(
        f"train: !pieces.Alone {{lock: {lab.root / 'lock'}, rate: !g [1.0, 2.0, 3.0]}}",
        more="max_parallel: {train: 1}\nmax_failures: 0",
    ).fine()
    assert outcome.statuses("train") == [Status.FINISHED] * 3


def test_ctrl_c_stops_all_stages(lab: Lab, tuned: Any) -> None:
    def interrupt() -> None:
        folder = lab.root / "meeting"
        until(lambda: len(os.listdir(folder)) == 2, "both stages run", 240)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    outcome = tuned(
        """
        one: !pieces.Meeting {folder: MEETING, name: one, awaits: never}
        two: !pieces.Meeting {folder: MEETING, name: two, awaits: never}
        """
    )
    assert isinstance(outcome.raised(), Interrupted)
    assert outcome.state.status is Status.INTERRUPTED
    assert [stage.status for stage in outcome.state.stages] == [Status.INTERRUPTED] * 2
    assert not [t for t in threading.enumerate() if t.name in ("flambe-one", "flambe-two")]

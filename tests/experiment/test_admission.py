"""Which variants start next: urgency, slots, and the bound of a stage."""

from __future__ import annotations

import math

import pytest

from flambe.experiment.executors.admission import Admission, StageQueue, filled
from flambe.experiment.executors.tune.concurrent.slots import count_slots
from flambe.experiment.variants.expansion import Variant


def variant(name: str) -> Variant:
    return Variant(name, "stage", name, None)


def taken(queue: StageQueue) -> str | None:
    result = queue.take()
    return result.id if result is not None else None


def test_the_most_urgent_comes_first_and_equal_ones_in_their_order() -> None:
    queue = Admission().queue("a")
    for name, urgency in (("x", 1), ("y", 3), ("z", 3)):
        queue.put(variant(name), urgency)
    assert [taken(queue) for _ in range(4)] == ["y", "z", "x", None]
    assert not queue.over
    queue.close()
    assert queue.over


def test_stages_share_the_slots_and_the_more_urgent_one_goes_first() -> None:
    admission = Admission()
    early, late = admission.queue("early"), admission.queue("late")
    early.set_slots(2)
    for name in "abc":
        early.put(variant(name), urgency=4)
    late.put(variant("d"), urgency=0)
    assert taken(late) is None
    assert [taken(early) for _ in range(3)] == ["a", "b", None]
    assert taken(late) is None
    early.report(in_use=1)
    assert taken(late) is None, "the slot is that of c"
    assert taken(early) == "c"
    early.report(in_use=1)
    assert taken(late) == "d"


def test_equal_stages_both_run() -> None:
    admission = Admission()
    first, second = admission.queue("first"), admission.queue("second")
    first.set_slots(2)
    for queue in (first, second):
        for name in "abc":
            queue.put(variant(name))
    assert [taken(first), taken(first), taken(second)] == ["a", None, "a"]


def test_a_bound_leaves_slots_to_others() -> None:
    admission = Admission()
    bounded, other = admission.queue("bounded", limit=1), admission.queue("other")
    bounded.set_slots(3)
    for name in "abc":
        bounded.put(variant(name), urgency=9)
        other.put(variant(name))
    assert [taken(bounded), taken(bounded)] == ["a", None]
    assert [taken(other), taken(other), taken(other)] == ["a", "b", None]
    again = bounded.again([variant("a")])
    assert taken(again) == "a"
    assert again.limit == 1


def test_a_searcher_is_asked_while_there_are_slots() -> None:
    admission = Admission()
    search, other = admission.queue("search", urgency=5), admission.queue("other")
    search.set_slots(2)
    filled(search, [variant("base")])
    assert [one.id for one in search.drain()] == ["base"]
    other.put(variant("a"))
    assert search.admits()
    search.report(in_use=1, eager=True)
    assert taken(other) is None, "the searcher has more that is urgent"
    search.report(in_use=1, eager=False)
    assert taken(other) == "a"
    assert not search.admits()


def test_an_idle_process_is_ended_only_where_its_slot_is_needed() -> None:
    admission = Admission()
    idle, other = admission.queue("idle"), admission.queue("other")
    idle.set_slots(2)
    idle.report(in_use=0, idle=1)
    other.report(in_use=1)
    assert not idle.must_release()
    other.report(in_use=2)
    assert idle.must_release()
    assert not other.must_release()


def test_others_are_stopped_and_a_stage_that_is_over_gives_its_slots_back() -> None:
    admission = Admission()
    failed, other, new = (admission.queue(name) for name in ("failed", "other", "new"))
    failed.set_slots(1)
    for queue in (failed, other):
        queue.put(variant("a"))
    other.report(in_use=1)
    admission.stop_others({"failed"})
    assert other.over
    assert taken(other) is None
    other.end()
    assert taken(failed) == "a"
    assert new.over


@pytest.mark.parametrize(
    ("nodes", "devices", "slots"),
    [
        ([{"CPU": 2.0}], {"cpu": 1.0}, 2),
        ([{"CPU": 3.0}, {"CPU": 3.0}], {"cpu": 2.0}, 2),
        ([{"CPU": 8.0, "GPU": 1.0}], {"cpu": 1.0, "gpu": 0.1}, 8),
        ([{"CPU": 80.0, "GPU": 1.0}], {"cpu": 1.0, "gpu": 0.1}, 10),
        ([{"CPU": 4.0}, {"CPU": 4.0, "tpu": 2.0}], {"cpu": 1.0, "tpu": 1.0}, 2),
        ([{"CPU": 5.0, "GPU": 1.0}, {"CPU": 3.0}], {"cpu": 2.0}, 3),
        ([{"CPU": 5.0, "GPU": 1.0}, {"CPU": 3.0}], {"cpu": 1.0, "gpu": 0.25}, 4),
        ([{"CPU": 5.0, "GPU": 1.0}, {"CPU": 3.0}], {"cpu": 1.0, "gpu": 0.0}, 8),
        ([], {"cpu": 1.0}, 1),
        ([{"CPU": 4.0}], {"cpu": 0.0}, math.inf),
    ],
)
def test_slots(nodes: list[dict[str, float]], devices: dict[str, float], slots: float) -> None:
    assert count_slots(nodes, devices) == slots

"""How stages are run side by side: by an executor that runs nothing, in the order a test says."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flambe.compile.component_errors import UserInterrupt
from flambe.errors import Interrupted, RunError
from flambe.experiment.executors.inline import InlineExecutor
from flambe.progress import Status
from tests.experiment.lab import Lab, Outcome

SECONDS = 30.0  # that a test waits for what must come


class Stage:
    """Reports what a test wants to have happened to the variants of all stages."""

    def __init__(self, root: Path, acts: Callable[[str], bool], slots: float) -> None:
        self.root = root
        self.acts = acts
        self.slots = slots
        self.parallel = True
        self.order: list[str] = []

    def start(self) -> None: ...

    def capacity(self) -> dict[str, float]:
        return {}

    def close(self) -> None: ...

    def run_stage(self, task: Any, variants: Any, options: Any, listener: Any) -> None:
        variants.set_slots(self.slots)
        threads: list[threading.Thread] = []
        while not variants.over:
            listener.check()
            alive = [thread for thread in threads if thread.is_alive()]
            variants.report(in_use=len(alive))
            if (variant := variants.take()) is None:
                variants.wait(0.01)
                continue
            self.order.append(name_of(variant))
            threads.append(threading.Thread(target=self._run_thread, args=(variant, listener)))
            threads[-1].start()
        for thread in threads:
            thread.join(SECONDS)

    def _run_thread(self, variant: Any, listener: Any) -> None:
        with contextlib.suppress(UserInterrupt):  # the run is interrupted
            self._run(variant, listener)

    def _run(self, variant: Any, listener: Any) -> None:
        listener.on_start(variant, "here")
        listener.on_step(variant, 1, float(len(self.order)), "here")
        if self.acts(name_of(variant)):
            listener.on_end(variant, stopped=False)
        else:
            listener.on_failure(variant, None, "no luck", final=True)


def name_of(variant: Any) -> str:
    (rate,) = variant.choices.values()
    return f"{variant.stage} {rate:g}"


class Events:
    """Lets variants wait for one another."""

    def __init__(self) -> None:
        self.events: dict[str, threading.Event] = {}

    def __getitem__(self, name: str) -> threading.Event:
        return self.events.setdefault(name, threading.Event())


def run(
    lab: Lab, pipeline: str, acts: Callable[[str], bool], slots: float = 100, more: str = ""
) -> tuple[Outcome, list[str]]:
    executors: list[Stage] = []

    def make(root: Path) -> Any:
        executors.append(Stage(root, acts, slots))
        return executors[-1]

    outcome = lab.run(pipeline, more=more, executor=make)
    return outcome, executors[0].order


CHAIN = """
train: !pieces.Walk {rate: !g [1.0, 2.0]}
next: !pieces.Walk {start: !@ train}
last: !pieces.Walk {start: !@ next}
"""
PAIR = "one: !pieces.Walk {rate: !g [1.0, 2.0]}\ntwo: !pieces.Walk {rate: !g [3.0, 4.0]}\n"


def test_independent_stages_run_at_the_same_time(lab: Lab) -> None:
    met = threading.Barrier(4, timeout=SECONDS)

    def acts(name: str) -> bool:
        met.wait()
        return True

    outcome, _ = run(lab, PAIR, acts)
    outcome.fine()
    assert outcome.state.stage("two").status is Status.FINISHED


def test_a_variant_starts_once_its_own_ancestors_are_done(lab: Lab) -> None:
    events = Events()

    def acts(name: str) -> bool:
        if name == "train 2":
            assert events["last 1"].wait(SECONDS), "it starts before this one is done"
        events[name].set()
        return True

    outcome, order = run(lab, CHAIN, acts)
    outcome.fine()
    assert order.index("last 1") < order.index("next 2")


@pytest.mark.parametrize("more", ["reduce: {train: 1}", "reduce: {train: 2}"])
def test_but_reduce_asks_for_all_of_them(lab: Lab, more: str) -> None:
    outcome, order = run(lab, CHAIN, lambda name: True, more=more)
    outcome.fine()
    assert set(order[:2]) == {"train 1", "train 2"}
    assert sum(name.startswith("next") for name in order) == int(more[-2])


def test_what_unblocks_most_goes_first(lab: Lab) -> None:
    _, order = run(lab, f"{PAIR}{CHAIN}", lambda name: True, slots=1)
    assert order[:2] == ["train 1", "train 2"]
    assert {*order[2:4]} == {"next 1", "next 2"}
    assert len(order) == 10


def test_a_failure_spares_what_does_not_depend_on_it(lab: Lab) -> None:
    outcome, order = run(
        lab, f"{CHAIN}{PAIR}", lambda name: name != "train 1", more="stop_on_failure: false"
    )
    assert str(outcome.raised()).startswith("1 of 8 variants failed")
    assert not {"next 1", "last 1"} & set(order)
    for stage in ("next", "last"):
        masked, done = outcome.of(stage)
        assert (masked.status, done.status) == (Status.MASKED, Status.FINISHED)
        assert masked.reason == "train train.rate=1 failed"
        assert outcome.state.stage(stage).status is Status.FINISHED
    assert outcome.statuses("two") == [Status.FINISHED] * 2


def test_a_failure_ends_the_run_when_what_runs_is_done(lab: Lab) -> None:
    """The stage of the failure is finished; of other stages, only what runs."""
    events = Events()

    def acts(name: str) -> bool:
        if name == "train 1":
            assert events["one 1"].wait(SECONDS)
            return False
        events[name].set()
        assert events["stopped"].wait(SECONDS) if name == "one 1" else True
        if name == "train 2":
            events["stopped"].set()
        return True

    outcome, order = run(lab, f"{CHAIN}{PAIR}", acts, slots=2, more="max_parallel: {train: 1}")
    error = outcome.raised()
    assert isinstance(error, RunError)
    assert str(error).startswith("1 of 2 variants of stage 'train' failed")
    assert sorted(order) == ["one 1", "train 1", "train 2"]
    assert outcome.statuses("train") == [Status.FAILED, Status.FINISHED]
    assert outcome.statuses("one") == [Status.FINISHED, Status.WAITING]
    assert outcome.of("one")[1].reason.startswith("the run ended: 1 of 2 variants of stage")
    statuses = {stage.name: stage.status for stage in outcome.state.stages}
    assert statuses["train"] is Status.FAILED
    assert statuses["one"] is Status.INTERRUPTED
    assert outcome.state.status is Status.FAILED


def test_a_bounded_stage(lab: Lab) -> None:
    running, most = set[str](), [0]
    lock = threading.Lock()
    met = threading.Event()

    def acts(name: str) -> bool:
        with lock:
            running.add(name)
            most[0] = max(most[0], len(running))
        met.wait(0.05)
        with lock:
            running.discard(name)
        return True

    outcome, order = run(
        lab,
        "train: !pieces.Walk {rate: !g [1.0, 2.0, 3.0, 4.0, 5.0]}",
        acts,
        more="max_parallel: {train: 2}",
    )
    outcome.fine()
    assert (most, len(order)) == ([2], 5)


def test_an_interruption_stops_all_stages(lab: Lab) -> None:
    started = threading.Barrier(2, timeout=SECONDS)

    def acts(name: str) -> bool:
        if name in ("one 1", "two 3") and not started.wait():
            raise_interruption()
        return True

    def raise_interruption() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGINT)

    outcome, _ = run(lab, PAIR, acts, more="max_parallel: {one: 1, two: 1}")
    assert isinstance(outcome.raised(), Interrupted)
    assert outcome.state.status is Status.INTERRUPTED
    assert not [t for t in threading.enumerate() if t.name in ("flambe-one", "flambe-two")]


def test_an_error_of_one_stage_stops_the_others(lab: Lab) -> None:
    class Broken(Stage):
        def run_stage(self, task: Any, variants: Any, options: Any, listener: Any) -> None:
            if task.stage == "two":
                raise RunError("Ray is gone")
            super().run_stage(task, variants, options, listener)

    event = threading.Event()

    def act(name: str) -> bool:
        event.wait(0.2)
        return True

    outcome = lab.run(PAIR, executor=lambda root: Broken(root, act, 1))
    assert str(outcome.raised()) == "Ray is gone"
    assert outcome.state.status is Status.FAILED


def test_what_cannot_be_ranked_ends_the_run(lab: Lab) -> None:
    class Unranked(Stage):
        def _run(self, variant: Any, listener: Any) -> None:
            listener.on_start(variant, "here")
            listener.on_step(variant, 1, None, "here")
            listener.on_end(variant, stopped=False)

    outcome = lab.run(
        CHAIN, more="reduce: {train: 1}", executor=lambda root: Unranked(root, bool, 9)
    )
    assert "no variant of stage 'train' has a metric" in str(outcome.raised())
    assert outcome.state.stage("train").status is Status.FAILED
    assert outcome.of("next") == []


def test_inline_and_side_by_side_run_the_same(lab: Lab) -> None:
    side, _ = run(lab, f"{CHAIN}{PAIR}", lambda name: True)
    lab.name = "inline"
    inline = lab.run(f"{CHAIN}{PAIR}", executor=InlineExecutor).fine()
    assert {v.id: v.status for v in side.variants} == {v.id: v.status for v in inline.variants}

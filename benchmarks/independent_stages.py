"""What two independent stages take side by side, beside one after the other, on one machine.

Both runs have the same two stages; in one, the second stage links to the first and waits for its
``reduce``, so that it starts when the first has ended. Ray is started by each run, as for a user; that
time is part of both, so the ratio is also printed for the stages alone, from their own times.

``python benchmarks/independent_stages.py [--repeats 3] [--seconds 20]``
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import common
from flambe.compile import Component, Link, Schema

TARGET = 0.6


class Wait(Component):
    """Takes its time, and no CPU."""

    def __init__(self, seconds: float, after: object = None) -> None:
        self.seconds = seconds
        self.after = after
        self.done = False
        self.register_attrs("done")

    def run(self) -> bool:
        """Wait."""
        time.sleep(self.seconds)
        self.done = True
        return False

    def metric(self) -> float:
        """Return a figure, for ``reduce``."""
        return 1.0


def child() -> None:
    """Run the pipeline that each line of the input describes, and print its times."""
    import independent_stages  # workers import the component by this name
    from flambe.experiment import Experiment
    from flambe.progress import RunFolder

    for line in sys.stdin:
        order = json.loads(line)
        component = partial(Schema.of, independent_stages.Wait, seconds=order["seconds"])
        second = component() if order["apart"] else component(after=Link("first"))
        root = Path(tempfile.mkdtemp(prefix="flambe-bench-"))
        begun = time.monotonic()
        Experiment(
            "stages",
            {"first": component(), "second": second},
            reduce=None if order["apart"] else {"first": 1},
            save_path=str(root),
            devices={"cpu": 1},
        ).run()
        total = time.monotonic() - begun
        state = RunFolder(root / "output__stages").read_state()
        assert state is not None
        began = min(stage.started or 0.0 for stage in state.stages)
        ended = max(stage.ended or 0.0 for stage in state.stages)
        shutil.rmtree(root)
        print(json.dumps({"total": total, "stages": ended - began}), flush=True)


def main(repeats: int, seconds: float) -> None:
    """Measure and print."""
    print(common.machine())
    standing = common.Standing(__file__, "--child")
    found: dict[str, list[float]] = {"side by side": [], "one after the other": []}

    def measure(name: str, apart: bool) -> float:
        answer = standing.ask(json.dumps({"seconds": seconds, "apart": apart}))
        found[name].append(answer["stages"])
        return float(answer["total"])

    try:
        totals = common.rounds(
            {name: partial(measure, name, name == "side by side") for name in found},
            repeats,
            warm=False,
        )
    finally:
        standing.close()
    rows = [[name, common.spread(totals[name]), common.spread(found[name])] for name in found]
    common.table([f"two stages of {seconds:g} s", "whole run, s", "stages, s"], rows)
    ratio = sorted(common.ratios(*found.values()))[repeats // 2]
    whole = sorted(common.ratios(*totals.values()))[repeats // 2]
    print(f"\nside by side / one after the other: {common.verdict(ratio, TARGET)}")
    print(f"with the start of Ray, which both have: {whole:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="two independent stages, side by side")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    if arguments.child:
        child()
    else:
        main(arguments.repeats, arguments.seconds)

"""What flambe's Experiment costs beside raw Ray Tune, for trials that do nothing.

The same component, 5 steps, a checkpoint after each by the same function, the same disk, two trials
at a time, Ray already warm. What many trials take beyond few gives the cost of a trial (slope), the
rest is the cost of a stage (intercept); the slope may be 1.1 times that of the fair peer.

The slope leaves out how long the first actors took to start, which takes seconds and varies by
seconds: it is counted from the end of the first few trials to the end of the run.

Each configuration has a process and a Ray of its own, and they take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common

from flambe.compile import Component

STEPS = 5
REPEATS = 5
TARGET = 1.1
FLAMBE, BARE, FILES, KEPT, DEFAULT = "flambe", "bare", "files", "kept", "default"
MODES = {
    FLAMBE: "flambe",
    BARE: "raw, no loggers",
    FILES: "raw, JSON + TensorBoard",
    KEPT: "same, 2 checkpoints kept",
    DEFAULT: "raw, as Tune comes",
}
# The fair peer writes the figures of each step as JSON lines and TensorBoard events, as flambe does.
# Bare writes none; "kept" keeps the two latest checkpoints, as flambe does; "default" starts an
# actor for each trial: it gets fewer trials.
FAIR = FILES
COUNTS = dict.fromkeys(MODES, (20, 200)) | {DEFAULT: (4, 12)}


class Noop(Component):
    """What all trials run: it counts."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.count = 0
        self.register_attrs("count")

    def run(self) -> bool:
        """Count one."""
        self.count += 1
        return self.count < STEPS

    def metric(self) -> float:
        """Return a figure that differs from trial to trial."""
        return float(self.index + self.count)


# -- the two sides ------------------------------------------------------------------------------


def _flambe(root: Path, count: int) -> list[float]:
    """Run; return when each trial ended."""
    from flambe.compile import Schema
    from flambe.compile.values import Grid
    from flambe.experiment import Experiment
    from flambe.progress import RunFolder, Status

    name = f"trials-{count}"
    blueprint = Schema.of(Noop, index=Grid(tuple(range(count))))
    Experiment(name, {"noop": blueprint}, save_path=str(root), devices={"cpu": 1}).run()
    variants = RunFolder(root / f"output__{name}").read_variants().values()
    assert len(variants) == count
    assert all(v.status is Status.FINISHED and v.step == STEPS for v in variants)
    return sorted(variant.ended or 0.0 for variant in variants)


def _raw(root: Path, count: int, mode: str) -> list[float]:
    """Run; return when each trial ended."""
    from ray import tune
    from ray.tune.logger import JsonLoggerCallback, TBXLoggerCallback

    class Clock(tune.Callback):  # type: ignore[misc]
        def on_trial_complete(self, **info: Any) -> None:
            ended.append(time.time())

    files = mode in (FILES, KEPT)
    ended: list[float] = []
    reported = tune.Tuner(
        _raw_trainable(),
        param_space={"index": tune.grid_search(list(range(count)))},
        tune_config=tune.TuneConfig(metric="metric", mode="max", reuse_actors=mode != DEFAULT),
        run_config=tune.RunConfig(
            name=f"trials-{count}",
            storage_path=str(root),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=1,
                checkpoint_at_end=True,
                num_to_keep=2 if mode == KEPT else None,
            ),
            callbacks=[Clock(), *([JsonLoggerCallback(), TBXLoggerCallback()] if files else [])],
            verbose=0,
        ),
    ).fit()
    assert len(reported) == count
    assert all(result.metrics["training_iteration"] == STEPS for result in reported)
    return ended


def _raw_trainable() -> Any:
    from ray import tune

    from flambe.compile import Schema, state

    class Raw(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            # Built from a blueprint too: the checkpoint holds the same files.
            self.component = Schema.of(Noop, index=config["index"])()

        def step(self) -> dict[str, Any]:
            more = self.component.run()
            return {"metric": self.component.metric(), "done": not more}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            state.write(self.component, os.path.join(checkpoint_dir, "checkpoint.flambe"))

        def load_checkpoint(self, checkpoint: Any) -> None:
            folder = os.path.join(checkpoint, "checkpoint.flambe")
            self.component.load_state(state.read(folder, self.component))

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

    return Raw


# -- one configuration, in a process of its own -------------------------------------------------


def child(mode: str, counts: list[int], profile: str = "") -> None:
    """Measure one configuration, and print what was found as JSON."""
    import ray

    # Not public, but the point: Tune is set up alike on both sides, the loggers apart.
    from flambe.experiment.tune import _TUNE_ENVIRONMENT

    if mode != DEFAULT:
        os.environ.update(_TUNE_ENVIRONMENT)
    ray.init(
        namespace="flambe",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": dict(_TUNE_ENVIRONMENT)},
    )
    run: Callable[[Path, int], list[float]] = _flambe if mode == FLAMBE else partial(_raw, mode=mode)
    root = Path(tempfile.mkdtemp(prefix="flambe-bench-"))
    found: dict[str, Any] = {"seconds": [], "rest": [], "cpu": []}
    try:
        run(root / "warm", 4)
        found["warm_rss"] = _peak()
        for count in counts:
            begun, used = time.time(), time.process_time()
            with _profiled(profile if count == counts[-1] else ""):
                ended = run(root, count)
            over = time.time()
            found["seconds"].append(over - begun)
            found["rest"].append(over - ended[counts[0] - 1])
            found["cpu"].append(time.process_time() - used)
        found["rss"] = _peak()
        found["files"] = sum(1 for file in root.rglob("*") if file.is_file())
    finally:
        ray.shutdown()
        shutil.rmtree(root, ignore_errors=True)
    print(json.dumps(found))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def _profiled(path: str) -> Any:
    if not path:
        yield
        return
    import cProfile

    profiler = cProfile.Profile()
    profiler.enable()
    try:
        yield
    finally:
        profiler.disable()
        profiler.dump_stats(path)


# -- all of them, in turn -----------------------------------------------------------------------


def _slope(one: dict[str, Any], mode: str, kind: str = "rest") -> float:
    few, many = COUNTS[mode]
    return float((one[kind][1] - one[kind][0]) / (many - few))


def main(repeats: int, modes: list[str]) -> None:
    """Measure and print."""
    print(common.machine())
    found: dict[str, list[dict[str, Any]]] = {mode: [] for mode in modes}

    def measure(mode: str) -> float:
        found[mode].append(common.elsewhere(__file__, "--child", mode, *COUNTS[mode]))
        return _slope(found[mode][-1], mode)

    slopes = common.rounds({m: partial(measure, m) for m in modes}, repeats, warm=False)
    rows = []
    for mode in modes:
        runs, (few, many) = found[mode], COUNTS[mode]
        rows.append(
            [
                MODES[mode],
                f"{few}, {many}",
                common.spread([one["seconds"][1] for one in runs], 1, 2),
                common.spread([one["seconds"][0] - few * _slope(one, mode) for one in runs], 1, 2),
                common.spread(slopes[mode], 1e3),
                common.spread([_slope(one, mode, "cpu") for one in runs], 1e3),
                common.spread([one["rss"] for one in runs], 1 / 2**20, 0),
                common.spread([one["rss"] - one["warm_rss"] for one in runs], 1 / 2**20, 0),
            ]
        )
    common.table(
        [
            f"{STEPS} no-op steps each",
            "trials",
            "s for most",
            "intercept s",
            "ms a trial",
            "driver CPU ms a trial",
            "driver peak MiB",
            "of that, growth",
        ],
        rows,
    )
    print()
    for mode in modes:
        if mode != FLAMBE and FLAMBE in modes:
            ratio = common.ratios(slopes[FLAMBE], slopes[mode])
            print(f"slope of flambe / {MODES[mode]}: {common.spread(ratio, 1, 3)}")
    if FLAMBE in modes and FAIR in modes:
        ratio = common.ratios(slopes[FLAMBE], slopes[FAIR])
        print(
            f"\nfair peer ({MODES[FAIR]}): {common.verdict(statistics.median(ratio), TARGET)}"
            "\n  flambe writes metrics.jsonl and TensorBoard events; so do these two loggers"
        )


if __name__ == "__main__":
    # The workers of Ray import the component from here by name, not from __main__.
    import tune_overhead

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs="+", metavar=("MODE", "N"), help=argparse.SUPPRESS)
    parser.add_argument("--profile", default="", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    given = parser.parse_args()
    if given.child:
        mode, *counts = given.child
        tune_overhead.child(mode, [int(count) for count in counts], given.profile)
    else:
        main(given.repeats, given.modes)

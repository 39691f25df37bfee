"""What flambe's Experiment costs beside raw Ray Tune, for trials that do nothing.

The same component, 5 steps, a checkpoint after each by the same function, the same disk, two trials
at a time, Ray already warm. What many trials take beyond few gives the cost of a trial (slope), the
rest is the cost of a stage (intercept); the slope may be 1.1 times that of the fair peer.

The slope leaves out how long the first actors took to start, which takes seconds and varies by
seconds: it is counted from the end of the first few trials to the end of the run.

Each configuration has a process and a Ray of its own; they take turns, one run each.

``--trials 200 1000 5000`` shows instead whether the slope stays what it is, and whether the memory of
the driver grows by the same for each trial: flambe beside the fair peer, one count after another.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import threading
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
MEMORY_TARGET = 1.2


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

    from flambe.compile import Schema, persistence
    from flambe.compile.state.file_writer import FileWriter

    class Raw(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            # Built from a blueprint too: the checkpoint holds the same files.
            self.component = Schema.of(Noop, index=config["index"])()

        def step(self) -> dict[str, Any]:
            more = self.component.run()
            return {"metric": self.component.metric(), "done": not more}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            folder = FileWriter(os.path.join(checkpoint_dir, "checkpoint.flambe"))
            persistence.write(self.component, folder)

        def load_checkpoint(self, checkpoint: Any) -> None:
            folder = os.path.join(checkpoint, "checkpoint.flambe")
            self.component.load_state(persistence.read(folder, self.component))

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

    return Raw


# -- one configuration, in a process of its own -------------------------------------------------


def child(mode: str, profile: str = "") -> None:
    """Measure one configuration: a number of trials for each line that is read."""
    import ray

    # Not public, but the point: Tune is set up alike on both sides, the loggers apart.
    from flambe.experiment.executors.tune.driver import TUNE_ENVIRONMENT

    if mode != DEFAULT:
        os.environ.update(TUNE_ENVIRONMENT)
    ray.init(
        address="local",
        namespace="flambe",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": dict(TUNE_ENVIRONMENT)},
    )
    run: Callable[[Path, int], list[float]]
    run = _flambe if mode == FLAMBE else partial(_raw, mode=mode)
    root = Path(tempfile.mkdtemp(prefix="flambe-bench-"))
    try:
        run(root / "warm", 4)
        print(json.dumps({"rss": _peak()}), flush=True)
        for line in sys.stdin:
            count = int(line)
            begun, used = time.time(), time.process_time()
            with _profiled(profile), _Used() as everything:
                ended = run(root, count)
            over = time.time()
            answer = {
                "seconds": over - begun,
                # From the end of the first few trials.
                "rest": over - ended[COUNTS[mode][0] - 1],
                "cpu": time.process_time() - used,
                "all_cpu": everything.total(),
                "rss": _peak(),
            }
            shutil.rmtree(root)
            print(json.dumps(answer), flush=True)
    finally:
        ray.shutdown()
        shutil.rmtree(root, ignore_errors=True)


class _Used:
    """Counts the CPU time of this process and of its Ray: workers come and go, so it keeps looking.

    What a worker uses in its last moments is missed, whatever the number of trials.
    """

    PERIOD = 0.25

    def __init__(self) -> None:
        self.seconds: dict[int, tuple[float, float]] = {}  # process → at first, at last
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Used:
        self._look(begin=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._over.wait(self.PERIOD):
            self._look()

    def _look(self, *, begin: bool = False) -> None:
        import psutil

        here = psutil.Process()
        for process in [here, *here.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                now = sum(process.cpu_times()[:2])
                first = self.seconds.get(process.pid, (now if begin else 0.0, 0.0))[0]
                self.seconds[process.pid] = (first, now)

    def total(self) -> float:
        """Return the seconds since the beginning."""
        return sum(last - first for first, last in self.seconds.values())


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def _profiled(path: str) -> Any:
    if not path:
        yield
        return
    import cProfile

    profiler = cProfile.Profile(time.thread_time)  # waiting is not counted
    profiler.enable()
    try:
        yield
    finally:
        profiler.disable()
        profiler.dump_stats(path)


# -- all of them, in turn -----------------------------------------------------------------------


def scale(counts: list[int], repeats: int) -> None:
    """Measure flambe and its fair peer with more and more trials, and print."""
    print(common.machine())
    few = COUNTS[FLAMBE][0]
    rows, peaks = [], {}
    standing = {mode: common.Standing(__file__, "--child", mode) for mode in (FLAMBE, FAIR)}
    try:
        # The peak of a driver only ever rises: the counts rise too.
        for mode, one in standing.items():
            peaks[mode] = [float(one.ask()["rss"])]
        for count in sorted(counts):
            answers: dict[str, list[dict[str, float]]] = {mode: [] for mode in standing}

            def measure(
                mode: str, count: int = count, answers: dict[str, list[dict[str, float]]] = answers
            ) -> float:
                answers[mode].append(standing[mode].ask(count))
                return float(answers[mode][-1]["rest"]) / (count - few)

            slopes = common.rounds({m: partial(measure, m) for m in standing}, repeats, warm=False)
            for mode in standing:
                peaks[mode].append(max(answer["rss"] for answer in answers[mode]))
                cpu = [answer["all_cpu"] / count for answer in answers[mode]]
                rows.append(
                    [
                        f"{count:,}, {MODES[mode]}",
                        common.spread(slopes[mode], 1e3),
                        common.spread(cpu, 1e3),
                        f"{peaks[mode][-1] / 2**20:.0f}",
                    ]
                )
            ratio = statistics.median(common.ratios(slopes[FLAMBE], slopes[FAIR]))
            rows.append(["", common.verdict(ratio, TARGET), "", ""])
            print("  ", *rows[-3:], sep="\n  ", file=sys.stderr, flush=True)
    finally:
        for one in standing.values():
            one.close()
    common.table([f"trials of {STEPS} steps", "ms a trial", "CPU ms a trial", "peak MiB"], rows)
    grown = {mode: (memory[-1] - memory[1]) for mode, memory in peaks.items()}
    trials = max(counts) - min(counts)
    if trials:
        each = ", ".join(f"{MODES[m]} {grown[m] / trials / 1024:.1f}" for m in standing)
        ratio = grown[FLAMBE] / grown[FAIR]
        print(f"\nKiB of the driver for each trial more: {each}; ", end="")
        print(common.verdict(ratio, MEMORY_TARGET))


def main(repeats: int, modes: list[str]) -> None:
    """Measure and print."""
    print(common.machine())
    standing = {mode: common.Standing(__file__, "--child", mode) for mode in modes}
    found: dict[str, list[dict[str, float]]] = {mode: [] for mode in modes}
    try:
        # A driver's peak memory is that of its first run with many trials.
        warm = {mode: one.ask() for mode, one in standing.items()}

        def measure(mode: str) -> float:
            few, many = (standing[mode].ask(count) for count in COUNTS[mode])
            trials = COUNTS[mode][1] - COUNTS[mode][0]
            one = {kind: (many[kind] - few[kind]) / trials for kind in ("rest", "cpu", "all_cpu")}
            one["total"] = many["seconds"]
            one["intercept"] = many["seconds"] - COUNTS[mode][1] * one["rest"]
            one["rss"], one["growth"] = many["rss"], many["rss"] - warm[mode]["rss"]
            found[mode].append(one)
            figures = ", ".join(f"{kind} {value:.4g}" for kind, value in one.items())
            print(f"  {MODES[mode]}: {figures}", file=sys.stderr, flush=True)
            return float(one["rest"])

        slopes = common.rounds({m: partial(measure, m) for m in modes}, repeats, warm=False)
    finally:
        for one in standing.values():
            one.close()
    _show(found)
    if FLAMBE not in modes:
        return
    print()
    for mode in modes[1:]:
        wall = common.ratios(slopes[FLAMBE], slopes[mode])
        cpu = common.ratios(*([one["all_cpu"] for one in found[m]] for m in (FLAMBE, mode)))
        print(
            f"flambe / {MODES[mode]}, per trial: {common.spread(wall, 1, 2)} of the time, ", end=""
        )
        print(f"{common.spread(cpu, 1, 2)} of the CPU time")
    if FAIR in modes:
        ratio = statistics.median(common.ratios(slopes[FLAMBE], slopes[FAIR]))
        print(
            f"\nfair peer ({MODES[FAIR]}): {common.verdict(ratio, TARGET)}"
            "\n  flambe writes metrics.jsonl and TensorBoard events; so do these two loggers"
        )


def _show(found: dict[str, list[dict[str, float]]]) -> None:
    """Print the table."""
    columns = {
        "s for most": ("total", 1.0, 1),
        "intercept s": ("intercept", 1.0, 1),
        "ms a trial": ("rest", 1e3, 0),
        "CPU ms a trial": ("all_cpu", 1e3, 0),
        "of that, driver": ("cpu", 1e3, 0),
    }
    rows = []
    for mode, runs in found.items():
        row = [MODES[mode], "{}, {}".format(*COUNTS[mode])]
        for kind, scale, digits in columns.values():
            row.append(common.spread([one[kind] for one in runs], scale, digits))
        memory = runs[0]["rss"] / 2**20, runs[0]["growth"] / 2**20
        rows.append([*row, "{:.0f} (+{:.0f})".format(*memory)])
    common.table([f"{STEPS} no-op steps", "trials", *columns, "driver peak MiB"], rows)


if __name__ == "__main__":
    # The workers of Ray import the component from here by name, not from __main__.
    import tune_overhead

    parser = argparse.ArgumentParser(description="flambe's Experiment beside raw Ray Tune")
    parser.add_argument("--child", choices=list(MODES), help=argparse.SUPPRESS)
    parser.add_argument("--profile", default="", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--trials", type=int, nargs="+", default=[])
    given = parser.parse_args()
    if given.child:
        tune_overhead.child(given.child, given.profile)
    elif given.trials:
        scale(given.trials, given.repeats)
    else:
        main(given.repeats, given.modes)

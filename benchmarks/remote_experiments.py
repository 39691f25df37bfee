"""What experiments on a cluster cost beside what they are made of; on real hosts, so as root.

- The first step on a warm cluster, beside Ray started by hand and a driver of Tune on it: 1.2 times
  that at most. The second one, with Ray kept, beside the same experiment on this machine: 2 times.
- Trials with a large checkpoint for each step, beside raw Tune on the same Ray with the same
  storage: 1.1 times at most. Both are begun once before; then raw, flambe, flambe, raw, so that
  neither has what the other one warmed, nor a quieter machine. Then raw Tune on one host and its
  own disk: what collecting costs.
- The memory of the client (150 MB) and of what runs on the orchestrator (1.5 GB).

Each figure is compared with one of the same run. It is worth something on a quiet machine only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

import common

MEBI = 1024**2
STARTS = """
one: !crops.Growth {rate: RATE, steps: 1}
"""
TRIALS = """
grow: !crops.Growth
  rate: !g RATES
  steps: STEPS
  padding: PADDING
"""
# What somebody writes who has no flambe: the same steps, checkpoints and storage.
RAW = """
import json, sys, time
import ray
from ray import tune
from flambe.experiment.storage.checkpoint_storage import Storage

told = json.loads(sys.argv[1])
class Trial(tune.Trainable):
    def setup(self, config):
        self.done = 0
    def step(self):
        self.done += 1
        if self.done == 1:
            print("first", flush=True)
        return {"metric": self.done, "done": self.done >= told["steps"]}
    def save_checkpoint(self, folder):
        with open(folder + "/state", "w") as stream:
            stream.write("x" * told["padding"])
    def load_checkpoint(self, folder):
        pass
    def reset_config(self, config):
        self.done = 0
        return True

ray.init(address=told["address"], log_to_driver=True, logging_level="ERROR")
storage = Storage(**told["storage"])
with open(told["storage"]["root"] + "/run.id", "w") as stream:
    stream.write(told["storage"]["id"])
begun = time.monotonic()
tune.Tuner(
    Trial,
    param_space={"n": tune.grid_search(list(range(told["trials"])))},
    tune_config=tune.TuneConfig(reuse_actors=True, metric="metric", mode="max"),
    run_config=tune.RunConfig(
        name="raw", storage_path=told["storage"]["root"], storage_filesystem=storage.for_tune(),
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1), verbose=0,
    ),
).fit()
print("took", time.monotonic() - begun)
"""


def first_step(farm: Any, *arguments: Any) -> float:
    """Run an experiment to its end; return how long its first step took to come."""
    begun = time.monotonic()
    run = farm.start(*arguments)
    run.says("step 1 of")
    took = time.monotonic() - begun
    run.ends()
    return took


class Hand:
    """Ray and Tune by hand, on the hosts of a farm that flambe made ready."""

    def __init__(self, farm: Any) -> None:
        self.farm = farm
        self.user = farm.metal.user
        self.home = f"/home/{self.user}"
        place = next(iter((farm.state.parents[1] / "envs").glob("*/bin/python")))
        self.python = str(place).partition("/root")[2]
        self.script = f"{self.home}/raw.py"
        farm.hosts[0].run("tee", self.script, input=RAW, user=self.user)

    def _on(self, host: Any, variables: list[str], *command: str) -> str:
        env = ["env", *variables, f"FLAMBE_HOME={self.home}/.flambe", self.python, *command]
        return str(host.run(*env, user=self.user, timeout=1200).stdout)

    def from_nothing(self) -> float:
        """Start Ray on all hosts, and one trial; return how long that took. Ray is ended again."""
        head, *workers = self.farm.hosts
        scripts = ("-m", "ray.scripts.scripts")
        free = ("--min-worker-port", "0", "--max-worker-port", "0")
        begun = time.monotonic()

        def join(host: Any) -> None:
            at = f"{head.address}:6399"
            self._on(host, [], *scripts, "start", "--address", at, *free, "--num-cpus", "2")

        options = ("--port", "6399", "--num-cpus", "0", "--include-dashboard", "false")
        self._on(head, [], *scripts, "start", "--head", *options, *free)
        threads = [threading.Thread(target=join, args=(host,)) for host in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.trials(1, 1, 10, f"{head.address}:6399", [])
        took = time.monotonic() - begun
        for host in self.farm.hosts:
            self._on(host, [], *scripts, "stop", "--force")
        return took

    def on_one_disk(self, trials: int, steps: int, padding: int) -> float:
        """Run trials with as many processors on one host, whose disk takes all that they save."""
        head, *workers = self.farm.hosts
        scripts, cpus = ("-m", "ray.scripts.scripts"), str(2 * len(workers))
        options = ("--port", "6399", "--num-cpus", cpus, "--include-dashboard", "false")
        self._on(head, [], *scripts, "start", "--head", *options)
        took = self.trials(trials, steps, padding, f"{head.address}:6399", [])
        self._on(head, [], *scripts, "stop", "--force")
        return took

    def on_flambes(self, trials: int, steps: int, padding: int) -> float:
        """Run trials on the Ray that flambe keeps; return how long they took."""
        starts = json.loads((self.farm.state / "ray-nodes.json").read_text())
        request = json.loads(starts["orchestrator"]["content"])
        settings = json.loads(request["command"][-1])
        token = request["env"]["RAY_AUTH_TOKEN_PATH"]
        variables = ["RAY_AUTH_MODE=token", f"RAY_AUTH_TOKEN_PATH={token}"]
        address = f"{settings['address']}:{settings['port']}"
        return self.trials(trials, steps, padding, address, variables)

    def trials(
        self, trials: int, steps: int, padding: int, address: str, variables: list[str]
    ) -> float:
        """Run trials of raw Tune with the storage of flambe; return how long they took."""
        head = self.farm.hosts[0]
        root = f"{self.home}/raw-{time.time_ns()}"
        head.run("mkdir", root, user=self.user)
        storage = {
            "root": root,
            "id": str(time.time_ns()),
            "host": head.address,
            "user": self.user,
            "key": f"flambe-{self.farm.name}",
        }
        told = {"trials": trials, "steps": steps, "padding": padding, "address": address}
        said = self._on(head, variables, self.script, json.dumps({**told, "storage": storage}))
        return float(said.rpartition("took ")[2].split()[0])  # a worker may say something after it


def memory(farm: Any, run: Any) -> tuple[float, float]:
    """Return the memory of the client, and of what runs on the orchestrator beside Ray, in MiB."""
    client = psutil.Process(run.process.pid)
    ours = [client, *client.children(recursive=True)]
    there = [
        psutil.Process(pid)
        for pid in farm.hosts[0].pids()
        if any("flambe" in word for word in psutil.Process(pid).cmdline()[:4])
    ]
    return tuple(sum(one.memory_full_info().pss for one in each) / MEBI for each in (ours, there))


def flambes(
    farm: Any, arguments: tuple[Any, ...], trials: int, steps: int, padding: int
) -> tuple[float, tuple[float, float]]:
    """Run trials of flambe; return how long they took, and the memory meanwhile."""
    rates = json.dumps([round(0.01 * (n + 1), 2) for n in range(trials)])
    text = TRIALS.replace("RATES", rates).replace("STEPS", str(steps))
    run = farm.start(farm.write("many", text.replace("PADDING", str(padding))), *arguments)
    run.says("grow: running")
    begun = time.monotonic()
    run.says("step 1 of")
    sizes = memory(farm, run)
    run.says("grow: finished", seconds=3600)
    took = time.monotonic() - begun
    run.ends()
    return took, sizes


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--padding", type=int, default=2_000_000, help="bytes of a checkpoint")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    from tests.experiment.farm import Farm
    from tests.metal import Metal

    if os.geteuid() != 0:
        sys.exit("not run: real hosts need root")
    with tempfile.TemporaryDirectory() as folder, Metal(3) as metal:
        farm = Farm(Path(folder), metal)
        measure(farm, options)
        farm.close()


def measure(farm: Any, options: argparse.Namespace) -> None:
    """Print every ratio."""
    warm = farm.write("warm", STARTS.replace("RATE", "0.1"))
    at = ("--cluster", farm.cluster, "--force")
    first_step(farm, warm, *at)  # the environment is made, and Ray started
    hand = Hand(farm)
    cold, parts, kept, local, ours, raw, one_disk = [], [], [], [], [], [], []
    sizes: tuple[float, float] = (0.0, 0.0)
    for _ in range(options.repeats):
        farm.flambe("down", farm.cluster, "--force")
        farm.flambe(farm.cluster)  # ready, with keys, and without Ray
        parts.append(hand.from_nothing())
        cold.append(first_step(farm, warm, *at))
        kept.append(first_step(farm, warm, *at))
        local.append(first_step(farm, warm, "--force"))
        size = (options.trials, options.steps, options.padding)
        few = (8, 2, options.padding)
        flambes(farm, at, *few)
        hand.on_flambes(*few)
        first = hand.on_flambes(*size)
        both = [flambes(farm, at, *size) for _ in range(2)]
        raw.append((first + hand.on_flambes(*size)) / 2)
        ours.append(sum(took for took, _ in both) / 2)
        sizes = both[-1][1]
        farm.flambe("down", farm.cluster, "--force")  # whose Ray is not in the way
        one_disk.append(hand.on_one_disk(*size))
    for name, one, other, target in (
        ("first step, from the command / Ray and Tune by hand", cold, parts, 1.2),
        ("first step with Ray kept / on this machine", kept, local, 2.0),
        (f"{options.trials} trials x {options.steps} steps / raw Tune", ours, raw, 1.1),
    ):
        figures = common.ratios(one, other)
        print(f"{name}: {common.spread(figures, digits=2)}, expected at most {target}")
        print(f"  {common.spread(one)} s / {common.spread(other)} s")
    collecting = common.spread(common.ratios(raw, one_disk), digits=2)
    print(f"what collecting costs, raw Tune / the same on one host's own disk: {collecting}")
    print(f"memory of the client: {sizes[0]:.0f} MiB, expected at most 150")
    print(f"of driver, site and TensorBoard: {sizes[1]:.0f} MiB, expected at most 1536")
    print(f"load: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

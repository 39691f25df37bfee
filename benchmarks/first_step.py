"""How long until the first step of the first trial is done, beside raw Ray Tune.

``flambe examples/digits.yaml --force``, which has run before, against a script of Tune that trains the
same model on the same data: the same imports, the same grid, two trials at a time, actors reused,
figures written as JSON lines and TensorBoard events. Each run is a process of its own that starts its
own Ray; the time goes from the start of the process to the end of the first step (100 updates and a
validation), as the workers note it.

``python benchmarks/first_step.py [--repeats 5]``
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import sysconfig
import tempfile
import time
from functools import partial
from pathlib import Path

import common
from flambe.progress import read_lines

TARGET = 1.2
EXAMPLE = common.ROOT / "examples" / "digits.yaml"
BATCH, UPDATES, STEPS = 64, 100, 8


def raw(root: Path) -> None:
    """Run the grid of the example as somebody would who writes for Ray Tune alone."""
    import ray
    import torch
    from ray import tune
    from ray.tune.logger import JsonLoggerCallback, TBXLoggerCallback
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    class Digits(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, float]) -> None:
            torch.manual_seed(1)
            torch.set_num_threads(1)
            data = load_digits()
            parts = train_test_split(
                torch.tensor(data.data, dtype=torch.float32) / 16,
                torch.tensor(data.target),
                test_size=0.2,
                random_state=1,
            )
            self.features, self.val_features, self.labels, self.val_labels = parts
            hidden = int(config["output_size"])
            self.model = torch.nn.Sequential(
                torch.nn.Linear(64, hidden),
                torch.nn.ReLU(),
                torch.nn.Dropout(0.1),
                torch.nn.Linear(hidden, hidden),
                torch.nn.ReLU(),
                torch.nn.Linear(hidden, 10),
            )
            self.loss = torch.nn.CrossEntropyLoss()
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config["lr"])
            self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3, 0.5)

        def step(self) -> dict[str, object]:
            self.model.train()
            for _ in range(UPDATES):
                chosen = torch.randint(len(self.features), (BATCH,))
                loss = self.loss(self.model(self.features[chosen]), self.labels[chosen])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
            self.scheduler.step()
            self.model.eval()
            with torch.no_grad():
                guessed = self.model(self.val_features).argmax(1)
            accuracy = float((guessed == self.val_labels).float().mean())
            now = time.time()
            with open(os.path.join(root, "steps"), "a") as file:
                file.write(f"{now!r}\n")
            return {"accuracy": accuracy, "done": self.iteration + 1 == STEPS}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            torch.save(self.model.state_dict(), os.path.join(checkpoint_dir, "model.pt"))

        def load_checkpoint(self, checkpoint: str) -> None:
            self.model.load_state_dict(torch.load(os.path.join(checkpoint, "model.pt")))

        def reset_config(self, new_config: dict[str, float]) -> bool:
            self.setup(new_config)
            return True

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    space = {"output_size": [16, 32, 64, 128], "lr": [0.001, 0.003, 0.01]}
    reported = tune.Tuner(
        Digits,
        param_space={name: tune.grid_search(values) for name, values in space.items()},
        tune_config=tune.TuneConfig(metric="accuracy", mode="max", reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(root),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=2),
            callbacks=[JsonLoggerCallback(), TBXLoggerCallback()],
            verbose=0,
        ),
    ).fit()
    assert reported.get_best_result().metrics["accuracy"] > 0.9
    ray.shutdown()


def _first_step_raw() -> float:
    root = Path(tempfile.mkdtemp(prefix="flambe-bench-"))
    try:
        begun = time.time()
        common.took([sys.executable, __file__, "--raw", str(root)])
        return min(map(float, (root / "steps").read_text().split())) - begun
    finally:
        shutil.rmtree(root)


def _first_step_flambe(root: Path) -> float:
    command = str(Path(sysconfig.get_path("scripts"), "flambe"))
    begun = time.time()
    common.took([command, str(EXAMPLE), "--force", f"+save_path={root}"])
    folder = root / "output__digits" / "train"
    steps = [
        float(line["time"])
        for path in folder.glob("*/metrics.jsonl")
        for line in read_lines(path)
        if line["step"] == 1
    ]
    return min(steps) - begun


def main(repeats: int) -> None:
    """Measure and print."""
    print(common.machine())
    root = Path(tempfile.mkdtemp(prefix="flambe-bench-"))
    try:
        times = common.rounds(
            {"flambe": partial(_first_step_flambe, root), "raw": _first_step_raw}, repeats
        )
    finally:
        shutil.rmtree(root)
    names = {"flambe": "flambe digits.yaml --force", "raw": "raw Ray Tune"}
    common.table(
        ["from the command to the first step", "s"],
        [[names[name], common.spread(seconds)] for name, seconds in times.items()],
    )
    ratio = statistics.median(common.ratios(times["flambe"], times["raw"]))
    print(f"\nflambe / raw Ray Tune: {common.verdict(ratio, TARGET)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="the time to the first step of the first trial")
    parser.add_argument("--raw", default="", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.raw:
        raw(Path(arguments.raw))
    else:
        main(arguments.repeats)

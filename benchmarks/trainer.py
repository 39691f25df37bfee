"""The trainer against a loop by hand: same model, data and batches, on one core.

Prints the time of a step of each and the ratio of their medians; the target is at most 1.05.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from flambe.dataset import SklearnDataset
from flambe.learn import Trainer
from flambe.metric import Accuracy
from flambe.nn import Classifier, MLPEncoder
from flambe.sampler import BaseSampler

UPDATES = 200
TARGET = 1.05


def _model(dataset: SklearnDataset, hidden: int) -> Classifier:
    torch.manual_seed(0)
    encoder = MLPEncoder(dataset.n_features, hidden, n_layers=2)
    return Classifier(encoder, dataset.n_classes)


class ByHand:
    """What one would write without flambe, evaluation included."""

    def __init__(self, dataset: SklearnDataset, hidden: int) -> None:
        self.train, self.val = dataset.train, dataset.val
        self.model = _model(dataset, hidden)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.001)
        self.loss_fn = torch.nn.CrossEntropyLoss()
        self.batches = BaseSampler(64, seed=0).stream(self.train)
        self.val_sampler = BaseSampler(256, shuffle=False, seed=0)

    def run(self) -> float:
        """Do a step."""
        self.model.train()
        total = torch.zeros(())
        for _ in range(UPDATES):
            features, labels = next(self.batches)
            loss = self.loss_fn(self.model(features), labels)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            total += loss.detach()
        self.model.eval()
        correct = count = 0
        with torch.no_grad():
            for features, labels in self.val_sampler.sample(self.val):
                pred = self.model(features)
                self.loss_fn(pred, labels)
                correct += int((pred.argmax(1) == labels).sum())
                count += len(labels)
        return correct / count


def _trainer(dataset: SklearnDataset, hidden: int, steps: int) -> Trainer:
    model = _model(dataset, hidden)
    return Trainer(
        dataset,
        BaseSampler(64, seed=0),
        BaseSampler(256, shuffle=False, seed=0),
        model,
        torch.nn.CrossEntropyLoss(),
        metric_fn=Accuracy(),
        optimizer=torch.optim.Adam(model.trainable_params, lr=0.001),
        device="cpu",
        max_steps=steps + 1,
        iter_per_step=UPDATES,
    )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--hidden", type=int, nargs="+", default=[32, 128, 512])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = SklearnDataset("digits")
    for hidden in arguments.hidden:
        ours = _trainer(dataset, hidden, arguments.repeats + 1)
        by_hand = ByHand(dataset, hidden)
        ours.run()
        by_hand.run()
        times: dict[str, list[float]] = {"ours": [], "by hand": []}
        for repeat in range(arguments.repeats):
            both = [("ours", ours.run), ("by hand", by_hand.run)]
            # Taking turns to be first, so that neither profits from the other.
            for name, run in both if repeat % 2 else both[::-1]:
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(values) for name, values in times.items()}
        ratio = medians["ours"] / medians["by hand"]
        print(
            f"hidden {hidden:>4}: trainer {medians['ours'] * 1e3:7.2f} ms, "
            f"by hand {medians['by hand'] * 1e3:7.2f} ms per step of {UPDATES} updates; "
            f"ratio {ratio:.3f} ({'ok' if ratio <= TARGET else 'too slow'})"
        )


if __name__ == "__main__":
    main()

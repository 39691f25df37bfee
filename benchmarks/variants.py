"""What many variants cost: from the text of a file to 100, 1,000 and 10,000 of them.

Reading, checking and expanding are all counted; imports are not. Time and memory must grow with the
number of variants, no faster. Each measurement has a process of its own.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
import tracemalloc
from functools import partial
from typing import Any

import common

COUNTS = (100, 1_000, 10_000)
REPEATS = 5
# How much more a variant may cost among ten times as many: Python's collector of garbage takes some.
LINEAR = 1.5

# What digits.yaml is made of, in one stage and in a second one that is paired with the first.
TEXT = """\
!Experiment
name: many
pipeline:
  dataset: !SklearnDataset
    name: digits
  train: !Trainer
    dataset: !@ dataset
    train_sampler: !BaseSampler
      batch_size: {batch_size}
    val_sampler: !BaseSampler
      batch_size: 256
    model: !Classifier
      encoder: !MLPEncoder
        input_size: !@ dataset.n_features
        output_size: {size}
        n_layers: 2
      n_classes: !@ dataset.n_classes
    loss_fn: !torch.CrossEntropyLoss
    metric_fn: !Accuracy
    optimizer: !torch.Adam
      params: !@ train[model].trainable_params
      lr: {rate}
  evaluate: !Evaluator
    dataset: !@ dataset
    model: !@ train[model]
    metric_fn: !Accuracy
    eval_data: test
"""
PRODUCT, LIST = "product", "list"
SHAPES = {PRODUCT: "2 x 5 x !s [.., .., N/10]", LIST: "one !g of N values"}


def text(shape: str, count: int) -> str:
    """Return a file with that many variants of each of two stages."""
    if shape == PRODUCT:
        rate = f"!s [0.0001, 0.1, {count // 10}]"
        return TEXT.format(batch_size="!g [32, 64]", size="!g [16, 32, 48, 64, 80]", rate=rate)
    rates = ", ".join(f"{1e-5 * (number + 1):.5f}" for number in range(count))
    return TEXT.format(batch_size=32, size=16, rate=f"!g [{rates}]")


def once(shape: str, count: int, traced: bool) -> dict[str, Any]:
    """Read, check and expand, once; everything is imported before."""
    from flambe.compile.checks.calls import check
    from flambe.compile.reader.document import read_text
    from flambe.experiment.variants.expansion import Expander

    def expand(source: str) -> tuple[Any, float, float]:
        begun = time.perf_counter()
        document = read_text(source)
        check(document)
        document.raise_problems()
        read = time.perf_counter()
        pipeline = document.root.kwargs["pipeline"]
        expander = Expander(pipeline, 0)
        known: dict[str, Any] = {}
        for stage in pipeline:
            known[stage] = expander.expand(stage, known)
        return known, read - begun, time.perf_counter() - read

    expand(text(shape, 10))  # imports what the file names
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if traced:
        tracemalloc.start()
    known, reading, expanding = expand(text(shape, count))
    assert len(known["train"]) == len(known["evaluate"]) == count
    assert len({variant.id for variant in known["train"]}) == count
    return {
        "read": reading,
        "expand": expanding,
        "traced": tracemalloc.get_traced_memory()[1] if traced else None,
        "rss": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
    }


def main() -> None:
    """Measure and print."""
    print(common.machine())
    print("two stages that are paired, N variants of each")
    for shape in SHAPES:
        _shape(shape)


def _shape(shape: str) -> None:
    found: dict[int, list[dict[str, Any]]] = {count: [] for count in COUNTS}

    def measure(count: int) -> float:
        found[count].append(common.elsewhere(__file__, shape, count))
        return float(found[count][-1]["read"] + found[count][-1]["expand"])

    seconds = common.rounds(
        {str(count): partial(measure, count) for count in COUNTS}, REPEATS, warm=False
    )
    rows = []
    for count in COUNTS:
        traced = common.elsewhere(__file__, shape, count, "traced")["traced"]
        rows.append(
            [
                f"{count:,}",
                common.spread([one["read"] for one in found[count]], 1e3),
                common.spread([one["expand"] for one in found[count]], 1, 3),
                common.spread(seconds[str(count)], 1e6 / (2 * count), 0),
                f"{traced / 2**20:.1f}",
                f"{traced / (2 * count) / 1024:.1f}",
                f"{statistics.median(one['rss'] for one in found[count]) / 2**20:.0f}",
            ]
        )
    print(f"\n{SHAPES[shape]}")
    common.table(
        ["N", "read+check ms", "expand s", "us each", "peak MiB", "KiB each", "RSS + MiB"], rows
    )
    for small, large in zip(COUNTS, COUNTS[1:], strict=False):
        growth = common.ratios(seconds[str(large)], seconds[str(small)])
        print(f"{small:,} to {large:,}: {common.spread(growth)} times the seconds", end="")
        each = statistics.median(growth) * small / large
        print(f"; each variant {common.verdict(each, LINEAR)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(once(sys.argv[1], int(sys.argv[2]), traced="traced" in sys.argv)))
    else:
        main()

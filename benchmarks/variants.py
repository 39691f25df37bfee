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
      batch_size: !g [{batch_sizes}]
    val_sampler: !BaseSampler
      batch_size: 256
    model: !Classifier
      encoder: !MLPEncoder
        input_size: !@ dataset.n_features
        output_size: !g [{sizes}]
        n_layers: 2
      n_classes: !@ dataset.n_classes
    loss_fn: !torch.CrossEntropyLoss
    metric_fn: !Accuracy
    optimizer: !torch.Adam
      params: !@ train[model].trainable_params
      lr: !s [0.0001, 0.1, {rates}]
  evaluate: !Evaluator
    dataset: !@ dataset
    model: !@ train[model]
    metric_fn: !Accuracy
    eval_data: test
"""


def text(count: int) -> str:
    """Return a file with that many variants of each of two stages."""
    rates = count // 10
    return TEXT.format(
        batch_sizes="32, 64",
        sizes=", ".join(str(16 * (n + 1)) for n in range(5)),
        rates=rates,
    )


def once(count: int, traced: bool) -> dict[str, Any]:
    """Read, check and expand, once; everything is imported before."""
    from flambe.compile.check import check
    from flambe.compile.document import read_text
    from flambe.experiment.variants import Expander

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

    expand(text(10))  # imports what the file names
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if traced:
        tracemalloc.start()
    known, reading, expanding = expand(text(count))
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
    print("two stages that are paired: N variants of each\n")
    found: dict[int, list[dict[str, Any]]] = {count: [] for count in COUNTS}

    def measure(count: int) -> float:
        found[count].append(common.elsewhere(__file__, count))
        return float(found[count][-1]["read"] + found[count][-1]["expand"])

    seconds = common.rounds(
        {str(count): partial(measure, count) for count in COUNTS}, REPEATS, warm=False
    )
    rows = []
    for count in COUNTS:
        total = seconds[str(count)]
        traced = common.elsewhere(__file__, count, "traced")["traced"]
        rows.append(
            [
                f"{count:,} + {count:,}",
                common.spread([one["read"] for one in found[count]], 1e3),
                common.spread([one["expand"] for one in found[count]], 1, 3),
                common.spread(total, 1e6 / (2 * count), 0),
                f"{traced / 2**20:.1f}",
                f"{traced / (2 * count) / 1024:.1f}",
                f"{statistics.median(one['rss'] for one in found[count]) / 2**20:.0f}",
            ]
        )
    common.table(
        [
            "variants",
            "read+check ms",
            "expand s",
            "per variant us",
            "peak MiB",
            "per variant KiB",
            "RSS + MiB",
        ],
        rows,
    )
    print()
    for small, large in zip(COUNTS, COUNTS[1:], strict=False):
        growth = common.ratios(seconds[str(large)], seconds[str(small)])
        print(
            f"{small:,} to {large:,}: {large // small} times the variants, "
            f"{common.spread(growth)} times the seconds"
        )
    growth = common.ratios(seconds[str(COUNTS[-1])], seconds[str(COUNTS[-2])])
    linear = statistics.median(growth) <= 1.3 * COUNTS[-1] / COUNTS[-2]
    print(f"linear: {'yes' if linear else 'NO'}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(once(int(sys.argv[1]), traced="traced" in sys.argv)))
    else:
        main()

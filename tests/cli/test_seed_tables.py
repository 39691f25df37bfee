"""Tables of variants that were run under several seeds."""

from __future__ import annotations

import re

from flambe.cli.results import result_tables
from flambe.cli.terminal import TextConsole
from flambe.progress import RunState, StageState, Status, VariantState


def test_seeds_are_shown_by_their_mean() -> None:
    variants = [
        VariantState(
            f"{rate}-{seed}",
            "train",
            f"rate={rate}",
            status=Status.FINISHED if metric is not None else Status.FAILED,
            choices={"rate": rate, "seed": seed},
            metric=metric,
            seed=seed,
            group=str(rate),
            attempts=1,
        )
        for rate, metrics in ((0.1, (0.5, 0.7)), (0.2, (0.7, 0.9)), (0.3, (0.99, None)))
        for seed, metric in enumerate(metrics)
    ]
    run = RunState("seeds", stages=[StageState("train")])
    screen = TextConsole(width=100, force_terminal=False)
    with screen.capture() as captured:
        screen.print(*result_tables(run, variants))
    rows = [re.split(r"\s*│\s*", line)[1:-1] for line in captured.get().splitlines() if "│" in line]
    assert rows == [
        ["1", "0.2", "0.8 ± 0.14", "2", "✔ finished"],
        ["2", "0.1", "0.6 ± 0.14", "2", "✔ finished"],
        ["3", "0.3", "0.99", "1 of 2", "1 finished, 1 failed"],
    ]
    with screen.capture() as captured:
        screen.print(*result_tables(run, variants, each=True))
    assert len(re.findall("│ +0.2 │", captured.get())) == 2

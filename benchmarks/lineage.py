"""What it costs to know what to run: the plan of 10,000 and 100,000 variants whose results exist.

The results are written as a run writes them, without running anything. Counted is all of
``flambe plan`` behind reading the file: fingerprints of the code, identities, the journal of the
earlier run, and the decision and the reason for each variant, in seconds of processor time. Then a run where nothing has changed
takes turns with ``flambe plan`` of the same file: it reuses everything, and Ray is not imported.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import common

if TYPE_CHECKING:
    from flambe.experiment.spec import ExperimentSpec

COUNTS = (1_000, 10_000, 100_000)
MOST_SECONDS = 3.0  # for 10,000 variants
LINEAR = 1.5  # what a variant among ten times as many may cost
REPEATS = 5
AGAIN, AGAIN_TARGET = 1_000, 1.5  # variants of a run where nothing changed; times its plan

EXTENSION = """
from flambe.compile import Component

class Net(Component):
    def __init__(self, rate=1.0, size=1, start=None, optimizer=None):
        self.rate, self.size, self.figure = rate, size, 0.0
        self.register_attrs("figure")

    def run(self):
        self.figure = helper(self.rate)
        return False

    def metric(self):
        return self.figure

def helper(x):
    return 2 * x
"""
TEXT = """\
bench_ext: ./bench_ext
---
!Experiment
name: many
save_path: {folder}/out
max_variants: 100000
pipeline:
  data: !bench_ext.Net {{rate: 0.0}}
  train: !bench_ext.Net
    start: !@ data
    size: !g [1, 2]
    rate: !s [0.0001, 0.1, {half}]
    optimizer: {{name: adam, betas: [0.9, 0.999], eps: 0.00000001, nested: {{a: 1, b: [1, 2, 3]}}}}
  test: !bench_ext.Net
    start: !@ train
    rate: 0.5
"""


def prepare(folder: Path, count: int, *, checkpoints: bool) -> Path:
    """Write a file of that many variants in all, and the results of a run of it."""
    from flambe.experiment.variants.expansion import Expander, Variant
    from flambe.experiment.variants.inputs import Inputs
    from flambe.experiment.variants.record import LineageRecord
    from flambe.progress import RunFolder, Status, VariantState, change_line

    (folder / "bench_ext").mkdir()
    (folder / "bench_ext" / "__init__.py").write_text(EXTENSION)
    config = folder / "many.yaml"
    config.write_text(TEXT.format(folder=folder, half=count // 4))
    spec = _spec(config)
    expander = Expander(spec.pipeline, spec.seed, spec.resources, Inputs.of(spec, {}))
    run = RunFolder(folder / "out" / "output__many")
    known: dict[str, list[Variant]] = {}
    run.root.mkdir(parents=True)
    with run.variants.open("w") as journal:
        for stage in spec.pipeline:
            known[stage] = expander.expand(stage, known)
            for variant in known[stage]:
                state = VariantState(
                    variant.id, stage, variant.name, Status.FINISHED,
                    choices=dict(variant.choices), parents=dict(variant.parents),
                    config_id=variant.config_id, code=dict(variant.code),
                    packages=dict(variant.packages),
                    metric=0.5, best=0.5, step=1, started=1.0, ended=2.0,
                )  # fmt: skip
                journal.write(change_line(asdict(state)))
                if checkpoints:
                    target = run.variant(stage, variant.name) / "checkpoint"
                    target.mkdir(parents=True)
                    manifest = {"step": 1, "metric": 0.5, "best": 0.5, "done": True, "files": {}}
                    (target / "manifest.json").write_text(json.dumps(manifest))
    run.lineage.write_text(LineageRecord.of(spec, expander).dump())
    return config


def _spec(config: Path) -> ExperimentSpec:
    from flambe.compile.build import outlined
    from flambe.compile.reader.document import read_file
    from flambe.experiment import Experiment

    document = read_file(config)
    document.raise_problems()
    experiment = outlined(document.root)
    assert isinstance(experiment, Experiment)
    return experiment.spec()


def once(count: int, traced: bool) -> dict[str, float | None]:
    """Plan that many variants, once; everything is imported before."""
    import tracemalloc

    from flambe.experiment.planning.decisions import Action
    from flambe.experiment.planning.earlier import EarlierRuns
    from flambe.experiment.planning.plan import make_plan
    from flambe.experiment.storage.checkpoints import Checkpoints
    from flambe.experiment.storage.saved_results import StoredResults
    from flambe.experiment.variants.lineage import EarlierResults
    from flambe.experiment.variants.recognition import read_record
    from flambe.progress import RunFolder, read_lines

    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        sys.path.insert(0, text)
        spec = _spec(prepare(folder, count, checkpoints=True))
        run = RunFolder(folder / "out" / "output__many")
        if traced:
            tracemalloc.start()
        begun = time.process_time()
        results = EarlierResults.read(read_lines(run.variants))
        read = time.process_time()
        saved = StoredResults(Checkpoints(str(run.root)))
        earlier = EarlierRuns(results, read_record(run), saved)
        plan = make_plan(spec, earlier, slots=2)
        planned = time.process_time()
        decisions = [decision for stage in plan.stages for decision in stage.decided.decisions]
        assert len(decisions) == 1 + 2 * (count // 4 * 2), len(decisions)
        assert all(decision.action is Action.REUSE for decision in decisions)
    peak = tracemalloc.get_traced_memory()[1] if traced else None
    return {"journal": read - begun, "plan": planned - read, "traced": peak}


def again(folder: Path) -> None:
    """Measure a run where nothing changed beside its plan, and print the ratio."""
    sys.path.insert(0, str(folder))
    config = prepare(folder, AGAIN, checkpoints=True)
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "from flambe.cli.main import main; code = main(sys.argv[1:]);"
        "assert 'ray' not in sys.modules; sys.exit(code)"
    )
    command = [sys.executable, "-c", script, str(folder)]
    runs = {
        "flambe plan": partial(_used, [*command, "plan", str(config)]),
        "flambe --resume": partial(_used, [*command, str(config), "--resume"]),
    }
    seconds = common.rounds(runs, REPEATS)
    print(f"{AGAIN:,} variants of which nothing changed, seconds of processor time")
    for name, figures in seconds.items():
        print(f"{name}: {common.spread(figures, 1, 2)} s")
    ratio = common.ratios(seconds["flambe --resume"], seconds["flambe plan"])
    print(f"run where nothing changed: {common.verdict(statistics.median(ratio), AGAIN_TARGET)}")


def _used(command: list[str]) -> float:
    """Run a command; return the seconds that processors spent on it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    common.took(command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    print(common.machine())
    figures: dict[int, list[dict[str, float]]] = {count: [] for count in COUNTS}

    def measure(count: int) -> float:
        figures[count].append(common.elsewhere(__file__, count))
        return float(figures[count][-1]["journal"] + figures[count][-1]["plan"])

    seconds = common.rounds({str(n): partial(measure, n) for n in COUNTS}, 3, warm=False)
    rows = [
        [
            f"{count:,}",
            common.spread([one["journal"] for one in figures[count]], 1, 2),
            common.spread([one["plan"] for one in figures[count]], 1, 2),
            common.spread(seconds[str(count)], 1, 2),
            common.spread(seconds[str(count)], 1e6 / count, 0),
        ]
        for count in COUNTS
    ]
    common.table(["variants", "journal s", "plan s", "both s", "us each"], rows)
    ratio = statistics.median(seconds["10000"]) / MOST_SECONDS
    print(f"10,000 in {MOST_SECONDS:g} s: {common.verdict(ratio, 1.0)}")
    for small, large in zip(COUNTS, COUNTS[1:], strict=False):
        growth = common.ratios(seconds[str(large)], seconds[str(small)])
        each = statistics.median(growth) * small / large
        print(f"{small:,} to {large:,}: each variant {common.verdict(each, LINEAR)}")
    with tempfile.TemporaryDirectory() as text:
        again(Path(text))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(once(int(sys.argv[1]), traced="traced" in sys.argv)))
    else:
        main()

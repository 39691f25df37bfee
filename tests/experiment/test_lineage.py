"""Whose result is reused: by identity, and with the reason where it is stale."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from flambe.errors import ConfigError
from flambe.experiment.variants.expansion import Expander, Variant
from flambe.experiment.variants.inputs import Inputs
from flambe.progress import Status, VariantState
from tests.experiment.lab import Lab, Outcome

_numbers = itertools.count()

CODE = """
from pathlib import Path
from flambe.compile import Component

class Net(Component):
    def __init__(self, rate=1.0, text="", start=None, steps=1, stop=None):
        self.rate, self.text, self.start, self.steps = rate, text, start, steps
        self.stop = Path(stop) if stop else None
        self.step, self.figure = 0, 0.0
        self.register_attrs("step", "figure")

    def run(self):
        if self.stop and self.step == 2 and self.stop.exists():
            raise RuntimeError("stopped")
        self.step += 1
        self.figure = self.rate * GAIN + (self.start.figure if self.start else 0)
        if self.text:
            self.figure += float(Path(self.text).read_text())
        return self.step < self.steps

    def metric(self):
        return self.figure
"""
PIPELINE = """
a: !MINE.Net {rate: !g [1.0, 2.0]}
b: !MINE.Net {start: !@ a, rate: 0.0}
"""


class Mine:
    """An extension, in the folder of the lab; its module stays imported when its file changes."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.name = f"mine{next(_numbers)}"
        self.file = lab.root / self.name / "__init__.py"
        self.file.parent.mkdir()
        self.write(gain=1)

    def write(self, *, gain: int) -> None:
        self.file.write_text(CODE.replace("GAIN", str(gain)), encoding="utf-8")

    def run(self, pipeline: str = PIPELINE, *, more: str = "", **options: Any) -> Outcome:
        self.lab.write(pipeline.replace("MINE", self.name), more=more)
        text = self.lab.config.read_text(encoding="utf-8")
        text = text.replace("pieces: ./pieces", f"{self.name}: ./{self.name}")
        self.lab.config.write_text(text, encoding="utf-8")
        return self.lab.run(**options)


@pytest.fixture
def mine(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Mine:
    monkeypatch.syspath_prepend(str(lab.root))
    return Mine(lab)


def all_reused(outcome: Outcome) -> bool:
    return {v.status for v in outcome.fine().variants} == {Status.REUSED}


def fresh(outcome: Outcome) -> list[VariantState]:
    return [v for v in outcome.fine().variants if v.status is Status.FINISHED]


# -- names are not read back --------------------------------------------------------------------


def test_a_result_is_found_by_its_recorded_name(mine: Mine) -> None:
    """An option of the same short name, elsewhere, changes the labels of all variants."""
    first = mine.run().fine()
    names, metrics = [v.name for v in first.of("a")], first.metrics("b")
    again = mine.run(PIPELINE + "c: !MINE.Net {rate: !g [5.0, 6.0]}\n", resume=True)
    assert [v.name for v in again.fine().of("a")] == names
    assert again.statuses("a") == again.statuses("b") == [Status.REUSED] * 2
    assert again.metrics("b") == metrics
    assert [v.choices for v in again.of("a")] == [{"a.rate": 1.0}, {"a.rate": 2.0}]
    # What is built on it finds it there.
    third = mine.run(
        PIPELINE + "c: !MINE.Net {rate: !g [5.0, 6.0]}\nd: !MINE.Net {start: !@ b}\n", resume=True
    )
    assert third.metrics("d") == [2.0, 3.0]


def test_an_unfinished_variant_goes_on_under_its_recorded_name(mine: Mine) -> None:
    stop = mine.lab.root / "stop"
    stop.touch()
    pipeline = f"a: !MINE.Net {{rate: !g [1.0, 2.0], steps: 4, stop: {stop}}}\n"
    failed = mine.run(pipeline, more="max_failures: 0")
    assert failed.error is not None
    names = [variant.name for variant in failed.of("a")]
    stop.unlink()
    more = "c: !MINE.Net {rate: !g [5.0, 6.0]}\n"
    again = mine.run(pipeline + more, resume=True, more="max_failures: 0").fine()
    for variant, name in zip(again.of("a"), names, strict=True):
        assert variant.name == name
        assert variant.step == 4
        assert [step for step, _ in again.figures(variant, "metric")] == [1, 2, 3, 4]


# -- what is stale ------------------------------------------------------------------------------


def test_what_runs_other_code_is_run_again_and_it_is_said_why(mine: Mine) -> None:
    first = mine.run().fine().variants
    mine.write(gain=10)
    again = mine.run(resume=True)
    reason = f"code of {mine.name}.Net changed"
    assert [v.reason for v in fresh(again)] == [reason] * 4
    assert (
        f"a: 2 variants are run again: {reason}; "
        "the earlier results are kept (--stale reuse would use them)"
    ) in again.watcher.notes
    # The old ones are kept, and are no part of the run.
    for variant in first:
        assert again.folder.checkpoint(variant.stage, variant.name).is_dir()
    assert not {v.id for v in first} & {v.id for v in again.variants}
    # Back to what it was: its results are found.
    mine.write(gain=1)
    back = mine.run(resume=True)
    assert all_reused(back)
    assert [v.name for v in back.variants] == [v.name for v in first]
    assert not any(v.stale for v in back.variants)


def test_comments_change_nothing(mine: Mine) -> None:
    mine.run().fine()
    mine.file.write_text("# About it.\n" + mine.file.read_text())
    assert all_reused(mine.run(resume=True))


def test_a_stale_result_is_used_on_request_and_marked(mine: Mine) -> None:
    ids = [v.id for v in mine.run().fine().of("a")]
    mine.write(gain=10)
    more = PIPELINE + "c: !MINE.Net {start: !@ a}\n"
    again = mine.run(more, resume=True, stale="reuse").fine()
    reason = f"code of {mine.name}.Net changed"
    assert again.statuses("a") == again.statuses("b") == [Status.REUSED] * 2
    assert [v.stale for v in again.of("a")] == [reason] * 2
    assert [v.id for v in again.of("a")] == ids
    assert [v.stale for v in again.of("c")] == ["built on stale results of a"] * 2
    assert f"a: 2 variants are stale, and used all the same: {reason}" in again.watcher.notes
    # Asked once, it is not so for ever; and what was built on stale results is run again too.
    last = mine.run(more, resume=True).fine()
    assert {v.status for v in last.variants} == {Status.FINISHED}
    assert not any(v.stale for v in last.variants)
    assert {v.reason for v in last.of("c")} == {f"ancestor a: {reason}"}


def test_an_unfinished_stale_variant_goes_on_on_request(mine: Mine) -> None:
    """A mistake in the code was mended; the steps before it need not be done again."""
    stop = mine.lab.root / "stop"
    stop.touch()
    pipeline = f"a: !MINE.Net {{steps: 4, stop: {stop}}}\n"
    assert mine.run(pipeline, more="max_failures: 0").error is not None
    stop.unlink()
    mine.write(gain=10)
    again = mine.run(pipeline, resume=True, stale="reuse").fine()
    (variant,) = again.variants
    assert [step for step, _ in again.figures(variant, "metric")] == [1, 2, 3, 4]
    assert variant.stale == f"code of {mine.name}.Net changed"
    # Otherwise it starts again, in a folder of its own.
    last = mine.run(pipeline, resume=True).fine()
    (other,) = last.variants
    assert other.name != variant.name
    assert [step for step, _ in last.figures(other, "metric")] == [1, 2, 3, 4]


def test_the_bytes_of_a_resource(mine: Mine) -> None:
    text, unused = mine.lab.root / "x.txt", mine.lab.root / "unused.txt"
    text.write_text("1")
    unused.write_text("1")
    pipeline = """
        a: !MINE.Net {text: !@ txt}
        b: !MINE.Net {start: !@ a}
        c: !MINE.Net {rate: 3.0}
    """
    resources = "resources: {txt: ./x.txt, unused: ./unused.txt}"
    (before,) = mine.run(pipeline, more=resources).fine().metrics("b")
    unused.write_text("2")
    assert all_reused(mine.run(pipeline, more=resources, resume=True))
    text.write_text("2")
    again = mine.run(pipeline, more=resources, resume=True)
    reason = "resource 'txt' changed"
    assert [v.reason for v in fresh(again)] == [reason, f"ancestor a: {reason}"]
    assert again.metrics("b") == [(before or 0) + 1]
    assert again.statuses("c") == [Status.REUSED]
    # It is the content that counts, not the place.
    text.rename(mine.lab.root / "y.txt")
    moved = mine.run(pipeline, more=resources.replace("x.txt", "y.txt"), resume=True)
    assert all_reused(moved)


def test_stages_named_to_be_used_as_saved_may_not_be_stale(mine: Mine) -> None:
    mine.run().fine()
    mine.write(gain=10)
    refused = mine.run(resume=["a"]).raised()
    assert isinstance(refused, ConfigError)
    assert f"has only a stale result: code of {mine.name}.Net changed" in str(refused)
    assert "--stale reuse" in str(refused)
    assert mine.run(resume=["a"], stale="reuse").fine().statuses("a") == [Status.REUSED] * 2


def test_results_of_before_identities_held_code(mine: Mine) -> None:
    text = mine.lab.root / "x.txt"
    text.write_text("1")
    more = "resources: {txt: ./x.txt}"
    pipeline = PIPELINE + "c: !MINE.Net {text: !@ txt}\n"
    first = mine.run(pipeline, more=more).fine()
    metrics = first.metrics("c")
    _as_written_before(first, mine.lab)
    again = mine.run(pipeline, more=more, resume=True)
    assert all_reused(again)
    assert again.metrics("c") == metrics
    (note,) = [n for n in again.watcher.notes if "not known" in n]
    assert "5 results" in note
    # It is said each time, for nobody knows more the next time.
    third = mine.run(pipeline, more=more, resume=True)
    assert all_reused(third)
    assert note in third.watcher.notes


def _as_written_before(outcome: Outcome, lab: Lab) -> None:
    """Rewrite a journal as it was when an identity was that of the configuration alone."""
    spec = lab.experiment().spec()
    expander = Expander(spec.pipeline, spec.seed, spec.resources, all_resources=True)
    expanded: dict[str, list[Variant]] = {}
    names = {}
    for stage in spec.pipeline:
        expanded[stage] = expander.expand(stage, expanded)
        for entry, variant in zip(outcome.of(stage), expanded[stage], strict=True):
            names[entry.id] = variant.config_id
    lines = []
    for line in outcome.folder.variants.read_text().splitlines():
        entry = json.loads(line)
        for field in ("config_id", "code", "data", "packages", "stale", "reason", "repetition"):
            entry.pop(field, None)
        entry["id"] = names[entry["id"]]
        if "parents" in entry:
            entry["parents"] = {stage: names[one] for stage, one in entry["parents"].items()}
        lines.append(json.dumps(entry) + "\n")
    outcome.folder.variants.write_text("".join(lines))
    outcome.folder.lineage.unlink()


def test_a_plan_says_what_is_stale(mine: Mine, capsys: pytest.CaptureFixture[str]) -> None:
    from flambe.cli.main import main

    mine.run().fine()
    mine.write(gain=10)
    assert main(["plan", str(mine.lab.config), "--resume"]) == 0
    shown = capsys.readouterr().out
    assert "0 of 4 variants are done" in shown
    assert f"a: 2 run: code of {mine.name}.Net changed" in shown
    assert f"b: 2 run: code of {mine.name}.Net changed" in shown


# -- one identity, one trial --------------------------------------------------------------------


def test_what_is_written_twice_is_run_once_and_it_is_said(mine: Mine) -> None:
    outcome = mine.run("a: !MINE.Net {rate: !g [1, 1, 2]}\nb: !MINE.Net {start: !@ a}\n").fine()
    assert len(outcome.of("a")) == len(outcome.of("b")) == 2
    assert outcome.state.stage("a").total == 2
    assert any("written more than once" in note for note in outcome.watcher.notes)
    assert len(mine.run(resume=True).fine().of("b")) == 2


def test_stale_without_resume_is_a_mistake(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    from flambe.cli.main import main

    lab.write("a: !pieces.Walk {steps: 1}")
    assert main([str(lab.config), "--stale", "reuse"]) == 2
    assert "add --resume" in capsys.readouterr().err
    assert not lab.folder.root.exists()


# -- files that components name -----------------------------------------------------------------


def test_a_script_and_what_it_imports(lab: Lab) -> None:
    (lab.root / "train.py").write_text("import helper\nprint(helper.STEPS)\n")
    (lab.root / "helper.py").write_text("STEPS = 1\n")
    lab.write("a: !Script {script: train.py}")
    lab.run().fine()
    (lab.root / "train.py").write_text("# It prints.\nimport helper\nprint(helper.STEPS)\n")
    assert all_reused(lab.run(resume=True))
    (lab.root / "helper.py").write_text("STEPS = 2\n")
    again = lab.run(resume=True)
    assert [v.reason for v in fresh(again)] == ["file helper.py changed"]


def test_the_files_of_a_table(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.root)
    pipeline = """
        data: !TabularDataset.from_path {train_path: FILE}
        a: !pieces.Drawn {other: !@ data}
    """.replace("FILE", "train.csv")
    (lab.root / "train.csv").write_text("x\n1\n")
    lab.write(pipeline)
    lab.run().fine()
    assert lab.run(resume=True).fine().statuses("a") == [Status.REUSED]
    (lab.root / "train.csv").write_text("x\n2\n")
    again = lab.run(resume=True).fine()
    assert [v.reason for v in again.of("a")] == ["ancestor data: file train.csv changed"]


def test_what_stands_on_a_cluster_counts_by_its_names_and_sizes(lab: Lab) -> None:
    corpus = lab.root / "corpus"
    corpus.mkdir()
    (corpus / "x").write_text("1")
    (lab.root / "y").write_text("1")
    lab.write(
        "a: !pieces.Drawn {other: !@ there}\nb: !pieces.Drawn {other: !@ here}",
        more=f"resources: {{there: !cluster {corpus}, here: ./y, far: !cluster /nowhere}}",
    )
    spec = lab.experiment().spec()

    def contents() -> dict[str, str]:
        places = {"there": str(corpus), "here": str(lab.root / "y"), "far": "/nowhere"}
        return dict(Inputs.of(spec, places).contents)

    before = contents()
    assert set(before) == {"there", "here"}  # nobody links to the other
    (corpus / "x").write_text("2")
    assert contents() == before
    (corpus / "x").write_text("22")
    (lab.root / "y").write_text("2")
    after = contents()
    assert after["there"] != before["there"]
    assert after["here"] != before["here"]

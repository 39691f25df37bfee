"""Results that the journal has and the disk has not: the plan says what the run does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from flambe.cli.main import main
from flambe.cli.plan import list_manifests
from flambe.experiment.planning.decisions import Action, Decider
from flambe.experiment.planning.earlier import parse
from flambe.experiment.storage.checkpoints import FINAL
from flambe.experiment.storage.manifest import MANIFEST
from flambe.progress import Status, VariantState, change_line
from flambe.remote import Host
from flambe.testing import FakeConnection, RecordedCommand
from tests.experiment.lab import Lab, environment

PIPELINE = """
a: !pieces.Walk {steps: 2, rate: !g [1.0, 2.0, 3.0]}
b: !pieces.Walk {steps: 1, start: !@ a}
"""
REDUCE = "reduce: {a: 2}"


def remove_folder(lab: Lab, entry: VariantState) -> None:
    shutil.rmtree(lab.folder.variant(entry.stage, entry.name))


def remove_checkpoint(lab: Lab, entry: VariantState) -> None:
    shutil.rmtree(lab.folder.variant(entry.stage, entry.name) / FINAL)


def truncate_state(lab: Lab, entry: VariantState) -> None:
    checkpoint = lab.folder.variant(entry.stage, entry.name) / FINAL
    largest = max(checkpoint.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])


def forget_the_end(lab: Lab, entry: VariantState) -> None:
    """The run was killed between the last checkpoint and the line that it was the last."""
    with lab.folder.variants.open("a") as journal:
        journal.write(change_line({"id": entry.id, "status": Status.INTERRUPTED, "step": 1}))


EVENTS: Sequence[Callable[[Lab, VariantState], None]] = (
    remove_folder,
    remove_checkpoint,
    truncate_state,
    forget_the_end,
)


def planned(lab: Lab, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["plan", str(lab.config), "--json"]) == 0
    return {stage["name"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}


def files(lab: Lab) -> set[str]:
    return {str(path) for path in lab.folder.root.rglob("*")}


@pytest.mark.parametrize("stage", ["a", "b"])
@pytest.mark.parametrize("event", EVENTS)
def test_the_plan_is_what_the_run_does(
    lab: Lab,
    capsys: pytest.CaptureFixture[str],
    event: Callable[[Lab, VariantState], None],
    stage: str,
) -> None:
    more = "keep: {every: 1}"
    before = lab.run(PIPELINE.replace("steps: 1", "steps: 2"), more=more).fine()
    event(lab, before.of(stage)[1])
    left = files(lab)
    plan = planned(lab, capsys)
    assert files(lab) == left  # a plan changes nothing
    outcome = lab.run(resume=True).fine()
    for name, row in plan.items():
        entries = outcome.of(name)
        run = [entry for entry in entries if entry.status is Status.FINISHED]
        assert row["reused"] == len(entries) - len(run), name
        assert row["run"] == len(run), name
        decided = [d["reason"] for d in row["decisions"] if d["action"] in ("run", "continue")]
        assert Counter(decided) == Counter(entry.reason for entry in run)
    is_rerun = event is not forget_the_end
    # Of the others, the checkpoint of their first step is kept.
    continued = int(event in (remove_checkpoint, truncate_state))
    assert (plan[stage]["run"], plan[stage]["continued"]) == (int(is_rerun), continued)
    if is_rerun:
        assert "its checkpoint is missing" in {d["reason"] for d in plan[stage]["decisions"]}


def test_what_clean_removed_is_run_again(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.run(PIPELINE, more=REDUCE).fine()
    assert main(["clean", str(lab.folder.root), "--only", "dropped", "--yes"]) == 0
    plan = planned(lab, capsys)
    assert (plan["a"]["reused"], plan["a"]["run"]) == (2, 1)
    # Which variants are kept is decided when it has run again.
    assert not plan["b"]["certain"]
    outcome = lab.run(resume=True).fine()
    assert Counter(outcome.statuses("a")) == {Status.REUSED: 2, Status.FINISHED: 1}
    assert main(["plan", str(lab.config)]) == 0
    assert "5 of 5 variants are done" in capsys.readouterr().out


def test_parts_of_checkpoints_beside_a_result_are_removed(lab: Lab) -> None:
    before = lab.run(PIPELINE).fine()
    whole = lab.folder.variant("a", before.of("a")[0].name) / FINAL
    cut, begun = whole.with_name("checkpoint_000777"), whole.with_name("checkpoint_000778")
    shutil.copytree(whole, cut)
    (cut / MANIFEST).write_text((cut / MANIFEST).read_text()[:-9])
    (begun / "checkpoint.flambe").mkdir(parents=True)
    again = lab.run(PIPELINE, resume=True).fine()
    assert [entry.status for entry in again.of("a")] == [Status.REUSED] * 3
    assert [path.name for path in whole.parent.glob("checkpoint*")] == [FINAL]


def test_a_stale_result_of_which_nothing_is_left(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.run("a: !pieces.Walk {steps: 1}").fine()
    text = lab.folder.variants.read_text()
    [entry] = lab.folder.read_variants().values()
    [tag] = entry.code
    lab.folder.variants.write_text(text.replace(entry.id, "0" * 8).replace(entry.code[tag], "1"))
    assert planned(lab, capsys)["a"]["decisions"][0]["reason"] == f"code of {tag} changed"
    remove_folder(lab, entry)
    [decision] = planned(lab, capsys)["a"]["decisions"]
    outcome = lab.run(resume=True).fine()
    assert decision["reason"] == outcome.of("a")[0].reason == "no result is left"


def test_results_on_a_cluster_are_listed(lab: Lab) -> None:
    """What is left of them is asked of the orchestrator by one command."""
    outcome = lab.run(PIPELINE).fine()
    first, second, *_ = outcome.of("a")
    remove_folder(lab, first)
    (lab.folder.variant("a", second.name) / FINAL / "manifest.json").unlink()
    connection = FakeConnection()

    def run(command: RecordedCommand) -> str:
        return subprocess.run(command.argv, capture_output=True, text=True, check=True).stdout

    connection.answer(["find"], run)
    manifests = list_manifests(Host(connection), lab.folder)
    assert manifests is not None
    journal = lab.folder.variants.read_text()
    spec = lab.experiment().spec()
    decided = Decider(
        spec, parse(spec, journal, lab.folder.lineage.read_text(), manifests)
    ).decide()
    assert decided["a"].count(Action.RUN) == 2
    assert decided["a"].count(Action.REUSE) == 1
    assert decided["b"].count(Action.REUSE) == 3
    # Where it cannot be asked, the journal is all there is.
    connection = FakeConnection()
    connection.answer(["find"], code=1)
    assert list_manifests(Host(connection), lab.folder) is None
    decided = Decider(spec, parse(spec, journal, "", None)).decide()
    assert decided["a"].count(Action.REUSE) == 3


@pytest.mark.parametrize("options", [["plan"], ["--resume"]])
def test_what_has_not_changed_is_looked_at_without_large_libraries(
    lab: Lab, options: list[str]
) -> None:
    """They take longer to import than all else that a run takes in which nothing has changed."""
    config = str(lab.write(PIPELINE))
    lab.run().fine()
    arguments = [*options, config] if options == ["plan"] else [config, *options]
    code = (
        "import sys\nfrom flambe.cli.main import main\n"
        f"code = main({arguments!r})\n"
        "large = ('numpy', 'pyarrow', 'fsspec', 'torch', 'ray')\n"
        "sys.exit(code or ' '.join(name for name in large if name in sys.modules) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "reused" in done.stdout

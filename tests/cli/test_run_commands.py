"""The commands about runs: list, show, compare, export and clean what a real run left."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flambe.cli import main
from flambe.cli.runs.compare import changed_files
from flambe.progress import Repository, RunFolder
from tests.experiment.lab import Lab

PIPELINE = """
train: !pieces.Curve {height: !g [0.1, 0.2, 0.4], bonus: !g [0.0, 0.5], steps: 3}
judge: !pieces.Fixed {value: !@ train.height, other: !@ train}
"""
FAILING = "train: !pieces.Failing {at: 1, rate: !g [1.0, 2.0], only: 1.0, record: RECORD}"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, as a person has it who ran two files there."""
    root = tmp_path_factory.mktemp("runs")
    for name, pipeline, more in (
        ("curves", PIPELINE, "reduce: {train: 2}"),
        ("broken", FAILING, "stop_on_failure: false"),
    ):
        lab = Lab(root / name)
        lab.root.mkdir()
        lab.name = name
        lab.write(pipeline, more=more)
        text = lab.config.read_text().replace(str(lab.root / "out"), str(root / "flambe-output"))
        lab.config.write_text(text)
        outcome = lab.run()
        assert (outcome.error is None) is (name == "curves")
    return root


@pytest.fixture
def call(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(made)
    monkeypatch.setenv("COLUMNS", "140")

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def rows(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines() if line.strip()]


# -- ls ------------------------------------------------------------------------------------------


def test_ls_lists_runs_the_latest_first(call: Call, made: Path) -> None:
    code, out, _ = call("ls")
    assert code == 0
    header, *lines = out.splitlines()
    assert header.split() == ["name", "state", "when", "time", "variants", "best"]
    assert [line.split()[0] for line in lines] == ["broken", "curves"]
    assert "finished with 1 failed" in lines[0]
    assert "1 of 2" in lines[0]
    assert "judge height=0.4" in lines[1]
    assert not any(line.endswith(" ") for line in lines)
    assert call("ls", str(made / "flambe-output"))[1] == out


def test_ls_prints_json(call: Call, made: Path) -> None:
    entries = json.loads(call("ls", "--json")[1])
    assert [entry["name"] for entry in entries] == ["broken", "curves"]
    curves = entries[1]
    assert curves["path"] == str(made / "flambe-output" / "output__curves")
    assert curves["state"] == "finished"
    assert curves["variants"] == {
        "planned": 8, "done": 8, "running": 0, "failed": 0, "skipped": 4, "reused": 0,
    }  # fmt: skip
    assert curves["best"]["choices"]["height"] == 0.4


def test_ls_of_fetched_and_of_broken_runs(call: Call, made: Path, tmp_path: Path) -> None:
    fetched = tmp_path / "fetched" / "lab"
    shutil.copytree(made / "flambe-output", fetched / "flambe-output")
    (fetched / "flambe-output" / "output__broken" / "state.json").write_text("{")
    (fetched / "flambe-output" / "output__broken" / "state.previous.json").unlink()
    _, out, _ = call("ls", str(tmp_path))
    assert {line.split()[0]: line.split()[1] for line in out.splitlines()[1:]} == {
        "curves": "✔",
        "broken": "unreadable",
    }
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no runs in" in call("ls", str(empty))[1]
    assert json.loads(call("ls", str(empty), "--json")[1]) == []
    code, _, err = call("ls", str(tmp_path / "none"))
    assert code == 2
    assert "no such folder" in err


def test_ls_stale_lists_results_that_belong_to_their_run_no_more(
    call: Call, tmp_path: Path
) -> None:
    lab = Lab(tmp_path)
    lab.run("train: !pieces.Curve {height: !g [0.1, 0.2], steps: 2}").fine()
    assert "all results belong to their runs" in call("ls", str(tmp_path / "out"), "--stale")[1]
    lab.run("train: !pieces.Curve {height: !g [0.2, 0.3], steps: 2}", resume=True).fine()
    code, out, _ = call("ls", str(tmp_path / "out"), "--stale")
    assert code == 0
    header, line, *_ = out.splitlines()
    assert header.split() == ["run", "stage", "variant", "metric", "when", "reason"]
    assert line.split()[:3] == ["trial", "train", "height=0.1"]
    (entry,) = json.loads(call("ls", str(lab.folder.root), "--stale", "--json")[1])
    assert entry["choices"] == {"height": 0.1}
    assert entry["reason"]
    assert Path(entry["path"]).is_dir()


# -- plan ----------------------------------------------------------------------------------------


def test_a_plan_counts_what_reduce_does_not_keep_in_one_line(call: Call) -> None:
    code, out, err = call("plan", "curves/config.yaml", "--resume")
    assert code == 0, err
    assert "judge: 4 skipped: reduce does not keep what they build on" in out
    assert "was not kept" not in out


# -- show ----------------------------------------------------------------------------------------


def test_show_has_a_table_for_each_stage_the_best_first(call: Call) -> None:
    code, out, _ = call("show", "curves")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "train"
    assert lines[1].split() == ["height", "bonus", "best", "metric", "steps", "time", "state", "id"]
    assert lines[2].split()[:2] == ["0.4", "0.5"]
    assert "kept" in lines[2]
    assert "judge" in lines
    assert out.count("was not kept by reduce") == 4
    assert "✔ curves finished in" in out


def test_show_filters_and_sorts_as_the_site_does(call: Call) -> None:
    _, out, _ = call(
        "show", "curves", "height>=0.2", "bonus=0.5", "--stage", "train", "--sort", "height"
    )
    assert [row[0] for row in rows(out)[2:4]] == ["0.4", "0.2"]
    assert "2 of 6 variants match" in out
    _, out, _ = call(
        "show", "curves", "--stage", "train", "--sort", "height", "--reverse", "-n", "1"
    )
    assert rows(out)[2][0] == "0.1"
    assert "and 5 more" in out
    assert "no variant is like that" in call("show", "curves", "best>99")[1]


def test_show_prints_chosen_columns_and_json(call: Call, made: Path) -> None:
    _, out, _ = call("show", "curves", "--stage", "train", "--columns", "bonus,id,path")
    assert rows(out)[1] == ["bonus", "id", "path"]
    entries = json.loads(call("show", "curves", "state=kept", "--json")[1])
    assert [entry["choices"] for entry in entries] == [
        {"height": 0.4, "bonus": 0.5},
        {"height": 0.2, "bonus": 0.5},
    ]
    assert entries[0]["path"] == str(
        made / "flambe-output/output__curves/train" / entries[0]["variant"]
    )
    assert entries[0]["kept"] is True
    (entry, *_) = json.loads(call("show", "curves", "--json", "--columns", "height,best")[1])
    assert set(entry) == {"height", "best"}


def test_show_names_the_reason_of_a_failure(call: Call) -> None:
    _, out, _ = call("show", "broken", "state=failed")
    assert rows(out)[1][-2:] == ["error", "id"]
    assert "broken finished with 1 failed" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curvs"], "did you mean 'curves'?"),
        (["nothing-like-it"], "the runs: broken, curves"),
        (["curves", "heigth>1"], "did you mean 'height'?"),
        (["curves", "--columns", "hight"], "did you mean 'height'?"),
        (["curves", "--sort", "x"], "the columns: height"),
        (["curves", "--stage", "trian"], "did you mean 'train'?"),
        (["curves", "--limit", "0"], "--limit must be at least 1"),
        (["."], "no run in ."),
    ],
)
def test_show_says_what_is_wrong(call: Call, arguments: list[str], message: str) -> None:
    code, out, err = call("show", *arguments)
    assert (code, out) == (2, "")
    assert message in err


# -- compare -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steeper(made: Path) -> None:
    """A third run: another value, other steps, and what was recorded of its code differs."""
    lab = Lab(made / "curves")
    lab.name = "steeper"
    pipeline = PIPELINE.replace("0.1, ", "").replace("steps: 3", "steps: 4")
    lab.write(pipeline, more="reduce: {train: 2}")
    text = lab.config.read_text().replace(str(lab.root / "out"), str(made / "flambe-output"))
    lab.config.write_text(text)
    lab.run().fine()
    lines = RunFolder(made / "flambe-output" / "output__steeper").invocations
    starts = [json.loads(line) for line in lines.read_text().splitlines()]
    starts[1]["packages"]["numpy"] = "0.9"
    starts[1]["repositories"] = [
        {"folder": "/home/me/project", "commit": "ab" * 20, "branch": "main", "dirty": True,
         "diff": "diff --git a/net.py b/net.py\n--- a/net.py\n+++ b/net.py\n@@ -1 +1 @@\n-a\n+b\n"},
    ]  # fmt: skip
    lines.write_text("".join(json.dumps(start) + "\n" for start in starts))


@pytest.mark.usefixtures("steeper")
def test_compare_shows_what_differs(call: Call) -> None:
    code, out, err = call("compare", "curves", "steeper")
    assert (code, err) == (0, "")
    lines = [line.split("  ") for line in out.splitlines()]
    table = {line[0].strip(): [cell.strip() for cell in line[1:] if cell.strip()] for line in lines}
    assert table["name"] == ["curves", "steeper"]
    assert table["pipeline.train.height"] == ["!g [0.1, 0.2, 0.4]", "!g [0.2, 0.4]"]
    assert table["pipeline.train.steps"] == ["3", "4"]
    assert table["project"] == ["-", "abababababab (main)"]
    assert table["project/net.py"][1].startswith("+1 -1 (")
    assert table["numpy"][1] == "0.9"
    assert "pipeline.train.bonus" not in table
    assert table["height=0.1,bonus=0"][1] == "-"
    assert "judge" in table


@pytest.mark.usefixtures("steeper")
def test_compare_prints_json_for_any_number_of_runs(call: Call) -> None:
    document = json.loads(call("compare", "curves", "steeper", "broken", "--json")[1])
    assert [run["name"] for run in document["runs"]] == ["curves", "steeper", "broken"]
    assert document["configuration"]["pipeline.train.steps"] == ["3", "4", None]
    figures = {(f["stage"], *f["choices"].values()): f["metrics"] for f in document["figures"]}
    assert figures["train", 0.1, 0.0]["steeper"] is None
    assert figures["train", 0.4, 0.5]["curves"] != figures["train", 0.4, 0.5]["steeper"]


def test_the_changed_files_of_a_repository() -> None:
    assert changed_files(Repository("/project")) == {}
    diff = (
        "diff --git a/x y.py b/x y.py\n--- a\n+++ b\n@@\n-1\n+2\n+3\ndiff --git a/z b/z\nnew file\n"
    )
    files = changed_files(Repository("/project", diff=diff))
    assert [(name, text.partition(" (")[0]) for name, text in files.items()] == [
        ("x y.py", "+2 -1"), ("z", "+0 -0"),
    ]  # fmt: skip


def test_compare_with_itself_finds_nothing(call: Call) -> None:
    _, out, _ = call("compare", "curves", "flambe-output/output__curves")
    assert out.count("no difference") == 3
    code, _, err = call("compare", "curves")
    assert code == 2
    assert "at least two runs" in err


def test_compare_of_a_run_that_recorded_nothing(call: Call, made: Path, tmp_path: Path) -> None:
    older = tmp_path / "output__older"
    shutil.copytree(made / "flambe-output" / "output__curves", older)
    (older / "invocations.jsonl").unlink()
    _, out, _ = call("compare", "curves", str(older))
    assert "did not record code and packages: older" in out


# -- export --------------------------------------------------------------------------------------


def test_export_writes_variants_as_csv(call: Call, tmp_path: Path) -> None:
    code, out, _ = call("export", "curves", "--csv")
    assert code == 0
    table = list(csv.DictReader(io.StringIO(out)))
    assert len(table) == 12
    best = table[0]
    assert (best["stage"], best["height"], best["bonus"], best["kept"]) == (
        "train",
        "0.4",
        "0.5",
        "true",
    )
    assert best["started"].endswith("Z")
    assert (table[-1]["state"], table[-1]["metric"]) == ("masked", "")
    target = tmp_path / "a.csv"
    _, out, _ = call("export", "curves", "height=0.4", "--stage", "train", "--csv", str(target))
    assert out == f"2 variants of curves are in {target}\n"
    assert len(target.read_text().splitlines()) == 3


def test_export_writes_every_figure_step_by_step(call: Call) -> None:
    _, out, _ = call("export", "curves", "--stage", "train", "--steps", "--csv")
    table = list(csv.DictReader(io.StringIO(out)))
    metric = [row for row in table if row["figure"] == "metric" and row["height"] == "0.4"]
    assert [row["step"] for row in metric] == ["1", "2", "3"] * 2
    assert float(metric[2]["value"]) == pytest.approx(3 * (0.4 + 0.5))


def test_export_writes_parquet(call: Call, made: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    code, _, _ = call("export", "curves", "--parquet", str(tmp_path / "a.parquet"))
    assert code == 0
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.num_rows == 12
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["height"], types["steps"], types["metric"], types["kept"], types["state"]) == (
        "double", "int64", "double", "bool", "string",
    )  # fmt: skip
    call("export", "curves", "--steps", "--parquet", str(tmp_path / "b.parquet"))
    steps = parquet.read_table(tmp_path / "b.parquet")
    assert {"figure", "step", "value", "height"} <= set(steps.column_names)


def test_parquet_columns_hold_what_all_variants_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    from flambe.cli.runs import export

    monkeypatch.setattr(export, "AT_ONCE", 2)
    values: list[Any] = [None, 1, 2.5, "x"]
    rows = [{"number": value, "step": n, "none": None} for n, value in enumerate(values[:3])]
    kinds = export._kind(row["number"] for row in rows)
    assert kinds is float
    assert export._kind(values) is str
    assert export._kind([None]) is str
    entries = iter([{**row, "number": export._cell(row["number"], float)} for row in rows[1:]])
    assert export._write_parquet(entries, tmp_path / "a.parquet") == 2
    assert parquet.read_table(tmp_path / "a.parquet").to_pydict()["number"] == [1.0, 2.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curves"], "export needs a format"),
        (["curves", "--csv", "no/such/folder/a.csv"], "no/such/folder"),
        (["curves", "--csv", "a.csv", "--stage", "trian"], "did you mean 'train'?"),
        (["curves", "--csv", "a.csv", "heigth>1"], "did you mean 'height'?"),
    ],
)
def test_export_says_what_is_wrong(call: Call, arguments: list[str], message: str) -> None:
    code, out, err = call("export", *arguments)
    assert (code, out) == (2, "")
    assert message in err

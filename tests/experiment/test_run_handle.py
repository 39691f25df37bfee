"""Runs from Python: handles, what they read, and how they look in a notebook."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import flambe
from flambe import _hints
from flambe.compile import Grid, Schema
from flambe.errors import ConfigError, HaltedError, RunError
from flambe.experiment.executors.inline import InlineExecutor
from flambe.experiment.interactive import notebook_observer
from flambe.experiment.signals import Interruption
from flambe.progress import RunFolder, read_invocations
from flambe.testing import run_experiment
from tests.experiment.lab import Lab

PIPELINE = """
    train: !pieces.Walk {steps: !g [1, 2], rate: !g [1.0, 2.0]}
    more: !pieces.Walk {steps: 1, start: !@ train, rate: 10.0}
    """


@pytest.fixture
def run(lab: Lab) -> flambe.RunHandle:
    lab.write(PIPELINE, more="reduce: {train: 1}")
    run: flambe.RunHandle = lab.experiment().run(executor=InlineExecutor)
    return run


def test_a_run_returns_its_variants_as_a_table(run: flambe.RunHandle, lab: Lab) -> None:
    table = run.variants
    assert list(table.columns) == [
        "stage", "variant", "params.steps", "rate",
        "metric", "best", "steps", "time", "state", "kept", "error", "path",
    ]  # fmt: skip
    train = table[table.stage == "train"]
    assert list(train["params.steps"]) == list(train.steps)
    assert sorted(train.steps) == [1, 1, 2, 2]
    assert train.metric.is_monotonic_decreasing
    assert list(train.kept) == [True, False, False, False]
    assert dict(table[table.stage == "more"].state.value_counts()) == {"masked": 3, "finished": 1}
    assert np.isnan(table[table.state == "masked"].metric).all()
    assert (train.time >= 0).all()
    assert all(Path(path, "metrics.jsonl").is_file() for path in train.path)
    assert list(run.stage("train").variants.path) == list(train.path)


def test_the_best_variant_is_loaded_with_its_state(run: flambe.RunHandle) -> None:
    best = run.best("train")
    row = run.stage("train").variants.iloc[0]
    assert best.choices == {"steps": row["params.steps"], "rate": row.rate}
    assert best.metric == run.stage("train").variants.metric.max()
    component: Any = best.load()
    assert (component.done, component.value) == (best.state.step, best.metric)
    assert run.best().stage == "more"
    assert run.stage("train").best().name == best.name
    assert [v.name for v in run.stage("train")] == list(run.stage("train").variants.variant)
    figures = best.figures
    assert list(figures[figures.tag == "metric"].step) == list(range(1, best.state.step + 1))
    assert figures[figures.tag == "metric"].value.iloc[-1] == best.metric
    assert best.path == Path(run.variants.path[0])


def test_a_handle_names_what_is_not_there(run: flambe.RunHandle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="(?s)no stage 'trian'.*did you mean 'train'"):
        run.best("trian")
    with pytest.raises(ConfigError, match="no stage 'x'"):
        run.stage("x")
    with pytest.raises(ConfigError, match="no run in"):
        flambe.RunHandle(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no such folder"):
        flambe.runs(tmp_path / "nothing")


def test_past_runs_are_the_same_handles_the_latest_first(run: flambe.RunHandle, lab: Lab) -> None:
    lab.name = "other"
    lab.write("train: !pieces.Fixed {value: 1.0}")
    other = lab.experiment()
    before = other.last_run
    assert before is None
    other.run(executor=InlineExecutor)
    after = other.last_run
    assert after is not None
    assert after.folder == lab.folder.root
    runs = flambe.runs(lab.root / "out")
    assert [(each.name, each.status) for each in runs] == [
        ("other", "finished"), ("trial", "finished"),
    ]  # fmt: skip
    pd.testing.assert_frame_equal(runs[1].variants, run.variants)
    assert runs[1].config == (run.folder / "experiment.yaml").read_text(encoding="utf-8")
    assert runs[1].stages == ["train", "more"]
    assert repr(runs[0]).startswith("<run other: finished, ")
    assert flambe.runs(lab.folder.root)[0].name == "other"
    other.run(executor=InlineExecutor, force=True)  # what is moved aside is a run, too
    assert len(flambe.runs(lab.root / "out")) == 3


def test_without_figures_there_is_no_best(lab: Lab) -> None:
    lab.write("train: !pieces.Watch {models: [], record: RECORD}")
    run = lab.experiment().run(executor=InlineExecutor)
    with pytest.raises(RunError, match="no variant of stage 'train' has finished with a figure"):
        run.best("train")


def test_a_run_that_failed_can_be_looked_at(lab: Lab) -> None:
    lab.write("train: !pieces.Ending {how: <b>luck</b>}", more="max_failures: 0")
    experiment = lab.experiment()
    with pytest.raises(RunError) as raised:
        experiment.run(executor=InlineExecutor)
    run = experiment.last_run
    assert run.status == "failed"
    assert "<b>luck</b>" in run.variants.error[0]
    page = run._repr_html_()
    assert "&lt;b&gt;luck" in page
    assert "<b>luck" not in page
    # IPython shows the message, and no frame inside flambe.
    (shown,) = raised.value._render_traceback_()
    assert shown == f"{type(raised.value).__name__}: {raised.value}"


def test_the_page_of_a_run_has_its_stages_and_its_best_variants(run: flambe.RunHandle) -> None:
    page = run._repr_html_()
    for text in ("trial", "train", "more", "4 of 4 variants done", "finished", "kept", "rate"):
        assert text in page
    assert "<script" not in page
    stage = run.stage("more")._repr_html_()
    assert "was not kept by reduce" in stage
    assert "4 of 4" not in stage


# -- where it runs ------------------------------------------------------------------------------


def test_a_run_inside_a_running_event_loop(lab: Lab) -> None:
    lab.write("train: !pieces.Fixed {value: 1.0}")

    async def cell() -> flambe.RunHandle:
        handle: flambe.RunHandle = lab.experiment().run(executor=InlineExecutor)
        return handle

    assert asyncio.run(cell()).status == "finished"


def test_a_run_outside_the_main_thread(lab: Lab) -> None:
    lab.write("train: !pieces.Fixed {value: 1.0}")
    statuses = []
    experiment = lab.experiment()
    thread = threading.Thread(
        target=lambda: statuses.append(experiment.run(executor=InlineExecutor).status)
    )
    thread.start()
    thread.join()
    assert statuses == ["finished"]


def test_a_script_without_logging_prints_and_leaves_logging_alone(
    lab: Lab, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    log = logging.getLogger("flambe.run")
    before = (log.level, log.handlers[:], logging.root.level)
    lab.write("train: !pieces.Walk {steps: 1, rate: !g [1.0, 2.0]}")
    lab.experiment().run(executor=InlineExecutor)
    text = capfd.readouterr().err
    assert "trial: results in" in text
    assert "train: finished, 2 of 2 variants done" in text
    assert "the best: train rate=2: " in text
    assert (log.level, log.handlers[:], logging.root.level) == before
    lab.experiment().run(executor=InlineExecutor, force=True, show=False)
    assert capfd.readouterr().err == ""


def test_a_script_with_logging_decides_itself(
    lab: Lab, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lab.write("train: !pieces.Fixed {value: 1.0}")
    lab.experiment().run(executor=InlineExecutor)
    assert "train: finished, 1 of 1 variants done" in caplog.text
    assert "variants done" not in capfd.readouterr().err


# -- experiments that are made in Python, and read from files ------------------------------------


def test_an_experiment_made_in_python_runs_twice_in_a_process(tmp_path: Path) -> None:
    walk = importlib.import_module("pieces").Walk
    experiment = flambe.Experiment(
        "made", {"train": Schema.of(walk, steps=1, rate=Grid((1.0, 2.0)))}
    )
    run = run_experiment(experiment, tmp_path)
    assert run.folder == tmp_path / "output__made"
    assert experiment.save_path == "flambe-output"
    assert list(run.variants.state) == ["finished"] * 2
    again = run_experiment(experiment, tmp_path, resume=True)
    assert list(again.variants.state) == ["reused"] * 2
    with pytest.raises(ConfigError, match="holds the results of an earlier run"):
        run_experiment(experiment, tmp_path)


def test_load_config_checks_as_the_command_does(lab: Lab) -> None:
    path = lab.write("train: !pieces.Walk {stepz: 1}")
    with pytest.raises(ConfigError, match=r"config.yaml:\d+:\d+: .*stepz"):
        flambe.load_config(path)
    path.write_text("!torch.Linear {in_features: 1, out_features: 1}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected an !Experiment, not !torch.Linear"):
        flambe.load_config(path)
    path.write_text("a: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected an !Experiment, not plain values"):
        flambe.load_config(path)
    with pytest.raises(ConfigError, match="missing"):
        flambe.load_config(lab.root / "missing.yaml")


def test_overrides_are_those_of_the_command(lab: Lab) -> None:
    path = lab.write(
        "train: !pieces.Walk {steps: 1, label: x, extra: !pieces.Fixed {value: 1.0}}",
        more="reduce: {train: 1}",
    )
    pieces = importlib.import_module("pieces")
    experiment = flambe.load_config(
        path,
        overrides={
            "train.rate": Grid((1.0, 2.0)),
            "train.steps": np.int64(2),
            "train.extra": Grid((Schema.of(pieces.Fixed, value=3.0, other=[1, {"a": None}]), None)),
            "~train.label": None,
            "~reduce": None,
            "seed": 7,
            "name": "changed: name".partition(":")[0],
        },
    )
    assert (experiment.name, experiment.seed, experiment.reduce) == ("changed", 7, {})
    run = experiment.run(executor=InlineExecutor)
    assert sorted(run.variants.rate) == [1.0, 1.0, 2.0, 2.0]
    assert set(run.variants.steps) == {2}
    command = [
        "train.rate=!g [1.0, 2.0]",
        "train.steps=2",
        "train.extra=!g [!Fixed {value: 3.0, other: [1, {a: null}]}, null]",
        "~train.label",
        "~reduce",
        "seed=7",
        "name=changed",
    ]
    assert read_invocations(RunFolder(run.folder).invocations)[-1].overrides == command


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train.stepz": 2}, r"(?s)override 1:1:7.*stepz"),
        ({"trian.steps": 2}, r"(?s)override 1:1:1.*did you mean 'train'"),
        ({"train.steps": "two"}, r"(?s)override 1:1:13.*"),
        ({"train.extra": object()}, "override train.extra: cannot write it as YAML"),
        ({"~train.label": 1}, "~train.label removes a key, and takes no value"),
    ],
)
def test_a_wrong_override_is_reported_at_its_place(
    lab: Lab, overrides: dict[str, object], message: str
) -> None:
    path = lab.write("train: !pieces.Walk {steps: 1, label: x}")
    with pytest.raises(ConfigError, match=message):
        flambe.load_config(path, overrides=overrides)


def test_load_config_reads_the_secrets(lab: Lab, tmp_path: Path) -> None:
    path = lab.write("train: !pieces.Fixed {value: 1.0}")
    secrets = tmp_path / "secrets.ini"
    secrets.write_text("[GITHUB]\ntoken = abcdefgh\n", encoding="utf-8")
    secrets.chmod(0o600)
    experiment = flambe.load_config(str(path), secrets=secrets)
    assert experiment.config["GITHUB"]["token"] == "abcdefgh"
    assert experiment.run(executor=InlineExecutor).status == "finished"


# -- in a notebook ------------------------------------------------------------------------------


def test_the_table_of_a_notebook_is_replaced_until_the_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook_observer, "REFRESH_SECONDS", 0.02)
    pages: list[str] = []

    def show(page: str) -> Callable[[str], None]:
        pages.append(page)
        return pages.append

    lab.write(
        "train: !pieces.Talker {name: <i>loud</i>, steps: 3, seconds: 0.2}\n"
        "bad: !pieces.Ending {how: <b>luck</b>}",
        more="max_failures: 0\nstop_on_failure: false",
    )
    observer = notebook_observer.NotebookObserver(show)
    before = set(threading.enumerate())  # one of an earlier test may end meanwhile
    with pytest.raises(RunError):
        lab.experiment().run(executor=InlineExecutor, observer=observer)
    assert not set(threading.enumerate()) - before
    assert "0 of 1 variants done" in pages[0]
    middle = next(page for page in pages if "&lt;i&gt;loud" in page)
    assert "<details open><summary>output</summary>" in middle
    assert "<i>loud" not in middle
    assert "1 of 1 variants done" in pages[-1]
    assert "finished with 1 failed" in pages[-1]
    assert "<summary>" not in pages[-1]  # the output is in the logs, and the results in the handle


def test_a_notebook_is_a_process_with_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not notebook_observer.in_notebook()

    class Shell:
        kernel = object()

    class Python:
        get_ipython = Shell

    monkeypatch.setitem(sys.modules, "IPython", Python)
    assert notebook_observer.in_notebook()
    monkeypatch.delattr(Shell, "kernel")  # a terminal of IPython
    assert not notebook_observer.in_notebook()


def test_a_run_in_another_thread_can_be_halted() -> None:
    """Signals reach the main thread only: the run itself looks."""
    errors: list[BaseException] = []

    def run() -> None:
        interruption = Interruption()
        with interruption:
            interruption.halt("the disk is full")
            try:
                interruption.check()
            except KeyboardInterrupt as error:
                errors.append(error)
        assert interruption.reason == "the disk is full"

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(errors) == 1


def test_messages_name_options_as_python_does(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hints._Style, "is_command", False)
    monkeypatch.setattr(_hints._Style, "is_python", False)
    # In the processes of a run, of which most are those of a command.
    assert str(HaltedError("gone")).endswith("run the same command with --resume")
    lab.write(PIPELINE)
    lab.experiment().run(executor=InlineExecutor)
    with pytest.raises(ConfigError) as caught:
        lab.experiment().run(executor=InlineExecutor)
    assert "resume=True continues it; force=True moves it aside" in str(caught.value)
    assert "--" not in str(caught.value)
    assert str(HaltedError("gone")).endswith("to continue, call   run(resume=True)")
    assert _hints.option("stale", "reuse") == "stale='reuse'"
    _hints.use_command()
    assert _hints.option("stale", "reuse") == "--stale reuse"

"""Runs by the command: options that reach a Runnable, secrets, a debugger, a reader that leaves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.experiment.lab import HEADER, Lab, command, environment, flambe

pytestmark = pytest.mark.integration


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def job(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(f"{HEADER}{text}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "hello force=False resume=False debug=False verbose=False"),
        (["-f", "-d", "-v"], "hello force=True resume=False debug=True verbose=True"),
        (["--force", "--debug"], "hello force=True resume=False debug=True verbose=False"),
        (["--resume"], "hello force=False resume=True debug=False verbose=False"),
        (["--resume-from", "a, b"], "hello force=False resume=['a', 'b'] debug=False"),
    ],
)
def test_options_reach_the_runnable(tmp_path: Path, options: list[str], told: str) -> None:
    done = flambe(job(tmp_path, "!pieces.Plain"), *options)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout


def test_what_parse_refuses_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    done = flambe(job(tmp_path, "!pieces.Plain {fail: parse}"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: parse says no\n"


def test_a_blueprint_is_not_built(tmp_path: Path) -> None:
    text = "!pieces.Plain {blueprint: !pieces.Failing {at: 0, record: nowhere}}"
    assert flambe(job(tmp_path, text)).returncode == 0


@pytest.mark.parametrize(
    ("way", "code", "shown"),
    [
        ("print", 0, "the token is ***"),
        ("writelines", 0, "the token is ***"),
        ("stderr", 0, "the token is ***"),
        ("repr", 0, "'***' Secrets(API) {token: ***}"),
        ("log", 0, "warning: the token is ***"),
        ("raise", 1, "ValueError: the token is ***"),
        ("header", 0, "sent True"),
    ],
)
@pytest.mark.parametrize("verbose", [False, True])
def test_a_secret_is_never_shown(
    tmp_path: Path, home: Path, way: str, code: int, shown: str, verbose: bool
) -> None:
    file = tmp_path / "mine.ini"
    file.write_text("[API]\ntoken = abcd-efgh-1234\n")
    file.chmod(0o600)
    text = job(tmp_path, f"!pieces.Teller {{way: {way}}}")
    done = flambe(text, "-s", file, *(["-v"] if verbose else []))
    assert done.returncode == code, done.stderr
    assert shown in done.stdout + done.stderr
    assert "length 14" in done.stdout
    logs = "".join(path.read_text() for path in (home / "logs").glob("*"))
    assert "efgh" not in done.stdout + done.stderr + logs


def test_an_experiment_hides_secrets_everywhere(lab: Lab, home: Path) -> None:
    """A component may know one from elsewhere; it reaches no file of the run."""
    (home / "secrets.ini").write_text("[API]\ntoken = luck at step\n")
    (home / "secrets.ini").chmod(0o600)
    lab.write("train: !pieces.Failing {at: 1, record: RECORD}", more="max_failures: 0")
    done = flambe(lab.config)
    assert done.returncode == 1
    assert "no *** 1" in done.stderr
    files = [path for path in lab.folder.root.rglob("*") if path.is_file()]
    texts = {path.name: path.read_bytes() for path in files if path.suffix != ".py"}
    assert b"no *** 1" in texts["variants.jsonl"]
    assert [name for name, text in texts.items() if b"luck at step" in text] == []
    assert "luck at step" not in done.stdout + done.stderr


def test_debug_stops_in_a_debugger_before_each_step(lab: Lab) -> None:
    lab.write("talk: !pieces.Talker {steps: 2}")
    done = flambe(lab.config, "-d", stdin=None, input="p 'done:', self.done\nc\n" * 2)
    assert done.returncode == 0, done.stderr
    assert "('done:', 0)" in done.stdout
    assert "('done:', 1)" in done.stdout
    assert "printed by a2" in done.stdout


def test_leaving_the_debugger_interrupts_the_run(lab: Lab) -> None:
    lab.write("talk: !pieces.Talker {steps: 2}")
    done = flambe(lab.config, "--debug", stdin=None, input="q\n")
    assert done.returncode == 130, done.stderr
    assert "--resume" in done.stderr
    assert "BdbQuit" not in done.stdout + done.stderr


def test_a_reader_that_leaves_does_not_end_the_run_with_a_traceback(lab: Lab) -> None:
    lab.write("talk: !pieces.Talker {name: !g [a, b, c], steps: 3}")
    run = subprocess.Popen(
        command(lab.config),
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stderr is not None
    assert "results in" in run.stdout.readline()
    run.stdout.close()
    assert "Traceback" not in run.stderr.read()
    run.stderr.close()
    run.wait(120)
    assert list(lab.folder.read_variants()) or run.returncode != 0


def test_validate_prints_the_plan(lab: Lab) -> None:
    lab.write(
        """
        model: !pieces.Weights {size: !g [1, 2]}
        train: !pieces.Curve {height: !tune.uniform [0.0, 1.0], bonus: 1.0, steps: !g [1, 2]}
        tune: !pieces.Tuning {model: !@ model, amount: !g [1.0, 2.0, 3.0]}
        draw: !pieces.Curve {height: !tune.uniform [0.0, 1.0]}
        """,
        more="search: {train: {searcher: !ray.OptunaSearch , num_samples: 7},"
        " draw: {num_samples: 5}}\nreduce: {tune: 2}",
    )
    done = flambe("validate", lab.config)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("│")}
    assert "2 │" in lines["model"]
    assert "7 tried by a search" in lines["train"]
    assert "6, 2 kept" in lines["tune"]
    assert "model" in lines["tune"]
    assert "5, values drawn" in lines["draw"]
    assert not lab.folder.root.exists()

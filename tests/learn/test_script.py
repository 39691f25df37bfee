from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import flambe.learn.script
from flambe.compile import yaml
from flambe.errors import ConfigError, RunError
from flambe.learn import Script

pytestmark = pytest.mark.integration


def _write(folder: Path, text: str) -> None:
    (folder / "work.py").write_text(textwrap.dedent(text), encoding="utf-8")


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not _alive(pid)


def test_arguments_folder_and_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(
        tmp_path,
        """
        import os, sys
        print(sys.argv[1:], os.getcwd())
        print("to stderr", file=sys.stderr)
        """,
    )
    script = Script(
        "work.py",
        ["data", 3],
        {"epochs": 2, "verbose": True, "quiet": False, "none": None, "tag": ["a", "b c"]},
        folder=str(tmp_path),
    )
    assert script.run() is False
    expected = ["data", "3", "--epochs", "2", "--verbose", "--tag", "a", "--tag", "b c"]
    assert capsys.readouterr().out == f"{expected} {tmp_path.resolve()}\nto stderr\n"
    assert script.metric() is None


def test_figures_are_forwarded_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(
        tmp_path,
        """
        import json, os, sys, time
        file = open(os.environ["FLAMBE_METRICS"], "a", buffering=1)
        for step in range(3):
            print(json.dumps({"tag": "accuracy", "value": step / 2, "step": step}), file=file)
        file.write("no json\\n")
        file.write(json.dumps({"tag": "note", "value": "fine"}) + "\\n")
        while not os.path.exists("seen"):
            time.sleep(0.01)
        file.write(json.dumps({"tag": "loss", "value": 0.25}))   # without the end of the line
        """,
    )
    logged: list[tuple[object, ...]] = []

    def log(*entry: object) -> None:
        logged.append(entry)
        (tmp_path / "seen").touch()

    monkeypatch.setattr(flambe.learn.script, "log", log)
    monkeypatch.setattr(flambe.learn.script, "log_text", log)
    script = Script("work.py", folder=str(tmp_path), metric="accuracy")
    script.run()
    assert logged == [
        ("accuracy", 0.0, 0),
        ("accuracy", 0.5, 1),
        ("accuracy", 1.0, 2),
        ("note", "fine", None),
        ("loss", 0.25, None),
    ]
    assert script.metric() == 1.0
    again = Script("work.py", folder=str(tmp_path), metric="accuracy")
    again.load_state(script.get_state())
    assert again.metric() == 1.0


def test_flambe_log_in_a_script(tmp_path: Path) -> None:
    _write(tmp_path, "from flambe.logging import log\nlog('score', 0.75, 4)\n")
    package = Path(flambe.learn.script.__file__).parents[2]
    script = Script(
        "work.py", folder=str(tmp_path), metric="score", env={"PYTHONPATH": str(package)}
    )
    script.run()
    assert script.metric() == 0.75


@pytest.mark.parametrize("figure", ["nan", "inf"])
def test_a_figure_that_is_not_finite_is_no_bare_nan_and_comes_back(
    tmp_path: Path, figure: str
) -> None:
    code = f"""
    import json, os
    from flambe.logging import log

    def refuse(name):
        raise SystemExit(f"bare {{name}}")

    log("score", float("{figure}"), 4)
    for line in open(os.environ["FLAMBE_METRICS"]):
        json.loads(line, parse_constant=refuse)
    """
    _write(tmp_path, code)
    package = Path(flambe.learn.script.__file__).parents[2]
    path = {"PYTHONPATH": str(package)}
    script = Script("work.py", folder=str(tmp_path), metric="score", env=path)
    script.run()
    assert str(script.metric()) == figure


def test_failure_shows_command_code_and_tail(tmp_path: Path) -> None:
    _write(tmp_path, "print('before')\nraise SystemExit(3)\n")
    script = Script("work.py", ["a b"], folder=str(tmp_path))
    with pytest.raises(RunError) as error:
        script.run()
    text = str(error.value)
    assert "exit code 3" in text
    assert "work.py 'a b'" in text
    assert "| before" in text


def test_signal_is_named(tmp_path: Path) -> None:
    _write(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(RunError, match="signal SIGKILL"):
        Script("work.py", folder=str(tmp_path)).run()


def test_missing_script_and_metric(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no script .*nothing\.py"):
        Script("nothing.py", folder=str(tmp_path)).run()
    _write(tmp_path, "")
    with pytest.raises(RunError, match="the script logged no 'score'; it logged nothing"):
        Script("work.py", folder=str(tmp_path), metric="score").run()


def test_requirements(tmp_path: Path) -> None:
    _write(tmp_path, "print('ran')\n")
    (tmp_path / "base.txt").write_text("numpy>=99\n")
    (tmp_path / "needs.txt").write_text(
        "# a comment\n-r base.txt\nno-such-thing==1.0  # why\n"
        "packaging\nother; python_version < '3'\n--index-url x\n"
    )
    with pytest.raises(RunError) as error:
        Script("work.py", folder=str(tmp_path), requirements="needs.txt").run()
    text = str(error.value)
    assert "numpy>=99 (installed: " in text
    assert "no-such-thing==1.0" in text
    assert "other" not in text
    assert f"pip install -r {tmp_path.resolve() / 'needs.txt'}" in text
    with pytest.raises(RunError, match="pip install 'absent>1'"):
        Script("work.py", folder=str(tmp_path), requirements=["absent>1"]).run()
    with pytest.raises(RunError, match="'>>' is not a requirement"):
        Script("work.py", folder=str(tmp_path), requirements=[">>"]).run()
    assert Script("work.py", folder=str(tmp_path), requirements=["packaging>=1"]).run() is False


_STARTS_CHILD = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("pids.new", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.replace("pids.new", "pids")
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_the_runner_ends(tmp_path: Path, number: signal.Signals) -> None:
    _write(tmp_path, _STARTS_CHILD)
    package = Path(flambe.learn.script.__file__).parents[2]
    runner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from flambe.learn import Script; Script('work.py', folder={str(tmp_path)!r}).run()",
        ],
        env={**os.environ, "PYTHONPATH": str(package)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pids").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        script, child = map(int, (tmp_path / "pids").read_text().split())
        runner.send_signal(number)
        runner.wait(20)
        assert _gone(script)
        assert _gone(child)
    finally:
        runner.kill()
        runner.wait()


def test_torch_is_not_imported() -> None:
    package = Path(flambe.learn.script.__file__).parents[2]
    code = (
        "import sys, flambe.dataset, flambe.field, flambe.sampler, flambe.metric, flambe.nn\n"
        "from flambe.learn import Script\nScript('x')\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(package)}
    )


def test_paths_start_at_the_folder_of_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "here" / "code"
    code.mkdir(parents=True)
    _write(code, "import os; print(os.getcwd())")
    config = tmp_path / "here" / "job.yaml"
    config.write_text("!Script {script: work.py, folder: ./code}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    made = yaml.load(Path("here") / "job.yaml")()
    monkeypatch.chdir("/")
    assert made.run() is False
    assert capsys.readouterr().out == f"{code.resolve()}\n"


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("!Script {script: work.py}", "work.py"),
        ("!Script {script: nothing.py, folder: code}", "code/nothing.py"),
        ("!Script\nfolder: elsewhere\nscript: work.py", "elsewhere/work.py"),
    ],
)
def test_a_script_that_is_missing_is_known_before_the_run(
    tmp_path: Path, text: str, missing: str
) -> None:
    (tmp_path / "code").mkdir()
    _write(tmp_path / "code", "pass")
    config = tmp_path / "job.yaml"
    config.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        yaml.load(config)
    (problem,) = raised.value.problems
    assert problem.message == f"there is no script {tmp_path / missing}"
    assert problem.place is not None
    assert problem.place.text[problem.place.column - 1 :].startswith(Path(missing).name)

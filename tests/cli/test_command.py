"""The command as people call it: output, messages, exit codes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SECRET = "canary-5f1c"

EXTENSION = """
import logging
from flambe.compile import Component
from flambe.runnable import Runnable

class Tell(Runnable):
    def __init__(self, fail: bool = False, stop: bool = False):
        self.fail, self.stop = fail, stop
    def run(self, force=False, **kwargs):
        secret = self.config["SERVICE"]["token"]
        print("token", secret)
        logging.getLogger("flambe.tell").info("token %s", secret)
        assert f"Bearer {secret}".encode() == b"Bearer " + b"canary-" + b"5f1c"
        print(repr(self.config["SERVICE"]))
        if self.fail:
            raise ValueError(f"no luck with {secret}")
        if self.stop:
            raise KeyboardInterrupt

class Steps(Component):
    def __init__(self, n: int = 2, fail: bool = False):
        self.n, self.i, self.fail = n, 0, fail
    def run(self) -> bool:
        self.i += 1
        print("at", self.i)
        if self.fail:
            raise RuntimeError("broken step")
        return self.i < self.n
    def metric(self) -> float:
        return float(self.i)

class Plain:
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, home: Path) -> Path:
    (tmp_path / "tellext.py").write_text(EXTENSION)
    secrets = home / "secrets.ini"
    secrets.write_text(f"[SERVICE]\ntoken = {SECRET}\n")
    secrets.chmod(0o600)
    return tmp_path


def flambe(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", "flambe", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def write(folder: Path, text: str) -> str:
    (folder / "job.yaml").write_text(f"tellext: ./tellext\n---\n{text}\n")
    return "job.yaml"


def test_help_names_every_command_and_option(folder: Path) -> None:
    result = flambe(folder, "--help")
    assert result.returncode == 0
    for word in ("validate", "--cluster", "--force", "--install-extensions", "--secrets", "--debug",
                 "--verbose", "--resume", "--resume-from", "--version", "130"):  # fmt: skip
        assert word in result.stdout
    assert flambe(folder, "--version").stdout.startswith("flambe ")
    assert flambe(folder).returncode == 2


def test_a_runnable_runs_and_its_secrets_stay_hidden(folder: Path) -> None:
    result = flambe(folder, write(folder, "!tellext.Tell"))
    assert result.returncode == 0, result.stderr
    assert "token ***" in result.stdout
    assert "token: ***" in result.stdout
    assert SECRET not in result.stdout + result.stderr


@pytest.mark.parametrize("verbose", [False, True])
def test_a_failure_names_its_place_and_shows_a_traceback_only_if_asked(
    folder: Path, home: Path, verbose: bool
) -> None:
    job = write(folder, "!tellext.Tell {fail: true}")
    result = flambe(folder, job, *(["-v"] if verbose else []))
    assert result.returncode == 1
    assert "job.yaml:3:1" in result.stderr
    assert "ValueError: no luck with ***" in result.stderr
    assert ("Traceback" in result.stderr) == verbose
    assert SECRET not in result.stdout + result.stderr
    assert SECRET not in (home / "logs" / "log.log").read_text()


def test_exit_codes(folder: Path) -> None:
    assert flambe(folder, write(folder, "!tellext.Tell {stop: true}")).returncode == 130
    assert flambe(folder, write(folder, "!tellext.Tell {fial: true}")).returncode == 2
    assert flambe(folder, "nowhere.yaml").returncode == 2
    assert flambe(folder, "nowhere.yaml", "--unknown").returncode == 2
    assert flambe(folder, write(folder, "!tellext.Steps"), "--cluster", "c.yaml").returncode == 2


def test_a_component_alone_runs_to_its_end(folder: Path) -> None:
    result = flambe(folder, write(folder, "!tellext.Steps {n: 3}"))
    assert result.returncode == 0
    assert result.stdout.splitlines() == ["at 1", "at 2", "at 3"]
    broken = flambe(folder, write(folder, "!tellext.Steps {fail: true}"))
    assert broken.returncode == 1
    assert "running !tellext.Steps: RuntimeError: broken step" in broken.stderr


def test_what_cannot_be_run_is_refused(folder: Path) -> None:
    for text in ("!tellext.Plain", "!torch.Linear {in_features: 1, out_features: 1}", "a: 1"):
        result = flambe(folder, write(folder, text))
        assert result.returncode == 2
        assert "run" in result.stderr


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    result = flambe(folder, "validate", write(folder, "!tellext.Steps {n: many, fial: true}"))
    assert result.returncode == 2
    assert "job.yaml:3:20: 'n' of !tellext.Steps cannot be 'many'" in result.stderr
    assert "did you mean 'fail'?" in result.stderr
    assert "2 errors; nothing was run" in result.stderr


def test_validate_builds_nothing_and_imports_no_ray(folder: Path) -> None:
    code = (
        "import sys; from flambe.cli import main; code = main(sys.argv[1:]); "
        "assert not {'ray', 'boto3', 'tensorboardX'} & set(sys.modules); sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "validate", str(ROOT / "examples" / "digits.yaml")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "is valid" in result.stdout
    assert "12, 1 kept" in result.stdout


def test_secrets_that_everybody_can_read_are_refused(folder: Path, home: Path) -> None:
    (home / "secrets.ini").chmod(0o644)
    result = flambe(folder, write(folder, "!tellext.Tell"))
    assert result.returncode == 2
    assert "chmod 600" in result.stderr
    other = folder / "other.ini"
    other.write_text(f"no section\n{SECRET}\n")
    other.chmod(0o600)
    broken = flambe(folder, "job.yaml", "-s", str(other))
    assert broken.returncode == 2
    assert SECRET not in broken.stderr
    assert flambe(folder, "job.yaml", "-s", "missing.ini").returncode == 2


def test_a_reader_that_goes_away_is_no_error_worth_a_traceback(folder: Path) -> None:
    job = write(folder, "!tellext.Steps {n: 20000}")
    command = f"{sys.executable} -m flambe {job} | head -1"
    result = subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.stdout == "at 1\n"
    assert "Traceback" not in result.stderr


EXPERIMENT = """\
!Experiment
name: shown
pipeline:
  walk: !tellext.Steps
    n: !g [2, 3]
"""


def on_a_terminal(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the command on a terminal of its own; return its code and all that it drew."""
    pid, terminal = pty.fork()
    if pid == 0:  # the child
        os.chdir(folder)
        os.environ.update(PYTHONPATH=str(folder), TERM="xterm", COLUMNS="100")
        os.execv(sys.executable, [sys.executable, "-m", "flambe", *arguments])
    drawn = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        drawn += part
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), drawn.decode(errors="replace")


def test_an_experiment_on_a_terminal_and_in_a_pipe(folder: Path) -> None:
    job = write(folder, EXPERIMENT)
    code, drawn = on_a_terminal(folder, job)
    assert code == 0, drawn
    for text in ("walk n=3", "at 3", "shown finished", "tensorboard --logdir", "flambe.load("):
        assert text in drawn
    again = flambe(folder, job)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    resumed = flambe(folder, job, "--resume")
    assert resumed.returncode == 0
    assert "at 1" not in resumed.stdout
    assert "reused" in resumed.stdout
    assert "\x1b[" not in resumed.stdout

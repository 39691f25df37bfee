"""Ray on a machine that others use: nobody joins it, reads what it writes, or swaps its files."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import flambe
from flambe.errors import ComponentError, RunError
from flambe.experiment.executors.failures import reported_failure, unreported_failure
from flambe.experiment.executors.tune import local_ray
from tests.experiment.lab import environment

pytestmark = pytest.mark.integration

STRANGER = 65534  # nobody
LOOKS = '''
import json, os, re, time
from pathlib import Path
import psutil
from flambe.compile import Component

def processes():
    """Return the processes of this Ray."""
    driver = next(p for p in psutil.Process().parents() if any("flambe" in a for a in p.cmdline()))
    return [driver, *driver.children(recursive=True)]

def session():
    """Return where its raylet was told to keep its files."""
    arguments = " ".join(a for p in processes() if "raylet" in p.name() for a in p.cmdline())
    return re.search("--session_dir=([^ ]+)", arguments)[1]

def listening():
    """Return the addresses that they listen on."""
    found = set()
    for process in processes():
        try:
            sockets = process.net_connections(kind="inet")
        except psutil.Error:
            continue
        found |= {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN}
    return sorted(found)

class Looks(Component):
    def __init__(self, told: str) -> None:
        self.told = Path(told)

    def run(self) -> bool:
        import ray
        token = os.environ["RAY_AUTH_TOKEN_PATH"]
        found = {
            "token": token,
            "session": session(),
            "address": ray.get_runtime_context().gcs_address,
            "listening": listening(),
        }
        self.told.with_suffix(".part").write_text(json.dumps(found))
        self.told.with_suffix(".part").rename(self.told)
        until = time.monotonic() + 400
        while not self.told.with_name("go").exists() and time.monotonic() < until:
            time.sleep(0.1)
        return False
'''


class Looked:
    """A local run that waits, and what its component saw."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "looks.py").write_text(LOOKS)
        (folder / "looks.yaml").write_text(
            textwrap.dedent(f"""\
            looks: ./looks
            ---
            !Experiment
            name: looked
            pipeline:
              look: !looks.Looks {{told: {folder / "told.json"}}}
            """)
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flambe", "looks.yaml", "--force"],
            cwd=folder,
            env=environment(PYTHONPATH=str(folder), FLAMBE_HOME=str(folder / "home")),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        until = time.monotonic() + 180
        while not (folder / "told.json").exists():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(self.end())
            time.sleep(0.1)
        seen: dict[str, Any] = json.loads((folder / "told.json").read_text())
        self.token, self.session = Path(seen["token"]), Path(seen["session"])
        self.address: str = seen["address"]
        self.listening: list[str] = seen["listening"]

    def end(self) -> str:
        (self.folder / "go").touch()
        return self.process.communicate(timeout=120)[0]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looked]:
    run = Looked(tmp_path_factory.mktemp("looked"))
    yield run
    if run.process.poll() is None:
        run.end()


def stranger(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as another Unix user."""
    return subprocess.run(
        command,
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"]},
    )


def folder_of(run: Looked) -> Path:
    folder = run.token.parent
    assert folder.name.startswith(local_ray.PREFIX)
    return folder


def test_the_folder_of_a_local_run_is_ours_alone(looked: Looked) -> None:
    folder = folder_of(looked)
    assert looked.session.is_relative_to(folder)
    status = folder.lstat()
    assert stat.S_ISDIR(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert status.st_uid == os.geteuid()


def test_a_local_run_has_a_token_of_its_own(looked: Looked) -> None:
    assert stat.S_IMODE(looked.token.stat().st_mode) == 0o600
    assert re.fullmatch("[0-9a-f]{64}", looked.token.read_text())
    shared = Path.home() / ".ray" / "auth_token"
    assert not shared.exists() or shared.read_text() != looked.token.read_text()


def test_a_local_run_listens_on_the_loopback_only(looked: Looked) -> None:
    assert looked.listening
    assert {ip.removeprefix("::ffff:") for ip in looked.listening} <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("token", [pytest.param("0" * 64, marks=pytest.mark.long), ""])
def test_nobody_joins_a_local_run_without_its_token(
    looked: Looked, token: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(token)
    code = f"import ray; ray.init(address={looked.address!r}); print('joined', ray.nodes())"
    variables = {
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
        "RAY_AUTH_MODE": "token" if token else "disabled",
        "HOME": str(tmp_path),
        **local_ray._LOOPBACK,
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    assert "joined" not in done.stdout
    assert "Authentication" in done.stderr or "token" in done.stderr, done.stderr[-2000:]


@pytest.mark.root
def test_another_user_reaches_nothing_of_a_local_run(looked: Looked) -> None:
    folder = folder_of(looked)
    logs = looked.session / "logs"
    for command in (
        ["ls", str(folder)],
        ["cat", str(looked.token)],
        ["ls", str(looked.session)],
        ["ln", "-s", "/etc/passwd", str(logs / "worker-planted.out")],
        ["mv", str(looked.session), str(looked.session) + "-aside"],
        ["mv", str(folder), str(folder) + "-aside"],
        ["rm", "-rf", str(folder)],
    ):
        done = stranger(*command)
        assert done.returncode != 0, command
        assert "denied" in done.stderr or "not permitted" in done.stderr, done.stderr
    assert looked.session.is_dir()


def test_a_local_run_leaves_nothing(looked: Looked) -> None:
    """The last of the tests of this run."""
    output = looked.end()
    assert looked.process.returncode == 0, output
    assert not folder_of(looked).exists()
    assert not Path("/tmp/ray", looked.session.name).exists()


def test_a_run_that_is_killed_is_cleaned_up_after_by_the_next(tmp_path: Path) -> None:
    run = Looked(tmp_path)
    folder = folder_of(run)
    run.kill()
    assert folder.exists()
    with local_ray._private_folder() as another:
        assert not folder.exists()
        assert another != folder
    assert not another.exists()


# -- the folder ---------------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, with a path that is short enough."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="b"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def test_a_folder_with_too_long_a_path_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with local_ray._private_folder() as made:
        assert not made.is_relative_to(long)
    (said,) = [record.getMessage() for record in caplog.records if str(long) in record.getMessage()]
    assert said.startswith(f"{long} is too long for the sockets in it: the files of Ray are in ")


def test_folders_in_use_are_left_alone(base: Path) -> None:
    with local_ray._private_folder() as one, local_ray._private_folder() as other:
        assert one.is_dir()
        assert other.parent == one.parent == base
    assert list(base.iterdir()) == []


def test_only_what_is_ours_is_swept(base: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "lock").touch()
    link = base / f"{local_ray.PREFIX}link"
    link.symlink_to(kept)
    inside = base / f"{local_ray.PREFIX}inside"
    inside.mkdir()
    (inside / "lock").symlink_to(kept / "lock")
    with local_ray._private_folder():
        pass
    assert (kept / "lock").exists()
    assert inside.is_dir()  # what its lock is, is not ours to say


@pytest.mark.root
def test_the_folder_of_another_user_is_not_swept(base: Path) -> None:
    base.chmod(0o1777)
    theirs = base / f"{local_ray.PREFIX}theirs"
    assert stranger("mkdir", str(theirs)).returncode == 0
    assert stranger("touch", str(theirs / "lock")).returncode == 0
    with local_ray._private_folder() as folder:
        assert folder.parent == base
    assert theirs.is_dir()


def test_a_place_where_others_may_replace_folders_is_not_used(base: Path) -> None:
    base.chmod(0o777)
    assert local_ray._base() != base
    base.chmod(0o1777)
    assert local_ray._base() == base


def test_a_path_that_is_too_long_for_sockets_is_not_used(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = base / ("d" * 60)
    deep.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(deep))
    assert local_ray._base() != deep


def test_where_there_is_no_place_it_is_said(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_ray, "_exposed", lambda folder: folder)
    with pytest.raises(RunError, match=r"sticky bit(.|\n)*set RAY_TMPDIR to"):
        local_ray._base()


def test_a_run_joins_no_other_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a variable, or by a word that another Ray of this user left."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with local_ray._environment({"X_OF_THE_TEST": "1"}):
        assert os.environ["X_OF_THE_TEST"] == "1"
        assert not {"RAY_ADDRESS", "RAY_AUTH_MODE"} & set(os.environ)
    assert os.environ["RAY_ADDRESS"] == "127.0.0.1:1"
    assert "X_OF_THE_TEST" not in os.environ


# -- errors -------------------------------------------------------------------------------------


def test_the_error_of_a_trial_is_not_read_from_a_pickle(tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    pickled = tmp_path / "error.pkl"
    pickled.write_bytes(b"cos\nsystem\n(S'touch " + os.fsencode(mark) + b"'\ntR.")
    text = tmp_path / "error.txt"
    text.write_text(
        "Failure # 1 (occurred at x)\nfirst\nFailure # 2 (occurred at y)\nsecond\nline\n"
    )
    trial = SimpleNamespace(pickled_error_file=str(pickled), error_file=str(text))
    assert unreported_failure(trial.error_file).text == "second\nline"
    assert not mark.exists()


def test_a_pipe_in_the_place_of_an_error_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "error.txt")
    trial = SimpleNamespace(error_file=str(tmp_path / "error.txt"))
    assert unreported_failure(trial.error_file).text == "the trial failed; its log says more"
    assert unreported_failure(None).error is None


def test_what_ray_says_of_lost_hosts_is_known(tmp_path: Path) -> None:
    """The words are those of Ray's own errors, not of this test."""
    import ray.exceptions as errors

    for error, lost in (
        (errors.LocalRayletDiedError(), True),
        (errors.ActorUnavailableError("it is temporarily unavailable", None), True),
        (errors.ActorDiedError(), False),
        (errors.WorkerCrashedError(), False),
    ):
        path = tmp_path / "error.txt"
        path.write_text(f"Failure # 1 (occurred at x)\n{error}\n")
        assert unreported_failure(str(path)).host_lost is lost, str(error)


def test_what_is_reported_is_the_cause() -> None:
    error = ComponentError("ValueError: no", None, "running !X", "", "")
    assert reported_failure(error).error is error
    failure = reported_failure(ValueError("two", "arguments"))
    assert failure.text == "ValueError: ('two', 'arguments')"
    assert reported_failure(KeyError()).text == "KeyError"


def test_nothing_else_is_unpickled() -> None:
    """Besides component state: by torch with ``weights_only``, or by one who knows no class.

    And what a component asked to be pickled, where its writer is known or trusted.
    """
    source = Path(flambe.__file__).parent
    unpickles = re.compile(r"pickle\.loads?\(|Unpickler\(|torch\.load\(")
    found = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if unpickles.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"compile/state/state_file.py", "compile/state/pickled.py"}


# -- on hosts -----------------------------------------------------------------------------------


def test_the_folder_of_a_node_is_ours_alone_and_fresh(tmp_path: Path) -> None:
    from flambe.remote.agent.ray import _fresh

    scratch = tmp_path / "scratch"
    scratch.mkdir(mode=0o777)
    (scratch / "r" / "session").mkdir(parents=True)
    folder = Path(_fresh(str(scratch)))
    assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
    assert folder.parent == scratch
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_node_does_not_use_what_is_in_the_way(tmp_path: Path, kind: str) -> None:
    from flambe.remote.agent.ray import _fresh

    scratch, kept = tmp_path / "scratch", tmp_path / "kept"
    (kept / "r").mkdir(parents=True)
    if kind == "link":
        scratch.symlink_to(kept)
    else:
        scratch.touch()
    with pytest.raises(SystemExit, match=f"{scratch} is not a folder of this user"):
        _fresh(str(scratch))
    assert (kept / "r").is_dir()


@pytest.mark.root
def test_a_node_does_not_use_the_folder_of_another_user(base: Path) -> None:
    from flambe.remote.agent.ray import _fresh

    base.chmod(0o1777)
    assert stranger("mkdir", "-m", "777", str(base / "theirs")).returncode == 0
    with pytest.raises(SystemExit, match="is not a folder of this user"):
        _fresh(str(base / "theirs"))


def test_a_lock_is_kept_by_its_process_alone(base: Path) -> None:
    """What is started from a run does not keep its folder after it."""
    with (
        local_ray._private_folder() as folder,
        open(folder / "lock") as lock,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

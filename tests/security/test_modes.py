"""What flambe makes is reached by its owner alone, whatever the umask and whatever was there."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flambe._files import private_folder, private_opener, write_private
from flambe.errors import UnsafePathError
from flambe.logging import console

pytestmark = pytest.mark.integration


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=["umask000", "umask022", "umask077"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_private_folder_and_its_missing_parents_are_0700(tmp_path: Path, umask: int) -> None:
    folder = private_folder(tmp_path / "a" / "b" / "c")
    assert folder == tmp_path / "a" / "b" / "c"
    assert [mode(path) for path in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3


def test_a_wider_folder_of_ours_is_tightened_and_its_parents_are_left(tmp_path: Path) -> None:
    folder = tmp_path / "parent" / "logs"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    folder.parent.chmod(0o755)
    private_folder(folder)
    assert (mode(folder), mode(folder.parent)) == (0o700, 0o755)


@pytest.mark.parametrize("target", ["folder", "nothing"])
def test_a_link_is_refused_as_a_private_folder(tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(UnsafePathError, match="link is a link"):
        private_folder(tmp_path / "link")
    assert mode(tmp_path / "folder") == 0o755


def test_a_file_is_refused_as_a_private_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnsafePathError, match="file is not a folder"):
        private_folder(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder of another user: needs root")
def test_the_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(UnsafePathError, match="another user .uid 12345"):
        private_folder(folder)


def test_the_error_survives_a_process() -> None:
    error = pickle.loads(pickle.dumps(UnsafePathError("x is a link")))
    assert str(error) == "x is a link"
    assert isinstance(error, OSError)


def test_a_private_file_is_0600_and_replaces_a_wider_one(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o666)
    write_private(path, "new ✓")
    assert (path.read_text("utf-8"), mode(path)) == ("new ✓", 0o600)
    write_private(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_never_writes_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    (tmp_path / "file").symlink_to(victim)
    write_private(tmp_path / "file", "ours")
    assert victim.read_text() == "theirs"
    (tmp_path / "log").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        open(tmp_path / "log", "a", opener=private_opener)


def test_a_reader_sees_a_private_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = {letter * 200_000 for letter in "ab"}
    write_private(path, "a" * 200_000)
    done = threading.Event()

    def write() -> None:
        for _ in range(50):
            for text in texts:
                write_private(path, text)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_text() in texts
    writer.join()


def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_private(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_opened_file_is_0600_also_one_that_was_wider(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "log"
    for _ in range(2):
        with open(path, "a", opener=private_opener) as stream:
            stream.write("line\n")
        assert mode(path) == 0o600
        path.chmod(0o666)
    assert path.read_text() == "line\nline\n"


# -- logs -----------------------------------------------------------------------------------------


def test_logs_are_private_also_when_they_rotate(home: Path, umask: int) -> None:
    home.chmod(0o755)
    console.setup()
    for number in range(3):
        logging.getLogger("flambe.test").debug("%d%s", number, "x" * 1_500_000)
    logs = home / "logs"
    assert sorted(path.name for path in logs.iterdir()) == ["log.log", "log.log.1", "log.log.2"]
    assert {mode(path) for path in logs.iterdir()} == {0o600}
    assert (mode(home), mode(logs)) == (0o700, 0o700)


def test_logs_of_an_earlier_version_are_tightened(home: Path) -> None:
    logs = home / "logs"
    logs.mkdir()
    (logs / "log.log").touch()
    for path, wide in ((home, 0o777), (logs, 0o755), (logs / "log.log", 0o644)):
        path.chmod(wide)
    console.setup()
    assert (mode(home), mode(logs), mode(logs / "log.log")) == (0o700, 0o700, 0o600)


def test_a_link_in_the_way_of_the_log_is_not_followed(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs").mkdir()
    (home / "logs").symlink_to(tmp_path / "theirs")
    console.setup()
    assert "no log file: " in capsys.readouterr().err
    assert not list((tmp_path / "theirs").iterdir())


def test_flambes_own_folder_may_be_a_link_of_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / "link"))
    assert console.home_folder("logs") == tmp_path / "link" / "logs"
    assert (mode(tmp_path / "disk"), mode(tmp_path / "disk" / "logs")) == (0o700, 0o700)


# -- what runs make, at umask 000 -----------------------------------------------------------------

GROUP_OR_OTHERS, WRITABLE, WRITABLE_BY_OTHERS = 0o077, 0o022, 0o002
# What uv gives modes of its own, in folders of hosts that others cannot enter.
BY_UV = ("/.flambe/bin/uv", "/.flambe/cache/uv/", "/.flambe/envs/")
EXPERIMENT = """\
!Experiment
name: modes
pipeline:
  one: !Script
    script: {script}
    kwargs: {{x: !g [1, 2]}}
"""


class Watched:
    """``flambe`` at umask 000, with a home and a folder for temporary files of its own.

    The latter is looked at all the time: what is there for a moment only is seen too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.scratch = folder / "home", folder / "tmp"
        self.scratch.mkdir()
        self.scratch.chmod(0o1777)
        self.seen: set[str] = set()
        self.exposed: set[str] = set()

    def flambe(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over,))
        watcher.start()
        try:
            return subprocess.run(
                [sys.executable, "-m", "flambe", *arguments],
                cwd=self.folder,
                env={**os.environ, "FLAMBE_HOME": str(self.home), "TMPDIR": str(self.scratch)},
                umask=0o000,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
        finally:
            over.set()
            watcher.join()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(0.05):
            folders = [str(self.scratch)]
            while folders:
                with contextlib.suppress(OSError):
                    for entry in os.scandir(folders.pop()):
                        self._look(entry, folders)

    def _look(self, entry: os.DirEntry[str], folders: list[str]) -> None:
        status = entry.stat(follow_symlinks=False)
        self.seen.add(entry.path)
        if not entry.is_symlink() and status.st_mode & WRITABLE:
            self.exposed.add(f"{stat.filemode(status.st_mode)} {entry.path}")
        # What is in a folder that others cannot enter is out of their reach.
        if entry.is_dir(follow_symlinks=False) and status.st_mode & 0o011:
            folders.append(entry.path)


def with_bits(folder: Path, bits: int) -> list[str]:
    """Return what there is in a folder, itself included, that has one of these bits."""
    return [
        f"{stat.filemode(path.lstat().st_mode)} {path}"
        for path in (folder, *sorted(folder.rglob("*")))
        if not path.is_symlink() and path.lstat().st_mode & bits
    ]


@pytest.fixture
def watched() -> Iterator[Watched]:
    # A short path, as those of sockets have to be.
    with tempfile.TemporaryDirectory(prefix="modes-") as name:
        folder = Path(name)
        (folder / "script.py").write_text(
            "import time\nfrom flambe import log\nlog('loss', 0.5, 1)\ntime.sleep(1)\n"
            "open('made.txt', 'w').write('x')\n"
        )
        (folder / "a.yaml").write_text(EXPERIMENT.format(script=folder / "script.py"))
        (folder / "c.yaml").write_text("!LocalCluster {name: modes, factories_num: 1}\n")
        yield Watched(folder)


def test_a_local_run_at_umask_000_opens_nothing_to_others(watched: Watched) -> None:
    done = watched.flambe("a.yaml")
    assert done.returncode == 0, done.stderr
    assert list((watched.home / "logs").iterdir())
    assert with_bits(watched.home, GROUP_OR_OTHERS) == []
    output = watched.folder / "flambe-output"
    assert len(list(output.glob("output__modes/one/*/metrics.jsonl"))) == 2
    assert with_bits(output, WRITABLE_BY_OTHERS) == []
    assert with_bits(watched.folder / "made.txt", WRITABLE_BY_OTHERS) == []
    assert watched.seen, "scripts have a folder there, at least"
    assert sorted(watched.exposed) == []


@pytest.mark.long
@pytest.mark.xdist_group("local-cluster")
def test_a_run_on_a_local_cluster_at_umask_000_opens_nothing_to_others(watched: Watched) -> None:
    try:
        done = watched.flambe("a.yaml", "--cluster", "c.yaml", "--fetch", "results")
        assert done.returncode == 0, done.stdout + done.stderr
        cluster = watched.home / "clusters" / "modes"
        assert mode(cluster / "known_hosts") == 0o600
        open_files = with_bits(watched.home, GROUP_OR_OTHERS)
        assert [path for path in open_files if not any(part in path for part in BY_UV)] == []
        assert [path for path in open_files if path.startswith("d")] == []
        results = watched.folder / "results"
        assert list(results.glob("flambe-output/output__modes/one/*/metrics.jsonl"))
        assert with_bits(results, WRITABLE_BY_OTHERS) == []
        assert sorted(watched.exposed) == []
    finally:
        down = watched.flambe("down", "c.yaml", "--force")
    assert down.returncode == 0, down.stderr
    assert with_bits(watched.home, GROUP_OR_OTHERS) == []

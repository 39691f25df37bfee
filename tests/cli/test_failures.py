"""What people are told when something goes wrong on a cluster, on one of this machine."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.place import Place, local
from tests.experiment.lab import until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("local-cluster")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with local(tmp_path_factory.mktemp("failures"), "fails") as made:
        yield made


def processes() -> Iterator[tuple[int, str]]:
    """Yield the processes of this machine, with their command lines."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if line:
                yield int(entry.name), line.replace("\0", " ")


def current(place: Place) -> str:
    """Return the environment that the cluster has."""
    note = json.loads((place.folder / "home/clusters/fails/cluster.json").read_text())
    return str(note["environment"])


def test_code_of_ones_own_that_fails_there_is_told_by_its_place(place: Place) -> None:
    done = place.flambe(place.job("Fails"), "--cluster", place.cluster)
    assert done.returncode == 1
    said = done.stdout
    assert f"{place.folder / 'job.yaml'}:3:1: running !job_ext.Fails: KeyError: 'nowhere'" in said
    assert "    3 | !job_ext.Fails {}" in said
    assert "at job_ext/__init__.py:" in said
    assert 'in outer:   return int(known["nowhere"])  # the last line of ours' in said
    # All of it is in the log.
    log = place.flambe("logs", "fails").stdout
    assert "Traceback (most recent call last)" in log
    assert "in run" in log
    here = place.flambe(place.job("Flood", lines="x"), "-v")
    assert "TypeError" in here.stderr
    assert "at " in here.stderr
    assert "job_ext/__init__.py:" in here.stderr


def test_what_was_altered_is_shown_and_made_anew(place: Place) -> None:
    assert place.flambe(place.cluster).returncode == 0
    home = place.folder / "home/clusters/fails/hosts/factory_1/home"
    folder = home / f".flambe/envs/{current(place)}"
    (module,) = folder.glob("lib/python*/site-packages/flambe/errors.py")
    module.write_text(module.read_text() + "# altered\n")
    assert "altered" in place.flambe("status", "fails").stdout
    refused = place.flambe(place.cluster)
    assert refused.returncode == 1
    assert "flambe/errors.py was altered" in refused.stderr
    assert "everything is in place" not in refused.stdout
    command = refused.stderr.splitlines()[-1].strip()
    assert command.startswith("flambe exec fails --host factory_1 -- rm -r .flambe/envs/")
    forced = place.flambe(place.cluster, "--force")
    assert forced.returncode == 0, forced.stderr
    assert "altered on factory_1, and made again" in forced.stdout
    assert "altered" not in place.flambe("status", "fails").stdout
    # What the message said does it too.
    folder = home / f".flambe/envs/{current(place)}"
    (module,) = folder.glob("lib/python*/site-packages/flambe/errors.py")
    module.write_text(module.read_text() + "# altered\n")
    removed = place.flambe(*shlex.split(command)[1:])
    assert removed.returncode == 0, removed.stderr
    assert place.flambe(place.cluster).returncode == 0


def test_old_environments_are_removed(place: Place) -> None:
    assert place.flambe(place.cluster).returncode == 0
    home = place.folder / "home/clusters/fails/hosts/orchestrator/home"
    used = current(place)
    shutil.rmtree(home / ".flambe/envs")
    for number in range(4):
        old = home / f".flambe/envs/{number:012}"
        old.mkdir(parents=True)
        (old / "flambe.json").write_text("{}")
        os.utime(old, (1000 + number, 1000 + number))
    (home / ".flambe/envs/half").mkdir()
    done = place.flambe(place.cluster)
    assert done.returncode == 0, done.stderr
    left = sorted(path.name for path in (home / ".flambe/envs").iterdir() if path.is_dir())
    assert left == sorted([used, f"{3:012}", f"{2:012}"])


def test_a_reader_that_leaves_gets_no_traceback(place: Place) -> None:
    assert place.flambe(place.cluster).returncode == 0
    job = place.job("Flood", lines=20000)
    for arguments in (
        ("exec", "fails", "--", "seq", "1000000"),
        ("exec", "fails", "--all", "--", "seq", "1000000"),
        (job, "-c", place.cluster, "--force"),
        ("logs", "fails", "-f"),
        ("status",),
    ):
        begun = time.monotonic()
        script = f"{shlex.join(place.command(*arguments))} | head -1"
        done = subprocess.run(
            ["bash", "-c", script],
            env=place.env,
            cwd=place.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.stdout.count("\n") == 1
        assert "Traceback" not in done.stderr, arguments
        assert "Exception ignored" not in done.stderr, arguments
        assert time.monotonic() - begun < 60, arguments


def test_who_stopped_a_run_is_told_to_who_follows_it(place: Place) -> None:
    run = place.start(place.job(steps=1000), "--cluster", place.cluster, "--force")
    assert run.stdout is not None
    output = run.stdout
    until(lambda: "step 0" in output.readline(), "it runs", 120)
    planned = place.flambe(place.job(steps=1), "--cluster", place.cluster, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "in the way" in planned.stdout
    assert "--force would stop it" in planned.stdout
    stopped = place.flambe("stop", "fails")
    assert stopped.returncode == 0, stopped.stderr
    said = output.read()
    assert run.wait(60) == 143
    output.close()
    assert "the run was stopped by " in said
    assert "stop fails" in said


def test_where_there_are_no_results(tmp_path: Path) -> None:
    place = Place(tmp_path, "!LocalCluster {name: none, factories_num: 0}\n")
    try:
        assert place.flambe(place.cluster).returncode == 0
        done = place.flambe("fetch", "none")
        assert done.returncode == 1
        assert "no results of none yet" in done.stderr
        file = tmp_path / "a-file"
        file.write_text("x")
        refused = place.flambe("fetch", "none", "a-file")
        assert (refused.returncode, "a-file is a file" in refused.stderr) == (2, True)
        assert place.flambe(place.job(steps=1), "-c", "none").returncode == 0
        for target in ("/proc/nowhere", "/dev/null/x"):
            wrong = place.flambe("fetch", "none", target)
            assert wrong.returncode == 1, wrong.stderr
            assert f"cannot write to {target}" in wrong.stderr
        # As after a restart of this machine: it is known, and its servers are gone.
        key = str(tmp_path / "home/clusters/none/hosts/orchestrator/host_key")
        servers = [
            pid
            for pid, line in processes()
            if key in line and "flambe.cluster.providers.local.ssh_server" in line
        ]
        for pid in servers:
            os.kill(pid, signal.SIGKILL)
        assert servers
        until(lambda: not any(pid in servers for pid, _ in processes()), "the server ends", 20)
        back = place.flambe("fetch", "none", "back")
        assert back.returncode == 0, back.stderr
        assert (tmp_path / "back/result.txt").read_text() == "the result"
    finally:
        down = place.flambe("down", "none")
    assert "none is down: it had no hosts" in down.stdout
    # Its host is started for it.
    fetched = place.flambe("fetch", place.cluster)
    assert fetched.returncode == 0, fetched.stderr
    assert (tmp_path / "fetched/none/result.txt").read_text() == "the result"


KIND = """
from pathlib import Path
from flambe.cluster import Cluster, Machine

class Wrong(Cluster):
    def __init__(self, name, how):
        super().__init__(name)
        self.how = how

    def find_machines(self):
        if self.how == "raise":
            return [self.missing]
        return {"none": [], "text": ["10.0.0.1"], "field": [Machine("orchestrator", "h", "h", "u")]}[self.how]
"""


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("none", "Wrong.create_machines: it returned no machines"),
        ("text", "number 0 is '10.0.0.1', not a Machine"),
        ("field", "address of number 0 is 'h', expected Address"),
        ("raise", "in find_machines:   return [self.missing]"),
    ],
)
def test_a_kind_of_cluster_that_is_wrong(tmp_path: Path, how: str, told: str) -> None:
    place = Place(tmp_path, "")
    kinds = tmp_path / "site" / "kinds.py"
    kinds.write_text(KIND)
    place.cluster.write_text(f"kinds: ./kinds\n---\n!kinds.Wrong {{name: w, how: {how}}}\n")
    done = place.flambe(place.cluster)
    assert done.returncode == 1, done.stderr
    assert told in done.stderr
    assert str(kinds) in done.stderr or "kinds.py" in done.stderr
    assert "Traceback" not in done.stderr

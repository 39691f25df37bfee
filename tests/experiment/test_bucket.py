"""Runs whose checkpoints are in a bucket: what is there, and what is gone on with from there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flambe.compile.state.file_writer import FileWriter
from flambe.errors import DamagedError
from flambe.experiment.retention import Retention
from flambe.experiment.storage import mirror
from flambe.experiment.storage.checkpoint_storage import Storage
from flambe.experiment.storage.checkpoints import FINAL, RESUMED
from flambe.experiment.storage.disk_use import measure
from flambe.experiment.storage.manifest import MANIFEST, Manifest
from flambe.experiment.storage.restore_point import restore_point
from flambe.progress import RunFolder, RunState, Status
from tests.experiment.buckets import NAME, Bucket
from tests.experiment.farm import figures
from tests.experiment.lab import Lab, environment, flambe, kill_all, until

URL = f"s3://{NAME}/fruit"
PIPELINE = """
train: !pieces.Walk {steps: STEPS, delay: DELAY, rate: !g [1, 2, 3], record: RECORD}
next: !pieces.Walk {steps: 2, start: !@ train.value, label: next, record: RECORD, extra: OTHERS}
"""

SINGLE = "train: !pieces.Walk {steps: STEPS, delay: DELAY, record: RECORD}"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with contextlib.closing(Bucket(tmp_path_factory.mktemp("bucket") / "log")) as made:
        yield made


@pytest.fixture
def use(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in bucket.variables.items():
        monkeypatch.setenv(name, value)
    return bucket


def prepare(
    lab: Lab,
    name: str,
    *,
    url: str = URL,
    steps: int = 3,
    delay: float = 0.0,
    single: bool = False,
) -> None:
    lab.name = name
    pipeline = SINGLE if single else PIPELINE
    pipeline = pipeline.replace("STEPS", str(steps)).replace("DELAY", str(delay))
    # Many files in a checkpoint, more than threads that send them.
    others = ", ".join(["!pieces.Walk {}"] * 6)
    pipeline = pipeline.replace("OTHERS", f"[{others}]")
    lab.write(pipeline, more=f"storage: {url}" if url else "")


def begin(lab: Lab, mark: Path) -> subprocess.Popen[str]:
    """Start the run; it and all that it starts can be ended by the mark."""
    return subprocess.Popen(
        [sys.executable, "-m", "flambe", str(lab.config)],
        env=environment(FLAMBE_TEST=str(mark)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def checkpoints(names: set[str]) -> set[str]:
    return {name for name in names if "/checkpoint" in name}


def named(files: set[str]) -> set[str]:
    """Return the files whose names say nothing of a time, and that are there in the shortest run."""
    return {name for name in files if "events.out" not in name and name != "hosts.jsonl"}


def local(folder: RunFolder) -> set[str]:
    return {str(p.relative_to(folder.root)) for p in folder.root.rglob("*") if p.is_file()}


@pytest.mark.integration
def test_checkpoints_are_there_and_all_else_is_here_and_there(
    lab: Lab, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(lab, "there")
    # Neither the driver nor Ray has the keys in its environment: a file of secrets opens it.
    home = tmp_path / "home"
    home.mkdir()
    lines = "".join(f"{name} = {value}\n" for name, value in bucket.variables.items())
    (home / "secrets.ini").write_text(f"[environment]\n{lines}")
    (home / "secrets.ini").chmod(0o600)
    run = flambe(lab.config, env=environment(FLAMBE_HOME=str(home)))
    assert run.returncode == 0, run.stderr
    assert f"checkpoints  {URL}/output__there" in run.stdout
    here, there = local(lab.folder), bucket.keys("fruit/output__there/")
    assert not checkpoints(here)
    # The same as in a folder without a bucket and without Ray, nothing of Tune's in between.
    other = Lab(tmp_path / "other")
    other.root.mkdir()
    other.record = lab.record
    prepare(other, "there", url="")
    other.run().fine()
    assert named(there) == named(local(other.folder))
    assert there - checkpoints(there) == here
    assert figures(lab.folder) == figures(other.folder)
    for name in here:
        content = (lab.folder.root / name).read_bytes()
        assert bucket.read(f"fruit/output__there/{name}") == content, name
    for name, value in bucket.variables.items():
        monkeypatch.setenv(name, value)
    best = next(line for line in run.stdout.splitlines() if "flambe.load" in line)
    best = best.partition("the best")[2].strip()
    shown = f"import flambe; print({best}.done)"
    command = [sys.executable, "-c", shown]
    loaded = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "2"


def steps_of(variant: str, records: list[str]) -> list[int]:
    """Return the steps that were made of a variant: its records are named by its rate."""
    begin = f"step {variant.removeprefix('rate=').partition('_')[0]} "
    return [int(line.removeprefix(begin)) for line in records if line.startswith(begin)]


@pytest.mark.long
def test_a_machine_that_is_gone_is_gone_on_with_elsewhere(
    lab: Lab, use: Bucket, tmp_path: Path
) -> None:
    """The whole folder of the run is lost; another machine goes on from the bucket."""
    prepare(lab, "gone", steps=12, delay=0.5)
    mark = f"FLAMBE_TEST={tmp_path}"
    run = begin(lab, tmp_path)
    try:
        prefix = "fruit/output__gone/train/"
        journal = "fruit/output__gone/variants.jsonl"
        finals, ended = "checkpoint/manifest.json", "/manifest.json"
        until(lambda: any(n.endswith(finals) for n in use.keys(prefix)), "one is done")
        until(lambda: b'"finished"' in use.read(journal), "the journal says that one is done")
        until(
            lambda: any("/checkpoint_" in n and n.endswith(ended) for n in use.keys(prefix)),
            "another one has a checkpoint",
        )
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    finally:
        kill_all(mark)
        run.communicate()
    shutil.rmtree(lab.root / "out")
    before = lab.records()
    # What a host leaves that dies while it writes: a manifest without its files, and the reverse.
    finished = next(n for n in use.keys(prefix) if n.endswith(finals)).split("/")[0]
    latest = max(n for n in use.keys(prefix) if "/checkpoint_" in n and n.endswith(ended))
    torn = latest.split("/")[0]
    manifest = use.read(f"{prefix}{latest}").replace(b'"step": ', b'"step": 9')
    use.put(f"{prefix}{torn}/checkpoint_000090{ended}", manifest)
    use.put(f"{prefix}{torn}/checkpoint_000091/checkpoint.flambe/state.pt", b"half of")
    refused = flambe(lab.config)
    assert refused.returncode == 2
    assert f"{URL}/output__gone holds the results of an earlier run" in refused.stderr
    done = flambe(lab.config, "--resume")
    assert done.returncode == 0, done.stderr
    assert "the state of an earlier run was copied from" in done.stdout
    again = [line for line in lab.records()[len(before) :] if line.startswith("step")]
    whole = Lab(tmp_path / "whole")
    whole.root.mkdir()
    prepare(whole, "gone", url="", steps=12)
    assert flambe(whole.config).returncode == 0
    assert sorted(one[4:6] for one in figures(lab.folder).values()) == sorted(
        one[4:6] for one in figures(whole.folder).values()
    )
    assert not steps_of(finished, again), "what was finished was run again"
    assert 1 not in steps_of(torn, again), "its checkpoint was not used"
    assert not [name for name in use.keys(prefix) if "/checkpoint_" in name]


@pytest.mark.long
def test_results_are_moved_aside_there_too(lab: Lab, use: Bucket) -> None:
    prepare(lab, "aside", steps=1, single=True)
    assert flambe(lab.config).returncode == 0
    prepare(lab, "aside", steps=1, single=True, url="")
    elsewhere = flambe(lab.config, "--resume")
    assert elsewhere.returncode == 2
    assert f"are in {URL}/output__aside" in elsewhere.stderr
    prepare(lab, "aside", steps=1, single=True)
    before = use.keys("fruit/output__aside/")
    again = flambe(lab.config, "--force")
    assert again.returncode == 0, again.stderr
    others = {key.split("/")[1] for key in use.keys("") if key.startswith("fruit/output__aside.")}
    assert len(others) == 1
    assert use.keys(f"fruit/{others.pop()}/") == before
    assert named(use.keys("fruit/output__aside/")) == named(before)


@pytest.mark.long
def test_a_stage_that_is_run_anew_goes_aside_there_too(lab: Lab, use: Bucket) -> None:
    prepare(lab, "anew", steps=1)
    assert flambe(lab.config).returncode == 0
    done = flambe(lab.config, "--resume-from", "train")
    assert done.returncode == 0, done.stderr
    keys = use.keys("fruit/output__anew/")
    assert sum(key.startswith("next/") and "/checkpoint/manifest" in key for key in keys) == 3
    assert sum(key.startswith("earlier/") and "/checkpoint/manifest" in key for key in keys) == 3


@pytest.mark.long
def test_a_bucket_that_does_not_answer_for_a_while(lab: Lab, use: Bucket, tmp_path: Path) -> None:
    prepare(lab, "hanging", steps=12, delay=0.2, single=True)
    run = begin(lab, tmp_path)
    try:
        until(lambda: use.keys("fruit/output__hanging/train/"), "checkpoints are written")
        use.hang()
        time.sleep(10)
        use.go_on()
        said, _ = run.communicate(timeout=150)
    finally:
        use.go_on()
        kill_all(f"FLAMBE_TEST={tmp_path}")
    assert run.returncode == 0, said
    assert {one.status for one in lab.folder.read_variants().values()} == {Status.FINISHED}
    assert all(one.attempts == 1 for one in lab.folder.read_variants().values())


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://no-such-bucket-here/x", "storage: s3://no-such-bucket-here/x/output__wrong cannot"),
        ("/mnt/disk", "is not a bucket"),
        ("s3://UPPER/x", "is not a bucket"),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_runs(
    lab: Lab, use: Bucket, url: str, told: str
) -> None:
    prepare(lab, "wrong", url=url)
    run = flambe(lab.config)
    assert run.returncode == 2, run.stdout
    assert told in run.stderr
    assert "Traceback" not in run.stderr
    assert lab.records() == []


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_ENDPOINT_URL", "no-scheme:80"), ("AWS_SECRET_ACCESS_KEY", "")]
)
def test_settings_of_aws_that_are_none_are_told_too(
    lab: Lab, use: Bucket, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    prepare(lab, "wrong")
    monkeypatch.setenv(name, value)
    run = flambe(lab.config)
    assert run.returncode == 2, run.stdout + run.stderr
    assert f"storage: {URL}/output__wrong cannot be used" in run.stderr
    assert "Traceback" not in run.stderr
    assert lab.records() == []


@pytest.mark.long
def test_a_run_that_writes_there_from_elsewhere_is_not_disturbed(
    lab: Lab, use: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine is another: nobody here holds its lock, but it renews its state."""
    other = RunFolder(tmp_path / "other")
    other.root.mkdir()
    state = RunState("held", status=Status.RUNNING, host="far", pid=7, started=time.time())
    state.storage = f"{URL}/output__held"
    over = threading.Event()

    def write() -> None:
        other.write_state(state)
        use.put("fruit/output__held/state.json", other.state.read_bytes())

    def renew() -> None:
        while not over.wait(0.2):
            write()

    monkeypatch.setattr(mirror, "SILENCE", 15.0)
    prepare(lab, "held", single=True, steps=1)
    write()
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        for options in ({"resume": True}, {"force": True}):
            said = str(lab.run(**options).raised())  # type: ignore[arg-type]
            assert "is being written by another run: process 7 on far" in said
    finally:
        over.set()
        thread.join()
    assert use.keys("fruit/output__held/") == {"state.json"}
    done = lab.run(resume=True, executor=None)  # it is silent now
    assert done.fine().state.status is Status.FINISHED
    assert any("waiting up to 15 s" in note for note in done.watcher.notes)


@pytest.mark.integration
def test_what_is_kept_and_what_is_damaged_there(use: Bucket, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path), id="kept", url=f"s3://{NAME}/kept")
    checkpoints, folder = storage.checkpoints(), f"{NAME}/kept/train/v"
    for step, metric in enumerate([0.1, 0.9, 0.2, 0.3, 0.4], 1):
        path = f"{folder}/checkpoint_{step:06d}"
        with storage.writing(path) as local:
            writer = FileWriter(local)
            writer.below("checkpoint.flambe").write("state", f"{step}")
            manifest = Manifest(step, metric=metric, files=writer.entries)
            (local / MANIFEST).write_text(manifest.dump())
        assert (storage.fetch(path) / "checkpoint.flambe" / "state").read_text() == f"{step}"
    retention = Retention(last=2, best=1, every=3)
    expected = {"checkpoint": 5, "checkpoint_best": 2, "checkpoint_step_000003": 3}
    expected["checkpoint_step_000004"] = 4
    for _ in range(2):
        settled = checkpoints.settle(folder, FINAL, retention)
        whole = {path.rpartition("/")[2]: m.step for path, m in checkpoints.whole(folder).items()}
        assert whole == expected
    assert settled is not None
    use_there = measure(RunFolder(tmp_path), checkpoints, [])
    manifests = sum(len(use.read(f"kept/train/v/{name}/{MANIFEST}")) for name in expected)
    assert use_there.size("train") == settled.size + manifests
    use.put("kept/train/v/checkpoint/checkpoint.flambe/state", b"6")
    with pytest.raises(DamagedError, match=r"checkpoint.flambe/state is not what was written"):
        storage.fetch(f"{folder}/{FINAL}")
    assert checkpoints.latest(folder) == f"{folder}/checkpoint_step_000004"
    use.put("kept/train/v/checkpoint_step_000004/checkpoint.flambe/state", b"44")
    notes: list[str] = []
    point = restore_point(checkpoints, "train", "v", Retention(), notes.append)
    assert point is not None
    assert point[1].step == 3
    assert len(notes) == 1
    assert "has 2 bytes of 1: train/v continues from its checkpoint at step 3" in notes[0]
    assert [path.rpartition("/")[2] for path in checkpoints.whole(folder)] == [RESUMED]


@pytest.mark.integration
def test_a_renamed_stage_a_plan_and_clean_look_there(lab: Lab, use: Bucket) -> None:
    lab.name = "renamed"
    stage = "{}: !pieces.Walk {{steps: 1, rate: !g [1.0, 2.0]}}"

    def write(name: str) -> None:
        lab.write(stage.format(name), more=f"storage: {URL}\nreduce: {{{name}: 1}}")

    def there() -> list[str]:
        """Return the stages of the checkpoints in the bucket."""
        keys = use.keys("fruit/output__renamed/")
        return [key.split("/")[0] for key in keys if key.endswith("/checkpoint/manifest.json")]

    def planned() -> tuple[int, int]:
        done = flambe("plan", lab.config, "--json")
        assert done.returncode == 0, done.stderr
        [row] = json.loads(done.stdout)["stages"]
        return row["reused"], row["run"]

    write("grow")
    done = flambe(lab.config)
    assert done.returncode == 0, done.stderr
    assert there() == ["grow", "grow"]
    write("tree")
    assert planned() == (2, 0)
    assert there() == ["grow", "grow"]  # a plan moves nothing
    done = flambe(lab.config, "--resume")
    assert done.returncode == 0, done.stderr
    assert there() == ["tree", "tree"]
    done = flambe("clean", lab.folder.root, "--yes")
    assert done.returncode == 0, done.stderr
    assert there() == ["tree"]
    assert planned() == (1, 1)
    unreachable = flambe("plan", lab.config, env=environment(AWS_ENDPOINT_URL="http://127.0.0.1:9"))
    assert unreachable.returncode == 0, unreachable.stderr
    assert f"{URL}/output__renamed cannot be reached" in unreachable.stdout

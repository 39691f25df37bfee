"""How a run was made is recorded with it: configuration, code, machine, packages."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import flambe
from flambe.cluster import job
from flambe.compile.reader.document import read_file
from flambe.experiment import Experiment
from flambe.logging import redact
from flambe.packaging import provenance
from flambe.packaging.provenance import Recording, Source, record_client
from flambe.progress import Invocation, read_invocation, read_invocations, read_lines
from flambe.testing import RecordingCluster
from tests.experiment.lab import Lab

PIPELINE = "train: !pieces.Walk {steps: 1, rate: !g [1.0, 2.0]}  # tried twice"


def starts(lab: Lab) -> list[Invocation]:
    return read_invocations(lab.folder.invocations)


def test_a_run_records_how_it_was_made(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/flambe", "config.yaml", "--site"])
    lab.run(PIPELINE, seed=7).fine()
    (start,) = starts(lab)
    assert start.complete, start.problem
    assert start.problem == ""
    assert start.command == ["flambe", "config.yaml", "--site"]
    assert start.working_folder == os.getcwd()
    assert start.file == str(lab.config)
    assert start.config == lab.config.read_text()
    assert "# tried twice" in start.config
    assert "# tried twice" not in start.resolved
    assert "rate: !g" in start.resolved
    assert start.seeds == [7]
    assert start.flambe == flambe.__version__
    assert start.python == f"CPython {platform.python_version()}"
    assert start.cpus == os.cpu_count()
    assert start.packages["numpy"] == np.__version__
    assert start.packages["ray"] == metadata.version("ray")
    assert not start.resumed
    state = lab.folder.read_state()
    assert state is not None
    assert state.started is not None
    assert start.at is not None
    assert abs(start.at - state.started) < 60


def test_each_resume_is_added_and_force_starts_afresh(lab: Lab) -> None:
    lab.run(PIPELINE).fine()
    first = starts(lab)[0]
    lab.run(resume=True).fine()
    assert [(start.id == first.id, start.resumed) for start in starts(lab)] == [
        (True, False),
        (False, True),
    ]
    lab.run(force=True).fine()
    assert [start.resumed for start in starts(lab)] == [False]


def test_the_repository_of_an_extension_is_recorded(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "traced.py").write_text(
        "from flambe.compile import Component\n\n\nclass T(Component):\n    def run(self):\n        return False\n"
    )
    git = ["git", "-C", str(project), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    with open(project / "traced.py", "a") as stream:
        stream.write("rate = 1\n")
    monkeypatch.syspath_prepend(str(project))
    lab.write("train: !traced.T")
    lab.config.write_text(lab.config.read_text().replace("pieces: ./pieces", "traced: ./traced.py"))
    lab.run().fine()
    (start,) = starts(lab)
    (repository,) = [each for each in start.repositories if each.folder == str(project)]
    assert repository.uses == ["extension traced"]
    assert len(repository.commit) == 40
    assert "+rate = 1" in repository.diff


def test_secrets_are_hidden(tmp_path: Path) -> None:
    redact.add("hunter2hunter2")
    source = Source(config="token: hunter2hunter2", resolve=lambda: "token: hunter2hunter2")
    recording = Recording(tmp_path / "invocations.jsonl", source)
    recording.begin()
    recording.end()
    text = (tmp_path / "invocations.jsonl").read_text()
    assert "hunter2" not in text
    assert "token: ***" in text
    assert "hunter2" not in record_client(source)


def test_a_run_does_not_wait_for_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a while is collected beside the run, which ends when that is done."""
    released = threading.Event()

    def slow(folders: object) -> list[object]:
        assert released.wait(30)
        return []

    monkeypatch.setattr(provenance, "find_repositories", slow)
    path = tmp_path / "invocations.jsonl"
    recording = Recording(path, Source(config="a: 1"))
    recording.begin()
    assert [(start.config, start.complete) for start in read_invocations(path)] == [("a: 1", False)]
    released.set()
    recording.end()
    recording.end()
    assert [(start.config, start.complete) for start in read_invocations(path)] == [("a: 1", True)]


def test_what_cannot_be_collected_is_named_and_the_run_goes_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(source: object) -> None:
        raise OSError("no metadata")

    monkeypatch.setattr(provenance, "_packages", fails)
    lab.run(PIPELINE).fine()
    (start,) = starts(lab)
    assert start.problem == "packages: no metadata"
    assert start.config


def test_a_cluster_records_what_its_client_knew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Source("/home/me/a.yaml", "a: 1", resolve=lambda: "a: 2", overrides=["a=2"])
    sent = tmp_path / "invocation.json"
    values = json.loads(record_client(client))
    sent.write_text(json.dumps({**values, "host": "laptop", "platform": "macOS"}))
    monkeypatch.setenv(provenance.VARIABLE, str(sent))
    recording = Recording(tmp_path / "invocations.jsonl", Source(config="generated", seeds=[3]))
    assert provenance.VARIABLE not in os.environ
    recording.begin()
    recording.end()
    (start,) = read_invocations(tmp_path / "invocations.jsonl")
    assert (start.host, start.file, start.config) == ("laptop", "/home/me/a.yaml", "a: 1")
    assert (start.resolved, start.overrides, start.seeds) == ("a: 2", ["a=2"], [3])
    assert start.platform == platform.platform()
    assert "numpy" in start.packages
    assert start.complete


def test_the_client_of_a_cluster_sends_what_it_knows(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Experiment, "setup", lambda self, *arguments, **options: None)
    monkeypatch.setattr(sys, "argv", ["flambe", "config.yaml", "--cluster", "lab.yaml"])
    lab.write(PIPELINE)
    document = read_file(lab.config, overrides=["seed=3"])
    cluster = RecordingCluster(factories=1)
    job.start(cluster, job.JobSpec(document.root(), {}))
    (request,) = [r for verb, r in cluster.agents["orchestrator"].requests if verb == "start"]
    variables = request["env"]
    assert isinstance(variables, dict)
    path = str(variables[provenance.VARIABLE])
    files = cluster.connections["orchestrator"].files
    (content,) = [data for name, data in files.items() if path.endswith(name)]
    client = read_invocation(json.loads(content))
    assert client is not None
    assert client.command == ["flambe", "config.yaml", "--cluster", "lab.yaml"]
    assert (client.file, client.config) == (str(lab.config), lab.config.read_text())
    assert client.overrides == ["seed=3"]
    assert "seed: 3" in client.resolved
    assert "env:" not in client.resolved
    assert not client.complete


def test_a_broken_record_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "invocations.jsonl"
    path.write_text(
        '{"id": "a", "seeds": "x", "packages": 3, "repositories": [1, {"folder": "/f", "diff": 2}, {}]}\n'
        '{"id": 5}\nnonsense\n{"id": "a", "at": 1.5, "unknown": true}\n'
    )
    (start,) = read_invocations(path)
    assert (start.at, start.seeds, start.packages) == (1.5, [], {})
    assert [repository.folder for repository in start.repositories] == ["/f"]
    assert read_invocations(tmp_path / "none") == []
    assert len(list(read_lines(path))) == 3

"""No name in a file, and nothing that another machine says, leads out of the folder it is for."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flambe.cli import fetch
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.cluster_record import ClusterRecord
from flambe.cluster.local_state import ClusterFiles
from flambe.cluster.machine import Machine
from flambe.compile.checks.calls import check
from flambe.compile.reader.document import read_text
from flambe.compile.state import s3
from flambe.errors import ConfigError, RemoteError, ResourceError, RunError
from flambe.experiment import Experiment
from flambe.experiment.storage.checkpoints import Checkpoints
from flambe.experiment.storage.mirror import _is_mirrored
from flambe.packaging import resources
from flambe.remote import Address, Connection, Copy, Host, Login, transfer
from flambe.testing import RecordingCluster
from tests.experiment.lab import flambe_here


def problems(text: str) -> list[str]:
    """Return what is wrong with a file, with its line and column."""
    try:
        document = read_text(text, "f.yaml")
        check(document)
        document.raise_problems()
    except ConfigError as error:
        return [f"{p.place.line}:{p.place.column} {p.message}" for p in error.problems if p.place]
    return []


# -- names in a file ----------------------------------------------------------------------------

PATHS = [
    "../../../victim/.ssh",
    "..",
    ".",
    "a/b",
    "/etc",
    "a\\nb",
    "a\\0",
    "\\u202ea",
    "-rf",
    "a b",
    "a" * 101,
]


@pytest.mark.parametrize("name", [*PATHS, ""])
@pytest.mark.parametrize("kind", ["resources", "pipeline"])
def test_a_resource_or_a_stage_is_no_path(kind: str, name: str) -> None:
    """Resources named ``../../../victim/.ssh`` were written there."""
    rest = {"resources": "pipeline: {a: 1}", "pipeline": "seed: 1"}[kind]
    found = problems(f'!Experiment\nname: a\n{kind}:\n  "{name}": x\n{rest}\n')
    assert any(one.startswith("4:") for one in found), found


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("kind", ["Experiment", "LocalCluster"])
def test_an_experiment_or_a_cluster_is_no_path(kind: str, name: str) -> None:
    rest = {"Experiment": "pipeline: {a: 1}", "LocalCluster": "factories_num: 1"}[kind]
    found = problems(f'!{kind}\nname: "{name}"\n{rest}\n')
    assert any(one.startswith("2:7 ") and "name" in one for one in found), found


def test_python_is_told_too() -> None:
    for name in ("../../../victim/.ssh", "a\n"):
        with pytest.raises(ConfigError, match="is not a name"):
            Experiment("a", {"a": 1}, resources={name: "x"}).parse()
        with pytest.raises(ConfigError, match="is not a name"):
            ClusterFiles(name).remember(ClusterRecord())
        assert ClusterFiles(name).recall().is_empty


@pytest.mark.parametrize("name", ["../../../victim/.ssh", "..", "a/b"])
def test_a_resource_writes_nothing_elsewhere(tmp_path: Path, name: str) -> None:
    """Where nothing was checked: on the orchestrator, by its command line."""
    with pytest.raises(ConfigError, match="is not a name"):
        resources.fetch(name, "https://127.0.0.1:9/x", tmp_path, tmp_path / "to")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ['"a\\nb"', '"a\\0"', '"\\ud800"', '""', '"\\e[31m"'])
def test_a_path_is_one_line(path: str) -> None:
    """``results.txt`` on the orchestrator has a line for each ``save_path``."""
    more = "name: a\npipeline: {a: 1}\n"
    assert any(
        one.startswith("2:12 save_path")
        for one in problems(f"!Experiment\nsave_path: {path}\n{more}")
    )
    for value in (path, f"!cluster {path}"):
        found = problems(f"!Experiment\nresources:\n  r: {value}\n{more}")
        assert any(one.startswith("3:6 ") for one in found), value


@pytest.mark.parametrize(
    "url",
    ["s3://bucket/../x", "s3://bucket/a/..", "s3://UP/x", "s3:///x", "http:///x", "https://-x/y",
     "https://h:99999/", "http://[::1/x", "https://h/a b", "http:x"],
)  # fmt: skip
def test_a_resource_is_the_url_of_something(url: str) -> None:
    found = problems(f"!Experiment\nresources:\n  r: '{url}'\nname: a\npipeline: {{a: 1}}\n")
    assert any(one.startswith("3:6 resource 'r' has a URL that") for one in found), found
    if url.startswith("s3://"):
        found = problems(f"!Experiment\nstorage: '{url}'\nname: a\npipeline: {{a: 1}}\n")
        assert any(one.startswith("2:10 storage") for one in found), found


def test_what_a_url_ends_with_is_no_path(tmp_path: Path, httpd: str) -> None:
    for end in ("..", ".source"):
        path = resources.fetch("data", f"{httpd}/x/{end}", tmp_path, tmp_path / "to")
        assert path == str(tmp_path / "to" / "data" / "data")
        assert Path(path).read_text() == "content"
        shutil.rmtree(tmp_path / "to")
    with pytest.raises(ResourceError, match="does not name a file"):
        s3.download("s3://bucket/a/..", tmp_path)


@pytest.fixture
def httpd() -> Any:
    import http.server
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "7")
            self.end_headers()
            self.wfile.write(b"content")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


# -- files named * --------------------------------------------------------------------------------

NAMES = ["*", "[ab]", "a?", "b\\c", "d*\\e", "a b", "$HOME", "-x", "c:d"]


class LocalConnection(Connection):
    """The host is this machine: rsync starts its other half by a shell here, as sshd does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Login(Address("host"), "user", folder / "known_hosts"), "here")
        self.script = folder / "ssh"
        self.script.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
        self.script.chmod(0o755)

    def ssh(self, *arguments: str) -> list[str]:
        return [str(self.script), *arguments]

    @property
    def destination(self) -> str:
        return "host"

    def open(self, seconds: float = 30.0, *, patient: bool = False) -> None:
        pass


@pytest.fixture
def connection(tmp_path: Path) -> LocalConnection:
    return LocalConnection(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_named_as_a_pattern_is_one_file(
    tmp_path: Path, connection: LocalConnection, name: str
) -> None:
    """``rsync`` on a host expands ``*`` in what it is told to write to, and to read."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there, there / "da"):
        folder.mkdir()
    (here / name).write_text("new")
    for other in ("a", "b", "ab", "ac"):
        (there / other).write_text("kept")
    transfer.rsync(connection, Copy(here / name, f"{there}/{name}", True))
    assert (there / name).read_text() == "new"
    assert {(there / other).read_text() for other in ("a", "b", "ab", "ac")} == {"kept"}
    # A folder of that name, with such a file in it, and back again.
    (there / f"d{name}").mkdir()
    transfer.rsync(connection, Copy(here, f"{there}/d{name}", True))
    assert (there / f"d{name}" / name).read_text() == "new"
    assert not list((there / "da").iterdir())
    back = tmp_path / "back"
    back.mkdir()
    transfer.rsync(connection, Copy(back, f"{there}/d{name}/", False))
    assert [path.name for path in back.iterdir()] == [name]
    if name == "d*\\e":  # refused by rsync's own check of what arrives, and never asked for
        return
    one = tmp_path / "one"
    transfer.rsync(connection, Copy(one, f"{there}/d{name}/{name}", False))
    assert one.read_text() == "new"


def test_a_file_cannot_become_a_pattern(tmp_path: Path, connection: LocalConnection) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(ValueError, match="as a pattern"):
        transfer.rsync(connection, Copy(tmp_path / "x", f"{tmp_path}/*", True))


def test_hosts_give_one_another_what_is_meant() -> None:
    """From the orchestrator to a factory: the same question."""
    cluster = RecordingCluster(name="c")
    (factory,) = cluster.factories
    cluster.files.give(["r/*"], "r/*", factory)
    cluster.files.give(["r*/"], "r*", factory)
    copies = [argv for argv in cluster.connections["orchestrator"].argvs if argv[0] == "rsync"]
    assert [copy[-2:] for copy in copies] == [
        ["r/*", "factory_1.c:r/"],
        ["r*/", "factory_1.c:r\\*"],
    ]


# -- what hosts say -------------------------------------------------------------------------------


class Said(Host):
    """An orchestrator that is not in good hands: it names what it likes as folders of results."""

    def __init__(self, connection: LocalConnection, said: str) -> None:
        super().__init__(connection)
        self.said = said
        self.agent: Any = type("Agent", (), {"root": "root"})()

    def run(self, command: Any, **options: Any) -> Any:
        return type("Done", (), {"stdout": self.said})()


HOSTILE_RESULTS = [
    "/x/../../../../victim",
    "victim",
    "../victim",
    "/a\rb",
    "/a\x1b[2J",
    "/a\u2028/../../b",
]


@pytest.mark.parametrize("said", HOSTILE_RESULTS)
def test_results_are_brought_to_the_folder_that_was_named(
    tmp_path: Path, connection: LocalConnection, said: str
) -> None:
    """An orchestrator that named ``/x/../../victim`` had its files written there."""
    host: Any = Said(connection, f"/mnt/output__a\n{said}\n")
    with pytest.raises(RunError, match="nothing is copied"):
        fetch.copy(host, "c", tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_what_is_brought_has_no_links_and_no_rights(
    tmp_path: Path, connection: LocalConnection
) -> None:
    victim, there, here = tmp_path / "victim", tmp_path / "there", tmp_path / "fetched"
    victim.mkdir()
    (victim / "file").write_text("secret")
    (there / "deep").mkdir(parents=True)
    for name, target in (
        ("out", victim),
        ("up", "../victim"),
        ("file", victim / "file"),
        ("in", "deep"),
    ):
        (there / name).symlink_to(target)
    os.mkfifo(there / "pipe")
    (there / "program").write_text("#!/bin/sh\n")
    (there / "program").chmod(0o6777)
    (there / "deep").chmod(0o1777)
    Host(connection).fetch(f"{there}/", here)
    assert sorted(path.name for path in here.iterdir()) == ["deep", "program"]
    assert stat.S_IMODE((here / "program").stat().st_mode) == 0o755
    assert stat.S_IMODE((here / "deep").stat().st_mode) == 0o755


def test_nothing_is_removed_through_a_link(
    tmp_path: Path, connection: LocalConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints that the run let go go here too: not those of another folder."""
    victim, folder = tmp_path / "victim", tmp_path / "fetched"
    (victim / "checkpoint_1").mkdir(parents=True)
    (folder / "output__a" / "stage").mkdir(parents=True)
    (folder / "output__a" / "stage" / "variant").symlink_to(victim)
    (folder / "output__a" / "stage" / "other" / "checkpoint_1").mkdir(parents=True)
    monkeypatch.setattr(fetch, "copy", lambda host, name, folder: {})
    fetch._sync(Said(connection, ""), "c", folder)  # type: ignore[arg-type]
    assert (victim / "checkpoint_1").is_dir()
    assert not (folder / "output__a" / "stage" / "other" / "checkpoint_1").exists()


FACTS = {
    "home": "/home/u",
    "python": "3.12.1",
    "platform": "linux-x86_64",
    "libc": "glibc-2.36",
    "rsync": "",
}
HOSTILE_FACTS = [
    ("platform", "../../victim"), ("platform", "linux-x86_64\n"), ("python", "3.12/../.."),
    ("python", "--index-url=x"), ("libc", "a/b-c"), ("home", "relative"), ("home", "/h\nHost *"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), HOSTILE_FACTS)
def test_what_a_host_is_names_no_file_here(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """``~/.flambe/uv/<version>-<platform>`` is made of what the host says."""
    address = Address("10.0.0.1")
    member = ClusterHost(Machine("factory_1", address, address, "u"), ClusterFiles("c"), ".flambe")
    facts = dict(FACTS)
    monkeypatch.setattr(member.agent, "ask", lambda request: request.read_answer({"facts": facts}))
    member.refresh("c")
    facts[name] = value
    with pytest.raises(RemoteError):
        member.refresh("c")


@pytest.mark.parametrize("name", ["../../victim", "..", "", "a/b"])
def test_a_variant_of_an_earlier_run_is_no_path(tmp_path: Path, name: str) -> None:
    """``--resume`` in a folder of somebody else: its ``variants.jsonl`` names folders."""
    with pytest.raises(RunError, match="not the name of a variant"):
        Checkpoints(str(tmp_path)).folder("stage", name)


def test_names_in_a_bucket_lead_nowhere() -> None:
    assert not _is_mirrored("../../victim")
    assert not _is_mirrored("stage/../../victim")
    assert not _is_mirrored(".ssh/authorized_keys")


# -- keys of the user -----------------------------------------------------------------------------


def test_no_key_of_ssh_is_sent_for_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``site: {key: ~/.ssh/id_ed25519}`` in a file of a stranger, whose host it would go to."""
    monkeypatch.setenv("HOME", str(tmp_path))
    ssh = tmp_path / ".ssh"
    ssh.mkdir()
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", str(ssh / "id_rsa")],
        check=True,
    )
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "elsewhere")],
        check=True,
    )
    for key in ("~/.ssh/id_rsa", "~/elsewhere", "~/.ssh/../.ssh/id_rsa"):
        text = (
            "!SSHCluster\nname: a\norchestrator_ip: h\n"
            f"site:\n  host: 0.0.0.0\n  certificate: /c\n  key: {key}\n"
        )
        assert any(
            "it is an SSH key, which must stay on this machine" in one for one in problems(text)
        ), key


def test_the_command_writes_nothing_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it, by a file of a stranger."""
    work = tmp_path / "a" / "b" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    (work / "f.yaml").write_text(
        "!Experiment\nname: a\nresources: {'../../../victim/.ssh': 'http://127.0.0.1:9/keys'}\n"
        "pipeline: {a: 1}\n"
    )
    for command in (["validate", "f.yaml"], ["plan", "f.yaml"], ["f.yaml"]):
        done = flambe_here(*command)
        assert done.returncode == 2
        assert "f.yaml:3:37: resources: '../../../victim/.ssh' is not a name" in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "work", "f.yaml"]

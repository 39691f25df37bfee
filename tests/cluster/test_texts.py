"""One text where several are meant: it would be taken letter by letter."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flambe.cluster import LocalCluster, Machine, SSHCluster
from flambe.cluster.services.docker import Docker
from flambe.cluster.services.files import Files
from flambe.compile import Component, Schema, yaml
from flambe.errors import ComponentError, ConfigError
from flambe.experiment.variants.inputs import FactReader, Inputs
from flambe.field import LabelField
from flambe.learn import Script
from flambe.remote import Address, Connection, Host, Login
from flambe.runnable import RemoteEnvironment


@pytest.fixture
def host(tmp_path: Path) -> Host:
    # Nothing listens there: what reaches it fails in another way.
    return Host(Connection(Login(Address("127.0.0.1", 9), "nobody", tmp_path / "known")))


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        ("ls", "['ls']"),
        ("ls -l 'a b'", "['ls', '-l', 'a b']"),
        ("ls | wc", "['bash', '-c', 'ls | wc']"),
        ("it's", '["bash", "-c", "it\'s"]'),
        ("", "['bash', '-c', '']"),
    ],
)
def test_a_command_is_a_list(host: Host, command: str, instead: str) -> None:
    with pytest.raises(TypeError) as raised:
        host.run(command)
    message = "run() takes the program and its arguments as a list, not one text: write "
    assert str(raised.value).replace('"', "'") == (message + instead).replace('"', "'")


def test_a_command_in_bytes_is_refused_too(host: Host) -> None:
    with pytest.raises(TypeError, match="not one text"):
        host.run(b"ls")  # type: ignore[arg-type]


cluster: Any = LocalCluster("texts")

CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "run_cmds": (lambda: cluster.run_cmds("ls -l"), "run_cmds() takes a list of commands, not one text: write ['ls -l']"),
    "create_dirs": (lambda: cluster.create_dirs("data"), "create_dirs() takes a list of folders, not one text: write ['data']"),
    "a path": (lambda: cluster.create_dirs(Path("data")), "create_dirs() takes a list of folders, not one path: write ['data']"),
    "make": (lambda: Files(cluster.context).make("data"), "make() takes a list of folders, not one text: write ['data']"),
    "give": (lambda: Files(cluster.context).give("a", "b", cluster), "give() takes a list of files and folders, not one text: write ['a']"),
    "docker": (lambda: Docker(cluster.context).run("busybox", "ls -l"), "command takes the program and its arguments, not one text: write ['ls', '-l']"),
    "docker options": (lambda: Docker(cluster.context).run("busybox", ["ls"], options="--ipc=host"), "options takes a list of options, not one text: write ['--ipc=host']"),
    "hosts": (lambda: cluster.context.selected("factory_1"), "hosts takes a list of the cluster's hosts, not one text: write hosts=[cluster.orchestrator]"),
    "setup_cmds": (lambda: LocalCluster("c", setup_cmds="ls"), "setup_cmds takes a list of commands, not one text: write ['ls']"),
    "factories_ips": (lambda: SSHCluster("c", "10.0.0.1", "10.0.0.2"), "factories_ips takes a list of addresses, not one text: write ['10.0.0.2']"),
    "factories": (lambda: RemoteEnvironment("k", "10.0.0.1", "10.0.0.2", "u"), "factories_ips takes a list of addresses, not one text: write ['10.0.0.2']"),
    "public": (
        lambda: RemoteEnvironment("k", "10.0.0.1", [], "u", public_factories_ips="10.0.0.2"),
        "public_factories_ips takes a list of addresses, not one text: write ['10.0.0.2']",
    ),
    "login": (
        lambda: Login(Address("h"), "u", Path("known"), options="ProxyJump=gate"),  # type: ignore[arg-type]
        "options takes a list of options of ssh, not one text: write ['ProxyJump=gate']",
    ),
    "machine": (
        lambda: Machine("factory_1", Address("h"), Address("h"), "u", host_keys="ssh-ed25519 AA"),  # type: ignore[arg-type]
        "host_keys takes a list of keys, not one text: write ['ssh-ed25519 AA']",
    ),
    "script": (lambda: Script("fit.py", "--epochs 3"), "args takes a list, not one text: write ['--epochs', '3']"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_one_text_is_refused_with_what_to_write(name: str) -> None:
    call, message = CALLS[name]
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


def test_patterns_to_leave_out_are_a_list(host: Host, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="exclude takes a list of patterns"):
        host.send(tmp_path, "there", exclude="*.pyc")
    with pytest.raises(TypeError, match="exclude takes a list of patterns"):
        host.fetch("there", tmp_path, exclude="*.pyc")


def test_a_file_says_so_at_its_line() -> None:
    with pytest.raises(ConfigError, match=r"<text>:3:13: 'setup_cmds' of !LocalCluster cannot be"):
        yaml.load("!LocalCluster\nname: c\nsetup_cmds: ls\n")
    with pytest.raises(ComponentError, match=r"setup_cmds takes a list of commands"):
        Schema.of(LocalCluster, "c", setup_cmds="ls")()


class Reading(Component):
    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def input_files(cls, schema: Schema) -> str:
        return str(schema.args[0])


def test_one_path_is_one_file(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("1")
    facts = FactReader(None).read(Schema.of(Reading, str(file)))
    before = Inputs().data_of(facts)
    file.write_text("2 3")
    after = Inputs().data_of(facts)
    assert list(before) == list(after) == [f"file {file}"]
    assert before != after


def test_names_in_a_class_and_labels_are_lists() -> None:
    with pytest.raises(
        TypeError, match=r"Forgetful\._transient takes several names: write \('a',\)"
    ):
        type("Forgetful", (Component,), {"_transient": "a"})
    with pytest.raises(TypeError, match="labels takes a list, not one text"):
        LabelField(labels="ab")

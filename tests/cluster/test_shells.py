"""Shells that print, ask or end before a command of ours: its answer is found, or they are named."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flambe.cluster.cluster_host import ClusterHost
from flambe.errors import CommandError, ShellError
from flambe.remote import Connection, shell
from tests.cluster.conftest import connected, ssh_cluster
from tests.cluster.place import typed
from tests.cluster.providers.test_own import Standing
from tests.metal import Metal

pytestmark = pytest.mark.integration

Write = Callable[[str], None]
HARMLESS = {
    "prints": "echo WELCOME; printf 'no end of line'",
    "prints elsewhere": "echo 'cannot change locale' >&2",
    "asks": "printf 'Who are you? '; read -r name; echo hello $name",
    "asks for some": "for n in 1 2 3; do read -r answer; done",
    "says goodbye": "trap 'echo bye; echo bye >&2' EXIT",
}
IN_THE_WAY = {
    "ends": (
        "echo WELCOME; exit 0",
        r"its shell printed or exited before our command ran \(.bashrc",
    ),
    "fails": ("exit 3", "its shell printed or exited before our command ran"),
    "fails as ssh": ("exit 255", "its shell printed or exited before our command ran"),
    "is another program": ("exec date", "its shell printed or exited"),
}


@pytest.fixture
def noisy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: Any) -> tuple[ClusterHost, Write]:
    """Give a host of this machine whose shell does something first, and what writes that."""
    script = tmp_path / "shell"
    script.write_text(f'#!/bin/sh\n. "{tmp_path}/rc"\n/bin/sh "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    rc = tmp_path / "rc"
    rc.touch()
    monkeypatch.setenv("SHELL", str(script))
    (host,) = connected(local(0))
    return host, rc.write_text  # type: ignore[return-value]


@pytest.fixture
def bashrc(metal: Metal) -> Iterator[tuple[ClusterHost, Write]]:
    """Give a real host, and what writes the .bashrc there."""
    real = metal.hosts[0]
    path = f"/home/{real.user}/.bashrc"

    def write(text: str) -> None:
        real.run("tee", path, input=f"{text}\n")

    write("")
    yield connected(ssh_cluster(metal))[0], write
    real.run("rm", "-f", path)


def check(host: ClusterHost, write: Write, folder: Path) -> None:
    """See what each kind of shell does to commands, the agent and copies."""
    lines: list[tuple[str, str]] = []
    for kind, text in HARMLESS.items():
        write(text)
        lines.clear()
        done = host.run(
            ["sh", "-c", "echo out; printf err >&2; exit 7"], check=False, take=_into(lines)
        )
        assert (done.code, done.stdout, done.stderr) == (7, "out\n", "err"), kind
        assert sorted(lines) == [("stderr", "err"), ("stdout", "out")], kind
        assert host.run(["cat"], content="one\ntwo").stdout == "one\ntwo", kind
        assert host.refresh("c").facts.home, kind
        assert isinstance(host.connection, Connection)
        assert host.connection.alive()
        if kind in ("prints elsewhere", "says goodbye"):
            host.send(Path(__file__), "a copy")
            continue
        with pytest.raises(ShellError, match="so that rsync and SFTP do not work") as raised:
            host.send(Path(__file__), "a copy")
        assert "case $- in *i*) ;; *) return ;; esac" in str(raised.value)
        write("")
        host.refresh("c")
        host.connection.reads_input = False
    for kind, (text, message) in IN_THE_WAY.items():
        write(text)
        for what in ({}, {"content": "x" * 1_000_000}):
            with pytest.raises(ShellError, match=message) as raised:
                host.run(["cat"], check=False, **what)  # type: ignore[arg-type]
            said = str(raised.value)
            assert said.startswith(f"{host.name}: "), kind
            assert ("| WELCOME" in said) == ("WELCOME" in text)
            assert "check:   ssh -p" in said or "check:   ssh -i" in said
            assert " true   must print nothing" in said
        with pytest.raises(ShellError, match="printed or exited"):
            host.agent.follow("c", print)
    # A program that reads ahead, where there is nothing that it could take away.
    write("answer=$(head -n 1)")
    assert host.run(["echo", "out"]).stdout == "out\n"
    # What takes all of the input: told at once where there is some, else after a while.
    write("cat > /dev/null")
    with pytest.raises(ShellError, match="its shell read the input of our command"):
        host.refresh("c")
    write("echo 'Password: '; cat > /dev/null")
    with pytest.raises(ShellError, match="something waits, for input maybe") as raised:
        host.run(["true"])
    assert "| Password:" in str(raised.value)
    write("")
    with pytest.raises(CommandError):
        host.run(["false"])


def _into(lines: list[tuple[str, str]]) -> Callable[[str, str], None]:
    return lambda stream, text: lines.append((stream, text))


@pytest.mark.xdist_group("hosts")
def test_a_profile_that_ends_before_a_command(local: Any) -> None:
    """What setup commands seem to have done they have done."""
    (host,) = connected(local(0))
    cluster = Standing("c")
    cluster.hosts = (host,)
    for profile in ("", "echo WELCOME; set -o noclobber", "read -r answer"):
        host.put(profile, ".bash_profile")
        assert cluster.run_cmds(["true"])[0].code == 0
        with pytest.raises(CommandError) as raised:
            cluster.run_cmds(['echo "<$#>"; exit 4'])
        assert raised.value.code == 4
        assert raised.value.stdout.endswith("<0>\n")
        assert raised.value.command == 'echo "<$#>"; exit 4'
    for profile in ("exit 0", "exec true"):
        host.put(profile, ".bash_profile")
        with pytest.raises(CommandError, match="the login shell ended before it ran this"):
            cluster.run_cmds(["touch made"])
        assert host.run(["test", "-e", "made"], check=False).code == 1


@pytest.mark.xdist_group("hosts")
def test_shells_of_this_machine(
    noisy: tuple[ClusterHost, Write], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "START", 3.0)
    check(*noisy, tmp_path)


@pytest.mark.root
@pytest.mark.faults
@pytest.mark.xdist_group("metal-ssh")
def test_commands_where_a_shell_prints_or_ends(
    bashrc: tuple[ClusterHost, Write], metal: Metal, tmp_path: Path
) -> None:
    _, write = bashrc
    file = tmp_path / "cluster.yaml"
    file.write_text(metal.cluster_yaml(name="loud", factories_ips=[]))
    write("echo WELCOME")
    made = typed(tmp_path, file)
    assert made.returncode == 1
    assert "its shell prints before a command runs (.bashrc, ForceCommand)" in made.stderr
    assert "  | WELCOME\n  check:   ssh -i " in made.stderr
    home = metal.hosts[0].run("find", "/home/ubuntu/.flambe", "-maxdepth", "1").stdout
    assert "envs" not in home
    done = typed(tmp_path, "exec", file, "--", "echo", "hello")
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert "nothing was run there yet" in typed(tmp_path, "logs", file).stderr
    assert typed(tmp_path, "status", file).returncode == 0
    write("echo WELCOME; exit 0")
    path = str(file)
    for command in (["exec", path, "--", "echo", "hello"], ["logs", path], ["stop", path]):
        done = typed(tmp_path, *command)
        assert (done.returncode, done.stdout) == (1, "")
        assert "its shell printed or exited before our command ran" in done.stderr
    assert "its shell printed" in typed(tmp_path, "status", file).stdout


@pytest.mark.root
@pytest.mark.faults
@pytest.mark.xdist_group("metal-ssh")
def test_shells_of_real_hosts(
    bashrc: tuple[ClusterHost, Write], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "START", 5.0)
    check(*bashrc, tmp_path)

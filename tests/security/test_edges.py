"""What a file says never becomes an option, a second line or a command of its reader's tools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flambe.cluster import layout
from flambe.cluster.machine import Machine
from flambe.cluster.provisioning import cluster_keys
from flambe.cluster.services.docker import Docker
from flambe.compile.checks.calls import check
from flambe.compile.reader.document import read_text
from flambe.errors import ConfigError
from flambe.logging import redact
from flambe.packaging.extensions import install
from flambe.remote import Address
from flambe.remote.agent.protocol import ClusterKeys, HostReport
from flambe.remote.ssh_config import quoted
from flambe.runnable import RemoteEnvironment


def problems(text: str, folder: Path | str = "") -> list[str]:
    """Return what is wrong with a file, with its line and column."""
    try:
        document = read_text(text, "f.yaml", str(folder))
        check(document)
        document.raise_problems()
    except ConfigError as error:
        return [f"{p.place.line}:{p.place.column} {p.message}" for p in error.problems if p.place]
    return []


# -- git and pip --------------------------------------------------------------------------------

HOSTILE_ORIGINS = {
    "a user that is an option (URL)": "ssh://-ux@h:;touch PWN;/x.git",
    "a user that is an option (scp)": "-ux@h:;touch PWN;/x.git",
    "a host that is an option": "ssh://-oProxyCommand=touch PWN/x.git",
    "a host that is an option (scp)": "git@-oProxyCommand=touch:x.git",
    "a path that is an option": "git@host:-upload-pack=touch",
    "a host with a command in it": "git@h;touch PWN;:x.git",
    "a branch that is an option": "https://h/r/tree/--output=PWN",
    "a folder that is an option": "https://h/r/tree/main/-x",
    "a folder elsewhere": "https://h/r/tree/main/../../..",
    "a revision that is computed": "https://h/r/tree/main@{1}",
    "an option of pip": "--log=PWN",
    "a short option of pip": "-rPWN",
    "a command of git": "mine @ git+ext::sh -c touch% PWN",
    "a user that is an option, by pip": "mine @ git+ssh://-ux@h/x.git",
    "a revision that is an option, by pip": "mine @ git+https://h/x.git@--upload-pack",
    "another tool, by pip": "mine @ hg+https://h/x",
    "a second line": "mine\n--log=PWN",
    "a null": "mine\0",
    "half a letter": "mine\ud800",
}


@pytest.mark.parametrize("origin", HOSTILE_ORIGINS.values(), ids=HOSTILE_ORIGINS)
def test_an_origin_is_no_option_of_git_or_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    """Refused by ``-i`` before git or pip is started, and nothing is written."""
    monkeypatch.chdir(tmp_path)

    def never(*args: Any, **options: Any) -> None:
        raise AssertionError(f"started: {args}")

    monkeypatch.setattr(subprocess, "run", never)
    with pytest.raises(ConfigError, match="extension 'mine': "):
        install("mine", origin, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("origin", ["ssh://-ux@h:;touch PWN;/x.git", "--log=FILE"])
def test_an_origin_is_refused_where_it_is_written(origin: str) -> None:
    (problem,) = problems(f"mine: '{origin}'\n---\n!Experiment {{name: a, pipeline: {{a: 1}}}}\n")
    assert problem.startswith("1:7 extension 'mine': ")


def test_a_requirement_with_options_is_a_folder_that_is_not_there(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(ConfigError, match="there is no folder"):
        install("mine", f"numpy --log={log}", tmp_path)
    assert not log.exists()


def test_git_takes_no_option_from_the_command(tmp_path: Path) -> None:
    """The whole command, by a file of a stranger."""
    (tmp_path / "f.yaml").write_text(
        "mine: '-ux@h:;touch PWN;/x.git'\n---\n!Experiment {name: a, pipeline: {a: !mine.X {}}}\n"
    )
    command = [sys.executable, "-m", "flambe", "f.yaml", "-i"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "f.yaml:1:7" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["f.yaml"]


def test_the_password_of_an_origin_is_hidden(tmp_path: Path, home: Path) -> None:
    origin = "https://ann:canary-origin@127.0.0.1:9/x.git"
    said: list[str] = []
    with pytest.raises(ConfigError) as raised:
        install("mine", origin, tmp_path, said.append)
    shown = [redact.hide(text) for text in (str(raised.value), *said)]
    assert shown
    assert not any("canary-origin" in text for text in shown)


# -- ssh ----------------------------------------------------------------------------------------

HOSTILE_ADDRESSES = [
    "10.9.9.9%%x\n  ProxyCommand touch PWN",
    "10.9.9.9%x",
    "fe80::1%x\n  ProxyCommand touch PWN",
    "[fe80::1%x y]",
    "fe80::1%-x",
    "h\nProxyCommand x",
    "h\0",
    "-oProxyCommand=x",
    "h:22\n",
    "h:²²",
    "*",
    "h*",
    "!h",
    "h,other",
    "user@h",
    "$(touch PWN)",
]


@pytest.mark.parametrize("text", HOSTILE_ADDRESSES)
def test_an_address_is_one_word_of_ssh(text: str) -> None:
    with pytest.raises(ValueError, match="address|port"):
        Address.parse(text)
    with pytest.raises(ValueError, match="address"):
        Address(text)
    with pytest.raises(ValueError, match="address"):
        RemoteEnvironment("/key", "10.0.0.1", [], "ann").ssh(text)


def test_an_address_with_a_second_line_is_refused_where_it_is_written() -> None:
    text = '!SSHCluster\nname: a\norchestrator_ip: "10.9.9.9%%x\\n  ProxyCommand touch PWN"\n'
    (problem,) = problems(text)
    assert problem.startswith("3:18 ")
    assert "is not an address" in problem


USERS = [
    "a b",
    "a\nProxyCommand x",
    "-oProxyCommand=x",
    "a;b",
    "$(x)",
    "a/b",
    "..",
    "",
    "a\0",
    '"a"',
]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kind", ["SSH", "AWS"])
def test_a_user_is_one_word_of_ssh(tmp_path: Path, kind: str, user: str) -> None:
    written = user.encode("unicode_escape").decode().replace('"', '\\"').replace("\\x00", "\\0")
    more = {"SSH": "orchestrator_ip: h", "AWS": AWS}[kind]
    found = problems(f'!{kind}Cluster\nusername: "{written}"\nname: a\n{more}\n', tmp_path)
    assert any(one.startswith("2:11 username: ") for one in found)


@pytest.mark.parametrize("user", ["ubuntu", "ann.b-c_d", "LAB\\ann", "ann@lab.example", "host$"])
def test_a_user_as_systems_have_them_is_taken(user: str) -> None:
    assert not problems(f"!SSHCluster {{name: a, orchestrator_ip: h, username: '{user}'}}\n")


class _Host:
    """A host of a cluster that has answered."""

    def __init__(self, machine: Machine, home: str) -> None:
        self.machine, self.name = machine, machine.name
        self.home = home
        self.report = HostReport(keys=ClusterKeys(host_keys=["ssh-ed25519 AAAA\nHost * me"]))


def resolved(folder: Path, text: str, host: str) -> dict[str, str]:
    """Return what ssh itself makes of a generated configuration."""
    file = folder / "config"
    file.write_text(text)
    command = ["ssh", "-G", "-F", str(file), "--", host]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


@pytest.mark.parametrize("home", ["/home/ann", "/home/a b", "/home/50%d"])
def test_the_configuration_on_hosts_says_what_is_meant(tmp_path: Path, home: str) -> None:
    address = Address("fe80::1%eth0")
    machine = Machine("factory_1", address, address, "LAB\\ann")
    host: Any = _Host(machine, home)
    text, known = cluster_keys._ssh_files("c", host, [host])
    found = resolved(tmp_path, text, "factory_1.c")
    assert found["hostname"] == "fe80::1%eth0"
    assert found["user"] == "LAB\\ann"
    assert found["identityfile"].replace("%%", "%") == f"{home}/.ssh/flambe-c"
    assert "proxycommand" not in found
    assert len(known.splitlines()) == 1


def test_a_user_that_no_file_was_checked_for_is_refused_as_well() -> None:
    """A kind of cluster of one's own says it, or the configuration of ssh."""
    from flambe.errors import RemoteError, RunError

    address = Address("10.0.0.1")
    machine = Machine("orchestrator", address, address, "a\n  ProxyCommand touch PWN")
    host: Any = _Host(machine, "/home/a")
    with pytest.raises(RemoteError, match="not the name of a user"):
        cluster_keys._ssh_files("c", host, [host])
    from flambe.cluster.machine import check_machines

    with pytest.raises(RunError, match="not the name of a user"):
        check_machines(host, [machine])


@pytest.mark.parametrize("path", ['a"b', "a\nb", "a\0b", "a\x1bb"])
def test_a_path_that_ssh_cannot_be_given(path: str) -> None:
    with pytest.raises(ConfigError):
        quoted(path)


def test_a_run_cannot_be_led_to_a_configuration_of_ssh(tmp_path: Path) -> None:
    """``env`` names a file that ssh reads: only flambe sets it, where it starts a run."""
    (tmp_path / "evil.config").write_text(f"Host *\n  ProxyCommand touch {tmp_path}/PWN\n")
    (tmp_path / "f.yaml").write_text(
        "!Experiment\nname: a\npipeline: {a: 1}\n"
        "env: !RemoteEnvironment {key: evil, orchestrator_ip: h, factories_ips: [h], user: u}\n"
    )
    for command in (["validate", "f.yaml"], ["f.yaml"]):
        done = subprocess.run(
            [sys.executable, "-m", "flambe", *command],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert "f.yaml:4:6: env is set by flambe" in done.stderr
    assert not (tmp_path / "PWN").exists()


# -- uv, AWS and the paths on hosts --------------------------------------------------------------

AWS = (
    "factories_num: 1\nfactories_type: t3.large\norchestrator_type: t3.large\nkey_name: k\n"
    "key: key\ncreator: me\nsecurity_group: sg-1\nsubnet_id: subnet-1"
)
HOSTILE_OPTIONS = [
    "index_url: '--config-file=/x://'",
    "index_url: 'https://h/s imple'",
    "index_url: 'ext::sh -c x://'",
    "index_url: 'https://-x@h/simple'",
    "find_links: '--config-file=x'",
    'find_links: ["a\\nb"]',
    "python_mirror: '--offline'",
    'python_mirror: "a\\0b"',
    "proxy: 'http://-oX/'",
    'proxy: "http://h/\\u2028x"',
]


@pytest.mark.parametrize("written", HOSTILE_OPTIONS)
def test_an_option_of_the_environment_is_none_of_uv(written: str) -> None:
    found = problems(f"!SSHCluster\nname: a\norchestrator_ip: h\nenvironment:\n  {written}\n")
    assert any(one.startswith("5:") and "environment: " in one for one in found)


HOSTILE_AWS = {
    "creator": '"*"',  # EC2 would find the hosts of everybody, to be terminated
    "region_name": "x.evil.example/",
    "security_group": '"a\\nb"',
    "instance_profile": '"a\\0"',
    "orchestrator_ami": '"ami-1\\0"',
    "subnet_id": '["a\\nb"]',
    "tags": "{flambe-number: factory_1}",
    "name": "-rf",
}


@pytest.mark.parametrize("keyword", HOSTILE_AWS)
def test_what_aws_is_asked_for(tmp_path: Path, keyword: str) -> None:
    lines = [line for line in ["name: a", *AWS.splitlines()] if not line.startswith(f"{keyword}:")]
    text = "\n".join(["!AWSCluster", f"{keyword}: {HOSTILE_AWS[keyword]}", *lines, ""])
    assert any(one.startswith("2:") for one in problems(text, tmp_path))


def test_tags_that_aws_would_refuse(tmp_path: Path) -> None:
    for tag in ("'aws:x': y", f"{'a' * 129}: y", f"b: {'y' * 257}", '"c": "d\\ne"', "'': y"):
        found = problems(f"!AWSCluster\ntags: {{{tag}}}\nname: a\n{AWS}\n", tmp_path)
        assert any(one.startswith("2:") and "tags: " in one for one in found), tag


def test_a_pattern_is_none_to_ec2() -> None:
    """Where nothing was checked: a creator is given by Python."""
    from flambe.cluster.providers.aws.api.instances import escape_filter

    assert escape_filter("a*b?c\\d") == "a\\*b\\?c\\\\d"


def test_an_image_is_no_option_of_docker() -> None:
    cluster: Any = None
    with pytest.raises(ConfigError, match="is not an image"):
        Docker(cluster).run("--volume=/:/host")


@pytest.mark.parametrize("path", ["-x", "a/-rf", "..", "a/../b", "a\nb", "a b", "$HOME", "~", ""])
def test_a_folder_on_hosts_is_no_option(path: str) -> None:
    assert layout.wrong(path, absolute=True)

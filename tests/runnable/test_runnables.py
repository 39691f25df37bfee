"""Runnables: secrets, the environment of a remote run, attributes that travel."""

from __future__ import annotations

import configparser
import pickle
from pathlib import Path
from typing import Any

import pytest

from flambe.cluster import Cluster, Machine
from flambe.compile import yaml
from flambe.errors import ConfigError
from flambe.logging import redact
from flambe.runnable import ClusterRunnable, RemoteEnvironment, Runnable, Secrets


class Job(ClusterRunnable):
    def __init__(
        self, size: int = 1, folder: str = "", env: RemoteEnvironment | None = None
    ) -> None:
        super().__init__(env)
        self.size, self.folder = size, folder

    def run(self, force: bool = False, **kwargs: Any) -> None:
        pass

    def setup(self, cluster: Any, extensions: dict[str, str], force: bool, **kwargs: Any) -> None:
        self.set_serializable_attr("folder", "/mnt/made")


def secrets(path: Path, text: str, mode: int = 0o600) -> Secrets:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return Secrets.read(path)


def test_secrets_are_read_and_shown_as_stars(tmp_path: Path) -> None:
    read = secrets(tmp_path / "s.ini", "[API]\nToken = %(x)s;abc\nother=two words\n[empty]\n")
    token = read["API"]["Token"]
    assert "".join(token) == "%(x)s;abc"
    assert f"Bearer {token}" == "Bearer %(x)s;abc"
    assert "Bearer %s" % token == "Bearer %(x)s;abc"
    assert (list(read), len(read), dict(read["empty"])) == (["API", "empty"], 2, {})
    for text in (repr(token), repr(read), repr(read["API"]), repr(dict(read["API"]))):
        assert "abc" not in text
        assert "two words" not in text
    assert redact.hide("two words") == "***"


def test_secrets_are_read_as_a_config_parser_is(tmp_path: Path) -> None:
    read = secrets(tmp_path / "s.ini", "[API]\nToken=abcdef\nSize = 12\nrate=0.5\non=Yes\n[E]\n")
    assert "".join(read.get("API", "Token")) == "abcdef"
    assert "".join(read.get("API", "Token", raw=True)) == "abcdef"
    assert "".join(read.get("API", "token")) == "abcdef"  # upper and lower case are the same there
    assert repr(read.get("API", "token")) == "'***'"
    assert read.get("API", "none", fallback=None) is None
    assert read.get("none", "none", fallback="x") == "x"
    assert (read.getint("API", "Size"), read.getfloat("API", "rate")) == (12, 0.5)
    assert read.getboolean("API", "on") is True
    assert read.getint("API", "none", fallback=3) == 3
    assert read.sections() == ["API", "E"]
    assert read.options("API") == ["Token", "Size", "rate", "on"]
    assert read.has_option("API", "token")
    assert not read.has_option("E", "token")
    assert not read.has_section("none")
    # Without an option it is what any mapping has.
    assert read.get("E") == {}
    assert read.get("none") is None
    assert read.get("none", {}) == {}
    with pytest.raises(ValueError, match=r"^\[API\] Token is not a whole number$"):
        read.getint("API", "Token")


def test_what_is_missing_is_the_error_of_a_config_parser_too(tmp_path: Path) -> None:
    read = secrets(tmp_path / "s.ini", "[API]\ntoken=abcdef\nTOKEN=ghijkl\n")
    with pytest.raises(configparser.NoOptionError, match="no key 'tokne' in section") as missing:
        read.get("API", "tokne")
    assert isinstance(missing.value, ConfigError)
    assert "abcdef" not in repr(missing.value)
    again = pickle.loads(pickle.dumps(missing.value))
    assert (type(again), str(again)) == (type(missing.value), str(missing.value))
    with pytest.raises(configparser.NoSectionError, match=r"no section \[none\]"):
        read.get("none", "token")
    assert "".join(read.get("API", "TOKEN")) == "ghijkl"
    with pytest.raises(ConfigError, match="no key 'Token'"):  # either could be meant
        read.get("API", "Token")


def test_every_constructor_takes_who_tells_the_user() -> None:
    class Own(Runnable):
        def __init__(self, user_provider: Any = None) -> None:
            super().__init__(user_provider=user_provider)

        def run(self, force: bool = False, **kwargs: Any) -> None:
            pass

    class Silent(Own):
        def __init__(self) -> None:
            pass

    class Far(Job):
        def __init__(self, env: Any = None, user_provider: Any = None) -> None:
            ClusterRunnable.__init__(self, env=env, user_provider=user_provider)

    class OwnCluster(Cluster):
        def __init__(self, name: str, user_provider: Any = None) -> None:
            super().__init__(name=name, user_provider=user_provider)

        def find_machines(self) -> list[Machine]:
            return []

    def me() -> str:
        return "me"

    for runnable in (Own(me), Far(user_provider=me), OwnCluster("c", me)):
        assert runnable.user_provider() == "me"
    assert Silent().user_provider is None
    assert Far().env is None


def test_the_default_file_need_not_exist(home: Path) -> None:
    assert len(Secrets.read(None)) == 0
    assert secrets(home / "secrets.ini", "[a]\nb = value\n")["a"]["b"] == "value"
    assert Secrets.read(None)["a"]["b"] == "value"


@pytest.mark.parametrize(
    ("text", "section", "key", "message"),
    [
        ("[API]\ntoken=abcd", "AIP", "token", r"no section \[AIP\].*did you mean 'API'"),
        ("[API]\ntoken=abcd", "API", "tokne", r"no key 'tokne' in section \[API\].*did you mean"),
        ("", "API", "token", r"no section \[API\] in the secrets.*add it to"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, text: str, section: str, key: str, message: str
) -> None:
    import re

    with pytest.raises(ConfigError) as raised:
        secrets(tmp_path / "s.ini", text)[section][key]
    assert re.search(message, str(raised.value), re.DOTALL)
    assert "abcd" not in str(raised.value)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o606])
def test_a_file_for_everyone_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        secrets(tmp_path / "s.ini", "[a]\nb=abcd\n", mode)


@pytest.mark.parametrize(
    "text",
    ["abcdefgh\n", "[a]\nabcdefgh\n", "[a]\nb=1\n[a]\nb=abcdefgh\n", "[a]\nb=1\nb=abcdefgh\n"],
)
def test_an_error_does_not_show_the_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="not an INI file") as raised:
        secrets(tmp_path / "s.ini", text)
    assert "abcdefgh" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_what_is_no_file_or_no_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no secrets file"):
        Secrets.read(tmp_path / "none.ini")
    with pytest.raises(ConfigError, match="cannot read"):
        Secrets.read(tmp_path.parent)
    file = tmp_path / "s.ini"
    file.write_bytes(b"\xff\xfe\x00")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="cannot read"):
        Secrets.read(file)


def test_an_attribute_travels_as_a_keyword() -> None:
    job = Job(size=3)
    job.setup(None, {}, force=False)
    assert job.folder == "/mnt/made"
    text = yaml.dump(job)
    assert "folder: /mnt/made" in text
    assert "size: 3" in text
    with pytest.raises(AttributeError, match="has no keyword 'other'"):
        job.set_serializable_attr("other", 1)
    assert not hasattr(job, "other")


def test_an_attribute_of_one_that_was_read_travels_too() -> None:
    job = Job.__new__(Job)
    from flambe.compile import Schema

    job = Schema.of(Job, size=3)()
    job.set_serializable_attr("size", 4)
    job.set_serializable_attr("folder", "x")
    assert "size: 4" in yaml.dump(job)
    assert "folder: x" in yaml.dump(job)


def test_the_environment_of_a_remote_run_is_written_and_read() -> None:
    environment = RemoteEnvironment("/key", "10.0.0.1", ["10.0.0.2"], "ubuntu", local_user="ann")
    job = Job(env=environment)
    copy = yaml.load(yaml.dump(environment))
    assert job.env is environment
    assert vars(copy).keys() >= {"key", "orchestrator_ip", "public_factories_ips"}
    for name in ("key", "orchestrator_ip", "factories_ips", "user", "local_user"):
        assert getattr(copy, name) == getattr(environment, name)


def test_whether_a_secret_is_there_can_be_asked() -> None:
    secrets = Secrets({"API": {"token": "abcdef"}})
    assert "API" in secrets
    assert "OTHER" not in secrets
    assert "token" in secrets["API"]
    assert "key" not in secrets["API"]
    assert secrets.get("OTHER", {}) == {}


def test_factories_get_the_sections_that_are_named_for_them() -> None:
    sections = {"API": {"token": "abcdef"}, "S3": {"Key": "1%2"}, "OTHER": {"x": "y"}}
    assert Secrets(sections).for_factories() == ""
    named = Secrets({**sections, "flambe": {"factories": "S3, API"}})
    assert named.for_factories() == "[S3]\nKey = 1%2\n\n[API]\ntoken = abcdef\n\n"
    with pytest.raises(ConfigError, match=r"no section \[S4\]"):
        Secrets({**sections, "flambe": {"factories": "S4"}}).for_factories()

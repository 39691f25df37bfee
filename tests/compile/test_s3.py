"""Saving to S3 and loading from it, against a server that speaks its protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

import flambe
from flambe.compile import Component
from flambe.compile.state import s3
from flambe.errors import ResourceError, StateError
from flambe.logging import redact

pytestmark = pytest.mark.integration


class RemotePart(Component):
    def __init__(self, size: int = 1) -> None:
        self.size = size
        self.steps = 0
        self.register_attrs("steps")


class RemoteWhole(Component):
    def __init__(self, part: RemotePart, other: Any = None) -> None:
        self.part = part
        self.other = other
        self.steps = 0
        self.register_attrs("steps")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def client(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    made = boto3.client("s3")
    made.create_bucket(Bucket="marsh")
    yield made
    for item in made.list_objects_v2(Bucket="marsh").get("Contents", ()):
        made.delete_object(Bucket="marsh", Key=item["Key"])
    made.delete_bucket(Bucket="marsh")


def keys(client: Any) -> list[str]:
    return [item["Key"] for item in client.list_objects_v2(Bucket="marsh").get("Contents", ())]


def whole(steps: int = 5, other: Any = None) -> RemoteWhole:
    made = RemoteWhole(RemotePart(3), other)
    made.steps = made.part.steps = steps
    return made


@pytest.mark.parametrize("url", ["s3://marsh/runs/saved", "s3://marsh/saved/"])
def test_a_folder(client: Any, url: str) -> None:
    flambe.save(whole(), url)
    again = flambe.load(url)
    assert (again.steps, again.part.size, again.part.steps) == (5, 3, 5)
    assert len(keys(client)) == 8
    part = flambe.load(f"{url.rstrip('/')}/part")
    assert type(part) is RemotePart
    assert (part.size, part.steps) == (3, 5)


def test_an_archive(client: Any) -> None:
    flambe.save(whole(), "s3://marsh/saved.tar.gz")
    assert keys(client) == ["saved.tar.gz"]
    assert flambe.load("s3://marsh/saved.tar.gz").part.size == 3


@pytest.mark.parametrize("name", ["saved", "saved.tar.gz"])
def test_nothing_is_overwritten_unless_asked(client: Any, name: str) -> None:
    flambe.save(whole(5, RemotePart()), f"s3://marsh/{name}")
    flambe.save(whole(6), f"s3://marsh/{name}-other")
    with pytest.raises(StateError, match=f"s3://marsh/{name} already exists"):
        flambe.save(whole(7), f"s3://marsh/{name}")
    assert flambe.load(f"s3://marsh/{name}").steps == 5
    flambe.save(whole(7), f"s3://marsh/{name}", overwrite=True)
    # What stood there is gone, and what stands beside it is not.
    assert flambe.load(f"s3://marsh/{name}").steps == 7
    assert flambe.load(f"s3://marsh/{name}-other").steps == 6


def test_there_is_nothing(client: Any) -> None:
    flambe.save(whole(), "s3://marsh/saved")
    for url in ("s3://marsh/save", "s3://marsh/saved/parts", "s3://marsh/none.tar.gz"):
        with pytest.raises(ResourceError, match=f"nothing at {url}"):
            flambe.load(url)
    with pytest.raises(ResourceError, match="cannot reach s3://no-such-marsh/x"):
        flambe.load("s3://no-such-marsh/x")
    with pytest.raises(ResourceError, match="cannot reach s3://no-such-marsh/x"):
        flambe.save(whole(), "s3://no-such-marsh/x")


def test_keys_that_leave_the_folder_are_passed_over(client: Any, tmp_path: Path) -> None:
    for key in ("data/a.txt", "data/../../evil", "data/b/c.txt", "data/empty/"):
        client.put_object(Bucket="marsh", Key=key, Body=b"x")
    found = s3.download("s3://marsh/data", tmp_path / "inner")
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {"inner/data/a.txt", "inner/data/b/c.txt"}
    assert found == tmp_path / "inner" / "data"


def test_single_files(client: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("heron")
    s3.upload(tmp_path / "a.txt", "s3://marsh/x/a.txt")
    assert s3.exists("s3://marsh/x/a.txt")
    assert s3.exists("s3://marsh/x")
    assert not s3.exists("s3://marsh/x/a")
    assert s3.download("s3://marsh/x/a.txt", tmp_path / "new").read_text() == "heron"


def test_credentials_are_hidden(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = id\naws_secret_access_key = of-a-file\n"
        "[other]\naws_session_token=of-a-session\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-a-variable")
    monkeypatch.setattr(redact, "_values", set())
    monkeypatch.setattr(redact, "_forms", ())
    assert not s3.exists("s3://marsh/x")
    assert redact.hide("of-a-file of-a-session of-a-variable id") == "*** *** *** id"

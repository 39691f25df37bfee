"""What is taken home, while a run goes on."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from flambe.report import create_app, downloads
from flambe.report.files import RunPath
from tests.report.served import Served, serving
from tests.report.written import Written

ID = "00" + "ab" * 7


@pytest.fixture
def run(tmp_path: Path) -> Written:
    run = Written(tmp_path / "output__trial").walked(2)
    checkpoint = run.folder.checkpoint("train", "rate=0")
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights.bin").write_bytes(os.urandom(3 << 20))
    (checkpoint / "state.json").write_text("{}")
    return run


@contextlib.contextmanager
def opened(run: Written) -> Iterator[httpx.Client]:
    app = create_app(run.folder.root)
    headers = {"authorization": f"Bearer {app.state.token}"}
    with (
        serving(app) as base,
        httpx.Client(base_url=base, headers=headers, trust_env=False) as client,
    ):
        yield client


@pytest.fixture
def client(run: Written) -> Iterator[httpx.Client]:
    with opened(run) as client:
        yield client


def unpacked(answer: httpx.Response) -> dict[str, bytes]:
    assert answer.status_code == 200
    assert "content-encoding" not in answer.headers
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def below(folder: Path, prefix: str) -> dict[str, bytes]:
    return {
        f"{prefix}/{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_archives_hold_every_file(run: Written, client: httpx.Client) -> None:
    root = run.folder.root
    (root / "leads-out").symlink_to("/etc/passwd")
    assert unpacked(client.get("/download/run")) == below(root, "output__trial")
    assert unpacked(client.get("/download/stage/train")) == below(root / "train", "train")
    one = unpacked(client.get(f"/download/variant/{ID}"))
    assert one == below(root / "train" / "rate=0", "train-rate=0")
    assert client.get("/download/stage/nothing").status_code == 404
    assert client.get("/download/variant/nothing").status_code == 404


def test_logs_come_without_checkpoints(run: Written, client: httpx.Client) -> None:
    names = set(unpacked(client.get("/download/run", params={"what": "logs"})))
    assert {name.rpartition("/")[2] for name in names} >= {
        "run.log",
        "variant.log",
        "metrics.jsonl",
    }
    assert not [name for name in names if "checkpoint" in name or "tfevents" in name]
    answer = client.get("/download/stage/train", params={"what": "logs"})
    assert answer.headers["content-disposition"] == 'attachment; filename="train-logs.zip"'


def test_the_page_tells_how_large_they_are(run: Written, client: httpx.Client) -> None:
    page = client.get("/downloads").text
    size = downloads.sizes(RunPath.of(run.folder.root))[0]
    assert size > 3 << 20
    assert f"{size / (1 << 20):.1f} MiB" in page


def test_the_pages_tell_in_which_bucket_checkpoints_are(run: Written) -> None:
    with opened(run) as client:
        assert "s3://" not in client.get("/downloads").text
    run.journal.run.storage = "s3://field/output__trial"
    run.folder.write_state(run.journal.run)
    with opened(run) as client:
        for page in ("/downloads", "/"):
            assert "<code>s3://field/output__trial</code>" in client.get(page).text


@pytest.mark.faults
def test_what_is_removed_while_it_is_sent_is_named(run: Written) -> None:
    folder = run.folder.variant("train", "rate=0")
    (folder / "a.bin").write_bytes(os.urandom(4 << 20))
    parts = downloads._zipped(RunPath.of(folder), "one", only_logs=False)
    content = next(parts)
    for _ in range(2):
        content += next(parts)
    shutil.rmtree(folder)
    content += b"".join(parts)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert len(archive.read("one/a.bin")) == 4 << 20  # it was open
        told = archive.read("one/removed.txt").decode()
    assert "checkpoint/checkpoint.flambe/weights.bin" in told
    assert "variant.log" in told


@pytest.mark.faults
def test_a_file_that_grows_or_goes_is_sent_as_it_was(run: Written, client: httpx.Client) -> None:
    path = run.folder.root / "growing.log"
    data = os.urandom(8 << 20)
    for end in ("grow", "remove"):
        path.write_bytes(data)
        with client.stream("GET", "/files/growing.log") as answer:
            parts = answer.iter_raw()
            content = next(parts)
            if end == "grow":
                with open(path, "ab") as stream:
                    stream.write(b"more" * 1000)
            else:
                path.unlink()
            content += b"".join(parts)
        assert content == data
    assert client.get("/files/growing.log").status_code == 404
    path.write_bytes(b"")
    os.truncate(path, 128 << 20)  # more than the system keeps on its way
    with client.stream("GET", "/files/growing.log") as answer:
        os.truncate(path, 64 << 20)
        with pytest.raises(httpx.RemoteProtocolError):  # what is lost is noticed by who takes it
            b"".join(answer.iter_raw())


def test_odd_names_are_kept(run: Written, client: httpx.Client) -> None:
    for name in ("é ü.txt", 'a"b.txt', "100%.txt", "a#b?c.txt", "x\ny.txt"):
        (run.folder.variant("train", "rate=0") / name).write_text(name)
    page = client.get(f"/variant/{ID}").text
    for name, address in (
        ("é ü.txt", "%C3%A9%20%C3%BC.txt"),
        ("100%.txt", "100%25.txt"),
        ("a#b?c.txt", "a%23b%3Fc.txt"),
    ):
        assert f"/files/train/rate%3D0/{address}" in page
        answer = client.get(f"/files/train/rate%3D0/{address}")
        assert answer.text == name
    assert "x\ny.txt" in {
        n.rpartition("/")[2] for n in unpacked(client.get(f"/download/variant/{ID}"))
    }


def test_an_archive_of_nothing_says_so(tmp_path: Path) -> None:
    run = Written(tmp_path)
    (tmp_path / "train").mkdir()
    with opened(run) as client:
        assert list(unpacked(client.get("/download/stage/train"))) == ["train/empty.txt"]


def test_a_large_run_is_sent_without_being_held(tmp_path: Path) -> None:
    """Neither in memory nor in a temporary folder."""
    run = Written(tmp_path / "output__large").walked(1)
    with open(run.folder.root / "train" / "large.bin", "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, 400 << 20)
    spare = tmp_path / "tmp"
    spare.mkdir()

    def small() -> None:  # no file may become larger than this
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    with Served(run.folder.root, preexec_fn=small) as site, site.client() as client:
        client.get("/")
        process = psutil.Process(site.process.pid)
        before = most = process.memory_info().rss
        size = 0
        with client.stream("GET", "/download/run") as answer:
            for part in answer.iter_raw(1 << 20):
                if size % (16 << 20) < 1 << 20:
                    most = max(most, process.memory_info().rss)
                size += len(part)
        assert size > 400 << 20
        assert most - before < 64 << 20

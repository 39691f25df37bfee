"""The Report Site: files that are broken or hostile, and links that are swapped in."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from flambe.report import create_app, files
from flambe.report.files import RunPath
from tests.examples import examples
from tests.report.served import asked, serving
from tests.report.written import Written

ID = "00" + "ab" * 7
TOKEN = "a-token-of-this-test"
HUGE = "9" * 400
NESTED = "[" * 600 + "]" * 600
SURROGATE = '"\\ud800"'


@pytest.fixture
def run(tmp_path: Path) -> Written:
    return Written(tmp_path / "output__trial").walked(2)


@contextlib.contextmanager
def opened(root: Path) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    with (
        serving(create_app(root, token=TOKEN)) as base,
        httpx.Client(base_url=base, headers=headers, trust_env=False, timeout=20) as client,
    ):
        yield client


def append(path: Path, *lines: str) -> None:
    with open(path, "a") as stream:
        stream.writelines(f"{line}\n" for line in lines)


def write(path: Path, text: str) -> None:
    path.write_text(text)


def change_state(run: Written, **changes: Any) -> None:
    state = json.loads(run.folder.state.read_text())
    # Not a number of JSON's own, so that numbers of any size can be written.
    text = json.dumps({**state, **changes}).replace(f'"{HUGE}"', HUGE)
    run.folder.state.write_text(text)
    run.folder.previous_state.unlink(missing_ok=True)


def variant_line(**fields: str) -> str:
    inner = ", ".join(f'"{name}": {value}' for name, value in fields.items())
    return f'{{"id": "{ID}", {inner}}}'


# -- broken files -------------------------------------------------------------------------------

BREAKS: dict[str, Callable[[Written], None]] = {
    "pid -1": lambda run: change_state(run, pid=-1),
    "pid of no system": lambda run: change_state(run, pid=2**40),
    "pid of 400 digits": lambda run: change_state(run, pid=HUGE),
    "started in 400 digits": lambda run: change_state(run, started=HUGE),
    "hosts of 400 digits": lambda run: change_state(run, hosts={"a": {"cpus": HUGE}}),
    "state with lone surrogates": lambda run: change_state(
        run, error="\ud800", command=["\udfff"], hosts={"\ud800": {"user": "\ud800"}}
    ),
    "state is nested": lambda run: write(run.folder.state, NESTED),
    "state of wrong types": lambda run: change_state(run, stages=5, status=[], name={}),
    "times beyond numbers": lambda run: append(
        run.folder.variants,
        variant_line(started="-1e308", ended="1e308", status='"finished"'),
        '{"id": "x", "stage": "train", "name": "x", "status": "running", "started": -1e308}',
    ),
    "metric of 400 digits": lambda run: append(
        run.folder.variants, variant_line(step="99", metric=HUGE, best=HUGE)
    ),
    "step of 400 digits": lambda run: append(
        run.folder.variants, variant_line(step=HUGE, metric="0.5")
    ),
    "choices of 400 digits": lambda run: append(
        run.folder.variants, variant_line(choices=f'{{"rate": {HUGE}}}', values=f'{{"x": {HUGE}}}')
    ),
    "choices nested in 600 lists": lambda run: append(
        run.folder.variants, variant_line(choices=f'{{"rate": {NESTED}}}')
    ),
    "errors with lone surrogates": lambda run: append(
        run.folder.variants,
        variant_line(error=SURROGATE, traceback=SURROGATE, host=SURROGATE),
        variant_line(choices=f"{{{SURROGATE}: {SURROGATE}}}"),
    ),
    "a variant with a lone surrogate": lambda run: append(
        run.folder.variants, '{"id": "\\ud800", "stage": "train", "name": "\\udc00", "attempts": 1}'
    ),
    "a variant that moves and goes": lambda run: append(
        run.folder.variants,
        '{"id": "moved", "stage": "train", "name": "moved"}',
        '{"id": "moved", "stage": "elsewhere"}',
        '{"id": "moved", "gone": true}',
    ),
    "NaN of a host": lambda run: append(
        run.folder.hosts, '{"host": "a", "cpu": NaN, "memory": Infinity, "gpus": [-1e999]}'
    ),
    "a host of 400 digits": lambda run: append(
        run.folder.hosts, f'{{"host": {SURROGATE}, "cpu": {HUGE}}}', NESTED
    ),
    "figures of 400 digits": lambda run: append(
        run.folder.variant("train", "rate=0") / "metrics.jsonl",
        f'{{"tag": "loss", "step": {HUGE}, "value": {HUGE}}}',
        f'{{"tag": "loss", "step": 3, "value": -{HUGE}}}',
        '{"tag": "loss", "step": 4, "value": NaN}',
        '{"tag": "loss", "step": 5, "value": []}',
        '{"tag": ["loss"], "step": {}, "value": true}',
    ),
    "tags with lone surrogates": lambda run: append(
        run.folder.variant("train", "rate=0") / "metrics.jsonl",
        f'{{"tag": {SURROGATE}, "step": 1, "value": 1}}',
        f'{{"tag": {SURROGATE}, "step": 2, "value": {NESTED}}}',
    ),
    "names that are no text": lambda run: (
        run.folder.variant("train", "rate=0").joinpath(os.fsdecode(b"x\xff.log")).touch()
    ),
}


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def _in_the_place_of(make: Callable[[Path], None], name: str, run: Written) -> None:
    make(run.folder.root / name)


for _name in ("state.json", "variants.jsonl", "hosts.jsonl", "run.log", "experiment.yaml"):
    BREAKS[f"{_name} is a FIFO"] = partial(_in_the_place_of, fifo, _name)
    BREAKS[f"{_name} is a folder"] = partial(_in_the_place_of, folder, _name)
for _name in ("metrics.jsonl", "variant.log", "config.yaml"):
    _path = f"train/rate=0/{_name}"
    BREAKS[f"{_name} is a FIFO"] = partial(_in_the_place_of, fifo, _path)
    BREAKS[f"{_name} is a device"] = partial(_in_the_place_of, device, _path)


ADDRESSES = (
    "/", "/stage/train", f"/variant/{ID}", "/variant/x", "/console", f"/console?variant={ID}",
    "/downloads", "/tensorboard", f"/tensorboard?variant={ID}", "/api/run", "/api/log",
    "/api/log?search=x&level=INFO", f"/api/log?variant={ID}", "/api/stage/train/curves",
    "/api/stage/train/curves?tag=loss", "/api/stage/train/curves?tag=metric",
    "/api/stage/train/importance", f"/api/variant/{ID}/figures", "/download/run",
    "/download/run?what=logs", f"/download/variant/{ID}", "/files/state.json",
    "/files/variants.jsonl", "/files/experiment.yaml", "/files/train/rate=0/metrics.jsonl",
)  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_file_is_passed_over(run: Written, name: str) -> None:
    BREAKS[name](run)
    with opened(run.folder.root) as client:
        for address in ADDRESSES:
            answer = client.get(address)
            assert answer.status_code in (200, 404), address
            if answer.headers["content-type"] == "application/json":
                strict_json(answer.text)
        live_news_are_strict_json(client)


def live_news_are_strict_json(client: httpx.Client) -> None:
    page = client.get("/").text
    cursor = page.partition('data-cursor="')[2].partition('"')[0]
    with client.stream("GET", f"/api/live?since={cursor}") as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                strict_json(line.removeprefix("data: "))
                return


def strict_json(text: str) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.dumps(json.loads(text, parse_constant=refuse), ensure_ascii=False).encode()


def test_what_is_good_beside_what_is_broken_is_shown(run: Written) -> None:
    BREAKS["figures of 400 digits"](run)
    BREAKS["errors with lone surrogates"](run)
    change_state(run, pid=-1)
    with opened(run.folder.root) as client:
        assert client.get("/api/run").json()["status"] == "interrupted"
        figures = client.get(f"/api/variant/{ID}/figures").json()["figures"]
        assert len(figures["metric"][0]) == 4
        assert figures["loss"] == [[1, 3, 4], [None, None, None]]
        assert "?" in client.get(f"/variant/{ID}").text


@pytest.mark.integration
def test_a_line_without_an_end_is_read_in_pieces(run: Written) -> None:
    path = run.folder.variant("train", "rate=0") / "metrics.jsonl"
    with open(path, "ab") as stream:
        stream.truncate(4 << 30)  # a file of zeros, which takes no disk
    with open(run.folder.variants, "ab") as stream:
        stream.truncate(256 << 20)
    with opened(run.folder.root) as client:
        assert len(client.get(f"/api/variant/{ID}/figures").json()["figures"]["metric"][0]) == 4
        assert client.get("/stage/train").status_code == 200


# -- links that are swapped in ------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("a.bin", "b.bin", "variant.log", "metrics.jsonl", "config.yaml"):
        (outside / name).write_text("not yours")
    return outside


def swap(path: Path, target: Path) -> None:
    """Put a link in the place of a file or folder, at once."""
    beside = path.with_name("beside")
    beside.symlink_to(target)
    if path.is_dir():
        shutil.rmtree(path)
    os.replace(beside, path)


def test_links_that_are_swapped_in_after_the_name_was_checked_are_refused(
    run: Written, secret: Path
) -> None:
    root = RunPath.of(run.folder.root)
    for name, swapped, target in (
        ("train/rate=0/variant.log", "train/rate=0/variant.log", secret / "variant.log"),
        ("train/rate=1/variant.log", "train/rate=1", secret),
    ):
        path = root.below(name)
        assert path is not None
        swap(run.folder.root / swapped, target)
        with pytest.raises(OSError, match=r"symbolic|directory"):
            path.open()
    whole = root.below("train")
    assert whole is not None
    assert [path.name for path, _ in whole.files() if path.name.startswith("train/rate=1")] == []
    # The folder of the run itself: what it was when the site began.
    swap(run.folder.root, secret)
    with pytest.raises(OSError, match=r"symbolic|directory"):
        RunPath(root.base, "variant.log").open()
    assert list(root.files()) == []


def test_an_archive_holds_nothing_of_links_that_are_swapped_in_while_it_is_sent(
    run: Written, secret: Path
) -> None:
    folder = run.folder.variant("train", "rate=0")
    (folder / "0.bin").write_bytes(os.urandom(32 << 20))  # more than is on its way at once
    for name in ("a.bin", "b.bin"):
        (folder / name).write_text("ours")
    with (
        opened(run.folder.root) as client,
        client.stream("GET", f"/download/variant/{ID}") as answer,
    ):
        parts = answer.iter_raw()
        content = next(parts)
        for name in ("a.bin", "b.bin", "variant.log"):
            swap(folder / name, secret / name.replace("variant.log", "a.bin"))
        content += b"".join(parts)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        texts = {name: archive.read(name) for name in archive.namelist() if "0.bin" not in name}
    assert not [name for name, text in texts.items() if b"not yours" in text]
    assert b"a.bin" in texts["train-rate=0/removed.txt"]


def test_no_swap_of_a_link_and_a_file_sends_what_the_link_leads_to(
    run: Written, secret: Path
) -> None:
    """31 of 3,527 answers at /files/ held /etc/passwd."""
    path, over = run.folder.root / "train" / "swapped", threading.Event()
    path.write_text("ours")

    def swap_for_ever() -> None:
        plain, link = path.with_name("plain"), path.with_name("link")
        while not over.is_set():
            plain.write_text("ours")
            link.symlink_to(secret / "a.bin")
            os.replace(link, path)
            os.replace(plain, path)

    thread = threading.Thread(target=swap_for_ever)
    with opened(run.folder.root) as client:
        thread.start()
        try:
            answers = [client.get("/files/train/swapped") for _ in range(examples(600))]
        finally:
            over.set()
            thread.join()
    assert {answer.status_code for answer in answers} <= {200, 404}
    assert not [answer for answer in answers if b"not yours" in answer.content]
    assert [answer for answer in answers if answer.text == "ours"]


def test_folders_within_one_another_have_a_bound(run: Written) -> None:
    descriptor = os.open(run.folder.variant("train", "rate=0"), os.O_RDONLY)
    for _ in range(1_500):  # deeper than Python recurses
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    try:
        with opened(run.folder.root) as client:
            for address in ("/downloads", f"/variant/{ID}", "/download/run"):
                assert client.get(address).status_code == 200, address
        status, _ = asked_with_token(run, "/files/" + "d/" * 3_000)
        assert status == 404
        assert files.DEEPEST < 1_000
    finally:  # pytest cannot: it recurses
        subprocess.run(["rm", "-rf", run.folder.variant("train", "rate=0")], check=True)


def asked_with_token(run: Written, target: str) -> tuple[int, bytes]:
    with serving(create_app(run.folder.root, token=TOKEN)) as base:
        return asked(base, target, TOKEN)

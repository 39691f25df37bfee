"""The Report Site gives clean answers, whatever it is asked and whatever is in the files of a run.

``make fuzz`` sends a tenth as many requests as it reads inputs, 10,000; the tests send 30. Each is
made from its number and a seed alone, with a run one file of which it breaks:

    FLAMBE_FUZZ=100000     ten times how many
    FLAMBE_FUZZ_SEED=1     where they start from
    FLAMBE_FUZZ_ONLY=4711  only this one
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from tests.report.served import Served, free_port
from tests.report.written import Written

pytestmark = pytest.mark.integration

COUNT = max(30, int(os.environ.get("FLAMBE_FUZZ", "300")) // 10)
SEED = os.environ.get("FLAMBE_FUZZ_SEED", "0")
ONLY = os.environ.get("FLAMBE_FUZZ_ONLY")
SHARD = 500
SECONDS = 15.0  # for one answer: a request that is never complete is closed after 10
MOST_MEMORY = 400 << 20  # bytes, of the site after all of them
MOST_READ = 1 << 20  # bytes of an answer

IDS = ["00" + "ab" * 7, "01" + "ab" * 7, "x", "\ud800", "..", ""]
STAGES = ["train", "nothing", "../..", "tr\0ain", "é", "%s", "a/b", "\ud800"]
FILES = ["state.json", "variants.jsonl", "hosts.jsonl", "run.log", "train/rate=0/metrics.jsonl",
         "train/rate=0/variant.log", "train/rate=0/config.yaml", "train/rate=1/metrics.jsonl"]  # fmt: skip
PATHS = ["/", "/stage/{stage}", "/variant/{id}", "/console", "/downloads", "/tensorboard", "/api/run",
         "/api/live", "/api/stage/{stage}/curves", "/api/stage/{stage}/importance",
         "/api/variant/{id}/figures", "/api/log", "/api/log/live", "/files/{file}", "/download/run",
         "/download/stage/{stage}", "/download/variant/{id}", "/static/site.css", "/static/{file}",
         "/font-roboto/x", "/api/{file}", "/{stage}", "//{stage}", "*"]  # fmt: skip
PARAMETERS = ["since", "stage", "variant", "tag", "before", "after", "level", "search", "what",
              "token", "filter", "x"]  # fmt: skip
VALUES = ["", "0", "-1", "1e9", "9" * 18, "9" * 400, "train", IDS[0], "loss", "metric", "ERROR", "logs",
          "²", "\0", "\ud800", "%", "+", "&", "a" * 3000, "é", "[", "(?:", "../..", "<script>", "x-1",
          "deadbeef-" + "9" * 400, "None", "\r\nx: y"]  # fmt: skip
METHODS = ["GET"] * 12 + ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "X", "get"]
HEADERS = [
    b"Origin: http://[", b"Origin: null", b"Origin: http://127.0.0.1", b"Host: [", b"Host: evil.com",
    b"Host: \xff\xfe", b"Host: ::1", b"Cookie: a=b; ;=;\xff", b"Cookie: flambe_0=\"", b"Range: bytes=0-",
    b"Range: bytes=9-1,,-", b"Last-Event-ID: \xff-1", b"Last-Event-ID: " + b"9" * 400, b"Last-Event-ID: x",
    b"Accept-Encoding: gzip", b"Accept-Encoding: \xff;q=x", b"If-Modified-Since: yesterday",
    b"If-None-Match: \"", b"Authorization: Bearer \xff", b"Authorization: Basic", b"Authorization: Bearer",
    b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: x", b"Upgrade: websocket\r\nConnection: upgrade",
    b"Expect: 100-continue", b"Transfer-Encoding: chunked", b"Content-Length: -1", b"Content-Length: 5",
    b"X-Forwarded-For: \"", b"Content-Type: multipart/form-data", b"X: " + b"y" * 20_000, b"no colon", b" : x",
]  # fmt: skip
JSON = ["NaN", "-Infinity", "1e999", "-1", "9" * 400, "9" * 5000, "null", "true", "[]", "{}", '""',
        '"\\ud800"', '"\\udfff\\ud800"', "[" * 600 + "]" * 600, '{"a":' * 300 + "1" + "}" * 300, '"x"',
        "[" * 100_000, "1.5", '"failed"', '"\\u0000"', '"' + "x" * 100_000 + '"', "\n", ",", "}", "\xff"]  # fmt: skip


# -- what is broken -----------------------------------------------------------------------------


def replace_value(text: str, chance: random.Random) -> str:
    """Put something else in the place of a value of JSON, or of a line."""
    places = [n for n, letter in enumerate(text) if letter in ":,"] or [0]
    start = chance.choice(places) + 1
    end = next((n for n in range(start, len(text)) if text[n] in ",}\n"), len(text))
    return text[:start] + chance.choice(JSON) + text[end:]


def repeat_line(text: str, chance: random.Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    return text + replace_value(chance.choice(lines), chance)


def flip(text: str, chance: random.Random) -> str:
    data = bytearray(text.encode("latin-1"))
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data.decode("latin-1")


def truncate(text: str, chance: random.Random) -> str:
    return text[: chance.randrange(len(text) + 1)]


MUTATIONS: list[Callable[[str, random.Random], str]] = [
    *(replace_value, replace_value, replace_value, repeat_line, repeat_line, flip, truncate)
]


def break_file(path: Path, content: bytes, chance: random.Random) -> None:
    """Put something else in the place of a file."""
    path.unlink(missing_ok=True)
    kind = chance.randrange(20)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(chance.choice(["/dev/zero", "/etc/passwd", path.name, "nothing", ".."]))
    elif kind > 3:  # else there is none
        text = content.decode("latin-1")
        for _ in range(chance.choice((1, 1, 2, 4))):
            text = chance.choice(MUTATIONS)(text, chance)
        path.write_bytes(text.encode("latin-1"))


@contextlib.contextmanager
def broken(root: Path, chance: random.Random) -> Iterator[str]:
    """Break one file of a run, for a while; give its name."""
    name = chance.choice(FILES)
    path = root / name
    content = path.read_bytes() if path.exists() else b""
    break_file(path, content, chance)
    try:
        yield name
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(content)


# -- what is asked ------------------------------------------------------------------------------


def target(chance: random.Random) -> bytes:
    def some(values: list[str]) -> str:
        return quote(chance.choice(values).encode("utf-8", "surrogatepass"), safe="/.")

    path = chance.choice(PATHS)
    path = path.replace("{stage}", some(STAGES)).replace("{id}", some(IDS))
    path = path.replace("{file}", some([*FILES, "../state.json", "/etc/passwd", *VALUES]))
    query = "&".join(
        f"{chance.choice(PARAMETERS)}={some(VALUES)}" for _ in range(chance.choice((0, 0, 1, 2, 5)))
    )
    asked = f"{path}?{query}" if query else path
    if not chance.randrange(10):
        asked = flip(asked, chance)
    return asked.encode("latin-1")


def request(number: int, token: str) -> bytes:
    chance = random.Random(f"{SEED}:{number}:request")
    method = chance.choice(METHODS)
    lines = [method.encode() + b" " + target(chance) + b" HTTP/1.1"]
    has_host = chance.randrange(20)
    lines += [b"Host: localhost"] if has_host else []
    lines += [b"Connection: close"]
    if chance.randrange(8):
        lines.append(b"Authorization: Bearer " + token.encode())
    lines += chance.sample(HEADERS, chance.choice((0, 0, 0, 1, 2)))
    body = b""
    if method == "POST" and chance.randrange(2):
        body = chance.randbytes(chance.choice((0, 1, 100)))
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# -- what must hold -----------------------------------------------------------------------------


def answer(port: int, sent: bytes) -> tuple[int, bytes, bytes]:
    """Return status, head and content; of what goes on and on, the begin.

    The status is 0 where the site closes without an answer.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(sent)
        received, deadline = b"", time.monotonic() + SECONDS
        while len(received) < MOST_READ:
            assert time.monotonic() < deadline, f"{SECONDS} s went by after {received[:300]!r}"
            try:
                part = connection.recv(1 << 16)
            except ConnectionResetError:  # it closes with something unread
                break
            received += part
            if not part or b"text/event-stream" in received:
                break
    head, _, content = received.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):  # what was expected comes first
        head, _, content = content.partition(b"\r\n\r\n")
    if not received:
        return 0, b"", b""
    assert head.startswith(b"HTTP/1.1 "), received[:200]
    return int(head.split()[1]), head, content


def judge(port: int, sent: bytes) -> None:
    status, head, content = answer(port, sent)
    if not status:
        assert b"chunked" in sent or b"Content-Length: 5" in sent, "no answer"
        return
    assert 200 <= status < 500, (status, content[:500])
    assert b"Traceback" not in content
    assert b"root:x:" not in content
    is_json = b"content-type: application/json" in head and b"content-encoding" not in head
    if is_json and status == 200 and not sent.startswith(b"HEAD") and len(content) < MOST_READ:
        text = content.decode()
        if b"transfer-encoding: chunked" not in head:
            json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def shards() -> list[range]:
    if ONLY:
        return [range(int(ONLY), int(ONLY) + 1)]
    return [range(start, min(start + SHARD, COUNT)) for start in range(0, COUNT, SHARD)]


@pytest.mark.parametrize("numbers", shards(), ids=lambda numbers: str(numbers.start))
def test_requests_get_clean_answers(tmp_path: Path, numbers: range) -> None:
    run = Written(tmp_path / "output__trial").walked(2)
    run.folder.hosts.write_text('{"host": "a", "cpu": 0.5, "memory": 0.25, "gpus": [0.5]}\n')
    run.close()
    failed = []
    with Served(run.folder.root, "--port", free_port()) as site:
        for number in numbers:
            chance = random.Random(f"{SEED}:{number}:files")
            sent = request(number, site.token)
            with broken(run.folder.root, chance) as name:
                try:
                    judge(site.port, sent)
                except (AssertionError, ValueError, OSError) as error:
                    seed = f"FLAMBE_FUZZ_SEED={SEED} FLAMBE_FUZZ_ONLY={number}"
                    print(f"{seed}\n{name}\n{sent[:1000]!r}\n{type(error).__name__}: {error}\n")
                    failed.append((number, str(error)))
        assert psutil.Process(site.process.pid).memory_info().rss < MOST_MEMORY
        with site.client() as client:  # and then all is well
            time.sleep(0.3)
            assert client.get("/api/run").json()["name"] == "trial"
            assert client.get("/stage/train").status_code == 200
    shutil.rmtree(run.folder.root)
    assert not failed, f"{len(failed)} of {len(numbers)}, the first: {failed[0]}"


def test_requests_are_reproducible() -> None:
    assert request(7, "t") == request(7, "t")
    assert len({request(number, "t") for number in range(50)}) > 40

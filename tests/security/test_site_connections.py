"""The Report Site: what strangers, and one client that has the token, cannot use up."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flambe.experiment.variants.expansion import Variant
from flambe.progress import StageState
from flambe.report.connections import REQUEST_SECONDS, STRANGER_SECONDS
from flambe.report.limits import ALL_STREAMS, STREAMS, Limit, TooMany, Work
from tests.experiment.lab import until
from tests.report.served import Served, free_port
from tests.report.written import Written

pytestmark = pytest.mark.integration

ID = "00" + "ab" * 7
FILES = 256


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))


@pytest.fixture
def run(tmp_path: Path) -> Written:
    return Written(tmp_path / "output__trial").walked(2)


@pytest.fixture
def site(run: Written) -> Iterator[Served]:
    with Served(run.folder.root, "--port", free_port(), preexec_fn=few_files) as site:
        yield site


@contextlib.contextmanager
def flood(port: int, sent: bytes, count: int = 300) -> Iterator[list[socket.socket]]:
    """Open many connections, and send the same to each."""
    connections = []
    try:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            connections.append(connection)
            with contextlib.suppress(OSError):  # it was closed already
                connection.sendall(sent)
        yield connections
    finally:
        for connection in connections:
            connection.close()


def is_closed(connection: socket.socket, seconds: float) -> bool:
    """Whether the site closes a connection within a while."""
    connection.settimeout(seconds)
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def seconds_until_closed(connection: socket.socket, sent: bytes, every: float) -> float:
    """Send the same again and again, for a minute at most."""
    begun = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() - begun < 60:
            connection.sendall(sent)
            time.sleep(every)
    return time.monotonic() - begun


# -- without the token --------------------------------------------------------------------------

HALF_SENT = {
    "idle": b"",
    "half a header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A",
    "half a body": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx",
    "no token": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "wrong tokens": b"GET /?token=no HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200,
}


@pytest.mark.faults
@pytest.mark.parametrize("kind", HALF_SENT)
def test_connections_of_strangers_do_not_block_the_site(site: Served, kind: str) -> None:
    """300 of them, where 256 files may be open."""
    with flood(site.port, HALF_SENT[kind]), site.client() as client:
        took = []
        for _ in range(5):
            begun = time.monotonic()
            assert client.get("/api/run").status_code == 200
            took.append(time.monotonic() - begun)
            client.close()
            client = site.client()  # a new connection  # noqa: PLW2901
        client.close()
        assert max(took) < 5
        assert psutil.Process(site.process.pid).num_fds() < FILES
    assert site.close() == ""


@pytest.mark.faults
def test_who_has_the_token_is_not_closed_for_strangers(site: Served) -> None:
    with site.client() as client, client.stream("GET", "/api/log/live?after=0") as answer:
        lines = answer.iter_lines()
        assert next(lines)
        with flood(site.port, b""), flood(site.port, HALF_SENT["half a header"]):
            assert client.get("/api/run").status_code == 200
        for _ in lines:
            break  # what was there before still comes
        assert not answer.is_closed


@pytest.mark.faults
def test_a_request_must_be_complete_in_time(site: Served) -> None:
    """A byte now and then does not count."""
    with socket.create_connection(("127.0.0.1", site.port)) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        took = seconds_until_closed(slow, b"x", 0.2)
        assert REQUEST_SECONDS - 1 < took < REQUEST_SECONDS + 5


@pytest.mark.long
@pytest.mark.faults
def test_a_second_request_must_be_complete_in_time_too(site: Served) -> None:
    with socket.create_connection(("127.0.0.1", site.port)) as slow:
        head = f"GET /api/run HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {site.token}\r\n"
        slow.sendall(f"{head}\r\n".encode())
        assert b"200 OK" in slow.recv(1 << 16)
        slow.sendall(head.encode())
        assert is_closed(slow, REQUEST_SECONDS + 5)


@pytest.mark.faults
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["idle", "half a hello"])
def test_handshakes_that_do_not_end_do_not_block_the_site(
    run: Written, tmp_path: Path, sent: bytes
) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost"]
    subprocess.run([*command.split(), *names], cwd=tmp_path, check=True, capture_output=True)
    options = ["--certificate", tmp_path / "cert.pem", "--key", tmp_path / "key.pem"]
    with (
        Served(run.folder.root, "--port", free_port(), *options, preexec_fn=few_files) as site,
        flood(site.port, sent) as connections,
    ):
        for _ in range(5):
            with site.client(verify=False) as client:
                assert client.get("/api/run").status_code == 200
        assert is_closed(connections[0], 1)  # the oldest gave way
        assert is_closed(connections[-1], REQUEST_SECONDS + 5)


@pytest.mark.long
@pytest.mark.faults
def test_a_stranger_is_closed_though_it_asks_again_and_again(site: Served) -> None:
    with socket.create_connection(("127.0.0.1", site.port)) as stranger:
        took = seconds_until_closed(stranger, HALF_SENT["no token"], 0.5)
        assert STRANGER_SECONDS - 1 < took < STRANGER_SECONDS + 5


def test_nobody_says_that_it_comes_from_elsewhere(site: Served) -> None:
    """X-Forwarded-For would make one client many, and X-Forwarded-Proto another site."""
    forged = {"x-forwarded-for": "10.0.0.1", "x-forwarded-proto": "https"}
    with httpx.Client(base_url=site.base, trust_env=False, headers=forged) as client:
        answer = client.get("/", params={"token": site.token})
        assert "Secure" not in answer.headers["set-cookie"]


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "[", "\xff"])
def test_an_origin_that_is_no_address_is_refused(site: Served, origin: str) -> None:
    with site.client() as client:
        headers = {b"origin": origin.encode("latin-1")}
        assert client.get("/api/run", headers=headers).status_code == 403


# -- with the token -----------------------------------------------------------------------------


@pytest.mark.faults
def test_streams_of_one_client_have_a_bound_and_others_are_answered(
    run: Written, site: Served
) -> None:
    """400 streams of a log starved others."""
    request = (
        "GET /api/log/live?after=0 HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {site.token}\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        answers = []
        for _ in range(100):
            (connection,) = stack.enter_context(flood(site.port, request.encode(), 1))
            answers.append(connection.recv(1 << 12))
        refused = [answer for answer in answers if b"429 " in answer]
        assert sum(b"200 OK" in answer for answer in answers) == STREAMS
        assert len(refused) == len(answers) - STREAMS
        assert b"retry-after: 5" in refused[0]
        with site.client() as client:
            begun = time.monotonic()
            for path in ("/", "/api/run", "/stage/train", "/static/site.css", "/api/log"):
                assert client.get(path).status_code == 200
            assert time.monotonic() - begun < 5
    with site.client() as client:  # those that are gone count no more

        def is_let_in() -> bool:
            with client.stream("GET", "/api/log/live?after=0") as answer:
                return answer.status_code == 200

        until(is_let_in, "there is room again")
        # What is over gives its place back.
        for _ in range(2 * STREAMS):
            assert client.get("/files/state.json").status_code == 200
    assert STREAMS < ALL_STREAMS


@pytest.mark.faults
def test_connections_that_have_the_token_do_not_use_up_the_files(site: Served) -> None:
    request = (
        f"GET /api/run HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {site.token}\r\n\r\n"
    )
    with contextlib.ExitStack() as stack, site.client() as client:
        for _ in range(300):
            (connection,) = stack.enter_context(flood(site.port, request.encode(), 1))
            assert b"200 OK" in connection.recv(1 << 16)
        assert client.get("/api/run").status_code == 200
        assert psutil.Process(site.process.pid).num_fds() < FILES


def many_figures(folder: Path, variants: int, points: int) -> Written:
    """Write a run whose figures take long to read."""
    run = Written(folder, [StageState("train", "Walk", total=variants)])
    lines = "".join(
        f'{{"tag": "{tag}", "step": {step}, "value": {step / 7}}}\n'
        for step in range(points)
        for tag in ("loss", "accuracy")
    )
    for number in range(variants):
        variant = Variant(f"{number:016x}", "train", f"v{number}", None, {"rate": number})
        run.journal.add(variant, attempts=1)
        path = run.folder.variant("train", variant.name)
        path.mkdir(parents=True)
        (path / "metrics.jsonl").write_text(lines)
    return run


@pytest.mark.faults
def test_curves_of_many_variants_let_others_be_answered(tmp_path: Path) -> None:
    """Six requests for curves of 5,000 variants held the site for a minute."""
    run = many_figures(tmp_path / "output__large", 5_000, 20)
    with (
        Served(run.folder.root, "--port", free_port()) as site,
        site.client() as client,
        ThreadPoolExecutor(8) as pool,
    ):
        client.get("/api/run")
        tags = ["loss", "accuracy", "a", "b", "loss", "loss"]
        over = threading.Event()

        def curves(tag: str) -> int:
            with site.client() as other:
                return other.get("/api/stage/train/curves", params={"tag": tag}).status_code

        asked = [pool.submit(curves, tag) for tag in tags]
        time.sleep(0.5)
        took = []
        while not all(one.done() for one in asked):
            for path in ("/static/site.css", "/api/log"):
                begun = time.monotonic()
                assert client.get(path).status_code == 200
                took.append(time.monotonic() - begun)
            over.wait(0.2)
        assert {one.result() for one in asked} == {200}
    assert took
    assert sorted(took)[len(took) // 2] < 0.5
    assert max(took) < 2


def test_the_same_work_is_done_once_and_other_work_of_a_client_in_turn() -> None:
    running, most, calls = [0], [0], []
    lock = threading.Lock()

    def compute(name: str) -> str:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            calls.append(name)
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        return name

    async def ask(work: Work, names: Sequence[str], address: str) -> list[Any]:
        scope = {"type": "http", "client": (address, 1)}
        return await asyncio.gather(
            *(work.run(scope, name, compute, name) for name in names), return_exceptions=True
        )

    async def main() -> None:
        work = Work()
        assert await ask(work, ["a", "a", "b", "a"], "10.0.0.1") == ["a", "a", "b", "a"]
        assert (calls, most) == (["a", "b"], [1])
        # Another client does not wait for all that the first one asked for.
        begun = time.monotonic()
        first = asyncio.create_task(ask(work, "cdefghijklmnop", "10.0.0.1"))
        await asyncio.sleep(0)
        await ask(work, ["z"], "10.0.0.2")
        assert time.monotonic() - begun < 0.2
        refused = [answer for answer in await first if isinstance(answer, TooMany)]
        assert len(refused) == 14 - 9
        assert await ask(work, ["c"], "10.0.0.1") == ["c"]  # it may come back

    asyncio.run(main())


def test_a_limit_counts_each_client_and_all() -> None:
    async def main() -> None:
        limit = Limit("streams", 2, total=3)
        async with contextlib.AsyncExitStack() as stack:
            for client in ("a", "a", "b"):
                await stack.enter_async_context(limit.enter(client))
            for client in ("a", "b", "c"):
                with pytest.raises(TooMany, match="streams"):
                    await stack.enter_async_context(limit.enter(client))
        async with limit.enter("c"):
            pass
        assert not limit._present
        assert not limit._turns

    asyncio.run(main())

"""One host: commands, files and tunnels, the same on every kind of host."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from flambe.cluster.cluster_host import ClusterHost
from flambe.errors import CommandError, DeadlineError, RemoteError
from flambe.remote import Connection, Host
from flambe.remote.agent.protocol import StartRequest

pytestmark = pytest.mark.xdist_group("hosts")


@pytest.fixture
def host(members: list[ClusterHost]) -> Host:
    return members[0]


def test_an_argument_is_an_argument(host: Host) -> None:
    words = ["a b", "$HOME", "'", '"', "\\", "*", "new\nline", "", "é", "-n", ";false"]
    done = host.run(["printf", "<%s>", *words])
    assert done.stdout == "".join(f"<{word}>" for word in words)
    assert (done.code, done.stderr) == (0, "")


def test_environment_and_folder(host: Host) -> None:
    host.run(["mkdir", "-p", "some where"])
    done = host.run(["sh", "-c", "pwd; echo $X"], env={"X": "a b'c"}, folder="some where")
    home = host.run(["sh", "-c", "echo $HOME"]).stdout.strip()
    assert done.stdout == f"{home}/some where\na b'c\n"


def test_both_streams_come_live_and_whole(host: Host) -> None:
    lines: list[tuple[str, str, float]] = []
    script = "echo one; sleep 1; echo two >&2; sleep 1; printf three"
    done = host.run(["sh", "-c", script], take=lambda s, t: lines.append((s, t, time.monotonic())))
    assert [line[:2] for line in lines] == [
        ("stdout", "one"),
        ("stderr", "two"),
        ("stdout", "three"),
    ]
    assert lines[2][2] - lines[0][2] > 1.0
    assert (done.stdout, done.stderr) == ("one\nthree", "two\n")


def test_an_exit_code_is_an_error_unless_it_is_asked_for(host: Host) -> None:
    with pytest.raises(CommandError) as raised:
        host.run(["sh", "-c", "echo out; echo why >&2; exit 7"])
    error = raised.value
    assert (error.host, error.code, error.stdout, error.stderr) == (host.name, 7, "out\n", "why\n")
    assert "exit code 7" in str(error)
    assert "| why" in str(error)
    assert host.run(["sh", "-c", "exit 255"], check=False).code == 255
    assert host.run(["sh", "-c", "kill -TERM $$"], check=False).code in (143, 255)
    assert host.run(["no-such-program"], check=False).code == 127


def test_a_deadline_kills_the_whole_group(host: Host) -> None:
    """FAULTS 12: a command that hangs."""
    mark = f"99{os.getpid()}"
    with pytest.raises(DeadlineError, match="not ended in time"):
        host.run(["sh", "-c", f"echo begun; sleep {mark} & sleep {mark}"], deadline=2)
    # A bracket, or the search would find itself.
    left = host.run(["sh", "-c", f"ps -eo args | grep '[s]leep {mark}' || true"]).stdout
    assert left == ""


def test_who_waits_for_input_is_told_that_there_is_none(host: Host) -> None:
    """FAULTS 12: a command that prompts."""
    begun = time.monotonic()
    done = host.run(["bash", "-c", "read -r x; echo $?"], deadline=30)
    assert done.stdout == "1\n"
    assert time.monotonic() - begun < 20


def test_fifty_megabytes_of_output(host: Host) -> None:
    """FAULTS 14: it streams, and what is kept is bounded."""
    seen = 0

    def count(_: str, text: str) -> None:
        nonlocal seen
        seen += len(text) + 1

    script = "head -c 50000000 /dev/zero | tr '\\0' 'x' | fold -w 99; echo end"
    done = host.run(["sh", "-c", script], take=count, deadline=120)
    assert seen >= 50_000_000
    assert done.stdout.endswith("end\n")
    assert len(done.stdout) < 10_000_000


def test_who_takes_the_lines_may_fail(host: Host) -> None:
    """Whoever reads our output is gone, for one: the command is ended, and it is told."""
    mark = f"98{os.getpid()}"

    def fail(_: str, text: str) -> None:
        raise BrokenPipeError(text)

    begun = time.monotonic()
    with pytest.raises(BrokenPipeError, match="one"):
        host.run(["sh", "-c", f"echo one; sleep {mark}"], take=fail, deadline=60)
    assert time.monotonic() - begun < 20
    assert host.run(["sh", "-c", f"ps -eo args | grep '[s]leep {mark}' || true"]).stdout == ""


def test_an_input_is_given_and_may_be_left_unread(host: Host) -> None:
    data = os.urandom(3_000_000)
    done = host.run(["sha256sum"], content=data, deadline=60)
    import hashlib

    assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest()
    for _ in range(5):
        assert host.run(["true"], content=data).code == 0
        assert host.run(["sh", "-c", "exit 4"], content=b"x", check=False).code == 4


def test_files_are_written_whole_with_their_mode(host: Host) -> None:
    host.put(b"\0\xff binary", "put/deep er/file", mode=0o600)
    assert host.run(["stat", "-c", "%a %s", "put/deep er/file"]).stdout == "600 9\n"
    host.put("text é\n", "put/deep er/file")
    assert host.read("put/deep er/file") == "text é\n"
    assert host.run(["ls", "put/deep er"]).stdout == "file\n"


def test_folders_are_brought_up_to_date_in_both_directions(host: Host, tmp_path: Path) -> None:
    here = tmp_path / "a b"
    (here / "sub").mkdir(parents=True)
    (here / "sub" / "$x 'y'").write_text("1")
    (here / "skip.pyc").write_text("no")
    host.send(here, "sent/to", exclude=["*.pyc"])
    names = host.run(["find", "sent/to", "-type", "f"]).stdout.splitlines()
    assert names == ["sent/to/sub/$x 'y'"]
    (here / "sub" / "$x 'y'").unlink()
    (here / "new").write_text("2")
    host.send(here, "sent/to", delete=True, exclude=["*.pyc"])
    assert host.run(["find", "sent/to", "-type", "f"]).stdout == "sent/to/new\n"
    host.send(here / "new", "sent/one/file")
    assert host.read("sent/one/file") == "2"
    host.fetch("sent/", tmp_path / "back")
    assert sorted(p.name for p in (tmp_path / "back").rglob("*") if p.is_file()) == ["file", "new"]
    host.fetch("sent/one/file", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "2"


def test_a_tunnel_leads_to_a_port_of_the_host(host: Host) -> None:
    script = """
import http.server, socketserver
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"over there")
with socketserver.TCPServer(("127.0.0.1", 0), H) as server:
    print(server.server_address[1], flush=True)
    server.handle_request()
"""
    port: list[int] = []
    ready = threading.Event()

    def take(stream: str, text: str) -> None:
        if stream == "stdout":
            port.append(int(text))
            ready.set()

    thread = threading.Thread(
        target=lambda: host.run(["python3", "-c", script], take=take, deadline=60)
    )
    thread.start()
    assert ready.wait(30)
    with host.tunnel(port[0]) as here:
        asked = http.client.HTTPConnection("127.0.0.1", here, timeout=20)
        asked.request("GET", "/")
        assert asked.getresponse().read() == b"over there"
        asked.close()
    thread.join(30)
    with socket.socket() as gone:
        assert gone.connect_ex(("127.0.0.1", here)) != 0


def test_a_supervised_process_is_followed_to_its_end(members: list[ClusterHost]) -> None:
    agent = members[0].agent
    script = "for i in 1 2 3; do echo line $i; sleep 0.3; done; exit 5"
    agent.ask(StartRequest("job", ["sh", "-c", script]))
    lines: list[str] = []
    assert agent.follow("job", lines.append) == 5
    assert lines == ["line 1", "line 2", "line 3"]


def test_the_agent_is_shipped_when_it_is_not_there(members: list[ClusterHost]) -> None:
    member = members[1]
    member.run(["rm", "-rf", ".flambe/agent"])
    assert member.refresh("any").facts.home.startswith("/")
    assert member.run(["ls", member.agent.path]).code == 0
    # Whoever looks at a log may have another flambe than whoever started the run.
    member.agent.ask(StartRequest("said", ["echo", "a line"]))
    member.run(["rm", "-rf", ".flambe/agent"])
    lines: list[str] = []
    assert member.agent.follow("said", lines.append) == 0
    assert lines == ["a line"]
    with pytest.raises(RemoteError, match="nothing was run there yet"):
        member.agent.follow("nothing", lines.append)


def test_a_connection_leaves_no_lock(members: list[ClusterHost]) -> None:
    connections = [m.connection for m in members if isinstance(m.connection, Connection)]
    sockets = [connection.socket for connection in connections]
    assert [path.exists() for path in sockets] == [True, True]
    assert [path for path in sockets if path.with_suffix(".lock").exists()] == []

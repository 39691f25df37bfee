"""The agent of a host that does not exist."""

from __future__ import annotations

import json
import threading

from flambe.remote.agent import protocol
from flambe.remote.agent.message import plain
from flambe.remote.agent.protocol import Facts, HostReport, RunState, RunStatus
from flambe.testing.fake_connection import FakeConnection, RecordedCommand

_COMMAND = ("python3", "-I")  # see flambe.remote.agent_client

FACTS = Facts(
    hostname="fake",
    user="user",
    home="/home/user",
    boot="1",
    cpus=8,
    memory=32 << 30,
    disk=100 << 30,
    disk_free=50 << 30,
    python="3.11.7",
    python_path="/usr/bin/python3",
    platform="linux-x86_64",
    libc="glibc-2.35",
    system="Ubuntu 22.04",
    rsync="rsync  version 3.2.7  protocol version 31",
)


class FakeAgent:
    """Answers the requests to the agent of a host, and keeps what they change.

    Parameters
    ----------
    connection
        To the host; the agent answers its requests from now on.
    facts
        What the host is.

    Attributes
    ----------
    report
        What the agent reports: marks, runs, locks. A test may change it.
    requests
        The requests, in order: their names, and what was asked.
    """

    def __init__(self, connection: FakeConnection, facts: Facts = FACTS) -> None:
        self.report = HostReport(facts=facts)
        self.requests: list[tuple[str, dict[str, object]]] = []
        self._lock = threading.Lock()
        connection.answer(_COMMAND, self._answer)

    def _answer(self, command: RecordedCommand) -> str:
        """Return the answer to a request, as the agent prints it."""
        verb, content = command.argv[command.argv.index("--root") + 2], command.content or b"{}"
        payload = json.loads(content)
        with self._lock:
            self.requests.append((verb, payload))
            return json.dumps(plain(self._do(verb, payload)))

    def _do(self, verb: str, payload: object) -> object:
        if verb == "report":
            return self.report
        if verb == "start":
            return self._start(protocol.StartRequest.from_json(payload))
        if verb == "stop":
            return self._stop(protocol.StopRequest.from_json(payload))
        if verb == "lock":
            return self._take(protocol.LockRequest.from_json(payload))
        if verb == "unlock":
            unlock = protocol.UnlockRequest.from_json(payload)
            self.report.locks.pop(unlock.name, None)
        elif verb == "mark":
            mark = protocol.MarkRequest.from_json(payload)
            self.report.marks[mark.name] = mark.value
        elif verb == "forget":
            self.report.marks.clear()
        return {}

    def _start(self, request: protocol.StartRequest) -> RunStatus:
        running = self.report.runs.get(request.name)
        if running is not None and running.runs:
            return running
        status = RunStatus(
            state=RunState.RUNNING,
            command=request.command,
            about=request.about,
            log=request.log,
            keep=request.keep,
            pid=len(self.requests),
            started_now=True,
        )
        self.report.runs[request.name] = status
        return status

    def _stop(self, request: protocol.StopRequest) -> RunStatus | None:
        status = self.report.runs.get(request.name)
        if status is not None and status.runs:
            status.state, status.code, status.started_now = RunState.ENDED, 143, False
        return status

    def _take(self, request: protocol.LockRequest) -> protocol.LockAnswer:
        held = self.report.locks.get(request.name)
        if held is not None and held.token != request.token:
            return protocol.LockAnswer(False, held.holder, held.since, held.token)
        self.report.locks[request.name] = protocol.Lock(request.token, request.holder)
        return protocol.LockAnswer(True, request.holder, 0.0, request.token)

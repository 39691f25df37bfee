"""The site as people start it: a process, and what it printed."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import uvicorn

from flambe.report.serve import listen
from tests.experiment.lab import environment, until


def child(word: str, parent: int | None = None) -> psutil.Process:
    """Return the living child of a process whose command line has a word."""
    found = []
    for process in psutil.Process(parent).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie has no command line
            found += [process] if word in process.cmdline() else []
    (process,) = found
    return process


class Served:
    """``flambe site FOLDER``, until it is closed."""

    def __init__(self, folder: Path, *options: object, **settings: Any) -> None:
        self.command = [sys.executable, "-m", "flambe", "site", str(folder), *map(str, options)]
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
            **settings,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        if "http" not in self.said:
            _, error = self.process.communicate(timeout=30)
            raise RuntimeError(f"exit code {self.process.returncode}: {error}")
        self.url = self.said.split()[-1]
        parts = urlsplit(self.url)
        self.base = f"{parts.scheme}://{parts.netloc}"
        self.port = int(parts.port or 0)
        self.token = parts.query.removeprefix("token=")

    def client(self, **options: Any) -> httpx.Client:
        """Return a client that has the token."""
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.Client(
            base_url=self.base, headers=headers, timeout=60, trust_env=False, **options
        )

    def kill(self) -> None:
        """Kill it as nothing else can."""
        self.process.kill()
        self.process.communicate()

    def close(self) -> str:
        """End it as people do, and return what it said on stderr."""
        if self.process.stderr is not None and self.process.stderr.closed:
            return ""  # it was ended before
        self.process.send_signal(signal.SIGINT)
        try:
            return str(self.process.communicate(timeout=20)[1])
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def free_port() -> int:
    """Return a port that nobody has at this moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def token_file(folder: Path, token: str = "0123456789abcdef-test") -> Path:
    """Write a token."""
    path = folder / "token"
    path.write_text(token)
    return path


def events(answer: httpx.Response) -> Iterator[tuple[str, Any, str]]:
    """Yield server-sent events as they come: kind, data, id."""
    kind, identity, data = "", "", ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "id":
            identity = value
        elif name == "data":
            data = value
        elif not line and data:
            yield kind, json.loads(data), identity
            data = ""


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an application in this process; give its address."""
    config = uvicorn.Config(
        app, log_level="critical", access_log=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as taken:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        until(lambda: server.started, "the site answers")
        try:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def asked(base: str, target: str, token: str = "", method: str = "GET") -> tuple[int, bytes]:
    """Ask for exactly that target, dots and all; return the status and what is answered."""
    parts = urlsplit(base)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
    connection.putrequest(method, target)
    if token:
        connection.putheader("authorization", f"Bearer {token}")
    connection.endheaders()
    answer = connection.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        connection.close()

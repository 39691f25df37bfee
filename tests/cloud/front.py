"""The address of the cloud: requests are logged, refused or let through, and answered by moto."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.test import EnvironBuilder, run_wsgi_app

from tests.cloud.calls import Call, Calls, Dropped, Garbled, Refused, Reply, read, refuse
from tests.cloud.faults import Faults

Forward = Callable[[Call], Reply]
Rule = Callable[[Call, Forward], Reply]
CONTROL = "/_cloud/"
OWN = {"connection", "content-length", "date", "server", "transfer-encoding"}


class Front:
    """An HTTP server on a free port of the loopback, in front of moto's application.

    ``rules`` are what the cloud does instead of moto, or around it, by the name of an action.
    """

    def __init__(
        self,
        *,
        faults: Faults,
        calls: Calls,
        lock: threading.RLock,
        rules: Mapping[str, Rule],
        hiding: Callable[[Call], contextlib.AbstractContextManager[object]],
        control: Callable[[str, bytes], Reply],
        port: int = 0,
    ) -> None:
        self.control = control
        self._faults = faults
        self._calls = calls
        self._lock = lock
        self._rules = rules
        self._hiding = hiding
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._open: set[socket.socket] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End it, with the connections that clients keep open."""
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer a request; raises Dropped where it is done and not answered."""
        call = read(method, path, headers, body)
        self._calls.append(call)
        try:
            self._admit(call)
            with self._lock, self._hiding(call):
                forward = self._forward(method, path, headers, body)
                rule = self._rules.get(call.name)
                reply = rule(call, forward) if rule else forward(call)
            call.outcome = "ok" if reply.status < 400 else f"{reply.status}"
        except Refused as error:
            call.outcome = error.code
            reply = refuse(call, error)
        try:
            self._faults.after(call)
        except Dropped:
            call.outcome = "dropped"
            raise
        except Garbled as error:
            call.outcome = "garbled"
            return Reply(reply.status, reply.headers, error.body(reply.body))
        return reply

    def _admit(self, call: Call) -> None:
        try:
            self._faults.before(call)
        except Dropped:
            call.outcome = "dropped"
            raise

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Forward:
        def forward(call: Call) -> Reply:
            data = urlencode(call.form).encode() if call.form else body
            kept = [(k, v) for k, v in headers.items() if k.lower() != "content-length"]
            builder = EnvironBuilder(method=method, path=path, headers=kept, data=data)
            chunks, status, found = run_wsgi_app(self._moto, builder.get_environ(), buffered=True)
            return Reply(int(status.split()[0]), dict(found), b"".join(chunks))

        return forward

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                front._open.add(self.connection)

            def finish(self) -> None:
                front._open.discard(self.connection)
                with contextlib.suppress(OSError):
                    super().finish()

            def serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    if self.path.startswith(CONTROL):
                        reply = front.control(self.path.removeprefix(CONTROL), body)
                    else:
                        headers: Any = self.headers
                        reply = front.answer(self.command, self.path, headers, body)
                except Dropped:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                except Exception:
                    traceback.print_exc(file=sys.stderr)
                    reply = Reply(500, {}, b"the test cloud failed; see its standard error")
                self.write(reply)

            def write(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    if name.lower() not in OWN:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                pass

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = serve  # noqa: N815

        return Handler

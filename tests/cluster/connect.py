"""An HTTP proxy that asks for a password and knows names that nobody else does."""

from __future__ import annotations

import base64
import contextlib
import http.server
import select
import socket
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import urlsplit

USER, PASSWORD = "ann", "canary:p@ss/word"
WRITTEN = "canary%3Ap%40ss%2Fword"  # in a URL


class Handler(http.server.BaseHTTPRequestHandler):
    """Joins whoever asks with a server (CONNECT), or asks it for a page."""

    names: ClassVar[dict[str, tuple[str, int]]]
    joined: ClassVar[list[str]]
    refused: ClassVar[list[str]]
    url: ClassVar[str]

    def do_CONNECT(self) -> None:
        name = self.path.partition(":")[0]
        if not self._lets_in(name):
            return
        with socket.create_connection(self.names[name]) as server:
            self.joined.append(name)
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):  # whoever has enough hangs up
                self._join(server)
        self.close_connection = True

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        if not self._lets_in(place.hostname or ""):
            return
        address, port = self.names[place.hostname or ""]
        self.joined.append(place.hostname or "")
        with urllib.request.urlopen(f"http://{address}:{port}{place.path}") as answer:
            content = answer.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _lets_in(self, name: str) -> bool:
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Proxy-Authorization") != f"Basic {login}":
            self.refused.append(self.path)
            self.send_response(407)
            self.send_header("Proxy-Authenticate", 'Basic realm="test"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        if name not in self.names:
            self.refused.append(self.path)
            self.send_error(502)
            return False
        return True

    def _join(self, server: socket.socket) -> None:
        other = {self.connection: server, server: self.connection}
        while True:
            ready, _, _ = select.select(list(other), [], [], 60)
            for one in ready:
                data = one.recv(65536)
                if not data:
                    return
                other[one].sendall(data)
            if not ready:
                return

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def proxy(address: str, names: dict[str, tuple[str, int]]) -> Iterator[type[Handler]]:
    """Run one on an address; yield what it was asked, with its ``url``."""

    class Proxy(Handler):
        joined: ClassVar[list[str]] = []
        refused: ClassVar[list[str]] = []

    Proxy.names = names
    server = http.server.ThreadingHTTPServer((address, 0), Proxy)
    Proxy.url = f"http://{USER}:{WRITTEN}@{address}:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Proxy
    finally:
        server.shutdown()
        server.server_close()

"""Limits on the connections to the site, so that strangers cannot use them up.

uvicorn waits for a request without a deadline, and its limit on connections would also refuse
clients that have the token. Here a request must be complete soon, and a stranger is a connection
that has not sent the token yet: strangers are closed after a while, and if they are many, the
oldest first. A client with the token sends it in the first packet, within milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from flambe.report.security import HAS_TOKEN

REQUEST_SECONDS = 10.0  # until a request must be complete, and a handshake
STRANGER_SECONDS = 30.0  # that a connection without the token may last
MOST_CONNECTIONS = 512
MOST_FILES = 4096  # file descriptors that the site requests
BACKLOG = 64  # connections that are accepted at once, before the limit applies


def connection_bound() -> int:
    """Return how many connections there may be: half of the descriptors are for files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    allowed = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft < allowed:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            soft = allowed
    return min(MOST_CONNECTIONS, max(16, soft // 2 - 16))


class Connections:
    """All connections of a server, the oldest first.

    Parameters
    ----------
    most
        How many there may be; half as many may be strangers.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: dict[BoundedProtocol, None] = {}

    def add(self, connection: BoundedProtocol) -> None:
        """Add a connection, and close the oldest of those that are too many."""
        self._open[connection] = None
        strangers = [other for other in self._open if other.is_stranger]
        if len(strangers) > self.most // 2:
            self._close(strangers[0])
        elif len(self._open) > self.most:
            # The new one is the last of all, and idle.
            idle = [other for other in self._open if other.is_idle]
            self._close((strangers[:-1] or idle)[0])

    def _close(self, connection: BoundedProtocol) -> None:
        # Many are accepted before asyncio says that the first of them is closed.
        self.remove(connection)
        connection.abort()

    def remove(self, connection: BoundedProtocol) -> None:
        """Remove a connection that is closed."""
        self._open.pop(connection, None)


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with deadlines; a subclass for each server.

    Attributes
    ----------
    shared
        The connections of the server.
    tls
        With a context, it speaks TLS; the server itself must not.
    """

    shared: ClassVar[Connections]
    tls: ClassVar[ssl.SSLContext | None] = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._has_token = False
        self._raw: asyncio.Transport | None = None
        self._has_begun = False
        self._early = b""  # came with the end of the handshake
        self._handshake: asyncio.Task[None] | None = None
        self._request_deadline: asyncio.TimerHandle | None = None
        self._stranger_deadline: asyncio.TimerHandle | None = None

    # -- the events of asyncio ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; with TLS, by its handshake: connections count from their first packet."""
        assert isinstance(transport, asyncio.Transport)
        self._raw = transport
        self._stranger_deadline = self.loop.call_later(STRANGER_SECONDS, self._close_stranger)
        self._request_deadline = self.loop.call_later(REQUEST_SECONDS, self._close_late)
        self.shared.add(self)
        if self.tls is None:
            self._begin(transport)
        elif not transport.is_closing():
            self._handshake = self.loop.create_task(self._shake_hands(transport, self.tls))

    async def _shake_hands(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            secured = await self.loop.start_tls(
                transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=REQUEST_SECONDS,
            )
        except OSError as error:  # so is ssl.SSLError
            transport.abort()
            self.connection_lost(error)
            return
        if secured is not None and not secured.is_closing():
            self._begin(secured)

    def _begin(self, transport: asyncio.Transport) -> None:
        self._has_begun = True
        super().connection_made(transport)
        early, self._early = self._early, b""
        if early:
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        """Take what came; a request that is complete has met its deadline."""
        if not self._has_begun:
            self._early += data
            return
        super().data_received(data)
        self._check_request()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._has_token = self._has_token or self._shows_token
        self._cancel_request_deadline()
        self._request_deadline = self.loop.call_later(REQUEST_SECONDS, self._close_late)
        super().on_response_complete()
        self._check_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.shared.remove(self)
        self._cancel_request_deadline()
        if self._stranger_deadline is not None:
            self._stranger_deadline.cancel()
        if self._has_begun:
            super().connection_lost(exc)

    # -- deadlines ----------------------------------------------------------------------------

    @property
    def is_stranger(self) -> bool:
        """Whether it has not shown the token yet."""
        return not (self._has_token or self._shows_token)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _shows_token(self) -> bool:
        return self.scope is not None and HAS_TOKEN in self.scope.get("state", {})

    def abort(self) -> None:
        """Close it at once, whatever is under way."""
        if self._raw is not None:
            self._raw.abort()

    def _check_request(self) -> None:
        """Lift the deadline where a whole request is being answered."""
        if not self.is_idle and not self.cycle.more_body:
            self._cancel_request_deadline()

    def _cancel_request_deadline(self) -> None:
        if self._request_deadline is not None:
            self._request_deadline.cancel()
            self._request_deadline = None

    def _close_late(self) -> None:
        self.abort()

    def _close_stranger(self) -> None:
        if self.is_stranger:
            self.abort()


def bounded_protocol(most: int) -> type[BoundedProtocol]:
    """Return the protocol of one server, which takes so many connections."""
    return type("BoundedProtocol", (BoundedProtocol,), {"shared": Connections(most)})

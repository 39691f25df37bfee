"""How much of the site one client may use at once, so that it leaves the others their share.

A client is an address: all who come through one tunnel, or one proxy, are one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_T = TypeVar("_T")

STREAMS = 32  # live news, logs and downloads of one client at the same time
ALL_STREAMS = 128  # and of all clients
REQUESTS = 8  # other requests of one client that are answered at the same time
WAITING = 64  # and those of it that wait
WORKERS = 2  # long computations at the same time, one of them per client
WORK_WAITING = 8


class TooMany(HTTPException):
    """A client asks for too much at once; it is to come back in a while."""

    def __init__(self, what: str) -> None:
        super().__init__(429, f"Too many {what} at once; try again soon.", {"retry-after": "5"})


class Limit:
    """Lets so many of one client in at the same time; so many more wait.

    Parameters
    ----------
    what
        What is counted, in plural.
    each
        How many of one client.
    waiting
        How many more of it wait for their turn.
    total
        How many of all clients; by default any number.
    """

    def __init__(self, what: str, each: int, waiting: int = 0, total: int | None = None) -> None:
        self.what, self.each, self.waiting, self.total = what, each, waiting, total
        self._present: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Semaphore] = {}

    @contextlib.asynccontextmanager
    async def enter(self, client: str) -> AsyncIterator[None]:
        """Wait for a turn.

        Raises
        ------
        TooMany
            If too many of this client, or of all, are there already.
        """
        full = self.total is not None and self._present.total() >= self.total
        if full or self._present[client] >= self.each + self.waiting:
            raise TooMany(self.what)
        self._present[client] += 1
        turn = self._turns.setdefault(client, asyncio.Semaphore(self.each))
        try:
            async with turn:
                yield
        finally:
            self._present[client] -= 1
            if not self._present[client]:
                del self._present[client], self._turns[client]


class Limited:
    """Middleware that applies a limit to what it wraps, until the answer is sent."""

    def __init__(self, app: ASGIApp, limit: Limit) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            async with self.limit.enter(client_of(scope)):
                await self.app(scope, receive, send)
        except TooMany as error:
            answer = JSONResponse({"error": error.detail}, error.status_code, error.headers)
            await answer(scope, receive, send)


class Work:
    """Long computations: few at a time, one per client, and the same one for all who ask for it.

    They have threads of their own, so that what is quick does not wait for them.
    """

    def __init__(self) -> None:
        self._limit = Limit("computations", 1, WORK_WAITING)
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="flambe-site-work")
        self._under_way: dict[Any, asyncio.Task[Any]] = {}

    async def run(self, scope: Scope, key: Any, function: Callable[..., _T], *arguments: Any) -> _T:
        """Return what a function makes; ``key`` tells what it computes."""
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._run(client_of(scope), function, *arguments))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        # Whoever leaves does not end it for the others.
        result: _T = await asyncio.shield(task)
        return result

    async def _run(self, client: str, function: Callable[..., _T], *arguments: Any) -> _T:
        async with self._limit.enter(client):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, function, *arguments)


def client_of(scope: Scope) -> str:
    """Return the address that a request comes from."""
    client = scope.get("client")
    return str(client[0]) if client else ""

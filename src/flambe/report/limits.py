"""Limits on what one client may use at a time, so that others get their share.

A client is an address: all users of one tunnel, or of one proxy, are one client.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_T = TypeVar("_T")
_P = ParamSpec("_P")

STREAMS = 32  # live updates, logs and downloads of one client at the same time
ALL_STREAMS = 128  # and of all clients
REQUESTS = 8  # other requests of one client that are answered at the same time
WAITING = 64  # and those that wait
WORKERS = 2  # long computations at the same time, one of them per client
WORK_WAITING = 8


class TooMany(HTTPException):
    """A client sends too many requests at a time; it should retry later."""

    def __init__(self, plural: str) -> None:
        super().__init__(429, f"Too many {plural} at once; try again soon.", {"retry-after": "5"})


class Limit:
    """Limits how many requests of one client are served at the same time; some more wait.

    Parameters
    ----------
    plural
        What is counted, for the error.
    each
        The limit for one client.
    waiting
        How many more of a client wait for their turn.
    total
        The limit for all clients; by default none.
    """

    def __init__(self, plural: str, each: int, waiting: int = 0, total: int | None = None) -> None:
        self.plural, self.each, self.waiting, self.total = plural, each, waiting, total
        self._present: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Semaphore] = {}

    @contextlib.asynccontextmanager
    async def enter(self, client: str) -> AsyncIterator[None]:
        """Wait for a turn.

        Raises
        ------
        TooMany
            If too many of this client, or of all, are present already.
        """
        full = self.total is not None and self._present.total() >= self.total
        if full or self._present[client] >= self.each + self.waiting:
            raise TooMany(self.plural)
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
    """Long computations: few at a time, one per client, and one for all equal requests.

    They have their own threads, so that quick requests do not wait for them.
    """

    def __init__(self) -> None:
        self._limit = Limit("computations", 1, WORK_WAITING)
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="flambe-site-work")
        # Any: the type of a result follows from its key.
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}

    async def run(
        self,
        scope: Scope,
        key: Hashable,
        function: Callable[_P, _T],
        *arguments: _P.args,
        **options: _P.kwargs,
    ) -> _T:
        """Call a function in a thread; requests with the same ``key`` share the result."""
        task = self._tasks.get(key)
        if task is None:
            call = functools.partial(function, *arguments, **options)
            task = asyncio.create_task(self._run(client_of(scope), call))
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key, None))
        # A client that disconnects does not end the computation of the others.
        result: _T = await asyncio.shield(task)
        return result

    async def _run(self, client: str, call: Callable[[], _T]) -> _T:
        async with self._limit.enter(client):
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def client_of(scope: Scope) -> str:
    """Return the address that a request comes from."""
    client = scope.get("client")
    return str(client[0]) if client else ""

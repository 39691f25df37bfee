"""A slow way to somewhere."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class Relay:
    """A TCP relay: what either side sends reaches the other some seconds later, in order."""

    def __init__(self, listen: str, target: tuple[str, int], seconds: float) -> None:
        self._target = target
        self._seconds = seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        serving = asyncio.start_server(self._serve, listen, 0)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = (str(host), int(port))

    def close(self) -> None:
        """End it, and every connection through it."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.01)  # for what they closed to be closed

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Some versions of asyncio complain when this is cancelled.
        with contextlib.suppress(OSError, asyncio.CancelledError), contextlib.closing(writer):
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            with contextlib.closing(far_writer):
                await asyncio.gather(
                    self._pass_on(reader, far_writer), self._pass_on(far_reader, writer)
                )

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Bounded, so that a fast sender waits for a slow receiver.
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1024)
        receiving = asyncio.ensure_future(self._receive(reader, waiting))
        try:
            data = b"?"
            while data:
                due, data = await waiting.get()
                await asyncio.sleep(due - self._loop.time())
                if data:
                    writer.write(data)
                    await writer.drain()
            writer.write_eof()
        finally:
            receiving.cancel()

    async def _receive(
        self, reader: asyncio.StreamReader, waiting: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        data = b"?"
        while data:
            try:
                data = await reader.read(1 << 16)
            except OSError:
                data = b""  # it broke off; the other side is told in its turn
            await waiting.put((self._loop.time() + self._seconds, data))

"""The real TensorBoard, under the address and the token of the site.

It is a process of its own: started when somebody looks, again if it dies, and gone with the site.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from flambe.report.parent import end_with

PREFIX = "/tensorboard/app"
START_SECONDS = 90.0
KEEP_PERIOD = 2.0  # seconds between two looks whether it runs, where it always should
# What concerns one connection only, and is not passed on.
_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "host",
    "cookie",
    "authorization",
    "origin",
    "server",
    "date",
}


class TensorBoard:
    """TensorBoard for one run.

    Parameters
    ----------
    root
        The folder of the run.
    port
        Its port on the loopback; any by default.
    """

    def __init__(self, root: Path, port: int | None = None) -> None:
        self.root = root
        self.port = port
        self.address: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(60.0), trust_env=False)

    async def ready(self, base: str = "") -> str:
        """Return its address; start it if it does not run.

        Parameters
        ----------
        base
            Where the site is mounted.

        Raises
        ------
        RuntimeError
            If it does not start.
        """
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                await self._start(base + PREFIX)
        assert self.address is not None
        return self.address

    async def keep(self) -> None:
        """See that it runs, until this is cancelled."""
        while True:
            with contextlib.suppress(RuntimeError):
                await self.ready()
            await asyncio.sleep(KEEP_PERIOD)

    async def _start(self, prefix: str) -> None:
        port = self.port or _free_port()
        address = f"http://127.0.0.1:{port}"
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flambe.report.tensorboard", str(os.getpid())),
            *("--logdir", str(self.root), "--host", "127.0.0.1", "--port", str(port)),
            *("--path_prefix", prefix, "--reload_interval", "5"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.returncode is not None:
                raise RuntimeError(f"TensorBoard ended with exit code {self._process.returncode}")
            with contextlib.suppress(httpx.HTTPError):
                if (await self._client.get(f"{address}{prefix}/")).status_code == 200:
                    self.address = address
                    return
            await asyncio.sleep(0.2)
        await self._end()
        raise RuntimeError(f"TensorBoard did not answer within {START_SECONDS:.0f} s")

    async def proxy(self, request: Request) -> Response:
        """Pass a request on, and what is answered back."""
        try:
            base = request.scope.get("root_path", "")
            address = await self.ready(base)
            passed = self._client.build_request(
                request.method,
                httpx.URL(address).copy_with(raw_path=_path(request, base)),
                headers=[(k, v) for k, v in request.headers.items() if k.lower() not in _HOP],
                content=await request.body(),
            )
            answer = await self._client.send(passed, stream=True)
        except (RuntimeError, httpx.HTTPError) as error:
            told = str(error) or type(error).__name__
            return JSONResponse({"error": f"TensorBoard does not answer: {told}"}, 502)

        async def body() -> AsyncIterator[bytes]:
            try:
                async for part in answer.aiter_raw():
                    yield part
            finally:
                await answer.aclose()

        headers = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
        return StreamingResponse(body(), answer.status_code, headers)

    async def close(self) -> None:
        """End it, if it was started here."""
        await self._client.aclose()
        await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), 5)
            if process.returncode is None:
                process.kill()
                await process.wait()


def _path(request: Request, base: str) -> bytes:
    """Return what is asked of TensorBoard, as it was asked."""
    path: bytes = request.scope["raw_path"]
    prefix = (base + PREFIX).encode()
    if not path.startswith(prefix + b"/"):
        path = prefix + path.removeprefix(base.encode())
    query: bytes = request.scope["query_string"]
    return path + b"?" + query if query else path


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def main() -> None:
    """Run TensorBoard until the process that started it is gone."""
    end_with(int(sys.argv.pop(1)))
    from tensorboard.main import run_main

    run_main()


if __name__ == "__main__":
    main()

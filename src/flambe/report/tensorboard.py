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
    address
        Where one answers already, below :data:`PREFIX`; by default one is started.
    """

    def __init__(self, root: Path, address: str | None = None) -> None:
        self.root = root
        self.address = address
        self._given = address is not None
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
        if self._given:
            assert self.address is not None
            return self.address
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                await self._start(base + PREFIX)
        assert self.address is not None
        return self.address

    async def _start(self, prefix: str) -> None:
        port = _free_port()
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
        await self.close()
        raise RuntimeError(f"TensorBoard did not answer within {START_SECONDS:.0f} s")

    async def proxy(self, request: Request) -> Response:
        """Pass a request on, and what is answered back."""
        try:
            address = await self.ready(request.scope.get("root_path", ""))
            path = request.url.path
            passed = self._client.build_request(
                request.method,
                f"{address}{path if PREFIX in path else PREFIX + path}",
                params=request.url.query or None,
                headers=[(k, v) for k, v in request.headers.items() if k.lower() not in _HOP],
                content=await request.body(),
            )
            answer = await self._client.send(passed, stream=True)
        except (RuntimeError, httpx.HTTPError) as error:
            return JSONResponse({"error": f"TensorBoard does not answer: {error}"}, 502)

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
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), 5)
            if process.returncode is None:
                process.kill()
                await process.wait()


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

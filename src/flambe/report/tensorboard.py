"""The real TensorBoard, at the address of the site and with its token.

It is a separate process: it starts when its page is opened, again if it dies, and exits with the
site. It listens on a Unix socket that only its user can reach; all requests go through the site,
which checks the token and the ``Host``. A port of TensorBoard is one more port of the site.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from flambe.report.tensorboard_process import main

PREFIX = "/tensorboard/app"
ADDRESS = "http://tensorboard"  # what requests on the socket name
START_SECONDS = 90.0
KEEP_PERIOD = 2.0  # seconds between two checks, where it should always be running
MOST_SENT = 4 << 20  # bytes of a request; TensorBoard only gets small queries
LONGEST_SOCKET = 100  # bytes of the path of a Unix socket: macOS takes 103, Linux 107
# Headers of a single connection, which are not forwarded.
_HOP = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te"),
    *(b"trailers", b"transfer-encoding", b"upgrade", b"content-length", b"host", b"cookie"),
    *(b"authorization", b"origin"),
}
_HOP_BACK = {
    *("connection", "keep-alive", "transfer-encoding", "upgrade", "server", "date", "set-cookie"),
}


class TensorBoard:
    """TensorBoard for one run.

    Parameters
    ----------
    root
        The folder of the run.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._folder: Path | None = None
        self._remove_folder: Callable[[], object] = lambda: None
        self._http_client: httpx.AsyncClient | None = None

    @property
    def socket(self) -> Path:
        """The socket that it listens on, in a folder that only this user can enter."""
        if self._folder is None:
            self._folder = _socket_folder()
            self._remove_folder = weakref.finalize(
                self, shutil.rmtree, self._folder, ignore_errors=True
            )
        return self._folder / "socket"

    @property
    def _client(self) -> httpx.AsyncClient:
        if self._http_client is None:
            transport = httpx.AsyncHTTPTransport(uds=str(self.socket))
            self._http_client = httpx.AsyncClient(
                transport=transport, timeout=60.0, trust_env=False
            )
        return self._http_client

    async def ensure_running(self, base: str = "") -> None:
        """Start it if it is not running.

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

    async def keep(self) -> None:
        """Keep it running, until this is cancelled."""
        while True:
            with contextlib.suppress(RuntimeError):
                await self.ensure_running()
            await asyncio.sleep(KEEP_PERIOD)

    async def _start(self, prefix: str) -> None:
        self.socket.unlink(missing_ok=True)  # of one that died
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flambe.report.tensorboard", "--parent", str(os.getpid())),
            *("--socket", str(self.socket), "--logdir", str(self.root), "--path_prefix", prefix),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            # It sends no requests to other machines, nor through a proxy to itself.
            env={k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")},
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.returncode is not None:
                raise RuntimeError(f"TensorBoard ended with exit code {self._process.returncode}")
            with contextlib.suppress(httpx.HTTPError):
                if (await self._client.get(f"{ADDRESS}{prefix}/")).status_code == 200:
                    return
            await asyncio.sleep(0.2)
        await self._end()
        raise RuntimeError(f"TensorBoard did not answer within {START_SECONDS:.0f} s")

    async def proxy(self, request: Request) -> Response:
        """Forward a request, and its answer."""
        base = request.scope.get("root_path", "")
        content = await _content(request) if request.method == "POST" else b""
        try:
            await self.ensure_running(base)
            forwarded = self._client.build_request(
                request.method,
                httpx.URL(ADDRESS).copy_with(raw_path=_path(request, base)),
                headers=[(k, v) for k, v in request.headers.raw if k.lower() not in _HOP],
                content=content,
            )
            answer = await self._client.send(forwarded, stream=True)
        except (RuntimeError, httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            return JSONResponse({"error": f"TensorBoard does not answer: {reason}"}, 502)

        async def body() -> AsyncIterator[bytes]:
            try:
                async for part in answer.aiter_raw():
                    yield part
            finally:
                await answer.aclose()

        headers = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BACK}
        return StreamingResponse(body(), answer.status_code, headers)

    async def close(self) -> None:
        """Stop it, if it was started here."""
        if self._http_client is not None:
            await self._http_client.aclose()
        await self._end()
        self._remove_folder()
        self._http_client = self._folder = None

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
    """Return the path and query for TensorBoard, unchanged except for the prefix."""
    path: bytes = request.scope["raw_path"]
    prefix = (base + PREFIX).encode()
    if not path.startswith(prefix + b"/"):
        path = prefix + path.removeprefix(base.encode())
    query: bytes = request.scope["query_string"]
    return path + b"?" + query if query else path


async def _content(request: Request) -> bytes:
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MOST_SENT:
            raise HTTPException(413, "This request is too large for TensorBoard.")
    return content


def _socket_folder() -> Path:
    """Make a folder with a short path that only this user can enter."""
    folder = tempfile.mkdtemp(prefix="flambe-tensorboard-")
    if len(os.fsencode(folder)) > LONGEST_SOCKET - len("/socket"):
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="flambe-tensorboard-", dir="/tmp")
    return Path(folder)


class TensorBoardPort:
    """Middleware that redirects from the start page to TensorBoard, at the port of TensorBoard."""

    def __init__(self, app: ASGIApp, port: int | None) -> None:
        self.app = app
        self.port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        server = scope.get("server") or ("", None)
        base = scope.get("root_path", "")
        if scope["type"] == "http" and server[1] == self.port and scope["path"] == f"{base}/":
            await RedirectResponse(f"{base}{PREFIX}/")(scope, receive, send)
        else:
            await self.app(scope, receive, send)


if __name__ == "__main__":
    main()

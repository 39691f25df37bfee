"""The SSH server of a :class:`~flambe.cluster.LoopbackHost`: for its user, on the loopback only."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Protocol

import asyncssh

CHUNK = 1 << 16


class _Reader(Protocol):
    """A stream of asyncio or asyncssh that bytes are read from."""

    async def read(self, n: int = -1, /) -> bytes: ...


class _Writer(Protocol):
    """A stream of asyncio or asyncssh that bytes are written to."""

    def write(self, data: bytes, /) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...


class _Server(asyncssh.SSHServer):
    """Accepts the keys of the cluster, and forwards the connections of their owners."""

    def __init__(self, key: Path) -> None:
        self.key = key

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        # The hosts of a cluster get keys of one another while they run.
        offered = key.export_public_key("openssh").decode().split()[:2]
        for path in (self.key, Path.home() / ".ssh" / "authorized_keys"):
            with contextlib.suppress(OSError):
                lines = path.read_text(encoding="utf-8").splitlines()
                if any(line.split()[:2] == offered for line in lines):
                    return True
        return False

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        return True


async def _serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run the command of a session, or a shell."""
    command = process.command
    shell = os.environ.get("SHELL", "/bin/sh")
    arguments = [shell, "-c", command] if command else [shell, "-l"]
    running = await asyncio.create_subprocess_exec(
        *arguments,
        cwd=Path.home(),
        env={**os.environ, **{str(k): str(v) for k, v in process.env.items()}},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert running.stdin is not None
    assert running.stdout is not None
    assert running.stderr is not None
    feeding = asyncio.create_task(_feed(process.stdin, running.stdin))
    await asyncio.gather(
        _copy(running.stdout, process.stdout), _copy(running.stderr, process.stderr)
    )
    code = await running.wait()
    feeding.cancel()
    if code < 0:
        process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
    else:
        process.exit(code)


async def _feed(source: _Reader, target: _Writer) -> None:
    """Write the input of a command; it may end before it has read everything."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, asyncssh.Error):
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()
    target.close()


async def _copy(source: _Reader, target: _Writer) -> None:
    """Send the output of a command; the client may have closed the connection."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, asyncssh.Error):
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()


async def _main(port: int, host_key: str, key: str) -> None:
    # Its files are for its user alone, whatever the umask was.
    os.umask(0o077)
    # This server's own variable is not for its sessions.
    os.environ.pop("PYTHONPATH", None)
    server = await asyncssh.create_server(
        lambda: _Server(Path(key)),
        "127.0.0.1",
        port,
        server_host_keys=[host_key],
        process_factory=_serve,
        sftp_factory=True,
        encoding=None,
        allow_scp=True,
        keepalive_interval=30,
    )
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()
    server.close()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host-key", required=True)
    parser.add_argument("--key", required=True)
    options = parser.parse_args()
    asyncio.run(_main(options.port, options.host_key, options.key))


if __name__ == "__main__":
    main()

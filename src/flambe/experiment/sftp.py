"""Files of the orchestrator, as hosts that reach it by SSH see them."""

from __future__ import annotations

import io
from typing import Any

from asyncssh import Error
from fsspec.asyn import sync
from sshfs import SSHFileSystem
from sshfs.utils import wrap_exceptions

# Before the default, which takes asyncssh a third longer.
CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
# A file of at most so many bytes is kept until it is whole, and sent at once.
SMALL = 2**18


class Files(SSHFileSystem):  # type: ignore[misc]
    """Files over SFTP, with few requests and little waiting for each file of a checkpoint.

    A folder is made by one request where the one above it is there: asyncssh asks for every folder
    from the root on, twice. That took a third of a checkpoint's way.
    """

    def mkdir(self, path: str, *, create_parents: bool = True, **kwargs: Any) -> None:
        """Make a folder, and those above it if need be."""
        try:
            super().mkdir(path, create_parents=False, **kwargs)
        except (OSError, Error):
            if not create_parents:
                raise
            super().mkdir(path, create_parents=True, **kwargs)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode == "wb":
            return _Output(self, path)
        return super()._open(path, mode, **kwargs)

    @wrap_exceptions  # type: ignore[untyped-decorator]
    async def _write(self, path: str, data: bytes) -> None:
        async with self._pool.get() as channel, channel.open(path, "wb") as file:
            await file.write(data)

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file; ``pipe_file`` asks for every folder above it first."""
        sync(self.loop, self._write, path, data)

    def output(self, path: str) -> Any:
        """Open a file to write it part by part."""
        return super()._open(path, "wb")


class _Output(io.RawIOBase):
    """A file that is written; it is opened on the other side when it has become large."""

    def __init__(self, files: Files, path: str) -> None:
        self._files, self._path = files, path
        self._held = bytearray()
        self._large: Any = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self._large is None and len(self._held) + size > SMALL:
            self._large = self._files.output(self._path)
            if self._held:
                self._large.write(bytes(self._held))
            self._held.clear()
        if self._large is None:
            self._held += data
        else:
            self._large.write(data)
        return size

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if self._large is None:
            self._files.write(self._path, bytes(self._held))
        else:
            self._large.close()

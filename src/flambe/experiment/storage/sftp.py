"""Files of the orchestrator, for hosts that reach it by SSH."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from pathlib import Path

from asyncssh import Error, SFTPClient, SFTPError, SFTPFailure, SFTPNoSuchFile
from fsspec.asyn import sync
from sshfs import SSHFileSystem
from sshfs.utils import WRITE_BLOCK_SIZE, wrap_exceptions

from flambe.experiment.storage.manifest import MANIFEST

# Before the default, which takes asyncssh a third longer.
CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
# Files of at most so many bytes may be links to others that are the same.
SMALL = 2**18
AT_ONCE = 16  # files
PART = 2**24  # bytes of a file in memory
LEAST_FREE = 2**20  # bytes: a disk with less is full


class SftpFiles(SSHFileSystem):  # type: ignore[misc]
    """Files over SFTP, with few requests and little waiting for each file of a checkpoint.

    A folder is made by one request where the one above it is there: asyncssh asks for every folder
    from the root on, twice. That took a third of the time of a checkpoint.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        #: The digest of a small file of the last checkpoint → its path.
        self._last: dict[bytes, str] = {}
        sync(self.loop, self._open_channel)

    async def _open_channel(self) -> None:
        try:
            async with self._pool.get():
                pass
        except ValueError as error:  # of sshfs, when the connection is lost too
            raise ConnectionError(f"sshd gave no channel for SFTP ({error})") from None

    def mkdir(self, path: str, *, create_parents: bool = True, **kwargs: object) -> None:
        """Make a folder, and those above it if need be."""
        try:
            super().mkdir(path, create_parents=False, **kwargs)
        except (OSError, Error):
            if not create_parents:
                raise
            super().mkdir(path, create_parents=True, **kwargs)

    def full(self, path: str) -> str:
        """Return that the disk of a path is full, or has no inodes left; nothing if it has both."""
        return str(sync(self.loop, self._full, path))

    async def _full(self, path: str) -> str:
        async with self._pool.get() as channel:
            disk = await channel.statvfs(path)
        where = f"orchestrator: the disk of {path}"
        if disk.files and not disk.favail:
            return f"{where} has no inodes left; remove some files"
        if disk.bavail * disk.frsize < LEAST_FREE:
            return f"{where} is full; free some space"
        return ""

    def put_all(self, folder: Path, path: str) -> None:
        """Put the content of a folder of this host into an existing one.

        A small file that the last folder had too becomes a hard link to it, as by ``rsync
        --link-dest``: the class of a component, and how it was made, are the same in every
        checkpoint. Therefore no file is overwritten: one that is in the way is removed
        (test_what_is_the_same_in_two_checkpoints_is_written_once).
        """
        sync(self.loop, self._put_all, folder, path)

    @wrap_exceptions  # type: ignore[untyped-decorator]
    async def _put_all(self, folder: Path, path: str) -> None:
        sources = sorted(folder.rglob("*"))
        limit = asyncio.Semaphore(AT_ONCE)
        written: dict[bytes, str] = {}
        if any(earlier.startswith(f"{path}/") for earlier in self._last.values()):
            self._last = {}  # these very files are about to change

        async def put(channel: SFTPClient, source: Path) -> None:
            target = f"{path}/{source.relative_to(folder)}"
            async with limit:
                if source.stat().st_size > SMALL:
                    await _write(channel, source, target)
                    return
                digest = hashlib.sha256(source.read_bytes()).digest()
                if not await _link(channel, self._last.get(digest), target):
                    await _write(channel, source, target)
                written[digest] = target

        async with self._pool.get() as channel:
            for source in sources:
                if source.is_dir():
                    with contextlib.suppress(SFTPFailure):  # it exists
                        await channel.mkdir(f"{path}/{source.relative_to(folder)}")
            files = [source for source in sources if source.is_file()]
            manifests = [source for source in files if source.name == MANIFEST]
            # The manifest comes last: where it is, all is.
            for group in ([file for file in files if file not in manifests], manifests):
                puts = [put(channel, source) for source in group]
                # All are awaited, also after a failure: none still writes when it is tried again.
                for failure in await asyncio.gather(*puts, return_exceptions=True):
                    if failure is not None:
                        raise failure
        self._last = written


async def _link(channel: SFTPClient, earlier: str | None, path: str) -> bool:
    """Make a file a hard link to an equal one, if possible; return whether it was."""
    if earlier is None:
        return False
    try:
        await channel.link(earlier, path)
    except SFTPError:  # that file is gone, or the server or its disk does not have links
        return False
    return True


async def _write(channel: SFTPClient, source: Path, path: str) -> None:
    """Write a new file; one that is in the way is removed."""
    try:
        await _create(channel, source, path)
    except SFTPFailure:  # OpenSSH does not say which failure: a file may be in the way
        with contextlib.suppress(SFTPNoSuchFile):
            await channel.unlink(path)
        await _create(channel, source, path)


async def _create(channel: SFTPClient, source: Path, path: str) -> None:
    with source.open("rb") as stream:
        async with channel.open(path, "xb", block_size=WRITE_BLOCK_SIZE) as file:
            while part := stream.read(PART):
                await file.write(part)

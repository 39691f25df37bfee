"""Files that are written as a whole, locks, and folders that only their owner reaches.

The mode that ``mkdir`` and ``open`` are given passes through the umask and counts for what is new
only: here it is set on what is there, through a descriptor, so that no link that another user put
in its way is followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from flambe.errors import UnsafePathError

_GROUP_AND_OTHERS = 0o077


def private_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder that only its owner reaches (mode 0700), with the parents that are missing.

    A folder that is there and is ours loses the rights of its group and of others.

    Parameters
    ----------
    path
        The folder. Links may lead to its parent; the folder itself may not be one.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UnsafePathError
        If it is a link, not a folder, or another user's.
    OSError
        If it cannot be made.
    """
    folder = Path(path)
    if not folder.parent.exists():
        private_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    descriptor = _open_checked(folder)
    try:
        _restrict(descriptor)
    finally:
        os.close(descriptor)
    return folder


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file or a folder as a whole: yield a path beside it, and move that into place.

    Readers of the path see the old content or the new one. If the block raises, what it has written
    is removed, and the path is as it was.

    Parameters
    ----------
    path
        What is replaced, in a folder that exists; a folder can replace only an empty one.

    Yields
    ------
    Path
        A path that does not exist yet, hidden, in the same folder; no other process has it.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    try:
        yield part
        os.replace(part, target)
    except BaseException:
        _remove(part)
        raise


def write_atomic(path: str | os.PathLike[str], data: str | bytes) -> None:
    """Write a file, with the mode that the umask leaves; its readers see old or new content.

    Parameters
    ----------
    path
        The file, in a folder that exists.
    data
        Its content; text is written as UTF-8.
    """
    with replacing(path) as part, open(part, "xb") as stream:
        stream.write(_encode(data))


def write_private(path: str | os.PathLike[str], data: str | bytes) -> None:
    """Write a file that only its owner reads (mode 0600); its readers see old or new content.

    Parameters
    ----------
    path
        The file, in a folder that exists.
    data
        Its content; text is written as UTF-8.
    """
    with replacing(path) as part, open(part, "xb", opener=private_opener) as stream:
        os.fchmod(stream.fileno(), 0o600)  # also where the umask takes the owner's rights
        stream.write(_encode(data))


def write_private_once(path: str | os.PathLike[str], data: str | bytes) -> bool:
    """Write a file that only its owner reads, unless it exists; return whether it was written.

    Of several processes that call it at the same time, the first one wins; none sees half a file.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    try:
        with open(part, "xb", opener=private_opener) as stream:
            stream.write(_encode(data))
        os.link(part, target)
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)
    return True


def _encode(data: str | bytes) -> bytes:
    return data.encode("utf-8") if isinstance(data, str) else data


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def private_opener(path: str, flags: int) -> int:
    """Open a file that only its owner reads (mode 0600), for ``open(…, opener=private_opener)``.

    Raises
    ------
    OSError
        Also if it is a link: ``ELOOP``.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _restrict(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def locked_folder(
    base: Path, prefix: str, remove: Callable[[Path], None] = shutil.rmtree
) -> Iterator[Path]:
    """Make a private folder; its lock is held as long as it is in use.

    Folders of the same prefix that killed processes of this user left behind are removed.

    Parameters
    ----------
    base
        The folder that it is made in.
    prefix
        What its name starts with; the rest is random.
    remove
        Removes a folder.
    """
    for other in base.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            _remove_unused(other, remove)
    with contextlib.ExitStack() as stack:
        folder = _locked(base, prefix, stack)
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):
                remove(folder)


def _locked(base: Path, prefix: str, stack: contextlib.ExitStack) -> Path:
    """Make a folder, and lock it until the stack is left.

    Before it is locked, another process may take it for one that was left behind, and remove it:
    then there is another try (``test_a_folder_that_is_removed_before_it_is_locked``).
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))  # mode 0700
        try:
            lock = stack.enter_context(open(folder / "lock", "w", opener=private_opener))
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_at(lock.fileno(), folder / "lock"):
            return folder


def _remove_unused(folder: Path, remove: Callable[[Path], None]) -> None:
    """Remove a folder of this user whose lock is not held."""
    status = folder.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
        with open(folder / "lock", "r+", opener=private_opener) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock between processes and threads of this machine; its file is removed at the end.

    The lock ends with this process at the latest. Its folder is made if it is missing.

    filelock, which is the usual choice, leaves its files behind and polls. Here the file is removed
    while the lock is held, so a waiter may get the lock of a file that no longer has a name:
    it compares the two, and tries again (``tests/test_file_lock.py``).
    """
    private_folder(path.parent)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if is_at(descriptor, path):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(descriptor)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at a path: it may have been removed or replaced."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def guard_umask() -> None:
    """Deny other users writing to the files that this process and its children make from now on.

    A umask that denies it already is kept; one that allows it to all users becomes 022.
    """
    umask = os.umask(0o022)
    os.umask(umask if umask & 0o002 else umask | 0o022)


def regular_opener(path: str, flags: int, *, dir_fd: int | None = None) -> int:
    """Open a regular file, for ``open(…, opener=regular_opener)``: no pipe is waited for.

    In an open folder, ``dir_fd``, the path is a name, and a link of that name is not followed.

    Raises
    ------
    OSError
        Also if it is a pipe, a device, a socket or a folder: ``EINVAL``.
    """
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if dir_fd is not None else 0)
    descriptor = os.open(path, flags, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def read_regular(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """Return the first bytes of a regular file, all of them by default.

    Raises
    ------
    OSError
        If it cannot be read, or is not a regular file.
    """
    with open(path, "rb", opener=regular_opener) as stream:
        return stream.read(most)


def _open_checked(folder: Path) -> int:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if folder.is_symlink():
            raise UnsafePathError(f"{folder} is a link; flambe needs a folder there") from None
        if folder.exists() and not folder.is_dir():
            raise UnsafePathError(f"{folder} is not a folder") from None
        if isinstance(error, PermissionError):
            raise UnsafePathError(_foreign(folder, os.lstat(folder).st_uid)) from None
        raise
    owner = os.fstat(descriptor).st_uid
    if owner != os.geteuid():
        os.close(descriptor)
        raise UnsafePathError(_foreign(folder, owner))
    return descriptor


def _foreign(folder: Path, owner: int) -> str:
    return f"{folder} belongs to another user (uid {owner}); remove it, or use another folder"


def _restrict(descriptor: int) -> None:
    """Take the rights of the group and of others away."""
    status = os.fstat(descriptor)
    if status.st_uid == os.geteuid() and status.st_mode & _GROUP_AND_OTHERS:
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~_GROUP_AND_OTHERS)

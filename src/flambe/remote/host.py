"""One host: commands, files and tunnels."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from flambe._grammar import as_argv, as_list
from flambe.errors import RemoteError, UnreachableError
from flambe.remote import disk_errors
from flambe.remote.address import free_port
from flambe.remote.result import Result
from flambe.remote.resumable_copy import PARTIAL
from flambe.remote.transport import Command, Copy, OnLine, Transport

# Seconds that an ordinary command may take.
DEADLINE = 60.0
_ONE_FILE = ("-maxdepth", "1")
# Makes a folder, and says whether something was begun in there; and removes what was.
_BEGUN = f"""mkdir -p -- "$1" && cd -- "$1" && shift || exit
find . "$@" -name {PARTIAL} -type d 2> /dev/null | head -n 1"""
_FINISHED = f"""cd -- "$1" && shift || exit
find . "$@" -name {PARTIAL} -type d -prune -exec rm -rf -- {{}} +"""
EXCLUDE = "exclude takes a list of patterns"
#: Writes its input to $1 with the mode $2: beside, then moved into place. Hosts may share a home:
#: the name of what is beside tells them apart. Where the connection is lost, the input has an end
#: too, so its size $3 is compared.
WRITE = (
    'umask 077; part="$1.$(uname -n).$$"; mkdir -p "$(dirname "$1")" && cat > "$part" '
    '&& [ "$(wc -c < "$part")" -eq "$3" ] '
    '&& chmod "$2" "$part" && mv -f "$part" "$1" || { rm -f "$part"; exit 1; }'
)


class Host:
    """A host that is reached by SSH. Relative paths start at the home of the user there.

    Parameters
    ----------
    connection
        To it: a :class:`~flambe.remote.Connection`, or another :class:`~flambe.remote.Transport`.
    """

    def __init__(self, connection: Transport) -> None:
        self.connection = connection
        #: The version of the rsync there; empty as long as it is unknown.
        self.rsync: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What people call it."""
        return self.connection.name

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

    # -- commands -----------------------------------------------------------------------------

    def run(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        deadline: float = DEADLINE,
        env: Mapping[str, str] | None = None,
        folder: str | None = None,
        content: bytes | str | None = None,
        take: OnLine | None = None,
        check: bool = True,
        repeat: bool = False,
        shown: str = "",
    ) -> Result:
        """Run a command, and return what it did.

        Parameters
        ----------
        command
            The program and its arguments: no shell reads them.
        deadline
            Seconds after which its process group on the host is killed.
        env
            Environment variables to add. They can be seen on the host: no place for secrets.
        folder
            Its working directory.
        content
            Its input; without one, reading it gives the end of file at once.
        take
            Called with ``"stdout"`` or ``"stderr"`` and each line as it comes, by other threads.
        check
            Whether an exit code other than 0 is an error.
        repeat
            Doing it twice does no harm: it is run again when the connection is lost.
        shown
            What people call it, if not by the command itself.

        Raises
        ------
        CommandError
            If it fails.
        DeadlineError
            If it has not ended in time.
        UnreachableError
            If there is no connection.
        """
        hint = "run() takes the program and its arguments as a list"
        argv = tuple(os.fspath(part) for part in as_list(command, hint, as_argv(command)))
        prepared = Command(argv, dict(env or {}), folder, shown)
        data = content.encode() if isinstance(content, str) else content
        for attempt in (0, 1):
            self.connection.open()
            try:
                result = self.connection.run(
                    prepared, deadline=deadline, content=data, on_line=take
                )
                break
            except UnreachableError:
                if attempt or not repeat:
                    raise
        return result.checked() if check else result

    # -- files --------------------------------------------------------------------------------

    def put(self, content: bytes | str, path: str, *, mode: int = 0o600) -> None:
        """Write a file: beside, with its mode from the first byte on, then moved into place."""
        data = content.encode() if isinstance(content, str) else content
        with self.space(path):
            self.run(
                ["sh", "-c", WRITE, "sh", path, f"{mode:o}", str(len(data))],
                content=data,
                deadline=600,
                repeat=True,
                shown=f"writing {path}",
            )

    def read(self, path: str) -> str:
        """Return the content of a small text file."""
        return self.run(["cat", path], repeat=True, shown=f"reading {path}").stdout

    def send(
        self, source: Path, target: str, *, delete: bool = False, exclude: Sequence[str] = ()
    ) -> None:
        """Bring a file or folder here up to date there, by rsync.

        Parameters
        ----------
        source
            A file, or a folder: its content goes into the target.
        target
            Its path there; parents are made.
        delete
            Whether what is not in the source is removed from the target.
        exclude
            Patterns of rsync to leave out.
        """
        exclude = as_list(exclude, EXCLUDE)
        parent = _parent(target, source.is_dir())
        begun = self.begin(parent, is_folder=source.is_dir())
        with self.space(target):
            self.connection.copy(Copy(source, target, True, delete, tuple(exclude), self.rsync))
        if begun:
            self.finish(parent, is_folder=source.is_dir())

    def begin(self, folder: str, *, is_folder: bool) -> bool:
        """Make a folder that something is copied into; return whether an earlier copy was cut off.

        ``is_folder`` is whether a folder is copied, or one file into that folder.
        """
        command = ["sh", "-c", _BEGUN, "sh", folder, *([] if is_folder else _ONE_FILE)]
        return bool(self.run(command, repeat=True, shown=f"mkdir -p {folder}").stdout)

    def finish(self, folder: str, *, is_folder: bool) -> None:
        """Remove what copies left that were cut off: rsync removes what it continued only."""
        command = ["sh", "-c", _FINISHED, "sh", folder, *([] if is_folder else _ONE_FILE)]
        self.run(command, repeat=True, shown=f"removing {PARTIAL} in {folder}")

    def fetch(self, source: str, target: Path, *, exclude: Sequence[str] = ()) -> None:
        """Bring a file or folder there up to date here, by rsync; what was begun is continued."""
        exclude = as_list(exclude, EXCLUDE)
        folder = target if source.endswith("/") else target.parent
        folder.mkdir(parents=True, exist_ok=True)
        self.connection.open()
        self.connection.copy(Copy(target, source, False, False, tuple(exclude), self.rsync))
        for left in [*folder.rglob(PARTIAL)] if source.endswith("/") else [folder / PARTIAL]:
            shutil.rmtree(left, ignore_errors=True)

    @contextlib.contextmanager
    def space(self, path: str) -> Iterator[None]:
        """Explain what the disk of a path refused, if that is why the block failed."""
        try:
            yield
        except RemoteError as error:
            text = f"{error}"
            if not disk_errors.is_refusal(text):
                raise
            disk = self.run(["sh", "-c", disk_errors.DISK_USAGE, "sh", path], check=False).stdout
            user = self.connection.login.user
            raise RemoteError(self.name, disk_errors.explain(text, path, user, disk)) from None

    # -- tunnels ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def tunnel(self, port: int, *, host: str = "127.0.0.1", local: int = 0) -> Iterator[int]:
        """Forward a local port to one of the host; yield the local port.

        It is there again when a lost connection is.

        Raises
        ------
        RemoteError
            If the local port is taken.
        """
        self.connection.open()
        local = local or free_port()
        if not self.connection.forward(local, host, port):
            raise RemoteError(self.name, f"cannot forward the local port {local} to {host}:{port}")
        try:
            yield local
        finally:
            self.connection.stop_forwarding(local, host, port)


def _parent(path: str, is_folder: bool) -> str:
    return path if is_folder else path.rpartition("/")[0] or "."

"""Files of the orchestrator, as hosts that reach it by SSH see them."""

from __future__ import annotations

from typing import Any

from asyncssh import Error
from sshfs import SSHFileSystem


class Files(SSHFileSystem):  # type: ignore[misc]
    """Files over SFTP; a folder is made by one request where the one above it is there.

    asyncssh asks for every folder from the root on, twice: that took a third of a checkpoint's way.
    """

    def mkdir(self, path: str, *, create_parents: bool = True, **kwargs: Any) -> None:
        """Make a folder, and those above it if need be."""
        try:
            super().mkdir(path, create_parents=False, **kwargs)
        except (OSError, Error):
            if not create_parents:
                raise
            super().mkdir(path, create_parents=True, **kwargs)

"""What a disk of this machine refused, as people are told."""

from __future__ import annotations

import errno
from pathlib import Path

from flambe import _disk
from flambe.errors import RunError
from flambe.logging import console


def refused(error: Exception) -> RunError | None:
    """Return what a disk of this machine refused, if that was it."""
    if not isinstance(error, OSError):
        return None
    path = str(error.filename or console.home())
    own = Path(path).is_relative_to(console.home())
    if error.errno not in (*_disk.FULL, errno.EROFS) and not (own and error.errno == errno.EACCES):
        return None
    text = _disk.reason(error, path)
    return RunError(f"{text}, or set FLAMBE_HOME to another folder" if own else text)

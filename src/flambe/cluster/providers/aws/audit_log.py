"""What flambe asks of AWS, written down before it asks: a client that is killed leaves a trail."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from flambe._files import private_folder, private_opener


class AuditLog:
    """The audit log of one cluster on this machine: a line of JSON for each change.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, action: str, **details: object) -> None:
        """Append what is about to be done, or was just done."""
        private_folder(self.path.parent)
        entry = {"time": round(time.time(), 3), "what": action, **details}
        with open(self.path, "a", encoding="utf-8", opener=private_opener) as stream:
            stream.write(json.dumps(entry) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

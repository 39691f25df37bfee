"""What was asked of AWS, written down before it is: so that whoever was cut off can be followed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from flambe._files import private_folder, private_opener


class Journal:
    """The journal of one cluster on this machine: a line of JSON for each thing that is changed.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, what: str, **about: Any) -> None:
        """Note what is about to be done, or was."""
        private_folder(self.path.parent)
        line = json.dumps({"time": round(time.time(), 3), "what": what, **about}) + "\n"
        with open(self.path, "a", encoding="utf-8", opener=private_opener) as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())

    def read(self) -> list[dict[str, Any]]:
        """Return the lines."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:  # it was cut off
                continue
        return found

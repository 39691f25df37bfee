"""Which of a run's logs and figures are on disk for good: a note from one process to the next.

The process that writes them may be killed at any moment. Senders repeat what was not acknowledged
to its successor; the ledger says what was written already.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TypeGuard

from flambe._files import write_atomic

MOST_SENDERS = 2_000  # that are remembered, the latest


def _counts(value: object) -> TypeGuard[dict[str, int]]:
    """Whether a value of JSON is an object of whole numbers."""
    return isinstance(value, dict) and all(isinstance(number, int) for number in value.values())


class Ledger:
    """The length of each open file, and the last batch of each sender.

    Parameters
    ----------
    root
        The folder of the run.
    identity
        Tells this run from earlier ones in the same folder, whose ledgers are ignored.

    Attributes
    ----------
    sizes
        Path below the root → how long the file is.
    senders
        Who sends → the number of the last batch.
    advised
        Advice that was given, and is given once per run.
    """

    def __init__(self, root: Path, identity: str) -> None:
        self.root, self.identity = root, identity
        self.path = root / ".ledger.json"
        self.sizes: dict[str, int] = {}
        self.senders: dict[str, int] = {}
        self.advised: list[str] = []

    def recover(self) -> bool:
        """Read what a killed process left, and cut off what it had not written for good.

        Returns
        -------
        bool
            Whether there was one.
        """
        try:
            entries: object = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if not isinstance(entries, dict) or entries.get("identity") != self.identity:
            return False
        sizes, senders, advised = (entries.get(key) for key in ("sizes", "senders", "advised"))
        if not (_counts(sizes) and _counts(senders) and isinstance(advised, list)):
            return False
        self.sizes, self.senders, self.advised = sizes, senders, list(map(str, advised))
        for name, size in self.sizes.items():
            with contextlib.suppress(OSError):
                if (self.root / name).stat().st_size > size:
                    os.truncate(self.root / name, size)
        return True

    def taken(self, sender: str, number: int) -> bool:
        """Whether a batch of a sender was written already."""
        return number <= self.senders.get(sender, 0)

    def acknowledge(self, sender: str, number: int) -> None:
        """Note the last batch of a sender."""
        self.senders.pop(sender, None)
        self.senders[sender] = number
        while len(self.senders) > MOST_SENDERS:
            del self.senders[next(iter(self.senders))]

    def write(self) -> None:
        """Write it, completely or not at all.

        Raises
        ------
        OSError
            If it cannot be.
        """
        text = json.dumps(
            {
                "identity": self.identity,
                "sizes": self.sizes,
                "senders": self.senders,
                "advised": self.advised,
            }
        )
        write_atomic(self.path, text)

    def remove(self) -> None:
        """Remove it: the run is over."""
        self.path.unlink(missing_ok=True)

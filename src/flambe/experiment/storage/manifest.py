"""What a checkpoint says of itself: the file that it ends with, and that tells whether it is whole.

It is written last. So a checkpoint without one was being written when its process was killed, and
one with other files than it names was truncated or altered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from flambe.compile.state import manifests
from flambe.compile.state.file_writer import FileEntry
from flambe.progress import named_value, with_names

#: The folder of the component in a checkpoint.
CHECKPOINT = manifests.COMPONENT
#: The state of the random number generators of the process, beside it.
RANDOM = "random.flambe"
#: What a checkpoint ends with: a folder without it, or with other files than it names, is not
#: whole.
MANIFEST = manifests.MANIFEST
#: What it is renamed to in a checkpoint that turned out to be damaged: nothing reads that any more.
DAMAGED = "manifest.damaged.json"
_DIGEST = "digest"


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds.

    Attributes
    ----------
    variant
        The id of its variant.
    attempt
        Which attempt at the variant wrote it.
    step, metric, best
        How many steps were done, the latest figure, and the best so far.
    done
        Whether the variant is at its end.
    generator
        Whether its ``run()`` is a generator, which cannot be continued.
    files
        Path below the checkpoint → what was written. Versions before wrote no digests.
    seconds
        How long the steps took together.
    values, copies
        Of a member of a population: its values then, and how often it had taken the state of
        another member.
    """

    step: int
    variant: str = ""
    attempt: int = 0
    metric: float | None = None
    best: float | None = None
    done: bool = False
    generator: bool = False
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    seconds: float = 0.0
    values: Mapping[str, object] = field(default_factory=dict)
    copies: int = 0

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(entry.size for entry in self.files.values())

    @property
    def age(self) -> tuple[int, int, bool]:
        """What checkpoints of a variant are sorted by, the newest last.

        Of two with the same number of steps, the one at the end of the variant is newer. What an
        earlier attempt writes late, from a host that was given up, never is.
        """
        return self.attempt, self.step, self.done

    def dump(self) -> str:
        """Return it as JSON, with a digest of itself."""
        files = {path: entry.size for path, entry in self.files.items()}
        digests = {path: entry.digest for path, entry in self.files.items() if entry.digest}
        values = with_names({**vars(self), "files": files, "digests": digests})
        return json.dumps({**values, _DIGEST: _digest(values)}, allow_nan=False)

    @classmethod
    def parse(cls, text: str | bytes) -> Manifest:
        """Read what :meth:`dump` wrote, or an earlier version.

        Raises
        ------
        ValueError
            If it is not a manifest, or not the one that was written.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("it is not an object")
        digest = values.pop(_DIGEST, None)
        if digest is not None and digest != _digest(values):
            raise ValueError("it is not what was written")
        step, attempt = values.get("step"), values.get("attempt", 0)
        if not isinstance(step, int) or not isinstance(attempt, int):
            raise ValueError("the steps are missing")
        explored, copies = values.get("values"), values.get("copies")
        return cls(
            step,
            str(values.get("variant", "")),
            attempt,
            _figure(named_value("metric", values.get("metric"), values)),
            _figure(named_value("best", values.get("best"), values)),
            bool(values.get("done")),
            bool(values.get("generator")),
            _entries(values.get("files"), values.get("digests", {})),
            _figure(values.get("seconds")) or 0.0,
            explored if isinstance(explored, dict) else {},
            copies if isinstance(copies, int) else 0,
        )


def _digest(values: Mapping[str, object]) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(values).encode()).hexdigest()}"


def _entries(sizes: object, digests: object) -> dict[str, FileEntry]:
    if not isinstance(sizes, dict) or not isinstance(digests, dict):
        raise ValueError("the files are missing")
    entries = {}
    for path, size in sizes.items():
        if not isinstance(size, int):
            raise ValueError("the files have no sizes")
        entries[path] = FileEntry(size, str(digests.get(path, "")))
    return entries


def _figure(value: object) -> float | None:
    return value if isinstance(value, int | float) else None

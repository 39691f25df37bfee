"""Checkpoints that are moved and removed beside the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from flambe._hints import to_continue
from flambe.errors import RunError
from flambe.experiment.retention import Retention
from flambe.experiment.storage.checkpoints import Checkpoints

UPKEEPS_AT_ONCE = 8  # checkpoints


def stored_bytes(checkpoints: Checkpoints, folder: str) -> int:
    """Return the bytes of all checkpoints of a variant that are whole."""
    return sum(manifest.size for manifest in checkpoints.whole(folder).values())


class Upkeep:
    """Moves and removes checkpoints beside the run: where they are in a bucket, that takes time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(UPKEEPS_AT_ONCE, thread_name_prefix="flambe-upkeep")
        self._pending: list[Future[None]] = []
        #: The folder of a variant → what removes checkpoints in it.
        self._removals: dict[str, list[Future[None]]] = {}

    def remove(self, checkpoints: Checkpoints, path: str) -> None:
        """Remove a checkpoint; where that fails, it is removed at the end of its variant."""
        folder = path.rpartition("/")[0]
        pending = [removal for removal in self._removals.get(folder, ()) if not removal.done()]
        self._removals[folder] = [*pending, self._pool.submit(checkpoints.discard, path)]

    def settle(
        self,
        checkpoints: Checkpoints,
        folder: str,
        name: str,
        retention: Retention | None = None,
        on_settled: Callable[[int], None] = lambda size: None,
    ) -> None:
        """See :meth:`Checkpoints.settle`.

        Then a function is called with the bytes that they take, in a thread of its own.
        """
        removals = self._removals.pop(folder, [])

        def settle() -> None:
            wait(removals)  # they were begun before this
            settled = checkpoints.settle(folder, name, retention)
            on_settled(settled.size if settled is not None else 0)

        self._pending.append(self._pool.submit(settle))

    def measure(
        self, checkpoints: Checkpoints, folder: str, on_measured: Callable[[int], None]
    ) -> None:
        """Call a function with the bytes of all checkpoints of a variant that failed."""
        removals = self._removals.pop(folder, [])

        def measure() -> None:
            wait(removals)
            with contextlib.suppress(OSError):  # a bucket that does not answer
                on_measured(stored_bytes(checkpoints, folder))

        self._pending.append(self._pool.submit(measure))

    def wait_settled(self) -> None:
        """Wait until all are settled.

        Raises
        ------
        RunError
            If one cannot be.
        """
        try:
            while self._pending:
                self._pending.pop().result()
        except OSError as error:
            raise RunError(f"a checkpoint cannot be moved: {error}\n  {to_continue()}") from error

    def close(self) -> None:
        """Wait until everything is done."""
        self._pool.shutdown()

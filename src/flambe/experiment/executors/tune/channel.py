"""The way from a worker to the collector: in order, in batches, and each of them once."""

from __future__ import annotations

import collections
import logging
import threading
import time
import uuid
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from flambe.experiment.executors.tune.collector import Batch, Origin
from flambe.logging.events import Record

# How often what components said is sent and shown, in seconds.
LINE_PERIOD = 0.2
# Records that wait in a worker before it is slowed down, and that are sent at once.
MOST_WAITING = 50_000
BATCH = 2_000
# How long a batch is tried to be sent to a collector that is gone, in seconds.
GONE_SECONDS = 60.0
# How long a step waits until what it said has arrived: the collector may wait for room on a disk.
FLUSH_SECONDS = 600.0
PAUSE = 0.5  # seconds until a batch is sent again

_log = logging.getLogger(__name__)


class CollectorChannel:
    """Sends records to the collector in the background, in batches and in order.

    What it does not acknowledge is sent again, to the one that is started in its place if need be.

    Parameters
    ----------
    collector
        The collector.
    """

    def __init__(self, collector: Any) -> None:
        self.collector = collector
        self.waiting: collections.deque[Record] = collections.deque()
        self.sent = self.taken = 0
        self.hurry = False
        self.changed = threading.Condition()
        self.sender = uuid.uuid4().hex
        self._number = 0
        self._origins: dict[str, Origin] = {}
        threading.Thread(target=self._run, name="flambe-channel", daemon=True).start()

    def begin(self, source: str, origin: Origin) -> None:
        """Say where what a source says comes from."""
        self._origins[source] = origin
        self.collector.begin.remote(source, origin)

    def send(self, record: Record) -> None:
        """Take a record; waits when the collector is far behind."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.waiting) < MOST_WAITING, timeout=60)
            self.waiting.append(record)
            self.taken += 1
            if len(self.waiting) == 1:
                self.changed.notify_all()

    def flush(self) -> None:
        """Return when all that was sent has arrived, or after ten minutes."""
        with self.changed:
            last, self.hurry = self.taken, True
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.sent >= last, timeout=FLUSH_SECONDS)

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: bool(self.waiting))
                # A moment's patience makes few batches of many lines.
                self.changed.wait_for(lambda: self.hurry, timeout=LINE_PERIOD)
                records = [self.waiting.popleft() for _ in range(min(len(self.waiting), BATCH))]
            self._number += 1
            sources = {record.source for record in records}
            origins = {s: self._origins[s] for s in sources if s in self._origins}
            self._send(Batch(self.sender, self._number, records, origins))
            with self.changed:
                self.sent += len(records)
                self.hurry = self.hurry and bool(self.waiting)
                self.changed.notify_all()

    def _send(self, batch: Batch) -> None:
        """Send a batch until it is acknowledged."""
        end = time.monotonic() + GONE_SECONDS
        while True:
            try:
                ray.get(self.collector.write.remote(batch), timeout=GONE_SECONDS)
                return
            except (RayActorError, GetTimeoutError):
                if time.monotonic() > end:  # the run is over
                    break
            except OSError:  # of the disk that it writes to
                end = time.monotonic() + GONE_SECONDS
            except Exception:  # the run is being shut down
                break
            time.sleep(PAUSE)
        _log.debug("could not send %d records", len(batch.records))

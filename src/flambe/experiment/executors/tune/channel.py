"""Sends the records of a worker to the collector: in order, in batches, each exactly once."""

from __future__ import annotations

import collections
import logging
import threading
import time
import uuid

from ray.exceptions import GetTimeoutError, RayActorError

from flambe.experiment.executors.tune.collector import Batch, Origin
from flambe.experiment.executors.tune.collector_client import CollectorClient
from flambe.logging.events import Record

# How often the output of components is sent and shown, in seconds.
LINE_PERIOD = 0.2
# How many records may wait in a worker before it is slowed down, and how many are sent at once.
MAX_WAITING = 50_000
BATCH = 2_000
# How long a batch is sent again while the collector does not answer, in seconds.
GONE_SECONDS = 60.0
# How long a step waits until its output has arrived: the collector may wait for disk space.
FLUSH_SECONDS = 600.0
PAUSE = 0.5  # seconds until a batch is sent again

_log = logging.getLogger(__name__)


class CollectorChannel:
    """Sends records to the collector from a background thread, in batches and in order.

    A batch that is not acknowledged is sent again, to a restarted collector if necessary.

    Parameters
    ----------
    collector
        The collector.
    """

    def __init__(self, collector: CollectorClient) -> None:
        self.collector = collector
        self.waiting: collections.deque[Record] = collections.deque()
        #: How many records have arrived, and how many were accepted from components.
        self.sent = self.accepted = 0
        self.hurry = False
        self.changed = threading.Condition()
        self.sender = uuid.uuid4().hex
        self._number = 0
        self._origins: dict[str, Origin] = {}
        threading.Thread(target=self._run, name="flambe-channel", daemon=True).start()

    def begin(self, source: str, origin: Origin) -> None:
        """Announce where the records of a source come from."""
        self._origins[source] = origin
        self.collector.begin(source, origin)

    def send(self, record: Record) -> None:
        """Accept a record; waits while the collector is far behind."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.waiting) < MAX_WAITING, timeout=60)
            self.waiting.append(record)
            self.accepted += 1
            if len(self.waiting) == 1:
                self.changed.notify_all()

    def flush(self) -> None:
        """Return when all accepted records have arrived, or after ten minutes."""
        with self.changed:
            last, self.hurry = self.accepted, True
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.sent >= last, timeout=FLUSH_SECONDS)

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: bool(self.waiting))
                # A short wait makes few batches of many lines.
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
                self.collector.write(batch, GONE_SECONDS)
                return
            except (RayActorError, GetTimeoutError):
                if time.monotonic() > end:  # the run has ended
                    break
            except OSError:  # the disk of the collector; it has its own deadline
                end = time.monotonic() + GONE_SECONDS
            except Exception:  # the run is shutting down
                break
            time.sleep(PAUSE)
        _log.debug("could not send %d records", len(batch.records))

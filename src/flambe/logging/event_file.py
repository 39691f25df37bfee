"""TensorBoard's events, without torch and TensorFlow, and written when the logs are."""

from __future__ import annotations

import importlib
import itertools
import socket
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flambe._disk import Appender

if TYPE_CHECKING:  # loaded at the first event
    from tensorboardX import SummaryWriter

_numbers = itertools.count()


def load_libraries() -> None:
    """Import what writes events, without what that imports and does not use here.

    tensorboardX imports torch for an annotation, and boto3 for buckets: a second, and 200 MB. A
    module that is None in ``sys.modules`` cannot be imported, by no thread: call it where no other
    thread imports anything, as in the process of a run's logs
    (test_the_process_of_the_logs_loads_no_torch).
    """
    hidden = [name for name in ("torch", "boto3") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        importlib.import_module("tensorboardX")
    finally:
        for name in hidden:
            del sys.modules[name]


def event_path(folder: Path) -> Path:
    """Return the path of a new file of events in a folder."""
    name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
    while (path := folder / f"{name}.{next(_numbers)}").exists():
        pass
    return path


def summary_writer(file: Appender) -> SummaryWriter:
    """Return a SummaryWriter of tensorboardX whose events wait in a file."""
    from tensorboardX import SummaryWriter
    from tensorboardX.writer import FileWriter

    folder = str(file.path.parent)
    # Its FileWriter opens a file and starts a thread that writes when it likes. The recorder writes
    # events with the logs or not at all, so a FileWriter is made without its constructor, around a
    # file of ours (test_the_recorder_writes_what_tensorboard_and_people_read).
    summaries = SummaryWriter(folder, write_to_disk=False)
    writer = FileWriter.__new__(FileWriter)
    writer.event_writer = _EventFile(file)
    writer._default_metadata = {}
    summaries._write_to_disk = True
    summaries.file_writer, summaries.all_writers = writer, {folder: writer}
    return summaries


class _Event(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 (protobuf's name)


class _EventFile:
    """What a FileWriter of tensorboardX writes to: its own has a thread, and a queue to it."""

    def __init__(self, file: Appender) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file = file
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add_event(self, event: _Event) -> None:
        """Let an event wait in the file."""
        from tensorboardX.record_writer import masked_crc32c

        data = event.SerializeToString()
        header = struct.pack("<Q", len(data))
        sums = [struct.pack("<I", masked_crc32c(part)) for part in (header, data)]
        self._file.add(header + sums[0] + data + sums[1])

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is open here."""

"""Writing and reading the state of a large component, against ``torch.save`` and ``torch.load``.

Each is done by a process of its own, which reports its time and how much its memory grew. Ratios
are of the same round. Prints, too, how fast digests are computed here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import common

CHILD = """
import json, os, resource, sys, time
from pathlib import Path
import torch
from flambe.compile import Component, persistence
from flambe.compile.state.file_writer import FileWriter
from flambe.experiment.storage.verification import verify
from flambe.experiment.storage.manifest import MANIFEST, Manifest

kind, folder, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

class Net(Component):
    def __init__(self, size: int) -> None:
        self.a, self.b = torch.ones(size // 8), torch.ones(size // 8)
        self.register_attrs("a", "b")

def ours_write(net, path):
    writer = FileWriter(path)
    persistence.write(net, writer.below("checkpoint.flambe"))
    (path / MANIFEST).write_text(Manifest(1, files=writer.entries).dump())

def ours_read(net, path):
    verify(path)
    net.load_state(persistence.read(str(path / "checkpoint.flambe"), net))

def theirs_write(net, path):
    path.mkdir()
    torch.save(net.get_state(), path / "state.pt")

def theirs_read(net, path):
    net.load_state(torch.load(path / "state.pt", weights_only=True))

# Without the time of the disk itself, which both take.
os.environ.setdefault("OMP_NUM_THREADS", "1")
small = Net(8000)
{"ours": ours_write, "theirs": theirs_write}[kind](small, folder / "small")
{"ours": ours_read, "theirs": theirs_read}[kind](small, folder / "small")
net = Net(size)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, start, cpu = peak(), time.perf_counter(), time.process_time()
{"ours": ours_write, "theirs": theirs_write}[kind](net, folder / "large")
written, busy, grown = time.perf_counter() - start, time.process_time() - cpu, peak() - before
start, cpu = time.perf_counter(), time.process_time()
{"ours": ours_read, "theirs": theirs_read}[kind](net, folder / "large")
read = [time.perf_counter() - start, time.process_time() - cpu]
print(json.dumps([written, busy, *read, grown]))
"""


def measure(kind: str, size: int) -> list[float]:
    """Return the seconds of a write, by the clock and of processors; of a read; and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CHILD, kind, folder, str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: list[float] = json.loads(done.stdout)
    return figures


def digests() -> None:
    """Print how fast digests are computed."""
    data = os.urandom(1 << 20) * 200
    methods: dict[str, Callable[[], object]] = {
        name: lambda name=name: hashlib.new(name, data).digest()  # type: ignore[misc]
        for name in ("sha256", "sha1", "blake2b")
    }
    for name, digest in {**methods, "crc32": lambda: zlib.crc32(data)}.items():
        best = min(_seconds(digest) for _ in range(3))
        print(f"  {name:8} {len(data) / best / 1e9:.2f} GB/s")


def _seconds(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    figures: dict[str, list[list[float]]] = {"ours": [], "theirs": []}

    def once(kind: str) -> float:
        figures[kind].append(measure(kind, arguments.mib << 20))
        return 0.0

    common.rounds(
        {kind: lambda kind=kind: once(kind) for kind in figures},  # type: ignore[misc]
        arguments.repeats,
        warm=False,
    )
    print(f"a state of {arguments.mib} MiB, {Path(tempfile.gettempdir())}")
    kinds = ("write", "write, CPU", "read and verify", "read, CPU")
    for index, what in enumerate(kinds):
        ours, theirs = ([row[index] for row in figures[kind]] for kind in ("ours", "theirs"))
        print(f"  {what:16} {common.spread(ours, 1, 2)} s; torch {common.spread(theirs, 1, 2)} s;")
        print(f"  {'':16} ratio {common.spread(common.ratios(ours, theirs), 1, 2)}")
    for kind, rows in figures.items():
        grown = common.spread([row[4] / 2**20 for row in rows], 1, 1)
        print(f"  memory that a write takes, {kind}: {grown} MiB")
    digests()


if __name__ == "__main__":
    main()

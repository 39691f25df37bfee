"""Large states: written from the memory that they are in, by a process that is measured."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from flambe.compile.state import pickled
from flambe.compile.state.digest import digest
from flambe.compile.state.file_writer import FileWriter
from flambe.compile.state.state_file import write_state
from flambe.errors import UnsavableError

SAVE = """
import importlib.util, resource, sys
from pathlib import Path
import numpy as np
if sys.argv[2] == "plain":
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name: None if name == "torch" else find(name)
else:
    import torch
import flambe
from flambe.compile import Component, persistence
from flambe.compile.state.file_writer import FileWriter

class Large(Component):
    def __init__(self, size: int) -> None:
        self.array = np.ones(size, np.float32)
        self.turned = np.ones((size // 1000, 1000), np.float32).T
        self.fixed = np.ones(size, np.float32)
        self.fixed.flags.writeable = False
        self.text = bytes(4 * size)
        self.buffer = bytearray(4 * size)
        self.register_attrs("array", "turned", "fixed", "text", "buffer")
        if sys.argv[2] == "torch":
            self.tensor = torch.ones(size)
            self.register_attrs("tensor")

# The first one loads what is needed.
persistence.write(Large(100_000), FileWriter(Path(sys.argv[1]) / "small"))
large = Large(10_000_000)
values = large.get_state()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
persistence.write(large, FileWriter(Path(sys.argv[1]) / "large"), values)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
again = Large(10_000_000)
again.load_state(persistence.read(str(Path(sys.argv[1]) / "large"), again))
assert all((getattr(again, n) == getattr(large, n)).all() for n in ("array", "turned", "fixed"))
assert (again.text, again.buffer) == (large.text, large.buffer)
assert again.turned.flags.f_contiguous
"""


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["torch", "plain"])
def test_a_large_state_is_written_without_a_copy(tmp_path: Path, kind: str) -> None:
    code = [sys.executable, "-W", "error", "-c", SAVE, str(tmp_path), kind]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = sum(path.stat().st_size for path in (tmp_path / "large").rglob("*"))
    assert written > 190 << 20
    # One copy of any part of it takes 38 MiB.
    assert int(done.stdout) < 20


class _Full:
    """A file on a disk that becomes full."""

    def __init__(self) -> None:
        self.room = 3

    def write(self, data: object) -> int:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(memoryview(data))  # type: ignore[arg-type]

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_a_full_disk_is_told_from_a_state_that_cannot_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[FileWriter.__module__]
    monkeypatch.setattr(module, "open", lambda *arguments: _Full(), raising=False)
    writer = FileWriter(tmp_path)
    values: dict[str, object] = {str(number): "text" * 50_000 for number in range(20)}
    with pytest.raises(OSError, match="No space left"):
        write_state(writer, values)
    with pytest.raises(OSError, match="No space left"):
        pickled.write(writer, "clf", values, "it", b"")
    assert writer.entries == {}
    monkeypatch.undo()
    with pytest.raises(UnsavableError, match="cannot be pickled"):
        pickled.write(writer, "clf", lambda: None, "it", b"")


def test_an_interruption_while_a_state_is_written_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    class Interrupted(_Full):
        def write(self, data: object) -> int:
            try:
                return super().write(data)
            except OSError:
                raise KeyboardInterrupt from None

    module = sys.modules[FileWriter.__module__]
    monkeypatch.setattr(module, "open", lambda *arguments: Interrupted(), raising=False)
    with pytest.raises(KeyboardInterrupt):
        write_state(FileWriter(tmp_path), {"text": "text" * 50_000, "tensor": torch.ones(50_000)})


def test_what_was_written_is_known_without_reading_it(tmp_path: Path) -> None:
    import hashlib

    writer = FileWriter(tmp_path)
    content = {"a": b"", "b": b"x" * 10, "below/c": bytes(range(256)) * 20_000}
    for name, data in content.items():
        folder, _, file = name.rpartition("/")
        with (writer.below(folder) if folder else writer).open(file) as stream:
            for start in (0, 3, 7):  # of any length, large ones too
                stream.write(data[start : {0: 3, 3: 7, 7: None}[start]])
    for name, data in content.items():
        assert (tmp_path / name).read_bytes() == data
        entry = writer.entries[name]
        assert (entry.size, entry.hexadecimal) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_large_value_is_not_copied_to_be_compared() -> None:
    import tracemalloc

    import numpy as np
    import torch

    array = np.arange(4_000_000, dtype=np.float64).reshape(2_000, 2_000)
    tensor = torch.from_numpy(array)
    expected = digest(array)
    for value, changed in ((array.T, array.T.copy()), (tensor.T, tensor.T.clone())):
        digest(value)
        tracemalloc.start()
        assert digest(value) == digest(value)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
        tracemalloc.stop()
        changed[0, 976] += 1  # one of those that are looked at
        assert digest(changed) != digest(value)
    assert digest(array.T.copy().T) == expected

"""The file of one component's state: what may be in it, and how it is written and read.

Where torch is installed, it is a file of ``torch.save``, read with ``weights_only=True``. Elsewhere
all values are plain, and it is a pickle, read by an unpickler that knows no class and no function
(docs.python.org/3/library/pickle.html, "Restricting Globals"): unlike JSON, it keeps tuples and the
types of keys, as torch does. What it holds is encoded, the same in both: see :mod:`encoding`.
"""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Collection, Mapping
from typing import IO, Any, NoReturn

from flambe._files import read_regular, regular_opener
from flambe.compile.state.codec import Block
from flambe.compile.state.encoding import decode
from flambe.compile.state.file_writer import FileWriter
from flambe.compile.state.nesting import check_nesting
from flambe.compile.state.pickled import PickleEntry, pickle_entry
from flambe.errors import StateError, how_to_install

STATE_FILE = "state.pt"
PLAIN_FILE = "state.pkl"
# Before it, ``weights_only`` could be got round: nvd.nist.gov/vuln/detail/CVE-2025-32434
SAFE_TORCH = (2, 6)


def holds_state(files: Collection[str]) -> bool:
    """Whether a folder with these files is that of a component."""
    return STATE_FILE in files or PLAIN_FILE in files


def write_state(folder: FileWriter, values: dict[str, object]) -> None:
    """Write an encoded state into the folder of its component.

    Tensors and arrays go to the file from where they are: there is no copy of them in memory
    (test_a_large_state_is_written_without_a_copy).
    """
    if importlib.util.find_spec("torch") is None:
        with folder.open(PLAIN_FILE) as stream:
            # The one in C copies each block before it writes it; the other takes its time.
            dump = _BlockPickler if _holds_block(values) else pickle.Pickler
            dump(stream, protocol=4).dump(values)
        return
    import torch

    with folder.open(STATE_FILE) as stream:
        try:
            torch.save(values, stream)
        except RuntimeError as error:
            # torch completes its archive even where writing was interrupted, and fails at that.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise


def _holds_block(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_block, value.values()))
    return (
        any(map(_holds_block, value)) if isinstance(value, list | tuple) else (type(value) is Block)
    )


class _BlockPickler(pickle._Pickler):
    """Writes a block as bytes, from the memory that it is in."""

    def _save_block(self, block: Block) -> None:
        header = pickle.BINBYTES8 + struct.pack("<Q", block.view.nbytes)
        self._write_large_bytes(header, block.view)  # type: ignore[attr-defined]

    # As Python has it in the class above.
    dispatch = {**pickle._Pickler.dispatch, Block: _save_block}  # type: ignore[dict-item]  # noqa: RUF012


class _Plain(pickle._Unpickler):
    """Reads plain values: nothing that is named in the file is looked up.

    It is the one in Python: the other makes its memo as large as a file says.
    """

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")


def _no_pickle(name: str, entry: PickleEntry) -> object:
    raise StateError(f"{name!r} is a pickle, which is not read here")


def read_state(
    folder: str, read_pickle: Callable[[str, PickleEntry], object] = _no_pickle
) -> dict[str, Any]:
    """Read the state of a component from its folder.

    Parameters
    ----------
    folder
        The folder.
    read_pickle
        Reads an attribute that has a file of its own: its name, and what the state says of it.

    Raises
    ------
    StateError
        If it cannot be read, or holds more than tensors and plain values.
    """
    plain, tensors = os.path.join(folder, PLAIN_FILE), os.path.join(folder, STATE_FILE)
    try:
        written = _read_plain(plain) if os.path.exists(plain) else _read_torch(tensors)
        if not isinstance(written, Mapping):
            raise ValueError("it is not a mapping")
        return {
            name: decode(value)
            if (entry := pickle_entry(value)) is None
            else read_pickle(name, entry)
            for name, value in written.items()
        }
    except StateError:
        raise
    except pickle.UnpicklingError as error:  # torch's message tells how to load it anyway
        if match := re.search(r"GLOBAL ([\w.]+)", str(error)):
            reason = f"it holds more than tensors and plain values ({match[1]})"
            raise StateError(f"the state in {folder} is refused: {reason}") from None
        raise StateError(f"cannot read the state in {folder}: it is damaged") from None
    except Exception as error:  # damaged files may raise anything
        raise StateError(f"cannot read the state in {folder}: {str(error)[:2000]}") from None


def _read_plain(file: str) -> object:
    data = read_regular(file)
    check_nesting(data)
    return _Plain(io.BytesIO(data)).load()


def _read_torch(file: str) -> object:
    if importlib.util.find_spec("torch") is None:
        raise StateError(f"{os.path.dirname(file)} needs torch: {how_to_install('learn')}")
    import torch

    if tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_TORCH:
        safe = ".".join(map(str, SAFE_TORCH))
        hint = f"a file can have torch {torch.__version__} run code: pip install 'torch>={safe}'"
        raise StateError(f"{file} is not read\n  {hint}")
    # Opened once and checked: not a pipe, and not a file that replaced it meanwhile.
    with open(file, "rb", opener=regular_opener) as stream:
        _check_zip(stream)
        return torch.load(stream, map_location="cpu", weights_only=True)


def _check_zip(stream: IO[bytes]) -> None:
    """Refuse a file that unpacks to more than it is (torch compresses nothing), or is too deep."""
    size = stream.seek(0, os.SEEK_END)
    with zipfile.ZipFile(stream) as file:
        members = file.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise pickle.UnpicklingError("compressed")
        if sum(member.file_size for member in members) > size:
            raise pickle.UnpicklingError("larger than its file")
        for member in members:
            if member.filename.rpartition("/")[2] == "data.pkl":
                check_nesting(file.read(member))
    stream.seek(0)

"""What the encodings of values share: their mark, bytes, time zones, and checks of what is read.

An encoded value is a mapping with the key ``__flambe__``, which says what it is:
``{"__flambe__": "date", "value": [2026, 11, 30]}``. Bytes are tensors of uint8 where torch is
installed, as a file of torch holds them at their own size.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import importlib.util
import sys
import zoneinfo
from collections.abc import Mapping, Sequence
from typing import Protocol

MARK = "__flambe__"
MAX_DEPTH = 100
_LARGE = 1 << 16  # bytes: fewer are copied
_PYTZ = "pytz:"

#: An encoded value, as it is written.
Encoded = dict[str, object]
#: The same, as it was read: nothing is known of what its keys hold.
Fields = Mapping[str, object]
#: A time zone: none, its name, or its offset (days, seconds, microseconds) and name.
Zone = str | list[int | str | None] | None


class ValueEncoder(Protocol):
    """Encodes what a container holds."""

    def encode(self, value: object, name: str, depth: int = 0) -> object:
        """Return a value in a form that is read back without pickle."""


# -- checks -------------------------------------------------------------------------------------


def integer(value: object) -> int:
    """Return a whole number, or raise ValueError."""
    if type(value) is not int:
        raise ValueError("not a whole number")
    return value


def sequence(value: object) -> Sequence[object]:
    """Return a list or a tuple, or raise ValueError."""
    if type(value) is list or type(value) is tuple:
        return value
    raise ValueError("not a list")


def integers(values: object) -> list[int]:
    """Return a list of whole numbers, or raise ValueError."""
    return [integer(value) for value in sequence(values)]


# -- bytes --------------------------------------------------------------------------------------


class Block:
    """Many bytes, in the memory that they are in; in the file of a state they are ``bytes``."""

    def __init__(self, view: memoryview) -> None:
        self.view = view


def blob(data: bytes | bytearray | memoryview) -> object:
    """Return bytes as the file of a state holds them; many bytes are not copied."""
    view = memoryview(data)
    if importlib.util.find_spec("torch") is None:
        return bytes(data) if isinstance(data, bytes) or len(view) < _LARGE else Block(view)
    import torch

    if not view:
        return torch.zeros(0, dtype=torch.uint8)
    if len(view) < _LARGE:
        return torch.frombuffer(bytearray(view), dtype=torch.uint8)
    # torch warns of memory that it may not write. It never does: this is written, and forgotten.
    memory = view if not view.readonly else _as_writable(data)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _as_writable(data: bytes | bytearray | memoryview) -> object:
    """Return memory for those who ask to write it, and do not."""
    if isinstance(data, bytes):
        address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    else:  # of an array
        import numpy as np

        address = np.frombuffer(data, np.uint8).ctypes.data
    memory = (ctypes.c_ubyte * len(data)).from_address(address)
    memory.owner = data  # type: ignore[attr-defined]
    return memory


def unblob(data: object) -> memoryview:
    """Return the bytes that :func:`blob` wrote."""
    if isinstance(data, Block):
        return data.view
    if isinstance(data, bytes):
        return memoryview(data)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(data, torch.Tensor) or data.dtype != torch.uint8:
        raise ValueError("not bytes")
    if not len(data):
        return memoryview(b"")
    return memoryview(data.reshape(-1).contiguous().numpy()).cast("B")


# -- time zones ---------------------------------------------------------------------------------


def written_zone(zone: datetime.tzinfo | None) -> Zone:
    """Return a time zone in plain values; empty text if it is of another kind than Python's."""
    if zone is None:
        return None
    if type(zone) is datetime.timezone:
        name = zone.tzname(None)
        offset = zone.utcoffset(None)
        plain = datetime.timezone(offset).tzname(None) == name
        return [offset.days, offset.seconds, offset.microseconds, None if plain else name]
    if type(zone).__module__.partition(".")[0] == "pytz":  # the zones of pandas 2
        key: str | None = getattr(zone, "zone", None)
        return f"{_PYTZ}{key}" if key else ""
    return zone.key if type(zone) is zoneinfo.ZoneInfo and zone.key else ""


def _named_zone(written: str) -> datetime.tzinfo:
    name = written.removeprefix(_PYTZ)
    if name != written:
        with contextlib.suppress(ImportError):  # pandas 3 does without
            zone: datetime.tzinfo = importlib.import_module("pytz").timezone(name)
            return zone
    return zoneinfo.ZoneInfo(name)


def read_zone(written: object) -> datetime.tzinfo | None:
    """Return the time zone that :func:`written_zone` wrote."""
    if written is None:
        return None
    if isinstance(written, str):
        return _named_zone(written)
    days, seconds, micros, name = sequence(written)
    offset = datetime.timedelta(integer(days), integer(seconds), integer(micros))
    return datetime.timezone(offset) if name is None else datetime.timezone(offset, str(name))

"""Whether a value changed: a short digest of what it holds, at a bounded cost.

Equal values have equal digests, whatever objects hold them. Large values are sampled, at the same
places each time, so that a digest costs little and a data set is never copied.
"""

from __future__ import annotations

import datetime
import enum
import hashlib
import random
import sys
import types
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from types import ModuleType
from typing import Any

MOST_NODES = 2_000  # values that are looked at, of one attribute
MOST_ITEMS = 400  # of one container: the first and the last
MOST_BYTES = 1 << 20  # of an array or a text that is looked at as a whole
MOST_DEPTH = 20
_SAMPLES = 4_096  # elements of a larger array
_ROWS = 200  # of a table of pandas

# Values of these modules are what they print.
_PRINTED = ("datetime", "decimal", "fractions", "pathlib", "uuid", "zoneinfo")
_PRINTED_TYPES = (range, slice, datetime.date, datetime.time, datetime.timedelta)
# What cannot be looked into: it is itself, or another one.
_OPAQUE = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.GeneratorType,
    types.CoroutineType,
)


def digest(value: object, opaque: Collection[int] = frozenset()) -> bytes:
    """Return a digest of a value.

    Parameters
    ----------
    value
        Anything.
    opaque
        The ids of objects that count as they are, whatever becomes of what they hold.
    """
    summary = _Summary(opaque)
    summary.add(value)
    return summary.hash.digest()


class _Summary:
    def __init__(self, opaque: Collection[int]) -> None:
        self.hash = hashlib.blake2b(digest_size=16)
        self.opaque = opaque
        self.left = MOST_NODES
        #: Id → its number, and the object: while it lives, no other one has its id.
        self.seen: dict[int, tuple[int, object]] = {}

    def text(self, *parts: object) -> None:
        self.hash.update("".join(f"{part}\0" for part in parts).encode("utf-8", "replace"))

    def add(self, value: object, depth: int = 0) -> None:
        """Add what a value holds; what raises when it is looked at is only itself."""
        self.left -= 1
        if self.left < 0:
            return
        self.text("<", type(value).__module__, type(value).__qualname__)
        if _is_plain(value):
            self._add_plain(value)
        elif id(value) in self.opaque or depth > MOST_DEPTH:
            self.text(id(value))
        elif id(value) in self.seen:
            self.text("again", self.seen[id(value)][0])
        else:
            self.seen[id(value)] = len(self.seen), value
            try:
                self._add_object(value, depth + 1)
            except Exception:
                self.text(id(value))
        self.text(">")

    def _add_plain(self, value: object) -> None:
        if isinstance(value, str | bytes | bytearray):
            data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            self._bytes(data)
        elif isinstance(value, int):
            self.text(f"{value:x}")  # decimals are bounded: sys.set_int_max_str_digits
        else:
            self.text(repr(value))

    def _bytes(self, data: bytes | bytearray | memoryview) -> None:
        self.text(len(data))
        half = MOST_BYTES // 2
        if len(data) <= MOST_BYTES:
            self.hash.update(data)
        else:
            self.hash.update(data[:half])
            self.hash.update(data[-half:])

    def _add_object(self, value: object, depth: int) -> None:
        if isinstance(value, _OPAQUE) or hasattr(value, "__next__"):
            self.text(id(value))
        elif isinstance(value, enum.Enum):
            self.text(value.name)
        elif isinstance(value, types.MethodType):
            self.text(id(value.__func__), id(value.__self__))
        elif isinstance(value, random.Random):
            self.add(value.getstate(), depth)
        elif isinstance(value, Mapping):
            self._items(len(value), _ends(value.items(), len(value)), depth)
        elif isinstance(value, list | tuple | deque):
            self._items(len(value), _ends(value, len(value)), depth)
        elif isinstance(value, set | frozenset):
            self._set(value, depth)
        elif type(value).__module__ in _PRINTED or isinstance(value, _PRINTED_TYPES):
            self.text(repr(value))
        elif not self._add_of_library(value, depth):
            self._attributes(value, depth)

    def _items(self, length: int, items: Iterable[object], depth: int) -> None:
        self.text(length)
        for item in items:
            self.add(item, depth)

    def _set(self, value: Collection[object], depth: int) -> None:
        self.text(len(value))
        if len(value) > MOST_ITEMS:
            return
        for summary in sorted(digest(item, self.opaque) for item in value):
            self.hash.update(summary)
        self.left -= len(value)

    # -- what libraries made ------------------------------------------------------------------

    def _add_of_library(self, value: object, depth: int) -> bool:
        torch, numpy, pandas = (sys.modules.get(name) for name in ("torch", "numpy", "pandas"))
        if torch is not None and isinstance(value, torch.Tensor):
            self._tensor(torch, value)
        elif torch is not None and isinstance(value, torch.Generator):
            self._tensor(torch, value.get_state())
        elif torch is not None and isinstance(value, torch.device | torch.dtype):
            self.text(repr(value))
        elif numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
            self._array(numpy, value, depth)
        elif numpy is not None and isinstance(value, numpy.random.Generator):
            self.add(value.bit_generator.state, depth)
        elif numpy is not None and isinstance(value, numpy.random.RandomState):
            self.add(value.get_state(), depth)
        elif pandas is not None and isinstance(value, pandas.DataFrame | pandas.Series):
            self._table(value, depth)
        elif pandas is not None and isinstance(value, pandas.Index):
            self.text(len(value), value.names)
            self.add(_ends(value, len(value)), depth)
        elif callable(state_dict := getattr(value, "state_dict", None)):
            self.add(dict(state_dict()), depth)
        else:
            return False
        return True

    def _tensor(self, torch: ModuleType, tensor: Any) -> None:
        tensor = tensor.detach()
        self.text(tensor.dtype, tuple(tensor.shape))
        if tensor.numel() * tensor.element_size() > MOST_BYTES:
            # Each change in place counts up, which a sample may not see.
            self.text(tensor._version)
            # Flattened, one that is turned would be copied:
            # test_a_large_value_is_not_copied_to_be_compared.
            step = max(1, tensor.numel() // _SAMPLES)
            places = torch.arange(0, tensor.numel(), step, device=tensor.device)
            tensor = tensor[torch.unravel_index(places, tensor.shape)]
        flat = tensor.cpu().contiguous().reshape(-1)
        self.hash.update(flat.view(torch.uint8).numpy().data)

    def _array(self, numpy: ModuleType, value: object, depth: int) -> None:
        array = numpy.asarray(value)
        self.text(array.dtype, array.shape)
        if array.nbytes > MOST_BYTES:
            array = array.flat[:: max(1, array.size // _SAMPLES)]
        if array.dtype.hasobject:
            self.add(array.reshape(-1)[:MOST_ITEMS].tolist(), depth)
        else:
            self.hash.update(array.tobytes())

    def _table(self, table: Any, depth: int) -> None:
        self.text(table.shape)
        rows = table.iloc[:: max(1, len(table) // _ROWS)]
        self.add(rows.to_numpy(), depth)
        self.add(list(islice(table.columns, MOST_ITEMS)) if table.ndim == 2 else table.name, depth)
        self.add(_ends(rows.index, len(rows)), depth)

    def _attributes(self, value: object, depth: int) -> None:
        """Add the public attributes of any object; one without is itself."""
        held = dict(getattr(value, "__dict__", {}))
        for cls in type(value).__mro__:
            slots = cls.__dict__.get("__slots__", ())
            for name in [slots] if isinstance(slots, str) else slots:
                if hasattr(value, name) and name != "__dict__":
                    held[name] = getattr(value, name)
        public = {name: child for name, child in held.items() if not str(name).startswith("_")}
        if not public:
            self.text(id(value))
        for name, child in public.items():
            self.text(name)
            self.add(child, depth)


def _is_plain(value: object) -> bool:
    return value is None or type(value) in (bool, int, float, complex, str, bytes, bytearray)


def _ends(values: Any, length: int) -> list[object]:
    """Return the values, or the first and the last of many."""
    if length <= MOST_ITEMS:
        return list(values)
    half = MOST_ITEMS // 2
    return [*islice(values, half), *reversed(list(islice(_backwards(values), half)))]


def _backwards(values: Any) -> Iterable[object]:
    try:
        backwards: Iterable[object] = reversed(values)
    except TypeError:
        return ()
    return backwards

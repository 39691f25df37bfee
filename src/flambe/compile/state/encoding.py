"""The values of a state, in a form that needs no pickle to be read.

Plain values, lists, tuples and mappings stay as they are, and so does what torch's own reader
knows (tensors, dtypes, devices, sizes). Anything else is marked: see :mod:`.codec`. A name there
calls nothing but the function below that reads it, which checks all that it is given.
"""

from __future__ import annotations

import datetime
import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from flambe.compile.state.codec import (
    MARK,
    MAX_DEPTH,
    Encoded,
    Fields,
    blob,
    integer,
    integers,
    read_zone,
    sequence,
    unblob,
    written_zone,
)
from flambe.errors import UnsavableError

# Not their sub-classes, such as enumerations: those would be pickled by name.
_PLAIN = (bool, str, int, float)
_FACTORIES: dict[str, Callable[[], object]] = {
    kind.__name__: kind for kind in (bool, int, float, str, list, dict, set, tuple)
}
_PATHS: dict[str, type[PurePath]] = {
    "Path": Path,
    "PurePosixPath": PurePosixPath,
    "PureWindowsPath": PureWindowsPath,
}
_MAPPINGS: dict[type[object], str] = {
    Counter: "Counter",
    OrderedDict: "OrderedDict",
    defaultdict: "defaultdict",
}


class Encoder:
    """Encodes values; an error names where they stand.

    Parameters
    ----------
    where
        The component, for people.
    """

    def __init__(self, where: str) -> None:
        self.where = where

    def encode(self, value: object, name: str, depth: int = 0) -> object:
        """Return a value in a form that is read back without pickle.

        Raises
        ------
        UnsavableError
            Naming the attribute that cannot be.
        """
        if value is None or type(value) in _PLAIN:
            return value
        if depth > MAX_DEPTH:
            reason = f"is nested deeper than {MAX_DEPTH} levels, or contains itself"
            raise UnsavableError(f"cannot save {self.where}: its {name[:80]!r} {reason}")
        if type(value) is list:
            return self._all(value, name, depth)
        if type(value) is tuple:
            return tuple(self._all(value, name, depth))
        if isinstance(value, Mapping):
            return self._mapping(value, name, depth)
        if (written := self._container(value, name, depth)) is not None:
            return written
        if (written := _written_plainly(value)) is not None:
            return written
        return self._of_library(value, name, depth)

    def _all(self, values: Iterable[object], name: str, depth: int) -> list[object]:
        return [self.encode(v, f"{name}[{i}]", depth + 1) for i, v in enumerate(values)]

    def _mapping(self, value: Mapping[object, object], name: str, depth: int) -> object:
        kind = _MAPPINGS.get(type(value))
        if kind is None and MARK not in value and all(_is_key(key) for key in value):
            return {
                key: self.encode(child, f"{name}[{key!r}]" if name else str(key), depth + 1)
                for key, child in value.items()
            }
        items = [
            [
                self.encode(key, f"a key of {name}", depth + 1),
                self.encode(child, f"{name}[{key!r}]", depth + 1),
            ]
            for key, child in value.items()
        ]
        written: Encoded = {MARK: kind or "dict", "items": items}
        if isinstance(value, defaultdict):
            factory = value.default_factory
            written["factory"] = getattr(factory, "__name__", None)
            if factory is not None and _FACTORIES.get(str(written["factory"])) is not factory:
                raise self._refusal(value, name, "whose default_factory is a function of yours")
        return written

    def _container(self, value: object, name: str, depth: int) -> Encoded | None:
        if isinstance(value, set | frozenset) and type(value) in (set, frozenset):
            items = [self.encode(item, f"an item of {name}", depth + 1) for item in value]
            return {MARK: type(value).__name__, "items": items}
        if type(value) is deque:
            return {MARK: "deque", "items": self._all(value, name, depth), "most": value.maxlen}
        if type(value) is random.Random:
            return {MARK: "Random", "state": self.encode(value.getstate(), name, depth + 1)}
        return None

    def _of_library(self, value: object, name: str, depth: int) -> object:
        torch = sys.modules.get("torch")
        if torch is not None:
            if isinstance(value, torch.dtype | torch.device | torch.Size):
                return value
            if (
                isinstance(value, torch.Tensor)
                and type(tensor := value.detach().cpu()) is torch.Tensor
            ):
                return tensor
            if isinstance(value, torch.Generator) and value.device.type == "cpu":
                return {MARK: "torch.Generator", "state": value.get_state()}
        root = type(value).__module__.partition(".")[0]
        if root == "numpy":
            from flambe.compile.state import encoding_numpy

            if (written := encoding_numpy.write(value)) is not None:
                return written
            if isinstance(reason := encoding_numpy.why_not(value), str):
                raise self._refusal(value, name, reason)
        if root == "pandas":
            from flambe.compile.state import encoding_pandas

            if (written := encoding_pandas.write(self, value, name, depth)) is not None:
                return written
        raise self._refusal(value, name)

    def _refusal(
        self, value: object, name: str, reason: str = "which would need pickle"
    ) -> UnsavableError:
        kind = type(value)
        quoted = name if name.startswith(("a key of", "an item of")) else repr(name)
        attribute = name.removeprefix("a key of ").removeprefix("an item of ").partition("[")[0]
        how = f"self.register_attrs({attribute!r}, pickle=True)"
        return UnsavableError(
            f"cannot save {self.where}: its {quoted} is a {kind.__module__}.{kind.__qualname__}, "
            f"{reason}\n"
            "  register tensors, arrays, tables, numbers, text, dates, and containers of those;\n"
            "  or change it in the _state hook, and back in _load_state;\n"
            f"  or allow pickle for it, which is read only where the folder is trusted:  {how}"
        )


def _is_key(key: object) -> bool:
    return key is None or type(key) in _PLAIN


def needs_pickle(value: object) -> str | None:
    """Return the type of a value that would need pickle, or None if it does not."""
    try:
        Encoder("").encode(value, "")
    except UnsavableError:
        return type(value).__name__
    return None


# -- what Python has ----------------------------------------------------------------------------


def _written_plainly(value: object) -> Encoded | None:
    if type(value) is bytes or type(value) is bytearray:
        return {MARK: type(value).__name__, "value": blob(value)}
    if type(value) is complex:
        return {MARK: "complex", "value": [value.real, value.imag]}
    if type(value) is Decimal:
        return {MARK: "Decimal", "value": str(value)}
    if type(value) is range:
        return {MARK: "range", "value": [value.start, value.stop, value.step]}
    if type(value) is datetime.timedelta:
        return {MARK: "timedelta", "value": [value.days, value.seconds, value.microseconds]}
    if type(value) is datetime.date:
        return {MARK: "date", "value": [value.year, value.month, value.day]}
    if type(value) is datetime.datetime:
        return _written_clock(value, [value.year, value.month, value.day])
    if type(value) is datetime.time:
        return _written_clock(value, [])
    kind = type(value)
    for name, path in _PATHS.items():
        if kind is path or (name == "Path" and kind is type(Path())):
            return {MARK: "Path", "kind": name, "value": str(value)}
    return None


def _written_clock(value: datetime.datetime | datetime.time, day: list[int]) -> Encoded | None:
    zone = written_zone(value.tzinfo)
    if zone == "":
        return None
    clock = [value.hour, value.minute, value.second, value.microsecond]
    kind = type(value).__name__
    return {MARK: kind, "value": [*day, *clock], "fold": value.fold, "zone": zone}


# -- and back -----------------------------------------------------------------------------------


def decode(value: object, depth: int = 0) -> Any:
    """Return the value that was encoded.

    Raises
    ------
    Exception
        Of some kind, if it was not encoded.
    """
    if depth > MAX_DEPTH + 1:
        raise ValueError("nested too deeply")
    if type(value) is dict and MARK in value:
        return _read(value, depth)
    if isinstance(value, dict):
        return {key: decode(child, depth + 1) for key, child in value.items()}
    if type(value) is list:
        return [decode(child, depth + 1) for child in value]
    if type(value) is tuple:
        return tuple([decode(child, depth + 1) for child in value])
    return value


def _read(written: Fields, depth: int) -> object:
    kind = str(written[MARK])
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](
            written, [decode(item, depth + 1) for item in sequence(written["items"])]
        )
    if kind in _READERS:
        return _READERS[kind](written)
    library, _, name = kind.partition(".")
    if library == "numpy":
        from flambe.compile.state import encoding_numpy

        return encoding_numpy.read(name, written)
    if library == "pandas":
        from flambe.compile.state import encoding_pandas

        return encoding_pandas.read(
            name, {k: decode(v, depth + 1) for k, v in written.items() if k != MARK}
        )
    raise ValueError(f"it holds a {kind[:40]!r}, which this version of flambe does not know")


def _dict(items: Sequence[object]) -> dict[object, object]:
    return {key: child for key, child in map(sequence, items)}  # noqa: C416 (two in each)


def _defaultdict(written: Fields, items: Sequence[object]) -> object:
    factory = written["factory"]
    kind = None if factory is None else _FACTORIES[str(factory)]
    return defaultdict(kind, _dict(items))


def _deque(written: Fields, items: Sequence[object]) -> object:
    most = written["most"]
    return deque(items, None if most is None else integer(most))


_CONTAINERS: dict[str, Callable[[Fields, Sequence[object]], object]] = {
    "dict": lambda written, items: _dict(items),
    "Counter": lambda written, items: Counter(_dict(items)),
    "OrderedDict": lambda written, items: OrderedDict(_dict(items)),
    "defaultdict": _defaultdict,
    "set": lambda written, items: set(items),
    "frozenset": lambda written, items: frozenset(items),
    "deque": _deque,
}


def _random(written: Fields) -> random.Random:
    version, internal, gauss = sequence(written["state"])
    generator = random.Random()
    generator.setstate((integer(version), tuple(integers(internal)), gauss))
    return generator


def _torch_generator(written: Fields) -> object:
    import torch

    state = written["state"]
    if not isinstance(state, torch.Tensor):
        raise ValueError("not a generator of torch")
    generator = torch.Generator()
    generator.set_state(state)
    return generator


def _datetime(written: Fields) -> datetime.datetime:
    zone, fold = read_zone(written["zone"]), integer(written["fold"])
    year, month, day, hour, minute, second, micro = integers(written["value"])
    return datetime.datetime(year, month, day, hour, minute, second, micro, zone, fold=fold)


def _time(written: Fields) -> datetime.time:
    zone, fold = read_zone(written["zone"]), integer(written["fold"])
    hour, minute, second, micro = integers(written["value"])
    return datetime.time(hour, minute, second, micro, zone, fold=fold)


def _complex(value: object) -> complex:
    real, imaginary = sequence(value)
    if not isinstance(real, int | float) or not isinstance(imaginary, int | float):
        raise ValueError("not a complex number")
    return complex(real, imaginary)


_READERS: dict[str, Callable[[Fields], object]] = {
    "bytes": lambda written: bytes(unblob(written["value"])),
    "bytearray": lambda written: bytearray(unblob(written["value"])),
    "complex": lambda written: _complex(written["value"]),
    "Decimal": lambda written: Decimal(str(written["value"])),
    "range": lambda written: range(*integers(written["value"])),
    "timedelta": lambda written: datetime.timedelta(*integers(written["value"])),
    "date": lambda written: datetime.date(*integers(written["value"])),
    "time": _time,
    "datetime": _datetime,
    "Path": lambda written: _PATHS[str(written["kind"])](str(written["value"])),
    "Random": _random,
    "torch.Generator": _torch_generator,
}

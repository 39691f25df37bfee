"""The values of a state, in a form that needs no pickle to be read.

Plain values, lists, tuples and mappings stay as they are, and so does what torch's own reader
knows (tensors, dtypes, devices, sizes). Anything else is a mapping with the key ``__flambe__``,
which says what it is: ``{"__flambe__": "date", "value": [2026, 11, 30]}``. A name there calls
nothing but the function below that reads it, which checks all that it is given. Bytes are tensors
of uint8 where torch is installed, as a file of torch holds them at their own size.
"""

from __future__ import annotations

import datetime
import importlib.util
import random
import sys
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from flambe.errors import UnsavableError

MARK = "__flambe__"
MOST_DEPTH = 100

# Not their sub-classes, such as enumerations: those would be pickled by name.
_PLAIN = (bool, str, int, float)
_FACTORIES: dict[str, Any] = {
    kind.__name__: kind for kind in (bool, int, float, str, list, dict, set, tuple)
}
_PATHS: dict[str, type[PurePath]] = {
    "Path": Path,
    "PurePosixPath": PurePosixPath,
    "PureWindowsPath": PureWindowsPath,
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

    def encode(self, value: Any, name: str, depth: int = 0) -> Any:
        """Return a value in a form that is read back without pickle.

        Raises
        ------
        UnsavableError
            Naming the attribute that cannot be.
        """
        if value is None or type(value) in _PLAIN:
            return value
        if depth > MOST_DEPTH:
            what = f"is nested deeper than {MOST_DEPTH} levels, or contains itself"
            raise UnsavableError(f"cannot save {self.where}: its {name[:80]!r} {what}")
        if type(value) in (list, tuple):
            items = self._all(value, name, depth)
            return tuple(items) if isinstance(value, tuple) else items
        if isinstance(value, Mapping):
            return self._mapping(value, name, depth)
        if (written := self._container(value, name, depth)) is not None:
            return written
        if (written := _written_plainly(value)) is not None:
            return written
        return self._of_library(value, name, depth)

    def _all(self, values: Iterable[Any], name: str, depth: int) -> list[Any]:
        return [self.encode(v, f"{name}[{i}]", depth + 1) for i, v in enumerate(values)]

    def _mapping(self, value: Mapping[Any, Any], name: str, depth: int) -> Any:
        kind = {Counter: "Counter", OrderedDict: "OrderedDict", defaultdict: "defaultdict"}.get(
            type(value)
        )
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
        written: dict[str, Any] = {MARK: kind or "dict", "items": items}
        if isinstance(value, defaultdict):
            factory = value.default_factory
            written["factory"] = getattr(factory, "__name__", None)
            if factory is not None and _FACTORIES.get(str(written["factory"])) is not factory:
                self._refuse(value, name, "whose default_factory is a function of yours")
        return written

    def _container(self, value: Any, name: str, depth: int) -> dict[str, Any] | None:
        if type(value) in (set, frozenset):
            items = [self.encode(item, f"an item of {name}", depth + 1) for item in value]
            return {MARK: type(value).__name__, "items": items}
        if type(value) is deque:
            return {MARK: "deque", "items": self._all(value, name, depth), "most": value.maxlen}
        if type(value) is random.Random:
            return {MARK: "Random", "state": self.encode(value.getstate(), name, depth + 1)}
        return None

    def _of_library(self, value: Any, name: str, depth: int) -> Any:
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
                self._refuse(value, name, reason)
        if root == "pandas":
            from flambe.compile.state import encoding_pandas

            if (written := encoding_pandas.write(self, value, name, depth)) is not None:
                return written
        return self._refuse(value, name)

    def _refuse(self, value: Any, name: str, reason: str = "which would need pickle") -> Any:
        kind = type(value)
        shown = name if name.startswith(("a key of", "an item of")) else repr(name)
        attribute = name.removeprefix("a key of ").removeprefix("an item of ").partition("[")[0]
        how = f"self.register_attrs({attribute!r}, pickle=True)"
        raise UnsavableError(
            f"cannot save {self.where}: its {shown} is a {kind.__module__}.{kind.__qualname__}, "
            f"{reason}\n"
            "  register tensors, arrays, tables, numbers, text, dates, and containers of those;\n"
            "  or change it in the _state hook, and back in _load_state;\n"
            f"  or allow pickle for it, which is read only where the folder is trusted:  {how}"
        )


def _is_key(key: Any) -> bool:
    return key is None or type(key) in _PLAIN


def needs_pickle(value: Any) -> str | None:
    """Return the type of a value that would need pickle, or None if it does not."""
    try:
        Encoder("").encode(value, "")
    except UnsavableError:
        return type(value).__name__
    return None


# -- what Python has ----------------------------------------------------------------------------


def _written_plainly(value: Any) -> dict[str, Any] | None:
    kind = type(value)
    if kind in (bytes, bytearray):
        return {MARK: kind.__name__, "value": blob(value)}
    if kind is complex:
        return {MARK: "complex", "value": [value.real, value.imag]}
    if kind is Decimal:
        return {MARK: "Decimal", "value": str(value)}
    if kind is range:
        return {MARK: "range", "value": [value.start, value.stop, value.step]}
    if kind is datetime.timedelta:
        return {MARK: "timedelta", "value": [value.days, value.seconds, value.microseconds]}
    if kind is datetime.date:
        return {MARK: "date", "value": [value.year, value.month, value.day]}
    if kind in (datetime.time, datetime.datetime) and (zone := written_zone(value.tzinfo)) != "":
        clock = [value.hour, value.minute, value.second, value.microsecond]
        day = [value.year, value.month, value.day] if kind is datetime.datetime else []
        return {MARK: kind.__name__, "value": [*day, *clock], "fold": value.fold, "zone": zone}
    for name, path in _PATHS.items():
        if kind is path or (name == "Path" and kind is type(Path())):
            return {MARK: "Path", "kind": name, "value": str(value)}
    return None


def written_zone(zone: Any) -> Any:
    """Return a time zone in plain values; empty text if it is of no kind that is known."""
    if zone is None:
        return None
    if type(zone) is datetime.timezone:
        name = zone.tzname(None)
        offset = zone.utcoffset(None)
        plain = datetime.timezone(offset).tzname(None) == name
        return [offset.days, offset.seconds, offset.microseconds, None if plain else name]
    return zone.key if type(zone) is zoneinfo.ZoneInfo and zone.key else ""


def read_zone(written: Any) -> datetime.tzinfo | None:
    """Return the time zone that :func:`written_zone` wrote."""
    if written is None:
        return None
    if isinstance(written, str):
        return zoneinfo.ZoneInfo(written)
    days, seconds, micros, name = written
    offset = datetime.timedelta(_integer(days), _integer(seconds), _integer(micros))
    return datetime.timezone(offset) if name is None else datetime.timezone(offset, name)


def blob(data: Any) -> Any:
    """Return bytes as the file of a state holds them."""
    if importlib.util.find_spec("torch") is None:
        return bytes(data)
    import torch

    if not len(data):
        return torch.zeros(0, dtype=torch.uint8)
    writable = data if isinstance(data, bytearray) else bytearray(data)
    return torch.frombuffer(writable, dtype=torch.uint8)


def unblob(data: Any) -> memoryview:
    """Return the bytes that :func:`blob` wrote."""
    if isinstance(data, bytes):
        return memoryview(data)
    torch = sys.modules.get("torch")
    if torch is None or type(data) is not torch.Tensor or data.dtype != torch.uint8:
        raise ValueError("no bytes")
    return (
        memoryview(data.reshape(-1).contiguous().numpy()).cast("B")
        if len(data)
        else memoryview(b"")
    )


# -- and back -----------------------------------------------------------------------------------


def decode(value: Any, depth: int = 0) -> Any:
    """Return the value that was encoded.

    Raises
    ------
    Exception
        Of some kind, if it is none that was.
    """
    if depth > MOST_DEPTH + 1:
        raise ValueError("nested too deeply")
    if type(value) is dict and MARK in value:
        return _read(value, depth)
    if isinstance(value, dict):
        return {key: decode(child, depth + 1) for key, child in value.items()}
    if type(value) in (list, tuple):
        items = [decode(child, depth + 1) for child in value]
        return tuple(items) if type(value) is tuple else items
    return value


def _read(written: dict[str, Any], depth: int) -> Any:
    kind = str(written[MARK])
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](written, [decode(item, depth + 1) for item in written["items"]])
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


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("not a whole number")
    return value


def _integers(values: Any) -> list[int]:
    return [_integer(value) for value in values]


def _dict(written: Mapping[str, Any], items: list[Any]) -> dict[Any, Any]:
    return {key: child for key, child in items}  # noqa: C416 (an item of three is an error)


def _defaultdict(written: Mapping[str, Any], items: list[Any]) -> Any:
    factory = written["factory"]
    return defaultdict(None if factory is None else _FACTORIES[factory], _dict(written, items))


def _deque(written: Mapping[str, Any], items: list[Any]) -> Any:
    most = written["most"]
    return deque(items, None if most is None else _integer(most))


_CONTAINERS: dict[str, Callable[[Mapping[str, Any], list[Any]], Any]] = {
    "dict": _dict,
    "Counter": lambda written, items: Counter(_dict(written, items)),
    "OrderedDict": lambda written, items: OrderedDict(_dict(written, items)),
    "defaultdict": _defaultdict,
    "set": lambda written, items: set(items),
    "frozenset": lambda written, items: frozenset(items),
    "deque": _deque,
}


def _random(written: Mapping[str, Any]) -> random.Random:
    version, internal, gauss = written["state"]
    made = random.Random()
    made.setstate((_integer(version), tuple(_integers(internal)), gauss))
    return made


def _torch_generator(written: Mapping[str, Any]) -> Any:
    import torch

    generator = torch.Generator()
    generator.set_state(written["state"])
    return generator


def _time(kind: Any) -> Callable[[Mapping[str, Any]], Any]:
    def read(written: Mapping[str, Any]) -> Any:
        zone = read_zone(written["zone"])
        return kind(*_integers(written["value"]), tzinfo=zone, fold=_integer(written["fold"]))

    return read


_READERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "bytes": lambda written: bytes(unblob(written["value"])),
    "bytearray": lambda written: bytearray(unblob(written["value"])),
    "complex": lambda written: complex(*map(float, written["value"])),
    "Decimal": lambda written: Decimal(written["value"]),
    "range": lambda written: range(*_integers(written["value"])),
    "timedelta": lambda written: datetime.timedelta(*_integers(written["value"])),
    "date": lambda written: datetime.date(*_integers(written["value"])),
    "time": _time(datetime.time),
    "datetime": _time(datetime.datetime),
    "Path": lambda written: _PATHS[written["kind"]](str(written["value"])),
    "Random": _random,
    "torch.Generator": _torch_generator,
}

"""Arrays and scalars of NumPy, as bytes with their type and shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from flambe.compile.state.encoding import MARK, blob, decode, unblob

# Numbers, dates, and text and bytes of one length. Others hold addresses, which no file may say.
_KINDS = "biufcmMSU"
_MOST_DIMENSIONS = 32
_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def write(value: Any) -> dict[str, Any] | None:
    """Return an array, a scalar or a generator in plain values; None if it cannot be."""
    if type(value) is np.random.Generator and _name(value.bit_generator) in _GENERATORS:
        return {MARK: "numpy.Generator", "state": _plain(value.bit_generator.state)}
    if type(value) is np.random.RandomState:
        legacy: Any = value.get_state(legacy=True)
        name, keys, position, has_gauss, cached = legacy
        state = [name, keys.tolist(), int(position), int(has_gauss), float(cached)]
        return {MARK: "numpy.RandomState", "state": state}
    if type(value) is not np.ndarray and not isinstance(value, np.generic):
        return None
    array = np.asarray(value)
    if not _is_safe(array.dtype):
        return None
    # The order in memory decides the order of sums, and with it the last digit.
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return {
        MARK: "numpy.ndarray" if isinstance(value, np.ndarray) else "numpy.generic",
        "dtype": _descr(np.lib.format.dtype_to_descr(array.dtype)),
        "shape": list(array.shape),
        "order": order,
        "data": blob(array.tobytes(order=order)),  # type: ignore[arg-type]
    }


def why_not(value: Any) -> str | None:
    """Return why something of NumPy cannot be written, if there is more to say than pickle."""
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return "an array of Python objects, which would need pickle: make it a list, or numbers"
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
        return "a kind of array of its own: register np.asarray(it)"
    return None


def _name(value: Any) -> str:
    return type(value).__name__


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _is_safe(dtype: np.dtype[Any]) -> bool:
    if dtype.subdtype is not None:
        return _is_safe(dtype.subdtype[0])
    if dtype.names is not None:
        return all(_is_safe(dtype[name]) for name in dtype.names)
    return dtype.kind in _KINDS or dtype.type is np.void


def _descr(descr: Any) -> Any:
    """Return the description of a type in lists: tuples of tuples are read with more care."""
    return [_descr(part) for part in descr] if isinstance(descr, list | tuple) else descr


def _tuples(descr: Any, depth: int = 0) -> Any:
    """Return the description of a type as NumPy takes it."""
    if isinstance(descr, str):
        return descr
    if depth > 10 or not isinstance(descr, list):
        raise ValueError("not the description of a type")
    fields = []
    for name, kind, *shape in descr:
        named = tuple(name) if isinstance(name, list) else name
        fields.append((named, _tuples(kind, depth + 1), *map(tuple, shape)))
    return fields


def read(kind: str, written: Mapping[str, Any]) -> Any:
    """Return what :func:`write` wrote.

    Raises
    ------
    ValueError
        If its size is not that of its type and shape, or its type is none that may be written.
    """
    if kind == "Generator":
        state = {str(key): child for key, child in decode(written["state"]).items()}
        if state.get("bit_generator") not in _GENERATORS:
            raise ValueError("no generator of NumPy")
        generator = getattr(np.random, state["bit_generator"])()
        generator.state = _arrays(state)
        return np.random.Generator(generator)
    if kind == "RandomState":
        name, keys, *rest = written["state"]
        made = np.random.RandomState()
        made.set_state((name, np.array(keys, np.uint32), *rest))
        return made
    if kind not in ("ndarray", "generic"):
        raise ValueError(f"no {kind[:40]!r} of NumPy is known")
    dtype = np.lib.format.descr_to_dtype(_tuples(written["dtype"]))
    shape, data = written["shape"], unblob(written["data"])
    if not _is_safe(dtype):
        raise ValueError("an array of what is not numbers, dates or text")
    if len(shape) > _MOST_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array without a shape")
    size = math.prod(shape)
    if size * dtype.itemsize != len(data) or (not dtype.itemsize and size > 1_000_000):
        raise ValueError("an array of another size than its data")
    order: Any = "F" if written["order"] == "F" else "C"
    if not len(data):
        made_array = np.empty(shape, dtype)
    else:
        flat: Any = np.frombuffer(bytearray(data), np.uint8)
        made_array = np.ndarray(shape, dtype, buffer=flat.data, order=order)
    return made_array[()] if kind == "generic" else made_array


def _arrays(state: Any) -> Any:
    """Return the state of a generator with its lists as arrays of the type that it takes."""
    if isinstance(state, dict):
        return {key: _arrays(child) for key, child in state.items()}
    if isinstance(state, list):
        return np.array(state, np.uint64 if len(state) < 600 else np.uint32)
    return state

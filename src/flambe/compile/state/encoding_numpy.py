"""Arrays and scalars of NumPy, as bytes with their type and shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from flambe.compile.state.codec import (
    MARK,
    Encoded,
    Fields,
    blob,
    integer,
    integers,
    sequence,
    unblob,
)

# Numbers, dates, and text and bytes of one length. Others hold addresses, which no file may say.
_KINDS = "biufcmMSU"
_MOST_DIMENSIONS = 32
_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def write(value: object) -> Encoded | None:
    """Return an array, a scalar or a generator in plain values; None if it cannot be."""
    if type(value) is np.random.Generator and type(value.bit_generator).__name__ in _GENERATORS:
        return {MARK: "numpy.Generator", "state": _plain(value.bit_generator.state)}
    if type(value) is np.random.RandomState:
        return {MARK: "numpy.RandomState", "state": legacy_state(value)}
    if type(value) is not np.ndarray and not isinstance(value, np.generic):
        return None
    array = np.asarray(value)
    if not _is_safe(array.dtype):
        return None
    # The order in memory decides the order of sums, and with it the last digit.
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    order: Literal["F", "C"] = "F" if fortran else "C"
    return {
        MARK: "numpy.ndarray" if isinstance(value, np.ndarray) else "numpy.generic",
        "dtype": _descr(np.lib.format.dtype_to_descr(array.dtype)),
        "shape": list(array.shape),
        "order": order,
        "data": blob(_bytes_of(array, order)),
    }


def _bytes_of(array: np.ndarray[Any, Any], order: Literal["F", "C"]) -> bytes | memoryview:
    """Return the bytes of an array: its own memory, if they are there in order."""
    in_order = array.flags.f_contiguous if order == "F" else array.flags.c_contiguous
    if not in_order or not array.nbytes:
        return array.tobytes(order=order)
    return array.reshape(-1, order=order).view(np.uint8).data


def why_not(value: object) -> str | None:
    """Return why something of NumPy cannot be written, if there is more to say than pickle."""
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return "an array of Python objects, which would need pickle: make it a list, or numbers"
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
        return "a kind of array of its own: register np.asarray(it)"
    return None


def legacy_state(generator: np.random.RandomState) -> list[object]:
    """Return the state of a generator of NumPy's old kind in plain values."""
    state = generator.get_state(legacy=True)
    assert isinstance(state, tuple)
    name, keys, position, has_gauss, cached = state
    return [name, keys.tolist(), int(position), int(has_gauss), float(cached)]


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _is_safe(dtype: np.dtype[Any]) -> bool:
    if dtype.subdtype is not None:
        return _is_safe(dtype.subdtype[0])
    if dtype.names is not None:
        return all(_is_safe(dtype[name]) for name in dtype.names)
    return dtype.kind in _KINDS or dtype.type is np.void


def _descr(descr: object) -> object:
    """Return the description of a type in lists: tuples of tuples are read with more care."""
    return [_descr(part) for part in descr] if isinstance(descr, list | tuple) else descr


def _tuples(descr: object, depth: int = 0) -> Any:
    """Return the description of a type as NumPy takes it."""
    if isinstance(descr, str):
        return descr
    if depth > 10 or not isinstance(descr, list):
        raise ValueError("not the description of a type")
    fields: list[tuple[object, ...]] = []
    for name, kind, *shape in descr:
        named = tuple(name) if isinstance(name, list) else name
        fields.append((named, _tuples(kind, depth + 1), *map(tuple, shape)))
    return fields


def read(kind: str, written: Fields) -> object:
    """Return what :func:`write` wrote.

    Raises
    ------
    ValueError
        If its size is not that of its type and shape, or its type is none that may be written.
    """
    if kind == "Generator":
        return _generator(written["state"])
    if kind == "RandomState":
        return _random_state(*sequence(written["state"]))
    if kind not in ("ndarray", "generic"):
        raise ValueError(f"no {kind[:40]!r} of NumPy is known")
    dtype = np.lib.format.descr_to_dtype(_tuples(written["dtype"]))
    shape, data = integers(written["shape"]), unblob(written["data"])
    if not _is_safe(dtype):
        raise ValueError("an array of what is not numbers, dates or text")
    if len(shape) > _MOST_DIMENSIONS or min(shape, default=0) < 0:
        raise ValueError("an array without a shape")
    size = math.prod(shape)
    if size * dtype.itemsize != len(data) or (not dtype.itemsize and size > 1_000_000):
        raise ValueError("an array of another size than its data")
    if not len(data):
        array = np.empty(shape, dtype)
    else:
        flat = np.frombuffer(bytearray(data), np.uint8)
        order: Literal["F", "C"] = "F" if written["order"] == "F" else "C"
        array = np.ndarray(shape, dtype, buffer=flat.data, order=order)
    return array[()] if kind == "generic" else array


def _generator(state: object) -> np.random.Generator:
    if not isinstance(state, Mapping) or state.get("bit_generator") not in _GENERATORS:
        raise ValueError("not a generator of NumPy")
    generator = getattr(np.random, state["bit_generator"])()
    generator.state = _arrays(dict(state))
    return np.random.Generator(generator)


def _random_state(
    name: object, keys: object, position: object, has_gauss: object, cached: object
) -> np.random.RandomState:
    if not isinstance(cached, float):
        raise ValueError("not a generator of NumPy")
    generator = np.random.RandomState()
    key = np.array(integers(keys), np.uint32)
    generator.set_state((str(name), key, integer(position), integer(has_gauss), cached))
    return generator


def _arrays(state: object) -> object:
    """Return the state of a generator with its lists as arrays of the type that it takes."""
    if isinstance(state, dict):
        return {key: _arrays(child) for key, child in state.items()}
    if isinstance(state, list):
        return np.array(state, np.uint64 if len(state) < 600 else np.uint32)
    return state

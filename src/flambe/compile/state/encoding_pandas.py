"""Tables, series and indices of pandas, as the arrays that they are made of.

pandas' own files would do it less well: Arrow loses the kinds of indices and of columns of mixed
values, and pickle runs what it is given.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from flambe.compile.state.codec import (
    MARK,
    Encoded,
    ValueEncoder,
    read_zone,
    written_zone,
)
from flambe.errors import StateError, how_to_install

#: What an object of pandas is made of: its kind, and its parts by name.
Parts = tuple[str, Encoded]
#: The parts, decoded. What each holds is checked by the constructor of pandas that it is given to.
Held = Mapping[str, Any]

_MASKED = ("IntegerArray", "FloatingArray", "BooleanArray")


def write(encoder: ValueEncoder, value: object, name: str, depth: int) -> Encoded | None:
    """Return a table, a series, an index or a moment in plain values; None if it is none."""
    parts = _parts(value)
    if parts is None:
        return None
    kind, held = parts
    return {
        MARK: f"pandas.{kind}",
        **{key: encoder.encode(child, f"{name}.{key}", depth + 1) for key, child in held.items()},
    }


def _parts(value: Any) -> Parts | None:
    import pandas as pd

    kind = type(value)
    if kind is pd.DataFrame:
        columns = [_Column(value.iloc[:, i].array) for i in range(value.shape[1])]
        axes = {"columns": value.columns, "index": value.index, "attrs": dict(value.attrs)}
        return "DataFrame", {"data": columns, **axes}
    if kind is pd.Series:
        held = {"index": value.index, "name": value.name, "attrs": dict(value.attrs)}
        return "Series", {"data": _Column(value.array), **held}
    if isinstance(value, pd.Index):
        return _index_parts(pd, value)
    if value is pd.NaT or value is pd.NA:
        return "missing", {"name": "NaT" if value is pd.NaT else "NA"}
    if kind is pd.Timestamp and (zone := written_zone(value.tz)) != "":
        return "Timestamp", {"value": value.asm8, "zone": zone}
    if kind is pd.Timedelta:
        return "Timedelta", {"value": value.asm8}
    if kind is pd.Interval:
        return "Interval", {"left": value.left, "right": value.right, "closed": value.closed}
    if kind is pd.Period:
        return "Period", {"ordinal": value.ordinal, "freq": value.freqstr}
    if kind is _Column:
        return _array_parts(pd, value.array)
    return None


class _Column:
    """An array of a table: some are sequences, and would be taken for one."""

    def __init__(self, array: object) -> None:
        self.array = array


# Encoders look for what is of pandas by its module.
_Column.__module__ = "pandas"


def _index_parts(pd: ModuleType, index: Any) -> Parts | None:
    if type(index) is pd.RangeIndex:
        bounds = [index.start, index.stop, index.step]
        return "RangeIndex", {"range": bounds, "name": index.name}
    if type(index) is pd.MultiIndex:
        codes = [np.asarray(codes) for codes in index.codes]
        return "MultiIndex", {
            "levels": list(index.levels),
            "codes": codes,
            "names": list(index.names),
        }
    freq = (
        getattr(index, "freqstr", None)
        if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex)
        else None
    )
    return "Index", {"data": _Column(index.array), "name": index.name, "freq": freq}


def _array_parts(pd: ModuleType, array: Any) -> Parts | None:
    name = type(array).__name__
    if name == "NumpyExtensionArray":
        values = array.to_numpy()
        if values.dtype.hasobject:
            return "objects", {"values": values.tolist()}
        return "numbers", {"values": np.ascontiguousarray(values)}
    if name == "DatetimeArray":
        zone = written_zone(array.tz)
        if zone == "":
            return None
        naive = array.tz_convert("UTC").tz_localize(None) if array.tz is not None else array
        return "dates", {"values": naive.to_numpy(), "zone": zone}
    if name == "TimedeltaArray":
        return "numbers", {"values": array.to_numpy()}
    if name == "Categorical":
        held = {"categories": array.categories, "ordered": bool(array.ordered)}
        return "categories", {"codes": np.asarray(array.codes), **held}
    if name in _MASKED:
        held = {"values": np.asarray(array._data), "mask": np.asarray(array._mask)}
        return "masked", held
    if isinstance(array.dtype, pd.StringDtype):
        texts = [
            None if missing else str(text)
            for text, missing in zip(array, array.isna(), strict=True)
        ]
        held = {"storage": array.dtype.storage, "nan": array.dtype.na_value is not pd.NA}
        return "texts", {"values": texts, **held}
    if name == "PeriodArray":
        return "periods", {"values": np.asarray(array.asi8), "freq": array.freqstr}
    if name == "IntervalArray":
        ends = {"left": _Column(array.left.array), "right": _Column(array.right.array)}
        return "intervals", {**ends, "closed": array.closed}
    return None


# -- and back -----------------------------------------------------------------------------------


def read(kind: str, held: Held) -> object:
    """Return what :func:`write` wrote.

    Raises
    ------
    StateError
        If pandas is not installed.
    Exception
        Of some kind, if it is damaged.
    """
    if importlib.util.find_spec("pandas") is None:
        raise StateError(f"it holds a table of pandas: {how_to_install('learn')}")
    return _READERS[kind](held)


def _data_frame(held: Held) -> object:
    import pandas as pd

    data, columns, index = held["data"], _index_of(held["columns"]), _index_of(held["index"])
    _check_lengths([columns], len(data))
    _check_lengths(data, len(index))
    table = pd.DataFrame(
        {i: pd.Series(array, index=index) for i, array in enumerate(data)}, index=index
    )
    table.columns = columns
    table.attrs = dict(held["attrs"])
    return table


def _series(held: Held) -> object:
    import pandas as pd

    index = _index_of(held["index"])
    _check_lengths([held["data"]], len(index))
    series = pd.Series(held["data"], index=index, name=held["name"])
    series.attrs = dict(held["attrs"])
    return series


def _index_of(value: object) -> Any:
    import pandas as pd

    if not isinstance(value, pd.Index):
        raise ValueError("a table without an index")
    return value


def _check_lengths(arrays: Iterable[Any], length: int) -> None:
    if any(np.ndim(array) != 1 or len(array) != length for array in arrays):
        raise ValueError("a table whose columns differ in length")


def _index(held: Held) -> object:
    import pandas as pd

    data, name = held["data"], held["name"]
    index = pd.Index(data, dtype=data.dtype, name=name)
    if held["freq"] is not None and isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex):
        index = type(index)(index, freq=str(held["freq"]))
    return index


def _range_index(held: Held) -> object:
    import pandas as pd

    start, stop, step = (int(bound) for bound in held["range"])
    return pd.RangeIndex(start, stop, step, name=held["name"])


def _multi_index(held: Held) -> object:
    import pandas as pd

    return pd.MultiIndex(held["levels"], held["codes"], names=held["names"])


def _dates(held: Held) -> object:
    import pandas as pd

    dates = pd.DatetimeIndex(held["values"])
    zone = read_zone(held["zone"])
    return (dates if zone is None else dates.tz_localize("UTC").tz_convert(zone)).array


def _objects(held: Held) -> object:
    values = np.empty(len(held["values"]), dtype=object)
    for position, value in enumerate(held["values"]):
        values[position] = value
    import pandas as pd

    return pd.arrays.NumpyExtensionArray(values)


def _numbers(held: Held) -> object:
    if type(held["values"]) is not np.ndarray:
        raise ValueError("a column without values")
    return held["values"]


def _categories(held: Held) -> object:
    import pandas as pd

    dtype = pd.CategoricalDtype(held["categories"], bool(held["ordered"]))
    return pd.Categorical.from_codes(held["codes"], dtype=dtype)


def _masked(held: Held) -> object:
    import pandas as pd

    values, mask = held["values"], held["mask"]
    kinds = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}
    return kinds.get(values.dtype.kind, pd.arrays.IntegerArray)(values, mask)


def _texts(held: Held) -> object:
    import pandas as pd

    if not all(text is None or type(text) is str for text in held["values"]):
        raise ValueError("text that is none")
    missing = np.nan if held["nan"] else pd.NA
    dtype: Any = pd.StringDtype(held["storage"], na_value=missing)
    return pd.array(held["values"], dtype=dtype)


def _periods(held: Held) -> object:
    import pandas as pd

    dtype = pd.PeriodDtype(str(held["freq"]))
    return pd.arrays.PeriodArray(held["values"], dtype=dtype)


def _intervals(held: Held) -> object:
    import pandas as pd

    return pd.arrays.IntervalArray.from_arrays(held["left"], held["right"], closed=held["closed"])


def _moment(kind: str, held: Held) -> object:
    import pandas as pd

    if kind == "missing":
        return pd.NaT if held["name"] == "NaT" else pd.NA
    if kind == "Timedelta":
        return pd.Timedelta(held["value"])
    if kind == "Interval":
        return pd.Interval(held["left"], held["right"], closed=held["closed"])
    if kind == "Period":
        ordinals = np.array([held["ordinal"]], np.int64)
        return pd.arrays.PeriodArray(ordinals, dtype=pd.PeriodDtype(str(held["freq"])))[0]
    moment, zone = pd.Timestamp(held["value"]), read_zone(held["zone"])
    return moment if zone is None else moment.tz_localize("UTC").tz_convert(zone)


_READERS: dict[str, Callable[[Held], object]] = {
    "DataFrame": _data_frame,
    "Series": _series,
    "Index": _index,
    "RangeIndex": _range_index,
    "MultiIndex": _multi_index,
    "dates": _dates,
    "objects": _objects,
    "numbers": _numbers,
    "categories": _categories,
    "masked": _masked,
    "texts": _texts,
    "periods": _periods,
    "intervals": _intervals,
    **{
        kind: partial(_moment, kind)
        for kind in ("missing", "Timestamp", "Timedelta", "Interval", "Period")
    },
}

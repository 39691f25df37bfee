"""Values of states that are neither plain nor tensors, and need no pickle all the same."""

from __future__ import annotations

import collections
import datetime as dt
import importlib.util
import random
import shutil
import sys
import zoneinfo
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from flambe.compile.state.codec import MARK, blob
from flambe.compile.state.component_state import same
from flambe.compile.state.encoding import Encoder, decode
from flambe.compile.state.file_writer import FileWriter
from flambe.compile.state.state_file import PLAIN_FILE, STATE_FILE, read_state, write_state
from flambe.errors import StateError, UnsavableError

UTC = dt.timezone.utc
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")

PLAIN: list[Any] = [
    *(b"", b"\x00\xff" * 40, bytearray(b"ab"), 1 - 2j, complex("nan"), range(1, 10, 3)),
    *(Decimal("1.10"), Decimal("NaN"), Decimal("-1E+999")),
    *(Path("a/b"), PurePosixPath("/x"), PureWindowsPath("C:\\x")),
    *(dt.date(2020, 2, 29), dt.time(1, 2, 3, 4), dt.timedelta(-1, 2, 3), dt.datetime.max),
    dt.datetime(2020, 1, 1, tzinfo=UTC),
    dt.datetime(2020, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
    dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30), "NST")),
    *(set(), {1, "a", (2, b"x")}, frozenset({frozenset({1}), None})),
    *({(1, 2): 3, dt.date(2020, 1, 1): {}}, {MARK: "date"}, {"a": {MARK: [1]}}),
    collections.Counter("abca"),
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.deque([1, {2}], maxlen=3),
    collections.defaultdict(list, {"a": [1]}),
    [(1, {2}, [b"x", (Path("y"),)])],
]

ARRAYS: list[Any] = [
    *(np.arange(6).reshape(2, 3), np.asfortranarray(np.ones((3, 2))), np.ones((4, 4))[::2, ::2]),
    *(
        np.array(1.5),
        np.zeros((0, 3), np.float32),
        np.array(["é", "long"]),
        np.array([b"a", b"bc"]),
    ),
    *(
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array(["2020", "NaT"], "M8[D]"),
        np.float16(1),
    ),
    *(
        np.array([3], "m8[us]"),
        np.array([1, 2], ">i4"),
        np.float32(0.1),
        np.int64(3),
        np.bool_(True),
    ),
    *(
        np.datetime64("2020-01-01"),
        np.str_("x"),
        np.longdouble(1) / 3,
        np.uint8(255),
        np.zeros(2, "V4"),
    ),
    np.array([(1, "x", [2.0, 3.0])], [("a", "i4"), ("b", "U3"), ("c", "f8", (2,))]),
    np.zeros(2, np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "itemsize": 24})),
    np.zeros(2, [("outer", [("inner", "i2")])]),
]

DAYS = pd.date_range("2020-01-01", periods=3, freq="D", name="day")
INDICES: list[Any] = [
    *(pd.RangeIndex(2, 8, 3, name="r"), pd.Index([1, 5]), pd.Index(["a", None]), pd.Index([])),
    *(DAYS, DAYS.tz_localize("Europe/Berlin"), DAYS.tz_localize("UTC"), DAYS[[0, 2]]),
    *(pd.timedelta_range("1h", periods=2), pd.period_range("2020", periods=2, freq="M")),
    *(pd.interval_range(0, 3), pd.CategoricalIndex(["b", "a"], ordered=True)),
    pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["x", None]),
    pd.Index(np.array(["a", 1, None, (2,)], dtype=object)),
    pd.Index([1.5, np.nan], dtype="float32"),
]
FRAMES: list[Any] = [
    pd.DataFrame(),
    pd.DataFrame(index=[3, 4]),
    pd.DataFrame({"a": [1, 2], 3: [0.5, np.nan], "t": ["x", None]}, index=["p", "q"]),
    pd.DataFrame([[1, "x"], [2, "y"]], columns=["same", "same"]),
    pd.DataFrame(
        {
            "i8": np.array([1, 2, 3], "i1"),
            "f": np.array([1, 2, 3], "f4"),
            "c": pd.Categorical(["x", "y", "x"], ["z", "y", "x"], ordered=True),
            "d": DAYS,
            "z": DAYS.tz_localize("Asia/Tokyo"),
            "dt": pd.to_timedelta([1, 2, None], unit="s"),
            "I": pd.array([1, None, 3], dtype="Int16"),
            "F": pd.array([1.5, None, 3], dtype="Float32"),
            "B": pd.array([True, None, False], dtype="boolean"),
            "s": pd.array(["a", None, "c"], dtype="string"),
            "o": pd.Series([1, "x", {"k": (pd.Timestamp("2020"), pd.NaT, pd.NA)}], dtype=object),
            "cut": pd.cut([1, 5, 9], 3),
            "p": pd.period_range("2020", periods=3, freq="Q"),
        },
        index=DAYS,
    ),
    pd.DataFrame(np.ones((2, 2)), columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
    pd.Series([1, 2], name=("a", 1), dtype="uint8"),
    pd.Series([], dtype=object),
]
MOMENTS: list[Any] = [
    *(pd.Timestamp(5), pd.Timestamp("2020-01-01", tz="Europe/Berlin"), pd.Timedelta("1s"), pd.NA),
    *(pd.NaT, pd.Interval(0, 1.5), pd.Period("2020-01", "M")),
]


@pytest.fixture(params=["torch", "plain"])
def through(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Write a value into the file of a state, and read it back: with torch and without."""
    if request.param == "plain":
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
        )

    def through(value: Any) -> Any:
        shutil.rmtree(tmp_path)
        write_state(FileWriter(tmp_path), {"value": Encoder("it").encode(value, "value")})
        file = PLAIN_FILE if request.param == "plain" else STATE_FILE
        assert [path.name for path in tmp_path.iterdir()] == [file]
        return read_state(str(tmp_path), lambda name, held: held)["value"]

    return through


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_what_python_has_comes_back(value: Any, through: Callable[[Any], Any]) -> None:
    again = through(value)
    assert repr(again) == repr(value) or again == value
    assert type(again) is type(value)
    if isinstance(value, dt.datetime):
        assert (again.fold, again.tzinfo, again.utcoffset()) == (
            value.fold,
            value.tzinfo,
            value.utcoffset(),
        )
    if isinstance(value, collections.defaultdict | collections.deque):
        assert getattr(again, "default_factory", 0) is getattr(value, "default_factory", 0)
        assert getattr(again, "maxlen", 0) == getattr(value, "maxlen", 0)


@pytest.mark.parametrize("value", ARRAYS, ids=lambda value: f"{value.dtype}"[:30])
def test_arrays_come_back(value: Any, through: Callable[[Any], Any]) -> None:
    again = through(value)
    assert type(again) is type(value)
    assert (again.dtype, again.shape) == (value.dtype, value.shape)
    assert again.tobytes() == value.tobytes()
    if isinstance(value, np.ndarray):
        assert again.flags.writeable
        if value.flags.c_contiguous or value.flags.f_contiguous:
            assert again.flags.c_contiguous == value.flags.c_contiguous


@pytest.mark.parametrize("value", INDICES, ids=lambda value: repr(value)[:30])
def test_indices_come_back(value: Any, through: Callable[[Any], Any]) -> None:
    again = through(value)
    pd.testing.assert_index_equal(again, value, exact=True, check_names=True)
    assert getattr(again, "freq", None) == getattr(value, "freq", None)
    assert again.dtype == value.dtype


@pytest.mark.parametrize("value", FRAMES, ids=lambda value: f"{value.shape}")
def test_tables_come_back(value: Any, through: Callable[[Any], Any]) -> None:
    value.attrs = {"source": Path("a.csv")}
    again = through(value)
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(again, value, check_freq=True, check_column_type=True)
        assert list(again.dtypes) == list(value.dtypes)
    else:
        pd.testing.assert_series_equal(again, value)
    assert again.attrs == value.attrs
    assert same(again, value)


@pytest.mark.parametrize("value", MOMENTS, ids=repr)
def test_moments_come_back(value: Any, through: Callable[[Any], Any]) -> None:
    again = through(value)
    assert (type(again), repr(again)) == (type(value), repr(value))
    assert getattr(again, "unit", "") == getattr(value, "unit", "")


def test_generators_of_random_numbers_go_on(through: Callable[[Any], Any]) -> None:
    made: list[Any] = [random.Random(3), np.random.RandomState(3)]
    made += [
        np.random.Generator(kind(3))
        for kind in (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64)
    ]
    for generator in made:
        generator.random()
        if isinstance(generator, np.random.Generator):
            generator.integers(10, dtype=np.int32)  # which leaves half a number
            generator.standard_normal()
        again = through(generator)
        for _ in range(3):
            assert again.random() == generator.random()
    if "torch" in str(through):
        return


def test_generators_of_torch_go_on(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    torch.rand(3, generator=generator)
    again = decode(Encoder("it").encode(generator, "x"))
    assert torch.equal(torch.rand(3, generator=again), torch.rand(3, generator=generator))


def test_what_is_large_is_kept_at_its_size(tmp_path: Path) -> None:
    write_state(FileWriter(tmp_path), {"a": Encoder("it").encode(np.ones(1_000_000), "a")})
    assert (tmp_path / STATE_FILE).stat().st_size < 8_020_000


def test_a_file_of_tensors_is_as_ever(tmp_path: Path) -> None:
    """Others read it with torch alone."""
    linear = torch.nn.Linear(2, 2)
    write_state(
        FileWriter(tmp_path), {"linear": Encoder("it").encode(linear.state_dict(), "linear")}
    )
    assert MARK.encode() not in (tmp_path / STATE_FILE).read_bytes() or isinstance(
        linear.state_dict(), collections.OrderedDict
    )


# -- what is refused ----------------------------------------------------------------------------


def refused(value: Any) -> str:
    with pytest.raises(UnsavableError) as raised:
        Encoder("Part at 'x'").encode({"a": [value]}, "best")
    return str(raised.value)


def test_what_is_refused_says_why_and_what_to_do() -> None:
    text = refused(np.array([object()]))
    assert text.startswith(
        "cannot save Part at 'x': its \"best['a'][0]\" is a numpy.ndarray, an array"
    )
    assert "self.register_attrs('best', pickle=True)" in text
    assert "default_factory" in refused(collections.defaultdict(lambda: 0))
    assert "np.asarray" in refused(np.ma.zeros(1))
    assert "which would need pickle" in refused(pd.Series(pd.arrays.SparseArray(np.array([0, 1]))))
    assert "which would need pickle" in refused(
        dt.datetime(2020, 1, 1, tzinfo=type("Odd", (dt.tzinfo,), {})())
    )
    assert "object" in refused(pd.DataFrame({"a": [object()]}))
    circle: list[Any] = []
    circle.append(circle)
    assert "contains itself" in refused(circle)


HUGE = 10**15
BAD: list[Any] = [
    *(
        "what",
        "numpy.what",
        "pandas.what",
        "os.system",
        "",
        3,
        None,
        "numpy.ndarray",
        "pandas.Index",
    ),
    *("date", "Path", "dict", "Random", "pandas.DataFrame", "numpy.Generator", "torch.Generator"),
    {"date": [0, 0, 0]},
    {"bytes": "text"},
    {"range": ["a"]},
    {"complex": ["x"]},
    {"Decimal": "x"},
]


def array(**more: Any) -> dict[str, Any]:
    good = {"dtype": "<f8", "shape": [1], "order": "C", "data": blob(bytes(8))}
    return {MARK: "numpy.ndarray", **good, **more}


@pytest.mark.parametrize(
    "written",
    [
        *({MARK: kind} for kind in BAD if not isinstance(kind, dict)),
        *(
            {MARK: kind, "value": value}
            for one in BAD
            if isinstance(one, dict)
            for kind, value in one.items()
        ),
        *(
            array(dtype=kind)
            for kind in ("O", "|O8", "T", "<T16", "x", "", "f8,O", "(2,2)f8", [["a", "O"]])
        ),
        *(
            array(dtype=kind)
            for kind in (3, [[["a"]]], [[[[[[["a", "i4"]]]]]]], "V99999999999", "U999999999")
        ),
        *(
            array(shape=shape)
            for shape in ([HUGE], [-1], [2], [0, HUGE], [True], ["1"], [1] * 40, "x", 3)
        ),
        *(array(shape=[HUGE], dtype=kind, data=blob(b"")) for kind in ("V0", "U0")),
        array(data=torch.zeros(8)),
        array(data=[0] * 8),
        {MARK: "datetime", "value": [2020, 1, 1], "fold": 0, "zone": "../../etc/passwd"},
        {MARK: "datetime", "value": [2020, 1, 1], "fold": 0, "zone": [10**20, 0, 0, None]},
        {MARK: "set", "items": [[1]]},
        {MARK: "dict", "items": [[[1], 2]]},
        {MARK: "dict", "items": [[1, 2, 3]]},
        {MARK: "defaultdict", "items": [], "factory": "eval"},
        {MARK: "deque", "items": [], "most": "x"},
        {MARK: "Path", "kind": "open", "value": "x"},
        {MARK: "numpy.Generator", "state": {"bit_generator": "seterr"}},
        {
            MARK: "pandas.Series",
            "data": array(),
            "index": {MARK: "pandas.RangeIndex", "range": [0, HUGE, 1], "name": None},
            "name": None,
            "attrs": {},
        },
        {
            MARK: "pandas.Series",
            "data": 1,
            "index": {MARK: "pandas.RangeIndex", "range": [0, HUGE, 1], "name": None},
            "name": None,
            "attrs": {},
        },
        {MARK: "pandas.DataFrame", "data": [], "columns": 1, "index": 1, "attrs": {}},
        {MARK: "pandas.categories", "codes": array(), "categories": 3, "ordered": 1},
        {MARK: "pandas.periods", "values": array(), "freq": "x" * 100},
        {MARK: "pickle", "sha256": "", "size": 0},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_flambe_wrote_is_a_clean_error(written: Any, tmp_path: Path) -> None:
    for value in (written, [written], {"a": (written,)}):
        if isinstance(value, dict) and value.get(MARK) == "pickle":
            continue
        shutil.rmtree(tmp_path)
        write_state(FileWriter(tmp_path), {"value": value})
        with pytest.raises(StateError, match=r"^cannot read the state in "):
            read_state(str(tmp_path), lambda name, held: held)


def test_what_is_nested_too_deeply_is_an_error(tmp_path: Path) -> None:
    deep: Any = {MARK: "frozenset", "items": []}
    for _ in range(5_000):
        deep = {MARK: "frozenset", "items": [deep]}
    sys.setrecursionlimit(limit := max(sys.getrecursionlimit(), 1_000))
    assert limit
    with pytest.raises(ValueError, match="nested too deeply"):
        decode(deep)

"""Attributes that change while a component runs, and are in no state."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import functools
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

from flambe.compile import Component
from flambe.compile.state.digest import digest
from flambe.compile.state.forgotten import Forgotten, Watch
from flambe.nn import Module


class ForgetsPart(Component):
    def __init__(self) -> None:
        self.seen = 0


class ForgetsNothing(Component):
    _transient: ClassVar[tuple[str, ...]] = ("cache",)

    def __init__(self, part: Any = None) -> None:
        self.part = part
        self.steps = 0
        self.cache: dict[str, int] = {}
        self.random = random.Random(1)
        self.others = [1, 2]
        self.again: Any = None
        self.register_attrs("steps")

    def run(self) -> bool:
        self.steps += 1
        self.cache["a"] = 1
        self.random.random()
        self.others = [1, 2]
        _ = self.size
        return False

    @functools.cached_property
    def size(self) -> int:
        return 3

    def _state(self, values: dict[str, Any]) -> dict[str, Any]:
        def drawn() -> Any:
            return self.random.getstate()

        return {**values, "drawn": drawn()}


class ForgetsAll(Component):
    def __init__(self) -> None:
        self.values: Any = None
        self._private = 0
        self.part = ForgetsPart()

    def set(self, value: Any) -> None:
        self.values = value
        self._private += 1


class ForgetsNet(Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.register_buffer("scratch", torch.zeros(1), persistent=False)
        self.calls = 0


def lost(root: Component, change: Callable[[], object]) -> dict[str, Forgotten]:
    watch = Watch(root)
    change()
    found = list(watch.forgotten(root.get_state()))
    assert len({one.key for one in found}) == len(found)
    return {one.name: one for one in found}


def test_what_is_registered_declared_or_saved_by_a_hook_is_not_named() -> None:
    component = ForgetsNothing(ForgetsPart())
    assert lost(component, component.run) == {}


def test_what_changed_is_named_with_its_line_and_what_mends_it() -> None:
    component = ForgetsAll()
    found = lost(component, lambda: component.set(0.7))
    assert list(found) == ["values", "_private"]
    assert found["values"].key == f"{__name__}.ForgetsAll.values"
    lines = found["values"].text.splitlines()
    assert lines[0] == (
        "ForgetsAll.values changed during the run (None → 0.7) but is not saved: after a resume, "
        "in later stages and when it is loaded it is None again"
    )
    number = ForgetsAll.set.__code__.co_firstlineno + 1
    assert lines[1] == f"  at {__file__}:{number}, in set"
    assert lines[2] == '  to keep it:  self.register_attrs("values")   in __init__'
    assert lines[3] == '  if nothing depends on it:  _transient = ("values",)   in the class'


def test_what_others_set_is_named_with_its_class() -> None:
    component = ForgetsAll()

    def change() -> None:
        component.part.seen = 3
        component.more = 1  # type: ignore[attr-defined]
        component._of_a_library = 1  # type: ignore[attr-defined]

    found = lost(component, change)
    assert list(found) == ["more", "seen"]
    assert found["seen"].path == "part"
    assert "ForgetsAll.more was set during the run" in found["more"].text
    assert "when it is loaded it is missing" in found["more"].text
    assert "class ForgetsAll" in found["more"].text


def test_a_class_is_named_once() -> None:
    component = ForgetsNothing([ForgetsPart(), ForgetsPart()])

    def change() -> None:
        for part in component.part:
            part.seen += 1

    assert list(lost(component, change)) == ["seen"]


def test_what_belongs_to_torch_is_not_named() -> None:
    net = ForgetsNet()

    def change() -> None:
        net.eval()
        net(torch.zeros(1, 2)) if False else net.layer(torch.zeros(1, 2)).sum().backward()
        net.register_forward_hook(lambda *args: None)
        net.get_buffer("scratch").fill_(3)
        with torch.no_grad():
            net.layer.weight.fill_(2)

    assert lost(net, change) == {}
    assert list(lost(net, lambda: setattr(net, "calls", 1))) == ["calls"]


def test_what_is_made_while_it_runs_cannot_be_loaded() -> None:
    component, net = ForgetsAll(), ForgetsNet()
    made = lost(component, lambda: component.set(torch.optim.SGD([torch.zeros(1)], lr=0.1)))
    assert "ForgetsAll.values was created during the run: it is missing" in made["values"].text
    assert "make self.values in __init__" in made["values"].text
    assert "was created" in lost(component, lambda: component.set(ForgetsPart()))["values"].text
    layer = torch.nn.Parameter(torch.zeros(1))
    assert "was created" in lost(net, lambda: setattr(net, "later", layer))["later"].text


@dataclasses.dataclass
class Estimator:
    """What scikit-learn's estimators are like: it has no state_dict, and attributes that appear."""

    n: int = 1

    def fit(self) -> None:
        self.coef_ = np.ones(3)


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _appended(value: Any) -> Any:
    return [*value, 1]


CHANGES: list[tuple[Callable[[], Any], Callable[[Any], object]]] = [
    (lambda: [1], lambda v: v.append(2)),
    (lambda: {"a": [1]}, lambda v: v["a"].append(2)),
    (lambda: {1, 2}, lambda v: v.add(3)),
    (lambda: collections.deque([1]), lambda v: v.append(1)),
    (lambda: collections.Counter("a"), lambda v: v.update("a")),
    (lambda: bytearray(b"a"), lambda v: v.extend(b"b")),
    (lambda: np.zeros(3), lambda v: v.__setitem__(0, 1)),
    (lambda: np.zeros(3, dtype=object), lambda v: v.__setitem__(0, 1)),
    (lambda: np.random.default_rng(0), lambda v: v.random()),
    (lambda: np.random.RandomState(0), lambda v: v.rand()),
    (lambda: random.Random(0), lambda v: v.random()),
    (lambda: torch.zeros(3), lambda v: v.add_(1)),
    (lambda: torch.zeros(1_000_000), lambda v: v[1:2].add_(1)),
    (lambda: torch.zeros(3, dtype=torch.bfloat16), lambda v: v.add_(1)),
    (lambda: torch.Generator().manual_seed(0), lambda v: torch.rand(1, generator=v)),
    (lambda: pd.DataFrame({"a": [1]}), lambda v: v.insert(0, "b", [1])),
    (lambda: pd.Series([1]), lambda v: v.__setitem__(0, 2)),
    (Estimator, lambda v: v.fit()),
    (lambda: Slotted([1]), lambda v: v.value.append(2)),
    (lambda: [Estimator()], lambda v: v[0].fit()),
    (lambda: [torch.nn.Linear(1, 1)], lambda v: v[0].weight.data.fill_(7)),
    (lambda: [[ForgetsPart()]], lambda v: setattr(v[0][0], "seen", 1)),
]


@pytest.mark.parametrize(("make", "change"), CHANGES)
def test_changes_in_place_are_seen(make: Any, change: Any) -> None:
    one, other = make(), make()
    if not isinstance(one, list) or not isinstance(one[0], torch.nn.Module):
        assert digest(one) == digest(other)
    before = digest(one)
    assert digest(one) == before
    change(one)
    assert digest(one) != before


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, -(10**5000), 0.5, float("nan"), 1j, "text", "\udcff", b"x" * 3_000_000),
        *([[]], {"a": {1: (2,)}}, frozenset({1, "a"}), Path("a"), datetime.date(2020, 1, 1)),
        *(range(10**9), np.float32(1), pd.Index([1, 2]), pd.Timestamp(0), torch.device("cpu")),
        list(range(100_000)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_equal_values_are_equal(value: Any) -> None:
    import copy

    assert digest(value) == digest(copy.deepcopy(value))


def test_values_of_other_types_are_others() -> None:
    values: list[Any] = [0, 0.0, False, None, "0", b"0", [0], (0,), {0}, {0: 0}, np.zeros(1)]
    assert len({digest(value) for value in values}) == len(values)


def test_what_cannot_be_looked_into_is_itself() -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]

    class Broken:
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise ValueError

    values = [
        threading.Lock(),
        iter([1]),
        print,
        circle,
        deep,
        Broken(),
        torch.zeros(2).to_sparse(),
    ]
    for value in values:
        assert digest(value) == digest(value)
    assert digest(iter([1])) != digest(values[1])


def test_a_data_set_costs_little() -> None:
    component = ForgetsAll()
    component.values = [
        torch.zeros(30_000_000),
        np.zeros(30_000_000),
        [str(number) for number in range(500_000)],
        {str(number): [number] for number in range(500_000)},
        pd.DataFrame({"a": np.zeros(2_000_000)}),
    ]
    watch = Watch(component)
    start = time.process_time()
    assert list(watch.forgotten(component.get_state())) == []
    assert time.process_time() - start < 1.0


def test_many_of_one_kind(tmp_path: Path) -> None:
    """A fitted estimator needs pickle, and a generator cannot be kept."""
    component = ForgetsAll()
    component.values = Estimator()
    found = lost(component, component.values.fit)
    assert 'self.register_attrs("values", pickle=True)' in found["values"].text
    found = lost(component, lambda: component.set(iter([1])))
    assert "cannot be saved" in found["values"].text


def test_a_digest_is_the_same_each_time() -> None:
    """What is made only to be looked at had the id of what was made before it, and of its number."""
    frame = pd.DataFrame({"a": [1], "b": ["x"]})
    value = [frame, frame.copy(), pd.Series([1])]
    junk: list[list[int]] = []
    found = set()
    for number in range(400):
        found.add(digest(value))
        junk = [*junk, [number] * (number % 7)] if number % 3 else []
    assert len(found) == 1

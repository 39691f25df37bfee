"""What run() and metric() may return, and what is said where they return something else."""

from __future__ import annotations

import builtins
import math
import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch

from flambe.compile import Component
from flambe.compile.component_errors import UserInterrupt
from flambe.compile.stepping import Stepper
from flambe.errors import ComponentError
from flambe.logging import events
from flambe.logging.events import Record


class Kept:
    """A channel that remembers."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def send(self, record: Record) -> None:
        self.records.append(record)

    def flush(self) -> None:
        """Nothing waits."""

    def figures(self) -> list[tuple[str, float]]:
        return [(record.tag, record.value) for record in self.records]


@pytest.fixture
def kept() -> Iterator[Kept]:
    channel = Kept()
    events.use(channel, "one")
    yield channel
    events.use(None)


class Returns(Component):
    def __init__(self, result: Any = None, figure: Any = None) -> None:
        self.result, self.figure = result, figure

    def run(self) -> Any:
        return self.result

    def metric(self) -> Any:
        return self.figure


@pytest.mark.parametrize(
    ("result", "more"),
    [
        (True, True),
        (False, False),
        (None, False),
        (np.bool_(True), True),
        (np.bool_(False), False),
        (np.array([True]), True),
        (torch.tensor(True), True),
        ({}, False),
    ],
)
def test_what_says_whether_there_is_more(result: Any, more: bool) -> None:
    assert Stepper(Returns(result)).step() is more


def test_a_mapping_is_logged_and_ends(kept: Kept) -> None:
    result = {
        "loss": 0.5,
        "many": {"a": 1, "b": np.float32(2)},
        "tensor": torch.tensor([3.0], requires_grad=True),
        "decimal": Decimal("0.25"),
        "yes": True,
    }
    assert Stepper(Returns(result)).step() is False
    assert kept.figures() == [
        ("loss", 0.5),
        ("many/a", 1.0),
        ("many/b", 2.0),
        ("tensor", 3.0),
        ("decimal", 0.25),
        ("yes", 1.0),
    ]


@pytest.mark.parametrize(
    "value", ["good", None, [1.0], np.array([1.0, 2.0]), torch.zeros(2), 1j, np.array(["x"])]
)
def test_a_figure_that_is_no_number_is_named(kept: Kept, value: Any) -> None:
    with pytest.raises(ComponentError, match=r"figures, and 'many/b' is not a number: an? "):
        Stepper(Returns({"a": 1.0, "many": {"b": value}})).step()


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("done", r"run\(\) returned a str \('done'\)"),
        (0, r"run\(\) returned an int \(0\)"),
        (3.5, r"run\(\) returned a float \(3.5\)"),
        ([], r"run\(\) returned a list \(\[\]\)"),
        (torch.tensor([True, False]), r"run\(\) returned a torch.Tensor"),
        (np.array(["x"]), r"run\(\) returned a numpy.ndarray"),
        ("\udcff" * 9, r"run\(\) returned a str"),
    ],
)
def test_anything_else_is_an_error_that_names_the_method(result: Any, text: str) -> None:
    with pytest.raises(ComponentError, match=text) as caught:
        Stepper(Returns(result)).step()
    shown = str(caught.value)
    assert "return True while there is more to do, False or nothing at the end" in shown
    line = Returns.run.__code__.co_firstlineno
    assert shown.endswith(f"at {__file__}:{line}, in Returns.run")
    shown.encode()


def test_a_coroutine_is_an_error_and_is_closed(recwarn: pytest.WarningsRecorder) -> None:
    class Waits(Component):
        async def run(self) -> bool:
            return False

    with pytest.raises(
        ComponentError, match=r"a coroutine, which is never awaited\s+write def run"
    ):
        Stepper(Waits()).step()

    class Yields(Component):
        async def run(self) -> Any:
            yield 1

    with pytest.raises(ComponentError, match="an async_generator, which is never awaited"):
        Stepper(Yields()).step()
    assert not recwarn.list


class Epochs(Component):
    def __init__(self, values: Any, result: Any = None) -> None:
        self.values, self.result, self.seen = values, result, 0

    def run(self) -> Any:
        for value in self.values:
            self.seen += 1
            yield value
        return self.result

    def metric(self) -> float:
        return float(self.seen)


def test_a_generator_is_stepped_and_what_it_yields_is_logged(kept: Kept) -> None:
    component = Epochs([{"loss": 3.0}, None, True, {"loss": 2.0}], {"end": 1.0})
    stepper = Stepper(component)
    steps = []
    while stepper.step():
        steps.append((component.seen, stepper.counts))
    assert steps == [(1, True), (2, True), (3, True), (4, True)]
    assert not stepper.counts
    assert kept.figures() == [("loss", 3.0), ("loss", 2.0), ("end", 1.0)]


def test_a_generator_that_yields_false_is_at_its_end() -> None:
    stepper = Stepper(Epochs([None, False, None]))
    assert [stepper.step(), stepper.step()] == [True, False]


@pytest.mark.parametrize(("value", "shown"), [(0.5, r"a float \(0.5\)"), ("x", r"a str \('x'\)")])
def test_a_generator_that_yields_something_else_is_an_error(value: Any, shown: str) -> None:
    with pytest.raises(ComponentError, match=rf"run\(\) yielded {shown}\s+yield a mapping"):
        Stepper(Epochs([value])).step()


def test_stop_iteration_that_run_raises_is_not_the_end_of_a_generator() -> None:
    class Stops(Component):
        def run(self) -> bool:
            raise StopIteration

    with pytest.raises(ComponentError, match="StopIteration"):
        Stepper(Stops()).step()


@pytest.mark.parametrize(
    ("figure", "number"),
    [
        (None, None),
        (1, 1.0),
        (True, 1.0),
        (np.float32(0.25), 0.25),
        (np.array([0.75]), 0.75),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.tensor([0.5], dtype=torch.bfloat16), 0.5),
        (Decimal("0.5"), 0.5),
        (10**400, math.inf),
        (-(10**400), -math.inf),
    ],
)
def test_a_metric_is_one_number(
    figure: Any, number: float | None, recwarn: pytest.WarningsRecorder
) -> None:
    assert Stepper(Returns(figure=figure)).metric() == number
    assert not recwarn.list


@pytest.mark.parametrize(
    "figure", ["0.5", {"a": 1.0}, (1, 2), torch.zeros(2), np.array([1.0, 2.0]), 1j, Returns]
)
def test_a_metric_that_is_no_number_names_the_method(figure: Any) -> None:
    with pytest.raises(
        ComponentError, match=r"metric\(\) returned an? .*\s+return one number"
    ) as e:
        Stepper(Returns(figure=figure)).metric()
    line = Returns.metric.__code__.co_firstlineno
    assert str(e.value).endswith(f":{line}, in Returns.metric")


class NeedsTwo(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class OfItsOwn(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NeedsTwo(1, 2), "NeedsTwo: 1 and 2"),
        (Mute(), r"Mute: \(its str\(\) failed with RuntimeError\)"),
        (OfItsOwn("mine"), "OfItsOwn: mine"),
        (GeneratorExit(), "GeneratorExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt: raised by the component, not by Ctrl-C"),
        (SystemExit(0), r"SystemExit: it called sys.exit\(0\), which ends a program"),
        (SystemExit("usage: x"), r"SystemExit: it called sys.exit\('usage: x'\)"),
        (ValueError("a \udcff b"), r"ValueError: a \\udcff b"),
    ],
)
def test_whatever_is_raised_is_an_error_of_the_component(error: BaseException, text: str) -> None:
    class Raises(Component):
        def run(self) -> bool:
            raise error

        metric = run

    for call in (Stepper(Raises()).step, Stepper(Raises()).metric):
        with pytest.raises(ComponentError, match=text) as caught:
            call()
        (str(caught.value) + caught.value.traceback).encode()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no groups of exceptions")
def test_the_parts_of_a_group_are_told() -> None:
    group: Any = vars(builtins)["BaseExceptionGroup"]

    class Raises(Component):
        def run(self) -> bool:
            raise group("two", [ValueError("one"), group("in", [SystemExit(3)])])

    with pytest.raises(ComponentError) as caught:
        Stepper(Raises()).step()
    assert "two (2 sub-exceptions)\n  - ValueError: one\n  - BaseEx" in caught.value.message
    assert "- SystemExit: it called sys.exit(3)" in caught.value.message


def test_a_message_of_megabytes_is_bounded() -> None:
    class Raises(Component):
        def run(self) -> bool:
            raise ValueError("start" + "x" * 3_000_000 + "end")

    with pytest.raises(ComponentError) as caught:
        Stepper(Raises()).step()
    text = caught.value.message
    assert len(text) < 5_000
    assert re.match(
        r"ValueError: startx.*x \[… 2,99\d,\d{3} characters …\] x.*xend\n  the whole", text
    )
    assert len(caught.value.traceback) < 70_000


def test_an_interruption_by_the_user_is_none_of_the_component() -> None:
    class Interrupted(Component):
        def run(self) -> bool:
            raise UserInterrupt

    with pytest.raises(UserInterrupt):
        Stepper(Interrupted()).step()

"""One step of a component: what its ``run`` and ``metric`` return, interpreted.

``run`` does a step and says whether there is more to do, or it is a generator whose every ``yield``
is a step. Both may give figures. Anything else is an error that names the method: a value that is
merely truthy would be stepped forever.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import numbers
import reprlib
import sys
from collections.abc import Callable, Generator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from flambe.compile.build import run_error
from flambe.compile.component_errors import UserInterrupt, clean
from flambe.errors import ComponentError, FlambeError
from flambe.logging import events

_RETURN = (
    "return True while there is more to do, False or nothing at the end, or a mapping of figures"
)
_YIELD = "yield a mapping of figures, or nothing, after each step"


class Stepper:
    """Steps a component.

    Parameters
    ----------
    component
        The component.
    interrupt
        The exception that interrupts the run; all others are the component's own.

    Attributes
    ----------
    call
        Calls a function; a debugger may.
    counts
        Whether the last step did something: finding a generator exhausted is not a step.
    """

    def __init__(self, component: Any, interrupt: type[BaseException] = UserInterrupt) -> None:
        self.component = component
        self.interrupt = interrupt
        self.call: Callable[[Callable[[], object]], object] = lambda function: function()
        self.counts = True
        self._generator: Generator[object, None, object] | None = None

    @property
    def is_generator(self) -> bool:
        """Whether ``run`` turned out to be a generator: what it holds is in no checkpoint."""
        return self._generator is not None

    def step(self) -> bool:
        """Do one step; return whether there is more to do.

        Raises
        ------
        ComponentError
            If the component raises anything, exits, or returns something that has no meaning here.
        """
        try:
            return self._step()
        except (FlambeError, self.interrupt):
            raise
        except BaseException as error:
            raise run_error(self.component, error) from error

    def _step(self) -> bool:
        self.counts = True
        if self._generator is None:
            result: object = self.call(self.component.run)
            if not inspect.isgenerator(result):
                return self._more(result, "returned", _RETURN, otherwise=False)
            self._generator = cast("Generator[object, None, object]", result)
        try:
            result = self.call(functools.partial(next, self._generator))
        except StopIteration as end:
            self.counts = False
            if end.value is not None:
                self._more(end.value, "returned", _RETURN, otherwise=False)
            return False
        return self._more(result, "yielded", _YIELD, otherwise=True)

    def _more(self, result: object, how: str, hint: str, *, otherwise: bool) -> bool:
        """Return whether a result of ``run`` says that there is more to do; log its figures.

        Parameters
        ----------
        result
            What it returned or yielded.
        how, hint
            Which of the two, and what to write instead, for an error.
        otherwise
            Whether there is more to do where it says nothing, or only figures.
        """
        if result is None:
            return otherwise
        if isinstance(result, Mapping):
            self._log(result, how)
            return otherwise
        more = _truth(result)
        if more is None:
            self._refuse(result, how, hint)
        return bool(more)

    def _log(self, figures: Mapping[object, object], how: str) -> None:
        for name, value in _flat(figures):
            number = _number(value)
            if number is None:
                raise self._error(
                    f"run() {how} figures, and {name!r} is not a number: {_described(value)}",
                    "run",
                    "log text with flambe.log(name, text)",
                )
            events.log(name, number)

    def _refuse(self, result: object, how: str, hint: str) -> None:
        if inspect.iscoroutine(result):
            result.close()
            hint = "write def run(self), and call asyncio.run(...) in it"
        raise self._error(f"run() {how} {_described(result)}", "run", hint)

    def metric(self) -> float | None:
        """Return the figure that the component ranks by.

        Raises
        ------
        ComponentError
            If it raises, or does not return a number.
        """
        try:
            value = self.component.metric()
        except (FlambeError, self.interrupt):
            raise
        except BaseException as error:
            raise run_error(self.component, error, "metric() of") from error
        if value is None:
            return None
        number = _number(value)
        if number is None:
            raise self._error(
                f"metric() returned {_described(value)}",
                "metric",
                "return one number (higher is better), or None where there is none yet",
            )
        return number

    def _error(self, text: str, method: str, hint: str) -> ComponentError:
        error = run_error(self.component, TypeError(text))
        frame = _definition(self.component, method)
        return ComponentError(f"{text}\n  {hint}", error.place, error.what, "", frame)


def _flat(figures: Mapping[object, object], prefix: str = "") -> list[tuple[str, object]]:
    flat: list[tuple[str, object]] = []
    for key, value in figures.items():
        name = f"{prefix}{key}"
        flat += _flat(value, f"{name}/") if isinstance(value, Mapping) else [(name, value)]
    return flat


def _single(value: object) -> object:
    """Return the one element of an array or a tensor, or None if it has another number of them."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return value.detach().item() if value.numel() == 1 else None
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        return value.item() if value.size == 1 else None
    return value


def _truth(value: object) -> bool | None:
    """Return a bool, NumPy's and torch's too, or None if it is something else."""
    value = _single(value)
    return value if isinstance(value, bool) else None


def _number(value: object) -> float | None:
    """Return a number as a float, or None if it is something else."""
    single = _single(value)
    if not isinstance(single, numbers.Real | Decimal):
        return None
    with contextlib.suppress(ValueError):  # a signalling NaN
        try:
            return float(single)
        except OverflowError:
            return -math.inf if single < Decimal(0) else math.inf
    return math.nan


def _described(value: object) -> str:
    """Return ``a str ('good')``: the type of a value, and the start of it."""
    kind = type(value)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    article = "an" if name[0] in "aeiou" else "a"
    if inspect.iscoroutine(value) or inspect.isasyncgen(value):
        return f"{article} {name}, which is never awaited"
    try:
        text = reprlib.repr(value).replace("\n", " ")
    except Exception:
        return f"{article} {name}"
    return clean(f"{article} {name} ({text[:80]})")


def _definition(component: object, method: str) -> str:
    """Return where a method of a component's class is written."""
    function = inspect.unwrap(getattr(type(component), method))
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    file = str(Path(code.co_filename)).rpartition("/site-packages/")[2]
    return f"{file}:{code.co_firstlineno}, in {function.__qualname__}"

"""When a stage, or one of its variants, is stopped before its end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from flambe._durations import HINT, parse_duration
from flambe.compile.values import Key, Path
from flambe.errors import did_you_mean
from flambe.experiment.spec import StopSpec
from flambe.progress import is_number

Finding = tuple[Path, str, str]  # path, message, hint

STOP_KEYWORDS = ("time", "metric", "variants")
LIMIT_KEYWORDS = ("variant", "run")


def stop_findings(value: object) -> Iterator[Finding]:
    """Yield the mistakes in the value of ``stop`` for one stage."""
    if not isinstance(value, Mapping):
        yield (), "stop: expected a mapping", f"the keywords: {', '.join(STOP_KEYWORDS)}"
        return
    yield from _unknown("stop", value, STOP_KEYWORDS)
    if "time" in value and parse_duration(value["time"]) is None:
        yield ("time",), f"stop: time cannot be {value['time']!r}", HINT
    metric = value.get("metric", 0.0)
    if isinstance(metric, bool) or not is_number(metric):
        yield ("metric",), f"stop: metric cannot be {metric!r}", "a number, such as 0.95"
    variants = value.get("variants", 1)
    if isinstance(variants, bool) or not isinstance(variants, int) or variants < 1:
        yield ("variants",), f"stop: variants cannot be {variants!r}", "1 or more"


def limit_findings(value: Mapping[Key, object]) -> Iterator[Finding]:
    """Yield the mistakes in ``limits``."""
    yield from _unknown("limits", value, LIMIT_KEYWORDS)
    for name in LIMIT_KEYWORDS:
        if name in value and parse_duration(value[name]) is None:
            yield (name,), f"limits: {name} cannot be {value[name]!r}", HINT


def _unknown(
    keyword: str, value: Mapping[Key, object], names: tuple[str, ...]
) -> Iterator[Finding]:
    for name in value:
        if name not in names:
            hint = did_you_mean(str(name), names) or f"the keywords: {', '.join(names)}"
            yield (name,), f"{keyword}: unknown keyword {name!r}", hint


@contextlib.contextmanager
def time_limit(seconds: float | None, halt: Callable[[str], None]) -> Iterator[None]:
    """Halt a run that takes longer than a limit, with the reason."""
    if seconds is None:
        yield
        return
    reason = f"the run reached its limit of {seconds:g} s (limits: run); finished variants are kept"
    timer = threading.Timer(seconds, halt, [reason])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class StageLimits:
    """Decides after each step whether a variant continues, and whether its stage does.

    Parameters
    ----------
    stop
        When the stage is stopped.
    variant
        After how many seconds a variant is stopped; None for no limit.
    done
        How many variants are done already.
    clock
        Returns the time in seconds.

    Attributes
    ----------
    reason
        Why the stage is stopped; empty while it is not.
    """

    def __init__(
        self,
        stop: StopSpec,
        variant: float | None = None,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stop = stop
        self._variant = variant
        self._done = done
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self.reason = ""
        self._check_done()

    def __bool__(self) -> bool:
        return self._stop != StopSpec() or self._variant is not None

    def after_step(self, metric: float | None, seconds: float) -> str:
        """Return why a variant is stopped after a step; empty if it continues.

        Parameters
        ----------
        metric
            Its figure.
        seconds
            How long it has been running.
        """
        with self._lock:
            stop = self._stop
            reached = stop.metric is not None and is_number(metric) and metric >= stop.metric
            if reached and not self.reason:
                self.reason = f"the stage reached a metric of {stop.metric:g}"
            self._check_time()
            if self.reason:
                return self.reason
            if self._variant is not None and seconds >= self._variant:
                return f"the limit of {self._variant:g} s for a variant"
            return ""

    def after_end(self) -> None:
        """Count a variant that is done."""
        with self._lock:
            self._done += 1
            self._check_done()

    def _check_time(self) -> None:
        limit = self._stop.time
        if not self.reason and limit is not None and self._clock() - self._began >= limit:
            self.reason = f"the stage ran for {limit:g} s"

    def _check_done(self) -> None:
        limit = self._stop.variants
        if not self.reason and limit is not None and self._done >= limit:
            variants = "variant is" if limit == 1 else "variants are"
            self.reason = f"{limit} {variants} done in the stage"

"""How a run that no command shows is shown: in a notebook as a table, elsewhere in the log."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

from flambe.experiment.interactive.notebook_observer import NotebookObserver, in_notebook
from flambe.experiment.observer import LogObserver, Observer, guard

_log = logging.getLogger("flambe.run")


@contextlib.contextmanager
def observing(observer: Observer | None, *, show: bool) -> Iterator[Observer]:
    """Yield what shows a run, for the time of the run.

    Parameters
    ----------
    observer
        What the caller has for it.
    show
        Whether it is shown, if the caller has nothing: else it is only logged.
    """
    if observer is not None:
        yield observer
    elif show and in_notebook():
        with _quiet_imports():
            yield from _closed(NotebookObserver())
    else:
        with _printed(_log) if show else contextlib.nullcontext():
            yield LogObserver(_log)


def _closed(observer: NotebookObserver) -> Iterator[Observer]:
    guarded = guard(observer)
    try:
        yield guarded
    finally:
        guarded.close()


@contextlib.contextmanager
def _quiet_imports() -> Iterator[None]:
    """Leave out that Ray and tqdm miss ipywidgets: flambe's table needs none."""
    log = logging.getLogger("ray.widgets.util")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")
            yield
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def _printed(log: logging.Logger) -> Iterator[None]:
    """Print the messages of a logger on stderr, where the program has configured no logging."""
    if log.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(), log.level
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)

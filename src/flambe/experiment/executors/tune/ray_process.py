"""What keeps Ray from taking over the terminal and the signals of a run."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence

from ray.tune import progress_reporter

_log = logging.getLogger(__name__)

#: The loggers of libraries that a run uses → from which level on they are shown.
QUIET = {
    **dict.fromkeys(("ray", "ray.train", "ray._private", "asyncssh", "fsspec"), logging.ERROR),
    "optuna": logging.WARNING,
    "ray.tune": logging.CRITICAL,  # flambe reports what happens to trials
}
#: Variables that Ray and Tune set in the driver: breakpoint() would call Ray's debugger afterwards.
SET_BY_RAY = ("PYTHONBREAKPOINT", "RAY_USAGE_STATS_ENABLED", "TUNE_RESULT_BUFFER_LENGTH")


@contextlib.contextmanager
def keep_sigterm() -> Iterator[None]:
    """Restore the handler of SIGTERM: Ray's own ends the process at once, with a C++ stack."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def driver_settings(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that Tune reads, and quiet libraries; restore both at the end.

    A notebook or a script continues after the run, perhaps with Ray
    (test_a_run_leaves_its_process_as_it_was).
    """
    before = {name: os.environ.get(name) for name in (*variables, *SET_BY_RAY)}
    levels = {name: logging.getLogger(name).level for name in QUIET}
    handlers = logging.getLogger("ray").handlers[:]  # ray.init() removes them
    os.environ.update(variables)
    quiet_loggers()
    in_notebook = progress_reporter.IS_NOTEBOOK
    # Its table clears the output of the cell, and ours with it
    # (test_a_run_is_a_table_that_changes_in_place).
    progress_reporter.IS_NOTEBOOK = False
    try:
        yield
    finally:
        progress_reporter.IS_NOTEBOOK = in_notebook
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        logging.getLogger("ray").handlers[:] = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def quiet_loggers() -> None:
    """Keep what libraries log about themselves out of the logs of components."""
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def raylet_in_log() -> Iterator[None]:
    """Send what Ray's own processes print to the log instead of the terminal.

    When a worker dies, flambe reports which variant it ran.
    """
    from ray._private import worker

    def log_lines(
        data: Mapping[str, Sequence[str]], *options: object, **more_options: object
    ) -> None:
        for line in data.get("lines", ()):
            _log.debug("Ray: %s", line)

    original = getattr(worker, "print_to_stdstream", None)
    if original is not None:
        worker.print_to_stdstream = log_lines
    try:
        yield
    finally:
        if original is not None:
            worker.print_to_stdstream = original


@contextlib.contextmanager
def quiet_ray() -> Iterator[None]:
    """Suppress what Ray prints when it starts and stops."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)

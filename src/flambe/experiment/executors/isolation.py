"""One variant leaves nothing of its own to the next in the same process.

What belongs to a process and not to an object (environment, working folder, default types and
threads of torch, logging, warnings, …) is kept before a variant begins, and put back after it has
ended. What cannot be put back, such as a thread that still runs, is named: the process has to end.
Changes to modules themselves cannot be seen.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import logging
import multiprocessing
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from flambe.experiment.executors.process_state import KEPT, Undo

# Threads and processes of libraries that wait for work, and are of no variant.
_LIBRARIES = frozenset(
    ("tqdm", "fsspec", "asyncssh", "ray", "grpc", "flambe", "torch", "tensorboardX")
) | {"multiprocessing"}
_HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver", b"_inductor")
_LIBRARY_FOLDERS = tuple(
    os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "purelib", "platlib")
)
JOIN_SECONDS = 0.2  # for threads that are about to end


class Isolation:
    """What a process is like before a variant.

    Parameters
    ----------
    extensions
        The modules that components are of.
    """

    def __init__(self, extensions: Iterable[str] = ()) -> None:
        self.extensions = frozenset(extensions)
        self._exits: list[tuple[Callable[..., Any], Any, Any]] = []
        self._undo: list[Undo] = []
        for keep in KEPT:
            # What a library of another version does not have is not kept.
            with contextlib.suppress(AttributeError, OSError, ValueError, RuntimeError):
                self._undo.append(keep())
        self._undo.append(self._keep_exits())
        self._threads = set(threading.enumerate())
        self._children = set(_children())

    def restore(self) -> list[str]:
        """Put back what was kept.

        Returns
        -------
        list of str
            What is left for which the process has to end.
        """
        left: list[str] = []
        for undo in reversed(self._undo):
            try:
                undo()
            except Exception as error:
                left.append(f"something that cannot be put back ({error})")
        return left + self._alive()

    def _alive(self) -> list[str]:
        """Return the threads and processes that were started and still run."""

        def found() -> list[str]:
            threads = [f"the thread {thread.name!r}" for thread in self._new_threads()]
            return threads + [f"the process {name}" for name in self._new_processes()]

        if not found():
            return []
        gc.collect()  # pools end with what held them
        return found()

    def _keep_exits(self) -> Undo:
        """Call at the end of the variant what it wants to be called at the end of its process."""
        register = atexit.register

        def wrapper(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if self._is_theirs(sys._getframe(1)):
                self._exits.append((function, args, kwargs))
                return function
            return register(function, *args, **kwargs)

        atexit.register = cast(Any, wrapper)

        def undo() -> None:
            atexit.register = register
            while self._exits:
                function, args, kwargs = self._exits.pop()
                try:
                    function(*args, **kwargs)
                except Exception:
                    logging.getLogger("atexit").exception("a function failed at the end")

        return undo

    def _is_theirs(self, frame: Any) -> bool:
        """Whether a component does something, and not a library, or a module as it is imported."""
        if frame.f_code.co_name == "<module>":
            return False
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in self.extensions:
            return True
        return not os.path.realpath(frame.f_code.co_filename).startswith(_LIBRARY_FOLDERS)

    def _new_threads(self) -> list[threading.Thread]:
        def left() -> list[threading.Thread]:
            new = [one for one in threading.enumerate() if one not in self._threads]
            return [one for one in new if not _waits_for_work(one)]

        deadline = time.monotonic() + JOIN_SECONDS
        while (threads := left()) and time.monotonic() < deadline:
            threads[0].join(max(0.0, deadline - time.monotonic()))
        return threads

    def _new_processes(self) -> Iterator[str]:
        multiprocessing.active_children()  # takes note of those that have ended
        for pid in _children():
            if pid not in self._children and (command := _command(pid)):
                yield f"{pid} ({command})"


def _waits_for_work(thread: threading.Thread) -> bool:
    """Whether a thread is of a library, and does nothing of a variant."""
    target = getattr(thread, "_target", None)
    modules = (type(thread).__module__, getattr(target, "__module__", "") or "")
    if any(module.partition(".")[0] in _LIBRARIES for module in modules):
        return True
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_filename.endswith("concurrent/futures/thread.py")


def _children() -> Iterator[int]:
    """Yield the processes that this one has started."""
    try:
        tasks = os.listdir("/proc/self/task")
    except OSError:
        yield from (child.pid for child in multiprocessing.active_children() if child.pid)
        return
    for task in tasks:
        with (
            contextlib.suppress(OSError),
            open(f"/proc/self/task/{task}/children", "rb") as file,
        ):
            yield from map(int, file.read().split())


def _command(pid: int) -> str:
    """Return what a process runs; nothing for one that has ended, or a helper of Python's own."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            line = file.read()
        if not any(helper in line for helper in _HELPERS):
            return line.replace(b"\0", b" ").decode("utf-8", "backslashreplace").strip()[:60]
    return ""


def load_libraries(extensions: Iterable[str] = ()) -> None:
    """Import what variants use, so that the first in a process finds what the others do.

    A library that is loaded while the first one is built has not had its random numbers seeded, and
    what it does as it is imported would be taken for something that this variant did.
    """
    for name in ("numpy", "torch", *extensions):
        # It is not installed, or ends in whatever way: that is told where it is used.
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)

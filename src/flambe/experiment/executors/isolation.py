"""Keeps what one variant changes in its process from the next variant in the same process.

The state of the process (environment, working folder, default types and threads of torch, logging,
warnings, …) is recorded before a variant begins, and restored after it has ended. What cannot be
restored, such as a thread that still runs, is named: the process has to end. Changes to modules
themselves are not seen. Shown by ``tests/experiment/test_isolation.py``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
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
from types import FrameType
from typing import ParamSpec, TypeVar

from flambe.experiment.executors.process_state import RECORDERS, Undo

P = ParamSpec("P")
T = TypeVar("T")

# Threads and processes of libraries that wait for work, and do not belong to a variant.
_LIBRARIES = frozenset(
    ("tqdm", "fsspec", "asyncssh", "ray", "grpc", "flambe", "torch", "tensorboardX")
) | {"multiprocessing"}
_HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver", b"_inductor")
_LIBRARY_FOLDERS = tuple(
    os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "purelib", "platlib")
)
JOIN_SECONDS = 0.2  # for threads that are about to end


class Isolation:
    """The state of a process before a variant.

    Parameters
    ----------
    extensions
        The modules that the components come from.
    """

    def __init__(self, extensions: Iterable[str] = ()) -> None:
        self.extensions = frozenset(extensions)
        self._exits: list[Callable[[], object]] = []
        self._undo: list[Undo] = []
        for record in RECORDERS:
            # Another version of a library may not have it.
            with contextlib.suppress(AttributeError, OSError, ValueError, RuntimeError):
                self._undo.append(record())
        self._undo.append(self._divert_exits())
        self._threads = set(threading.enumerate())
        self._children = set(_children())

    def restore(self) -> list[str]:
        """Restore the state of the process.

        Returns
        -------
        list of str
            What cannot be restored: if there is anything, the process has to end.
        """
        remains: list[str] = []
        for undo in reversed(self._undo):
            try:
                undo()
            except Exception as error:
                remains.append(f"something that cannot be restored ({error})")
        return remains + self._running()

    def _running(self) -> list[str]:
        """Return the threads and processes that were started and still run."""
        if not self._new_tasks():
            return []
        gc.collect()  # pools end with the objects that hold them
        return self._new_tasks()

    def _new_tasks(self) -> list[str]:
        threads = [f"the thread {thread.name!r}" for thread in self._new_threads()]
        return threads + [f"the process {name}" for name in self._new_processes()]

    def _divert_exits(self) -> Undo:
        """Call the exit handlers of a variant when the variant ends, not when its process does."""
        register = atexit.register

        def wrapper(
            function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
        ) -> Callable[P, T]:
            if self._is_of_component(sys._getframe(1)):
                self._exits.append(functools.partial(function, *args, **kwargs))
                return function
            return register(function, *args, **kwargs)

        atexit.register = wrapper

        def undo() -> None:
            atexit.register = register
            while self._exits:
                try:
                    self._exits.pop()()
                except Exception:
                    logging.getLogger("atexit").exception("an exit handler failed")

        return undo

    def _is_of_component(self, frame: FrameType) -> bool:
        """Whether code belongs to a component: not to a library, nor to a module's import."""
        if frame.f_code.co_name == "<module>":
            return False
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in self.extensions:
            return True
        return not os.path.realpath(frame.f_code.co_filename).startswith(_LIBRARY_FOLDERS)

    def _new_threads(self) -> list[threading.Thread]:
        def busy_threads() -> list[threading.Thread]:
            new = [thread for thread in threading.enumerate() if thread not in self._threads]
            return [thread for thread in new if not _waits_for_work(thread)]

        deadline = time.monotonic() + JOIN_SECONDS
        while (threads := busy_threads()) and time.monotonic() < deadline:
            threads[0].join(max(0.0, deadline - time.monotonic()))
        return threads

    def _new_processes(self) -> Iterator[str]:
        multiprocessing.active_children()  # reaps those that have ended
        for pid in _children():
            if pid not in self._children and (command := _command(pid)):
                yield f"{pid} ({command})"


def _waits_for_work(thread: threading.Thread) -> bool:
    """Whether a thread belongs to a library, and does nothing for a variant."""
    target = getattr(thread, "_target", None)
    modules = (type(thread).__module__, getattr(target, "__module__", "") or "")
    if any(module.partition(".")[0] in _LIBRARIES for module in modules):
        return True
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_filename.endswith("concurrent/futures/thread.py")


def _children() -> Iterator[int]:
    """Yield the child processes of this one."""
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
    """Return the command of a process; nothing for one that has ended, or a helper of Python."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            line = file.read()
        if not any(helper in line for helper in _HELPERS):
            return line.replace(b"\0", b" ").decode("utf-8", "backslashreplace").strip()[:60]
    return ""


def load_libraries(extensions: Iterable[str] = ()) -> None:
    """Import what variants use, so that all variants of a process start from the same state.

    The random numbers of a library that is loaded while the first variant is built would not be
    seeded, and what its import does would be attributed to this variant.
    """
    for name in ("numpy", "torch", *extensions):
        # It may not be installed, or its import may fail: reported where it is used.
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)

"""The state of a process outside its objects: each function records a part, to be restored."""

from __future__ import annotations

import copy
import decimal
import gc
import locale
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Undo = Callable[[], object]

_NAMES = ("stdout", "stderr", "stdin", "displayhook", "excepthook", "unraisablehook")


def _environment() -> Undo:
    recorded = dict(os.environ)

    def undo() -> None:
        zone = os.environ.get("TZ")
        for name in set(os.environ) - set(recorded):
            del os.environ[name]
        for name, value in recorded.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        if zone != recorded.get("TZ"):
            time.tzset()

    return undo


def _folder() -> Undo:
    kept = os.getcwd()
    return lambda: os.chdir(kept)


def _descriptors() -> Undo:
    kept = {number: os.dup(number) for number in range(3)}

    def undo() -> None:
        for number, copied in kept.items():
            try:
                same = os.path.samestat(os.fstat(number), os.fstat(copied))
            except OSError:  # it was closed
                same = False
            if not same:
                os.dup2(copied, number)
            os.close(copied)

    return undo


def _umask() -> Undo:
    with open("/proc/self/status", encoding="ascii") as file:
        kept = next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))
    return lambda: os.umask(kept)


def _interpreter() -> Undo:
    path, argv, hooks, finders = sys.path[:], sys.argv[:], sys.path_hooks[:], sys.meta_path[:]
    names = {name: getattr(sys, name) for name in _NAMES}
    limit, interval, hook = sys.getrecursionlimit(), sys.getswitchinterval(), threading.excepthook
    collects, thresholds, folder = gc.isenabled(), gc.get_threshold(), tempfile.tempdir
    timeout, method = socket.getdefaulttimeout(), multiprocessing.get_start_method(allow_none=True)
    bytecode, trace, profile = sys.dont_write_bytecode, sys.gettrace(), sys.getprofile()

    def undo() -> None:
        sys.path[:], sys.argv[:], sys.path_hooks[:], sys.meta_path[:] = path, argv, hooks, finders
        for name, value in names.items():
            setattr(sys, name, value)
        for number, name in ((1, "stdout"), (2, "stderr")):
            if getattr(names[name], "closed", False):
                stream = open(number, "w", buffering=1, encoding="utf-8", closefd=False)
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)
        sys.setrecursionlimit(limit)
        sys.setswitchinterval(interval)
        sys.dont_write_bytecode = bytecode
        if sys.gettrace() is not trace:
            sys.settrace(trace)
        if sys.getprofile() is not profile:
            sys.setprofile(profile)
        threading.excepthook = hook
        (gc.enable if collects else gc.disable)()
        gc.set_threshold(*thresholds)
        tempfile.tempdir = folder
        socket.setdefaulttimeout(timeout)
        if multiprocessing.get_start_method(allow_none=True) != method:
            multiprocessing.set_start_method(method, force=True)

    return undo


def _locale() -> Undo:
    kept = locale.setlocale(locale.LC_ALL)
    return lambda: locale.setlocale(locale.LC_ALL, kept)


def _signals() -> Undo:
    kept = {number: signal.getsignal(number) for number in signal.valid_signals()}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def undo() -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # they cannot be set there, not by a component either
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in kept.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    return undo


def _limits() -> Undo:
    numbers = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
    kept = {number: resource.getrlimit(number) for number in numbers}
    nice, cores = os.nice(0), getattr(os, "sched_getaffinity", lambda pid: None)(0)

    def undo() -> None:
        for number, limits in kept.items():
            if resource.getrlimit(number) != limits:
                resource.setrlimit(number, limits)
        if os.nice(0) != nice:
            os.nice(nice - os.nice(0))
        if cores is not None and os.sched_getaffinity(0) != cores:
            os.sched_setaffinity(0, cores)

    return undo


def _decimals() -> Undo:
    kept = decimal.getcontext().copy()
    return lambda: decimal.setcontext(kept)


def _warnings() -> Undo:
    kept = warnings.catch_warnings()
    kept.__enter__()
    return lambda: kept.__exit__(None, None, None)


def _loggers() -> list[logging.Logger]:
    named = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in named if isinstance(logger, logging.Logger))]


@dataclass(frozen=True)
class _LoggerState:
    level: int = logging.NOTSET
    handlers: tuple[logging.Handler, ...] = ()
    filters: tuple[logging._FilterType, ...] = ()
    propagate: bool = True
    disabled: bool = False

    @classmethod
    def of(cls, logger: logging.Logger) -> _LoggerState:
        handlers, filters = tuple(logger.handlers), tuple(logger.filters)
        return cls(logger.level, handlers, filters, logger.propagate, logger.disabled)

    def restore(self, logger: logging.Logger) -> None:
        logger.setLevel(self.level)
        logger.handlers[:], logger.filters[:] = self.handlers, self.filters
        logger.propagate, logger.disabled = self.propagate, self.disabled


def _logging() -> Undo:
    kept = {logger: _LoggerState.of(logger) for logger in _loggers()}
    modules = set(sys.modules)
    threshold, kind = logging.root.manager.disable, logging.getLoggerClass()
    factory, raises = logging.getLogRecordFactory(), logging.raiseExceptions

    def undo() -> None:
        new = {name.partition(".")[0] for name in set(sys.modules) - modules}
        for logger in _loggers():
            if logger in kept:
                state = kept[logger]
            elif logger.name.partition(".")[0] in new:  # a library that it has loaded
                continue
            else:
                state = _LoggerState()
            if _LoggerState.of(logger) != state:
                state.restore(logger)
        logging.disable(threshold)
        logging.setLoggerClass(kind)
        logging.setLogRecordFactory(factory)
        logging.raiseExceptions = raises

    return undo


def _numpy() -> Undo:
    np: Any = sys.modules.get("numpy")
    if np is None:
        return lambda: None
    errors, options = np.geterr(), np.get_printoptions()
    call = np.geterrcall()

    def undo() -> None:
        np.seterr(**errors)
        np.seterrcall(call)
        # Options that were left to their defaults are so again.
        np.set_printoptions(**{k: v for k, v in options.items() if k != "override_repr"})

    return undo


def _determinism(torch: Any) -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _torch() -> Undo:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return lambda: None
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    exact, warns = _determinism(torch)
    precision, anomaly = torch.get_float32_matmul_precision(), torch.is_anomaly_enabled()
    sharing = torch.multiprocessing.get_sharing_strategy()
    cudnn, print_options = torch.backends.cudnn, copy.copy(vars(torch._tensor_str.PRINT_OPTS))
    flags = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}

    def undo() -> None:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_grad_enabled(grad)
        if _determinism(torch) != (exact, warns):  # it imports torch's compiler: 1.3 s
            torch.use_deterministic_algorithms(exact, warn_only=warns)
        torch.set_float32_matmul_precision(precision)
        torch.autograd.set_detect_anomaly(anomaly)
        torch.multiprocessing.set_sharing_strategy(sharing)
        for name, value in flags.items():
            if getattr(cudnn, name) != value:
                setattr(cudnn, name, value)
        vars(torch._tensor_str.PRINT_OPTS).update(print_options)
        if torch.cuda.is_initialized():
            gc.collect()
            torch.cuda.empty_cache()

    return undo


def _figures() -> Undo:
    def undo() -> None:
        if pyplot := sys.modules.get("matplotlib.pyplot"):
            pyplot.close("all")

    return undo


# Restored in the opposite order.
RECORDERS: tuple[Callable[[], Undo], ...] = (
    _environment,
    _folder,
    _umask,
    _interpreter,
    _descriptors,
    _locale,
    _signals,
    _limits,
    _decimals,
    _warnings,
    _logging,
    _numpy,
    _torch,
    _figures,
)

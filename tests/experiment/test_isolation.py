"""What a variant does to its process is not found by the next one in it."""

from __future__ import annotations

import atexit
import decimal
import json
import locale
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from flambe.experiment.executors.isolation import Isolation
from tests.experiment.lab import Lab

Look = Callable[[], Any]
Change = Callable[[], Any]


def umask() -> int:
    now = os.umask(0o022)
    os.umask(now)
    return now


def travel() -> None:
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


def print_less() -> None:
    torch.set_printoptions(precision=1)  # type: ignore[no-untyped-call]


def disable_logger() -> None:
    logger = logging.getLogger("flambe.some")
    logger.disabled, logger.propagate = True, False
    logger.handlers[:] = [logging.NullHandler()]


CHANGES: dict[str, tuple[Look, Change]] = {
    "environment": (lambda: dict(os.environ), lambda: os.environ.update(LEAK="1", HOME="/x")),
    "removed variable": (lambda: dict(os.environ), lambda: os.environ.pop("PATH")),
    "folder": (os.getcwd, lambda: os.chdir("/")),
    "umask": (umask, lambda: os.umask(0)),
    "path": (lambda: sys.path[:], lambda: sys.path.insert(0, "/leak")),
    "arguments": (lambda: sys.argv[:], lambda: sys.argv.append("x")),
    "output": (lambda: sys.stdout, lambda: setattr(sys, "stdout", None)),
    "hook": (lambda: sys.excepthook, lambda: setattr(sys, "excepthook", print)),
    "recursion": (sys.getrecursionlimit, lambda: sys.setrecursionlimit(5000)),
    "decimal": (
        lambda: decimal.getcontext().prec,
        lambda: setattr(decimal.getcontext(), "prec", 3),
    ),
    "locale": (
        lambda: locale.setlocale(locale.LC_ALL),
        lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"),
    ),
    "zone": (
        lambda: time.localtime(0)[3],
        travel,
    ),
    "signal": (
        lambda: signal.getsignal(signal.SIGUSR1),
        lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    ),
    "warnings": (lambda: warnings.filters[:], lambda: warnings.simplefilter("ignore")),
    "captured": (lambda: warnings.showwarning, lambda: logging.captureWarnings(True)),
    "root": (
        lambda: (logging.root.level, logging.root.handlers[:]),
        lambda: logging.basicConfig(level=1, force=True),
    ),
    "disabled": (lambda: logging.root.manager.disable, lambda: logging.disable(50)),
    "logger": (
        lambda: (
            [vars(logging.getLogger("flambe.some"))[k] for k in ("disabled", "propagate")]
            + logging.getLogger("flambe.some").handlers
        ),
        disable_logger,
    ),
    "new logger": (
        lambda: logging.getLogger("brand.new").level,
        lambda: logging.getLogger("brand.new").setLevel(10),
    ),
    "numpy": (np.geterr, lambda: np.seterr(all="raise")),
    "numpy prints": (lambda: repr(np.array([1 / 3])), lambda: np.set_printoptions(precision=1)),
    "dtype": (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
    "device": (torch.get_default_device, lambda: torch.set_default_device("meta")),
    "threads": (torch.get_num_threads, lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
    "grad": (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
    "deterministic": (
        torch.are_deterministic_algorithms_enabled,
        lambda: torch.use_deterministic_algorithms(True),
    ),
    "cudnn": (
        lambda: torch.backends.cudnn.benchmark,
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
    ),
    "torch prints": (
        lambda: repr(torch.tensor(1 / 3)),
        print_less,
    ),
    "precision": (
        torch.get_float32_matmul_precision,
        lambda: torch.set_float32_matmul_precision("medium"),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_variant_changes_is_put_back(name: str) -> None:
    look, change = CHANGES[name]
    outer = Isolation()  # for what follows, should this one fail
    try:
        before = look()
        isolation = Isolation()
        change()
        assert look() != before
        assert isolation.restore() == []
        assert look() == before
    finally:
        outer.restore()


def test_streams_that_were_closed_are_open_again() -> None:
    program = """
import sys
from flambe.experiment.executors.isolation import Isolation
for turn in range(2):
    isolation = Isolation()
    print("before", turn)
    sys.stdout.close(); sys.__stderr__.close()
    assert isolation.restore() == []
    print("after", turn); print("aside", turn, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["before", "0", "after", "0", "before", "1", "after", "1"]
    assert done.stderr.split() == ["aside", "0", "aside", "1"]


def test_what_is_left_running_is_named() -> None:
    isolation = Isolation()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="forgotten", daemon=True)
    thread.start()
    program = subprocess.Popen(["sleep", "60"])
    try:
        assert isolation.restore() == [
            "the thread 'forgotten'",
            f"the process {program.pid} (sleep 60)",
        ]
    finally:
        stop.set()
        program.kill()
        program.wait()


def test_what_ends_by_itself_or_waits_for_work_is_not_left() -> None:
    isolation = Isolation()
    pool = ThreadPoolExecutor(1)
    pool.submit(int).result()
    threading.Thread(target=time.sleep, args=(0.05,)).start()
    subprocess.Popen(["true"]).wait()
    tqdm = pytest.importorskip("tqdm")

    for _ in tqdm.tqdm(range(3), file=open(os.devnull, "w")):  # its monitor is a thread
        pass
    assert isolation.restore() == []
    pool.shutdown()


def test_what_is_for_the_end_of_a_process_is_done_at_the_end_of_the_variant() -> None:
    done: list[int] = []
    isolation = Isolation()
    atexit.register(done.append, 1)
    atexit.register(done.append, 2)
    assert isolation.restore() == []
    assert done == [2, 1]


def found(lab: Lab) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lab.records() if line.startswith("{")]


def differences(records: list[dict[str, Any]]) -> list[str]:
    first, *others = [{k: v for k, v in one.items() if k != "pid"} for one in records]
    return [f"{k}: {one[k]} after {first[k]}" for one in others for k in one if one[k] != first[k]]


def test_variants_here_find_the_same_process(lab: Lab) -> None:
    lab.run("a: !pieces.Leaky {number: !g [1, 2, 3], record: RECORD}").fine()
    assert differences(found(lab)) == []
    assert [line for line in lab.records() if line.startswith("exit")] == [
        "exit 1",
        "exit 2",
        "exit 3",
    ]

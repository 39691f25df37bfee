"""Components for tests of experiments: small, and they keep a record of what was done to them."""

from __future__ import annotations

import argparse
import atexit
import importlib
import json
import logging
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flambe
from flambe.compile import Component, Schema
from flambe.errors import ConfigError
from flambe.runnable import Runnable


def note(path: str, text: str) -> None:
    """Append a line to a file, whole even if many processes do."""
    if path:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, f"{text}\n".encode())
        os.close(descriptor)


class Walk(Component):
    """A random walk: its metric depends on every step that it made."""

    def __init__(
        self,
        steps: int = 3,
        rate: float = 1.0,
        label: str = "",
        record: str = "",
        delay: float = 0.0,
        start: Any = None,
        extra: Any = None,
    ) -> None:
        self.steps = steps
        self.rate = rate
        self.label = label or f"{rate:g}"
        self.record = record
        self.delay = delay
        self.start = start
        self.extra = extra
        self.done = 0
        self.value = 0.0 if start is None else float(getattr(start, "value", start))
        self.began = self.value
        self.random = random.Random(random.random())
        self.register_attrs("done", "value", "began")
        note(record, f"built {self.label}")

    def run(self) -> bool:
        if self.delay:
            time.sleep(self.delay)
        self.value = 0.5 * self.value + self.rate * self.random.random()
        self.done += 1
        note(self.record, f"step {self.label} {self.done}")
        flambe.log("value", self.value)
        return self.done < self.steps

    def metric(self) -> float:
        return self.value

    def _state(self, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "random": self.random.getstate()}

    def _load_state(self, values: dict[str, Any]) -> dict[str, Any]:
        version, numbers, gauss = values.pop("random")
        self.random.setstate((version, tuple(numbers), gauss))
        return values


class Fixed(Component):
    """Its metric is what it is given."""

    def __init__(self, value: Any = 0.0, record: str = "", other: Any = None) -> None:
        self.value = value
        self.other = other
        note(record, f"built {value}")

    def run(self) -> bool:
        return False

    def metric(self) -> Any:
        return self.value


class Weights(Component):
    """Something that is trained by others: it has nothing to run."""

    def __init__(self, size: int = 2, inner: Any = None, record: str = "") -> None:
        self.numbers = [0.0] * size
        self.inner = inner
        self.register_attrs("numbers")
        note(record, f"built weights {size}")


class Tuning(Component):
    """Adds to the numbers of a model, and of the one inside of it."""

    def __init__(self, model: Any, amount: float = 1.0, steps: int = 2) -> None:
        self.model = model
        self.amount = amount
        self.steps = steps
        self.done = 0
        self.register_attrs("done")

    def run(self) -> bool:
        model = self.model
        while model is not None:
            model.numbers = [number + self.amount for number in model.numbers]
            model = getattr(model, "inner", None)
        self.done += 1
        return self.done < self.steps

    def metric(self) -> float:
        return float(sum(self.model.numbers))


class Watch(Component):
    """Writes down the numbers of several models when it runs."""

    def __init__(self, models: Any, record: str, extra: Any = None) -> None:
        self.models = models
        self.record = record
        self.extra = extra

    def run(self) -> bool:
        seen = []
        for model in self.models:
            seen.append(f"{model.numbers}")
            if getattr(model, "inner", None) is not None:
                seen.append(f"inner {model.inner.numbers}")
        note(self.record, " ".join(seen))
        return False


class Failing(Component):
    """Fails at a step: always, or as long as a file has fewer lines than `times`."""

    def __init__(
        self,
        at: int = 2,
        times: int = 1_000_000,
        record: str = "",
        steps: int = 4,
        how: str = "raise",
        rate: float = 1.0,
        only: float | None = None,
    ) -> None:
        self.at, self.times, self.record, self.steps, self.how = at, times, record, steps, how
        self.rate, self.only = rate, only
        self.done = 0
        self.register_attrs("done")
        note(record, f"built {rate:g}")
        if at == 0 and self._wanted():
            self._fail()

    def _wanted(self) -> bool:
        if self.only is not None and self.only != self.rate:
            return False
        with open(self.record, encoding="utf-8") as stream:
            failures = sum(line.startswith(f"fail {self.rate:g}\n") for line in stream)
        return failures < self.times

    def _fail(self) -> None:
        note(self.record, f"fail {self.rate:g}")
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "config":
            raise ConfigError("a configuration error from below")
        raise ValueError(f"no luck at step {self.at}")

    def run(self) -> bool:
        if self.done + 1 == self.at and self._wanted():
            self._fail()
        self.done += 1
        note(self.record, f"step {self.rate:g} {self.done}")
        return self.done < self.steps

    def metric(self) -> float:
        return self.rate * self.done


class Spoiling(Failing):
    """Fails once, after it has altered its newest checkpoint below a folder, or removed it."""

    def __init__(
        self, results: str, at: int = 4, steps: int = 5, record: str = "", gone: bool = False
    ) -> None:
        super().__init__(at=at, times=1, record=record, steps=steps)
        self.results, self.gone = results, gone

    def _fail(self) -> None:
        newest = max(Path(self.results).glob("*/*/checkpoint_0*"))
        if self.gone:
            shutil.rmtree(newest)
        else:
            state = next((newest / "checkpoint.flambe").glob("state.*"))
            data = bytearray(state.read_bytes())
            data[len(data) // 2] ^= 1
            state.write_bytes(data)
        super()._fail()


class Talker(Component):
    """Says something in every way there is."""

    def __init__(self, name: str = "a", steps: int = 2, seconds: float = 0.0) -> None:
        self.name, self.steps, self.seconds, self.done = name, steps, seconds, 0
        self.register_attrs("done")

    def run(self) -> bool:
        time.sleep(self.seconds)
        self.done += 1
        name = f"{self.name}{self.done}"
        print(f"printed by {name}")
        print(f"grumbled by {name}", file=sys.stderr)
        logging.getLogger("pieces").info("logged by %s", name)
        logging.getLogger("pieces").warning("warned by %s", name)
        os.system(f"echo spawned by {name}; echo whispered by {name} >&2")
        flambe.log("figure", float(self.done))
        flambe.log("many", {"one": 1, "two": 2.5})
        flambe.log("words", f"text of {name}")
        return self.done < self.steps

    def metric(self) -> float:
        return float(self.done)


class Curve(Component):
    """Its metric is a known function of its step."""

    def __init__(self, height: float = 1.0, bonus: float = 0.0, steps: int = 3) -> None:
        self.height, self.bonus, self.steps, self.done = height, bonus, steps, 0
        self.register_attrs("done")

    def run(self) -> bool:
        self.done += 1
        return self.done < self.steps

    def metric(self) -> float:
        return (self.height + self.bonus) * self.done


class Settling(Curve):
    """Notes that it was stopped."""

    settled = 0.0

    def stopped(self) -> None:
        self.settled = 1.0


class NeedsTwo(Exception):
    """It cannot be made again of what it keeps."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.lock = threading.Lock()


class Ending(Component):
    """Prints something, and ends in one of many ways."""

    def __init__(self, how: str) -> None:
        self.how = how

    def run(self) -> bool:
        print(f"last of {self.how}")
        print(f"\x1b[31mnot ended by {self.how}", end="", flush=True)
        getattr(self, self.how)()
        return False

    def exit(self) -> None:
        sys.exit(0)

    def argparse(self) -> None:
        argparse.ArgumentParser("tool").parse_args(["--what"])

    def os_exit(self) -> None:
        os._exit(3)

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def crash(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def two(self) -> None:
        raise NeedsTwo(1, 2)

    def half(self) -> None:
        raise ValueError("bad \udcff text")

    def huge(self) -> None:
        raise ValueError("start" + "x" * 3_000_000 + "end")

    def of_its_own(self) -> None:
        raise type("Own", (BaseException,), {})("mine")


class Keeping(Component):
    """Writes files of its own, and says what it finds; it may fail once, after a step."""

    def __init__(
        self, number: int, record: str, fail_after: int = 0, source: str = "", at_start: bool = True
    ) -> None:
        self.number, self.record, self.fail_after, self.source = number, record, fail_after, source
        self.done = 0
        self.register_attrs("done")
        if at_start:
            (self.folder / "made.txt").write_text("as it was built")

    def run(self) -> bool:
        deep = self.folder / "deep"
        found = sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*"))
        note(self.record, f"{self.number} finds {found}")
        if self.fail_after == self.done > 0 and self._first():
            (deep / "lost.txt").write_text("after the checkpoint")
            raise ValueError("once")
        deep.mkdir(exist_ok=True)
        self.done += 1
        (deep / f"{self.done}.txt").write_text(f"{self.number}")
        os.symlink("nowhere", deep / f"link{self.done}")
        if self.source:
            with open(self.source, encoding="utf-8") as stream:
                note(self.record, f"{self.number} reads {stream.read()}")
        return self.done < 2

    def _first(self) -> bool:
        with open(self.record, encoding="utf-8") as stream:
            if "failed" in stream.read():
                return False
        note(self.record, "failed")
        return True

    def metric(self) -> float:
        return float(self.number)


class Finding(Component):
    """Reads what another left in its folder, and writes there too."""

    def __init__(self, other: Any, record: str, where: Any = None) -> None:
        self.other, self.record, self.where = other, record, where

    def run(self) -> bool:
        theirs = self.other.folder
        found = sorted(str(p.relative_to(theirs)) for p in theirs.rglob("*") if p.is_file())
        text = (theirs / "deep" / "1.txt").read_text()
        note(self.record, f"of {text}: {found} {self.where in (None, theirs)}")
        (theirs / "deep" / "1.txt").write_text("changed")
        assert self.folder != theirs
        assert not list(self.folder.iterdir())
        return False

    def metric(self) -> float:
        return 1.0


class Leaky(Component):
    """Changes much of its process, and says what it found; it may leave a thread running."""

    def __init__(self, number: int, record: str, thread_of: int = 0) -> None:
        self.number, self.record, self.thread_of = number, record, thread_of

    def run(self) -> bool:
        import numpy as np
        import torch

        found = {
            "pid": os.getpid(),
            "cwd": os.getcwd(),
            "environment": os.environ.get("LEAK"),
            "path": "/leak" in sys.path,
            "dtype": str(torch.get_default_dtype()),
            "threads": torch.get_num_threads(),
            "grad": torch.is_grad_enabled(),
            "numpy": np.geterr()["divide"],
            "level": logging.getLogger("mine").level,
            "handlers": len(logging.getLogger("mine").handlers),
            "root": len(logging.getLogger().handlers),
            "disabled": logging.root.manager.disable,
            "drawn": [random.random(), float(np.random.random()), float(torch.rand(()))],
        }
        note(self.record, json.dumps(found))
        os.environ["LEAK"] = "1"
        sys.path.insert(0, "/leak")
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_grad_enabled(False)
        np.seterr(divide="raise")
        logging.getLogger("mine").setLevel(10)
        logging.getLogger("mine").addHandler(logging.StreamHandler())
        logging.getLogger().handlers.clear()
        logging.disable(50)
        atexit.register(note, self.record, f"exit {self.number}")
        os.chdir("/")
        os.close(1)
        sys.stdout = open(os.devnull, "w")
        if self.number == self.thread_of:
            threading.Thread(target=time.sleep, args=(600,), name="forgotten").start()
        return False

    def metric(self) -> float:
        return float(self.number)


class Epochs(Component):
    """Its run is a generator; it may be interrupted once, after a step."""

    def __init__(self, epochs: int = 3, record: str = "", fail_after: int = 0) -> None:
        self.epochs, self.record, self.fail_after = epochs, record, fail_after
        self.total = 0
        self.register_attrs("total")

    def run(self) -> Any:
        for epoch in range(self.epochs):
            self.total += 10
            note(self.record, f"epoch {epoch}")
            yield {"total": self.total}
            with open(self.record, encoding="utf-8") as stream:
                if epoch + 1 == self.fail_after and "failed" not in stream.read():
                    note(self.record, "failed")
                    raise ValueError("between two steps")

    def metric(self) -> float:
        return float(self.total)


class Drawn(Component):
    """Draws from the random numbers that everyone shares, when it is built."""

    def __init__(self, other: Any = None, record: str = "") -> None:
        import numpy as np
        import torch

        self.other = other
        drawn = (random.random(), float(np.random.random()), float(torch.rand(())))
        self.drawn = list(drawn)
        note(record, " ".join(f"{number:.12f}" for number in drawn))

    def run(self) -> bool:
        return False

    def metric(self) -> float:
        return float(sum(self.drawn))


class Reader(Component):
    """Writes down what a file holds."""

    def __init__(self, path: str, record: str) -> None:
        self.path, self.record = path, record

    def run(self) -> bool:
        with open(self.path, encoding="utf-8") as stream:
            note(self.record, f"{self.path}: {stream.read()}")
        return False


class Leaf(Component):
    """What an option may hold."""

    def __init__(self, size: int = 1, other: Any = None) -> None:
        self.size, self.other = size, other


class Plain(Runnable):
    """A Runnable that says something, and may fail."""

    def __init__(
        self, text: str = "hello", fail: str = "", blueprint: Schema | None = None
    ) -> None:
        self.text, self.fail, self.blueprint = text, fail, blueprint

    def parse(self) -> None:
        if self.fail == "parse":
            raise ConfigError("parse says no")

    def run(self, force: bool = False, **kwargs: Any) -> None:
        told = {name: kwargs[name] for name in ("resume", "debug", "verbose")}
        print(f"{self.text} force={force} " + " ".join(f"{k}={v}" for k, v in told.items()))
        if self.fail == "run":
            raise ValueError("run says no")
        if self.fail == "interrupt":
            raise KeyboardInterrupt


class Teller(Runnable):
    """Lets a secret out in several ways."""

    def __init__(self, way: str, section: str = "API", key: str = "token") -> None:
        self.way, self.section, self.key = way, section, key

    def run(self, force: bool = False, **kwargs: Any) -> None:
        token = self.config[self.section][self.key]
        print("length", len(token))
        if self.way == "print":
            print("the token is", token)
        elif self.way == "writelines":
            sys.stdout.writelines([f"the token is {token}\n"])
        elif self.way == "stderr":
            print(f"the token is {token}", file=sys.stderr)
        elif self.way == "repr":
            print(f"{token!r} {self.config!r} {self.config[self.section]!r}")
        elif self.way == "log":
            logging.getLogger("pieces").warning("the token is %s", token)
        elif self.way == "raise":
            raise ValueError(f"the token is {token}")
        elif self.way == "header":
            headers = {"Authorization": f"Bearer {token}", "Plain": "%s" % token}
            assert headers["Authorization"] == "Bearer " + "".join(token)
            assert "***" not in "".join(headers.values())
            print("sent", all(type(value) is str for value in headers.values()))


class Once(Component):
    """A component that the command can run by itself."""

    def __init__(self, steps: Sequence[int] = (1, 2), fail: bool = False) -> None:
        self.steps, self.fail, self.done = list(steps), fail, 0

    def run(self) -> bool:
        print(f"once {self.steps[self.done]}")
        if self.fail:
            raise ValueError("once is enough")
        self.done += 1
        return self.done < len(self.steps)


class NothingToRun(Component):
    """It has no run()."""


class Measured(Component):
    """Its figures are what it is given, one a step; it is interrupted once before a step."""

    def __init__(self, figures: Sequence[Any], record: str = "", stop: int = 0) -> None:
        self.figures = figures
        self.record = record
        self.stop = stop
        self.done = 0
        self.register_attrs("done")

    def run(self) -> bool:
        if self.done + 1 == self.stop and not os.path.exists(self.record):
            note(self.record, "interrupted")
            signal.raise_signal(signal.SIGINT)
        self.done += 1
        return self.done < len(self.figures)

    def metric(self) -> Any:
        return self.figures[self.done - 1] if self.done else None


class Sometimes(Component):
    """It has a figure where x is large; else none, or one that is not defined."""

    def __init__(self, x: float) -> None:
        self.x = x

    def run(self) -> bool:
        return False

    def metric(self) -> float | None:
        return self.x if self.x > 0.6 else float("nan") if self.x > 0.3 else None


class Loads(Component):
    """Imports modules; its metric is how many are not of the working folder."""

    def __init__(self, modules: Sequence[str] = ()) -> None:
        self.modules = modules

    def run(self) -> bool:
        return False

    def metric(self) -> float:
        found = [importlib.import_module(name).__file__ or "" for name in self.modules]
        return float(sum(not os.path.samefile(os.path.dirname(path), os.curdir) for path in found))


class Fat(Component):
    """Its state is large."""

    def __init__(self, kilobytes: int = 1, steps: int = 2, rate: float = 1.0) -> None:
        self.steps, self.rate, self.done = steps, rate, 0
        self.data = "x" * 1024 * kilobytes
        self.register_attrs("done", "data")

    def run(self) -> bool:
        self.done += 1
        return self.done < self.steps

    def metric(self) -> float:
        return self.rate


class Climber(Component):
    """Climbs by its rate with each step."""

    def __init__(self, rate: float, steps: int = 12, record: str = "", delay: float = 0.0) -> None:
        self.rate = rate
        self.steps = steps
        self.delay = delay
        self.done = 0
        self.height = 0.0
        self.register_attrs("done", "height")
        note(record, f"built {rate:.6f}")

    def run(self) -> bool:
        time.sleep(self.delay)
        self.done += 1
        self.height += self.rate
        flambe.log("distance", 100.0 - self.height)
        return self.done < self.steps

    def metric(self) -> float:
        return self.height


class Part(Component):
    """A part of something, of which there are several kinds."""

    def __init__(self, kind: int = 0, size: float = 0.0, more: Sequence[int] = ()) -> None:
        self.kind = kind
        self.size = size
        self.more = list(more)


class Chosen(Component):
    """Its metric tells which part it has."""

    def __init__(self, part: Any, extra: Any = None) -> None:
        self.part = part
        self.extra = extra

    def run(self) -> bool:
        return False

    def metric(self) -> float:
        more = 100.0 * self.part.more[0] if self.part.more else 0.0
        own = self.extra.size if isinstance(self.extra, Part) else 0.0
        return float(1000 * self.part.kind + self.part.size + more + own)


class Meeting(Component):
    """Leaves a file with its name, and ends when the file of another one is there."""

    SECONDS = 240.0

    def __init__(self, folder: str, name: str, awaits: str = "", of: Any = None) -> None:
        self.folder = folder
        self.name = name if of is None else f"{name}-{of.name}"
        self.awaits = awaits
        self.met = False
        self.register_attrs("met")

    def run(self) -> bool:
        end = time.monotonic() + self.SECONDS
        note(os.path.join(self.folder, self.name), "here")
        while self.awaits and not os.path.exists(os.path.join(self.folder, self.awaits)):
            if time.monotonic() > end:
                raise TimeoutError(f"{self.awaits} did not come")
            time.sleep(0.05)
        self.met = True
        return False


class Alone(Component):
    """Fails if another one runs at the same time."""

    def __init__(self, lock: str, rate: float = 1.0) -> None:
        self.lock = lock
        self.rate = rate

    def run(self) -> bool:
        os.close(os.open(self.lock, os.O_CREAT | os.O_EXCL))
        time.sleep(0.3)
        os.unlink(self.lock)
        return False

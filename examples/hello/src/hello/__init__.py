"""The smallest extension: one Runnable, usable as ``!hello.Hello``."""

from __future__ import annotations

import time
from typing import Any

from flambe.errors import ConfigError
from flambe.runnable import Runnable


class Hello(Runnable):
    """Greets somebody.

    Parameters
    ----------
    name
        Whom.
    times
        How often.
    signed
        Whether to sign with ``[hello] signature`` of the secrets file.
    """

    def __init__(self, name: str, times: int = 1, signed: bool = False) -> None:
        self.name = name
        self.times = times
        self.signed = signed

    def parse(self) -> None:
        """Refuse what cannot be done, before anything runs."""
        if self.times < 1:
            raise ConfigError(f"cannot greet {self.times} times")

    def run(self, force: bool = False, **kwargs: Any) -> None:
        """Greet."""
        end = f", yours {self.config['hello']['signature']}" if self.signed else ""
        for _ in range(self.times):
            print(f"hello, {self.name}{end}")
            time.sleep(0.1)

"""A command: its help, its arguments, and the function that it calls."""

from __future__ import annotations

import argparse
import importlib
import typing
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command: its help, its arguments, and where its function is.

    Attributes
    ----------
    description
        What ``--help`` says about it.
    add_arguments
        Declares its arguments.
    function
        ``module:function``, of a module of :mod:`flambe.cli` that is imported when the command
        runs. The function takes an options object, of a dataclass whose fields are the
        destinations of the arguments, and returns the exit code.
    needs_arguments
        Whether the command prints its help when it is called without any.
    """

    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    function: str
    needs_arguments: bool = True

    def load(self) -> tuple[Callable[[object], int], type]:
        """Import the function; return it and the class of its options."""
        module, _, name = self.function.partition(":")
        function = getattr(importlib.import_module(f"flambe.cli.{module}"), name)
        return function, typing.get_type_hints(function)["options"]


def add_flag(parser: argparse._ActionsContainer, *names: str, help: str) -> None:  # noqa: A002
    """Declare an option that is either set or not."""
    parser.add_argument(*names, action="store_true", help=help)

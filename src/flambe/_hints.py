"""How messages name the options of a run: as the command does, or as Python does."""

from __future__ import annotations


class _Style:
    is_command = False
    is_python = False


def use_command() -> None:
    """Name options as the command does, in this process: ``--resume``."""
    _Style.is_command = True


def use_python() -> None:
    """Name options as Python does from now on, ``resume=True``, unless a command runs."""
    _Style.is_python = True


def _is_for_python() -> bool:
    return _Style.is_python and not _Style.is_command


def option(name: str, value: str = "") -> str:
    """Return an option of a run as the user writes it.

    In processes that a run has started it is an option of the command: they do not know better.

    Parameters
    ----------
    name
        Its name: ``"resume"``.
    value
        Its value; none if it is only set.
    """
    if _is_for_python():
        return f"{name}={value!r}" if value else f"{name}=True"
    return f"--{name} {value}".rstrip()


def to_continue() -> str:
    """Return how to continue a run."""
    if _is_for_python():
        return "to continue, call   run(resume=True)"
    return "to continue, run the same command with --resume"

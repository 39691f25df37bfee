"""A ``pip`` for hosts that have none."""

from __future__ import annotations

import ensurepip
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from flambe.logging.console import home
from flambe.packaging.wheel import repacked

if TYPE_CHECKING:
    from flambe.cluster.member import Member


def give_pip(member: Member, root: str) -> None:
    """See that a host has a ``pip``; it runs from a wheel, and installs nothing of its own.

    Setup commands may call it, and the environment honours its settings.
    """
    if member.facts["pip"]:
        return
    wheel = pip_wheel()
    place = f"{root}/bin/{wheel.name}"
    member.send(wheel, place)
    member.put(f'#!/bin/sh\nexec python3 "$HOME/{place}/pip" "$@"\n', f"{root}/bin/pip", mode=0o755)


def pip_wheel() -> Path:
    """Return a wheel of pip of this machine."""
    try:
        bundled = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
        return bundled[-1]
    except IndexError:  # Debian's Python has it elsewhere
        return repacked(metadata.distribution("pip"), home() / "wheels").path

"""The platform and the Python of hosts, which wheels must fit."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.utils import parse_wheel_filename

from flambe.cluster.cluster_host import ClusterHost
from flambe.errors import ConfigError, Problem
from flambe.packaging.wheel import Wheel

# The versions of glibc that uv has names for.
GLIBC = (17, 28, *range(31, 41))


def here() -> str:
    """Return the platform of this machine, as hosts report theirs."""
    return f"{sys.platform}-{platform.machine()}"


@dataclass(frozen=True)
class Target:
    """The Python and the platform of hosts.

    Attributes
    ----------
    platform
        ``linux-x86_64``.
    libc
        ``glibc-2.36``; of another C library, anything else.
    python
        The version of the interpreter, to the patch.
    """

    platform: str
    libc: str
    python: str

    @property
    def machine(self) -> str:
        """The kind of processor, as wheels name it."""
        return self.platform.partition("-")[2]

    @property
    def glibc(self) -> int | None:
        """Which glibc it has, 2.``glibc``; None if it has another C library."""
        match = re.match(r"glibc-2\.(\d+)", self.libc)
        return int(match[1]) if match else None

    @property
    def minor(self) -> str:
        """The version of the interpreter without its patch: ``3.12``."""
        return ".".join(self.python.split(".")[:2])

    @property
    def is_here(self) -> bool:
        """Whether what is installed on this machine can run there."""
        own = ".".join(map(str, sys.version_info[:2]))
        return self.runs_programs and self.minor == own

    @property
    def runs_programs(self) -> bool:
        """Whether programs of this machine run there."""
        musl = self.glibc is None
        return self.platform == here() and musl == (platform.libc_ver()[0] != "glibc")

    @property
    def tags(self) -> list[str]:
        """The platform tags of the wheels that fit, the best first."""
        if self.glibc is None:
            return [f"musllinux_1_{n}_{self.machine}" for n in (2, 1, 0)]
        tags = [f"manylinux_2_{n}_{self.machine}" for n in range(self.glibc, 4, -1)]
        return [*tags, *(f"manylinux{n}_{self.machine}" for n in (2014, 2010, 1))]

    @property
    def for_uv(self) -> str:
        """The platform, as uv names it."""
        if self.glibc is None:
            return f"{self.machine}-unknown-linux-musl"
        fits = [n for n in GLIBC if n <= self.glibc]
        return f"{self.machine}-manylinux_2_{fits[-1] if fits else GLIBC[0]}"


def target_of(hosts: Sequence[ClusterHost], python: str) -> Target:
    """Return the target of wheels for hosts.

    Raises
    ------
    ConfigError
        If their platforms differ: what is installed on one does not run on another.
    """
    names: dict[str, list[str]] = {}
    for host in hosts:
        names.setdefault(host.facts.platform, []).append(host.machine.name)
    if len(names) > 1:
        summary = "; ".join(f"{name} on {', '.join(group)}" for name, group in names.items())
        raise ConfigError(
            Problem(
                f"the hosts are of different platforms: {summary}",
                hint="make a cluster of each: what is installed on one does not run on the other",
            )
        )
    libcs = [host.facts.libc for host in hosts]
    targets = [Target(next(iter(names)), libc, python) for libc in libcs]
    # What fits the oldest fits all.
    return min(targets, key=lambda target: target.glibc or 0)


def refuse_compiled(wheels: Sequence[Wheel], target: Target) -> None:
    """Check that flambe and the extensions run on the hosts.

    Raises
    ------
    ConfigError
        If one has compiled parts, which were made for this machine.
    """
    if target.is_here:
        return
    for wheel in wheels:
        _, _, _, tags = parse_wheel_filename(wheel.path.name)
        if not any(tag.platform == "any" and tag.abi == "none" for tag in tags):
            raise ConfigError(
                Problem(
                    f"{wheel.name} has compiled parts, made for Python "
                    f"{platform.python_version()} on {here()}; the hosts have Python "
                    f"{target.python} on {target.platform}",
                    hint="run flambe on a machine like the hosts, on one of them for example",
                )
            )

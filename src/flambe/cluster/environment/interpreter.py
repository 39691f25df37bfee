"""The interpreter of a cluster: the hosts' own python3, or one that uv brings for all of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.options import EnvironmentOptions
from flambe.errors import ConfigError, Problem, RunError
from flambe.logging import redact
from flambe.logging.console import home_folder

OLDEST = Version("3.10")
DEADLINE = 1800  # seconds for a download


@dataclass(frozen=True)
class Interpreter:
    """Which Python environments are made of.

    Attributes
    ----------
    version
        To the patch: Ray refuses to connect nodes of different ones.
    key
        The name that uv has for its build; empty for the hosts' own.
    mirror
        The options of uv that say where builds come from, if not from where uv has them.
    """

    version: str
    key: str = ""
    mirror: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: EnvironmentOptions, hosts: Sequence[ClusterHost]) -> Interpreter:
        """Return what the file of a cluster asks for, by default the hosts' own.

        Raises
        ------
        ConfigError
            If the hosts' own differ, or there is none that was asked for.
        """
        if not options.python:
            return cls(_own(hosts))
        return _build(options.python, _mirror(options.python_mirror), hosts[0].facts)

    def program(self, root: str) -> str:
        """Return the path of its program on the hosts, from the home of the user."""
        return f"{self.folder(root)}/bin/python3" if self.key else "python3"

    def folder(self, root: str) -> str:
        """Return its folder on the hosts, where it is not their own."""
        return f"{root}/pythons/{self.key}"

    def install(self, folder: str) -> list[str]:
        """Return the words of uv that install it below a folder; where it is, nothing is done."""
        # With --quiet, it does not say what went wrong.
        words = ["python", "install", "--no-progress", "--no-config", "--system-certs", "--no-bin"]
        return [*words, "--install-dir", folder, *self.mirror, self.key]

    def installed_here(self) -> Path:
        """Return its folder on this machine, for hosts that cannot download it; made at need.

        Raises
        ------
        RunError
            If it cannot be downloaded.
        """
        folder = home_folder("pythons")
        done = _uv(self.install(str(folder)))
        if done.returncode:
            raise RunError(
                f"Python {self.version} for the hosts cannot be downloaded here{_tail(done.stderr)}"
                "\n  = environment: python_mirror says where else it is"
            )
        return folder / self.key


def _own(members: Sequence[ClusterHost]) -> str:
    """Return the version of the python3 that all hosts have."""
    versions: dict[str, list[str]] = {}
    for member in members:
        versions.setdefault(member.facts["python"], []).append(member.machine.name)
    hint = "install the same one on all, or have it brought:   environment: {python: '3.12'}"
    if len(versions) > 1:
        told = "; ".join(f"{version} on {', '.join(names)}" for version, names in versions.items())
        problem = f"the hosts have different versions of python3: {told}"
        raise ConfigError(Problem(problem, hint=f"Ray refuses to connect them: {hint}"))
    (version,) = versions
    if Version(version) < OLDEST:
        problem = f"the hosts have Python {version}; flambe needs {OLDEST} or newer"
        raise ConfigError(Problem(problem, hint=hint))
    return version


def _mirror(written: str) -> tuple[str, ...]:
    """Return uv's options for a mirror of the builds, or for a list of builds of one's own."""
    if not written:
        return ()
    option = "--python-downloads-json-url" if written.endswith(".json") else "--mirror"
    return option, written


def _build(asked: str, mirror: tuple[str, ...], facts: dict[str, Any]) -> Interpreter:
    """Return the newest build of a version for the hosts' platform, of those that uv knows."""
    system, _, machine = facts["platform"].partition("-")
    libc = "gnu" if facts["libc"].startswith("glibc") else "musl"
    kind = f"cpython-{asked}-{system}-{machine}-{libc}"
    words = ["python", "list", "--no-config", "--all-versions", "--only-downloads"]
    words += ["--output-format", "json", *(mirror if mirror[:1] != ("--mirror",) else ())]
    done = _uv([*words, kind])
    if done.returncode:
        raise RunError(f"uv cannot tell which Pythons there are{_tail(done.stderr)}")
    builds = {
        Version(build["version"]): build["key"]
        for build in json.loads(done.stdout or "[]")
        if build["variant"] == "default"
        and not Version(build["version"]).is_prerelease
        # A list of one's own may have others, and it names a folder.
        and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", build["key"])
    }
    if not builds:
        raise ConfigError(
            Problem(
                f"environment: python: there is no Python {asked} for {facts['platform']} ({libc})",
                hint=f"the hosts' own is {facts['python']}; see: uv python list --all-versions",
            )
        )
    newest = max(builds)
    return Interpreter(str(newest), builds[newest], mirror)


def _uv(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "uv", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
        umask=0o077,
    )


def _tail(said: str) -> str:
    lines = redact.hide(said).strip().splitlines()[-8:]
    return "".join(f"\n  | {line}" for line in lines)

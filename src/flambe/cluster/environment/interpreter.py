"""The interpreter of a cluster: the hosts' own python3, or one that uv installs on all of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from flambe._process import quote_tail
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.options import EnvironmentOptions
from flambe.errors import ConfigError, Problem, RunError
from flambe.logging import redact
from flambe.logging.console import home_folder
from flambe.remote.agent.protocol import Facts

OLDEST = Version("3.10")
DEADLINE = 1800  # seconds for a download


@dataclass(frozen=True)
class Interpreter:
    """The Python of an environment.

    Attributes
    ----------
    version
        To the patch: Ray refuses to connect nodes of different ones.
    key
        The name of its build in uv; empty for the hosts' own.
    mirror
        The options of uv that name another source of builds than its own.
    """

    version: str
    key: str = ""
    mirror: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: EnvironmentOptions, hosts: Sequence[ClusterHost]) -> Interpreter:
        """Return the interpreter that the file of a cluster asks for; by default the hosts' own.

        Raises
        ------
        ConfigError
            If the versions of the hosts differ, or the requested one does not exist.
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
        """Return the arguments of uv that install it below a folder, unless it is there."""
        # With --quiet, uv does not print what went wrong.
        arguments = [
            "python",
            "install",
            "--no-progress",
            "--no-config",
            "--system-certs",
            "--no-bin",
        ]
        return [*arguments, "--install-dir", folder, *self.mirror, self.key]

    def installed_here(self) -> Path:
        """Return its folder on this machine, for hosts that cannot download it; installed once.

        Raises
        ------
        RunError
            If it cannot be downloaded.
        """
        folder = home_folder("pythons")
        done = _uv(self.install(str(folder)))
        if done.returncode:
            raise RunError(
                f"Python {self.version} for the hosts cannot be downloaded here"
                + quote_tail(redact.hide(done.stderr), 8)
                + "\n  = environment: python_mirror names another source"
            )
        return folder / self.key


def _own(hosts: Sequence[ClusterHost]) -> str:
    """Return the version of the python3 that all hosts have."""
    versions: dict[str, list[str]] = {}
    for host in hosts:
        versions.setdefault(host.facts.python, []).append(host.machine.name)
    hint = "install the same one on all, or let flambe do it:   environment: {python: '3.12'}"
    if len(versions) > 1:
        groups = [f"{version} on {', '.join(names)}" for version, names in versions.items()]
        problem = f"the hosts have different versions of python3: {'; '.join(groups)}"
        raise ConfigError(Problem(problem, hint=f"Ray refuses to connect them: {hint}"))
    (version,) = versions
    if Version(version) < OLDEST:
        problem = f"the hosts have Python {version}; flambe needs {OLDEST} or newer"
        raise ConfigError(Problem(problem, hint=hint))
    return version


def _mirror(location: str) -> tuple[str, ...]:
    """Return uv's options for a mirror of its builds, or for a custom list of builds."""
    if not location:
        return ()
    option = "--python-downloads-json-url" if location.endswith(".json") else "--mirror"
    return option, location


def _build(version: str, mirror: tuple[str, ...], facts: Facts) -> Interpreter:
    """Return the newest build of a version for the hosts' platform, of those that uv knows."""
    system, _, machine = facts.platform.partition("-")
    libc = "gnu" if facts.libc.startswith("glibc") else "musl"
    kind = f"cpython-{version}-{system}-{machine}-{libc}"
    arguments = ["python", "list", "--no-config", "--all-versions", "--only-downloads"]
    arguments += ["--output-format", "json", *(mirror if mirror[:1] != ("--mirror",) else ())]
    done = _uv([*arguments, kind])
    if done.returncode:
        tail = quote_tail(redact.hide(done.stderr), 8)
        raise RunError(f"uv cannot list the available Pythons{tail}")
    builds = {
        Version(build["version"]): build["key"]
        for build in json.loads(done.stdout or "[]")
        if build["variant"] == "default"
        and not Version(build["version"]).is_prerelease
        # A custom list may have others, and the key names a folder.
        and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", build["key"])
    }
    if not builds:
        raise ConfigError(
            Problem(
                f"environment: python: there is no Python {version} for {facts.platform} ({libc})",
                hint=f"the hosts' own is {facts.python}; see: uv python list --all-versions",
            )
        )
    newest = max(builds)
    return Interpreter(str(newest), builds[newest], mirror)


def _uv(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "uv", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
        umask=0o077,
    )

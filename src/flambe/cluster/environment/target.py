"""Hosts of another platform than this machine: what is sent to them is downloaded for them.

Downloads are by pip, with the settings that it has here: indexes, certificates, proxies.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.utils import parse_wheel_filename

from flambe._files import private_folder
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.environment import pip_config
from flambe.errors import ConfigError, Problem, RunError
from flambe.logging import redact
from flambe.logging.console import home, home_folder
from flambe.packaging import closure as lock
from flambe.packaging import wheel
from flambe.remote.agent import record

DEADLINE = 3600  # seconds for one download
# The versions of glibc that uv has names for.
GLIBC = (17, 28, *range(31, 41))


def here() -> str:
    """Return the platform of this machine, as hosts tell theirs."""
    return f"{sys.platform}-{platform.machine()}"


@dataclass(frozen=True)
class Target:
    """What wheels must fit: the Python and the platform of hosts.

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
        found = re.match(r"glibc-2\.(\d+)", self.libc)
        return int(found[1]) if found else None

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
        found = [f"manylinux_2_{n}_{self.machine}" for n in range(self.glibc, 4, -1)]
        return [*found, *(f"manylinux{n}_{self.machine}" for n in (2014, 2010, 1))]

    @property
    def for_uv(self) -> str:
        """The platform, as uv names it."""
        if self.glibc is None:
            return f"{self.machine}-unknown-linux-musl"
        fits = [n for n in GLIBC if n <= self.glibc]
        return f"{self.machine}-manylinux_2_{fits[-1] if fits else GLIBC[0]}"


def target_of(members: Sequence[ClusterHost], python: str) -> Target:
    """Return what wheels for hosts must fit.

    Raises
    ------
    ConfigError
        If they are of different platforms: what one installs does not run on another.
    """
    found: dict[str, list[str]] = {}
    for member in members:
        found.setdefault(member.facts["platform"], []).append(member.machine.name)
    if len(found) > 1:
        told = "; ".join(f"{name} on {', '.join(names)}" for name, names in found.items())
        raise ConfigError(
            Problem(
                f"the hosts are of different platforms: {told}",
                hint="make a cluster of each: what is installed on one does not run on the other",
            )
        )
    libcs = [member.facts["libc"] for member in members]
    targets = [Target(next(iter(found)), libc, python) for libc in libcs]
    # What fits the oldest fits all.
    return min(targets, key=lambda target: target.glibc or 0)


def refuse_compiled(wheels: Sequence[wheel.Wheel], target: Target) -> None:
    """See that our own code runs on the hosts.

    Raises
    ------
    ConfigError
        If it has compiled parts, which were made for this machine.
    """
    if target.is_here:
        return
    for one in wheels:
        _, _, _, tags = parse_wheel_filename(one.path.name)
        if not any(tag.platform == "any" and tag.abi == "none" for tag in tags):
            raise ConfigError(
                Problem(
                    f"{one.name} has compiled parts, made for Python "
                    f"{platform.python_version()} on {here()}; the hosts have Python "
                    f"{target.python} on {target.platform}",
                    hint="run flambe on a machine like the hosts, on one of them for example",
                )
            )


# -- uv -----------------------------------------------------------------------------------------


def uv(target: Target) -> Path:
    """Return uv's program for hosts: that of this machine, or one that is downloaded once.

    Raises
    ------
    RunError
        If it cannot be downloaded.
    """
    if target.runs_programs:
        from uv import find_uv_bin

        return Path(find_uv_bin()).resolve()  # it may be a link, which would be sent as one
    version = metadata.version("uv")
    kind = "musl" if target.glibc is None else "gnu"
    kept = home() / "uv" / f"{version}-{target.platform}-{kind}" / "uv"
    if not kept.exists():
        home_folder("uv", kept.parent.name)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            _download([f"uv=={version}"], target, Path(scratch), "its program uv")
            (found,) = Path(scratch).glob("*.whl")
            program = _program(found, version)
            beside = Path(scratch, "uv")
            beside.write_bytes(program)
            beside.chmod(0o700)
            os.replace(beside, kept)
    return kept


def _program(path: Path, version: str) -> bytes:
    """Return uv out of its wheel, if it is the one that its RECORD tells of."""
    _, found, _, _ = parse_wheel_filename(path.name)
    with zipfile.ZipFile(path) as opened:
        (name,) = (n for n in opened.namelist() if n.endswith(".data/scripts/uv"))
        data = opened.read(name)
        (listing,) = (n for n in opened.namelist() if n.endswith(".dist-info/RECORD"))
        listed = opened.read(listing).decode().splitlines()
    row = f"{name},sha256={record.encode_sha256(data)},{len(data)}"
    if str(found) != version or row not in listed:
        raise RunError(f"{path.name} is not what it says it is: its program or version differs")
    return data


# -- wheels -------------------------------------------------------------------------------------


def wheels(closure: lock.Closure, target: Target) -> list[Path]:
    """Return the wheels of all that is needed, for hosts that reach no index.

    What is installed here is packed again where it fits; else it is downloaded for the hosts.

    Raises
    ------
    RunError
        If something cannot be downloaded.
    """
    folder = home_folder("wheels")
    found = {name: metadata.distribution(name) for name in closure.versions}
    if target.is_here:
        return [wheel.repack(one, folder).path for one in found.values()]
    pure = {n: wheel.repack(one, folder).path for n, one in found.items() if wheel.is_pure(one)}
    locked = _resolved(closure, target, list(pure.values()))
    wanted = [lines for name, lines in locked.items() if name not in pure]
    key = hashlib.sha256(repr((wanted, target)).encode()).hexdigest()[:16]
    kept = folder / f"for-{target.platform}-{key}"
    if wanted and not kept.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch, "all")
            private_folder(made)
            _download(wanted, target, made, "the wheels of what is needed")
            for path in made.iterdir():
                path.chmod(0o600)
            os.replace(made, kept)
    downloaded = sorted(kept.glob("*.whl")) if wanted else []
    return [*(path for name, path in pure.items() if name in locked), *downloaded]


def _resolved(closure: lock.Closure, target: Target, own: Sequence[Path]) -> dict[str, str]:
    """Return what the hosts need, in the versions that are here: name → its line, with hashes."""
    settings = pip_config.read(_run([*_pip(), "config", "list"], "pip config list"))
    with tempfile.TemporaryDirectory() as scratch:
        wanted, pins = Path(scratch, "requirements.in"), Path(scratch, "constraints.txt")
        wanted.write_text("\n".join(closure.requirements) + "\n")
        pins.write_text("".join(f"{n}=={version}\n" for n, version in closure.versions.items()))
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config"]
        command += ["--system-certs", "--no-header", "--no-annotate", "--no-build"]
        command += ["--generate-hashes", "--python-version", target.python]
        command += ["--python-platform", target.for_uv, *pip_config.options(settings)]
        for folder in sorted({str(path.parent) for path in own}):
            command += ["--find-links", folder]
        command += ["--constraints", str(pins), str(wanted)]
        trusted = {"SSL_CERT_FILE": settings["cert"]} if "cert" in settings else {}
        what = f"what is needed cannot be found for Python {target.python} on {target.platform}"
        said = _run(command, what, trusted)
    entries = re.split(r"\n(?=\S)", said.replace("\\\n", " ").strip())
    return {re.split(r"[=\s]", entry, maxsplit=1)[0]: " ".join(entry.split()) for entry in entries}


def _download(wanted: Sequence[str], target: Target, folder: Path, what: str) -> None:
    """Download wheels for hosts, without what they need; their hashes are compared, if given."""
    command = [*_pip(), "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(folder), "--implementation", "cp"]
    command += ["--python-version", target.minor, "--abi", f"cp{target.minor.replace('.', '')}"]
    command += ["--abi", "abi3", "--abi", "none"]
    command += [word for tag in target.tags for word in ("--platform", tag)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("".join(f"{line}\n" for line in wanted))
        listed.flush()
        _run([*command, "--requirement", listed.name], f"{what} cannot be downloaded")


def _pip() -> list[str]:
    """Return the command line of a pip of this machine: environments of uv have none in them."""
    if importlib.util.find_spec("pip") is not None:
        own = [sys.executable, "-m", "pip"]
    else:
        own = [sys.executable, str(pip_config.pip_wheel() / "pip")]
    return [*own, "--disable-pip-version-check", "--no-input"]


def _run(command: Sequence[str], what: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    if done.returncode:
        lines = redact.hide(done.stderr).strip().splitlines()[-8:]
        raise RunError(
            f"the hosts are of another kind than this machine, and {what}"
            + "".join(f"\n  | {line}" for line in lines)
            + "\n  = pip downloads it here, with your settings:   pip config list"
        )
    return done.stdout

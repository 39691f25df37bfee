"""Downloads for hosts of another platform than this machine: the program uv, and wheels.

Downloads are made by the pip of this machine, with its settings: indexes, certificates, proxies.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.utils import parse_wheel_filename

from flambe._files import private_folder, replacing
from flambe._process import quote_tail
from flambe.cluster.environment import pip_config
from flambe.cluster.environment.target import Target
from flambe.errors import RunError
from flambe.logging import redact
from flambe.logging.console import home, home_folder
from flambe.packaging import wheel
from flambe.packaging.closure import Closure
from flambe.remote.agent import record

DEADLINE = 3600  # seconds for one download

# -- uv -----------------------------------------------------------------------------------------


def uv_program(target: Target) -> Path:
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
    program = home() / "uv" / f"{version}-{target.platform}-{kind}" / "uv"
    if not program.exists():
        folder = home_folder("uv", program.parent.name)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _download([f"uv=={version}"], target, Path(scratch), "its program uv")
            (downloaded,) = Path(scratch).glob("*.whl")
            content = _extract_uv(downloaded, version)
        with replacing(program) as part:
            part.write_bytes(content)
            part.chmod(0o700)
    return program


def _extract_uv(path: Path, version: str) -> bytes:
    """Return uv out of its wheel, if it is the program that the wheel's RECORD lists."""
    _, wheel_version, _, _ = parse_wheel_filename(path.name)
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".data/scripts/uv"))
        content = archive.read(name)
        (listing,) = (n for n in archive.namelist() if n.endswith(".dist-info/RECORD"))
        rows = archive.read(listing).decode().splitlines()
    row = f"{name},sha256={record.encode_sha256(content)},{len(content)}"
    if str(wheel_version) != version or row not in rows:
        raise RunError(f"{path.name} is not what it says it is: its program or version differs")
    return content


# -- wheels -------------------------------------------------------------------------------------


def wheels(closure: Closure, target: Target) -> list[Path]:
    """Return the wheels of all dependencies, for hosts that reach no index.

    What is installed here is packed again where it fits; else it is downloaded for the hosts.

    Raises
    ------
    RunError
        If a wheel cannot be downloaded.
    """
    folder = home_folder("wheels")
    installed = {name: metadata.distribution(name) for name in closure.versions}
    if target.is_here:
        return [wheel.repack(dist, folder).path for dist in installed.values()]
    pure = {n: wheel.repack(d, folder).path for n, d in installed.items() if wheel.is_pure(d)}
    locked = _lock(closure, target, list(pure.values()))
    lines = [line for name, line in locked.items() if name not in pure]
    key = hashlib.sha256(repr((lines, target)).encode()).hexdigest()[:16]
    kept = folder / f"for-{target.platform}-{key}"
    if lines and not kept.exists():
        with replacing(kept) as part:
            private_folder(part)
            _download(lines, target, part, "the wheels of its dependencies")
            for path in part.iterdir():
                path.chmod(0o600)
    downloaded = sorted(kept.glob("*.whl")) if lines else []
    return [*(path for name, path in pure.items() if name in locked), *downloaded]


def _lock(closure: Closure, target: Target, own: Sequence[Path]) -> dict[str, str]:
    """Return what the hosts need, in the versions that are here: name → its line, with hashes."""
    settings = pip_config.parse(_run([*_pip(), "config", "list"], "pip config list"))
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch, "requirements.in")
        requirements.write_text("\n".join(closure.requirements) + "\n")
        pins = Path(scratch, "constraints.txt")
        pins.write_text("".join(f"{n}=={version}\n" for n, version in closure.versions.items()))
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config"]
        command += ["--system-certs", "--no-header", "--no-annotate", "--no-build"]
        command += ["--generate-hashes", "--python-version", target.python]
        command += ["--python-platform", target.for_uv, *pip_config.uv_options(settings)]
        for folder in sorted({str(path.parent) for path in own}):
            command += ["--find-links", folder]
        command += ["--constraints", str(pins), str(requirements)]
        certificates = {"SSL_CERT_FILE": settings["cert"]} if "cert" in settings else {}
        problem = (
            f"its dependencies cannot be resolved for Python {target.python} on {target.platform}"
        )
        output = _run(command, problem, certificates)
    entries = re.split(r"\n(?=\S)", output.replace("\\\n", " ").strip())
    return {re.split(r"[=\s]", entry, maxsplit=1)[0]: " ".join(entry.split()) for entry in entries}


def _download(lines: Sequence[str], target: Target, folder: Path, subject: str) -> None:
    """Download wheels for hosts, without their dependencies; pip compares hashes, if given."""
    command = [*_pip(), "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(folder), "--implementation", "cp"]
    command += ["--python-version", target.minor, "--abi", f"cp{target.minor.replace('.', '')}"]
    command += ["--abi", "abi3", "--abi", "none"]
    command += [option for tag in target.tags for option in ("--platform", tag)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("".join(f"{line}\n" for line in lines))
        requirements.flush()
        _run([*command, "--requirement", requirements.name], f"{subject} cannot be downloaded")


def _pip() -> list[str]:
    """Return the command line of a pip of this machine: environments that uv makes have none."""
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip"]
    else:
        command = [sys.executable, str(pip_config.pip_wheel() / "pip")]
    return [*command, "--disable-pip-version-check", "--no-input"]


def _run(command: Sequence[str], problem: str, environment: dict[str, str] | None = None) -> str:
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
        raise RunError(
            f"the hosts have another platform than this machine, and {problem}"
            + quote_tail(redact.hide(done.stderr), 8)
            + "\n  = pip downloads it here, with your settings:   pip config list"
        )
    return done.stdout

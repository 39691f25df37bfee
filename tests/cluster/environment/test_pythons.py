"""Hosts whose python3 is another one than that of the others, or too old."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.experiment.lab import environment, flambe
from tests.metal import Host
from tests.metal.conftest import lent

pytestmark = [pytest.mark.integration, pytest.mark.root, pytest.mark.xdist_group("metal-pythons")]

ASKED = """
import json, platform, sys
print(json.dumps([platform.python_version(), sys.base_prefix, list(sys.version_info[:2])]))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python of this machine, which can be put on a host."""

    program: Path
    version: str
    base: Path
    minor: tuple[int, int]

    @classmethod
    def of(cls, program: Path) -> Interpreter | None:
        """Ask a program what it is; None if it does not run, or is part of an environment."""
        done = subprocess.run([program, "-I", "-c", ASKED], capture_output=True, check=False)
        if done.returncode:
            return None
        version, base, minor = json.loads(done.stdout)
        return cls(program.resolve(), version, Path(base), (minor[0], minor[1]))

    def put(self, host: Host) -> None:
        """Make it the python3 of a host, found before the system's."""
        target = host.root / "usr" / "local"
        library = Path("lib") / f"python{'.'.join(map(str, self.minor))}"
        (target / "bin").mkdir(exist_ok=True)
        shutil.copy2(self.program, target / "bin" / "python3.own")
        # With the library of its own, which may have the name of the system's.
        script = (
            f"LD_LIBRARY_PATH=/usr/local/lib PYTHONHOME=/usr/local "
            f'exec -a /usr/local/bin/python{self.minor[0]}.{self.minor[1]} /usr/local/bin/python3.own "$@"'
        )
        (target / "bin" / "python3").write_text(f"#!/bin/bash\n{script}\n")
        (target / "bin" / "python3").chmod(0o755)
        left_out = shutil.ignore_patterns("site-packages", "test", "__pycache__", "*.a")
        shutil.copytree(
            self.base / library,
            target / library,
            ignore=left_out,
            symlinks=True,
            dirs_exist_ok=True,
        )
        for shared in (self.base / "lib").glob("libpython*.so*"):
            shutil.copy2(shared, target / "lib" / shared.name)
        said = host.run("python3", "-V", user=host.user).stdout.split()
        assert said == ["Python", self.version]


def interpreters() -> Sequence[Interpreter]:
    """Return the Pythons of this machine, the oldest first."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    programs = [*Path("/usr/bin").glob("python3.*[0-9]"), *pyenv.glob("3.*/bin/python3")]
    programs += Path("/usr/local/bin").glob("python3.*[0-9]")
    found = {one.version: one for program in programs if (one := Interpreter.of(program))}
    return sorted(found.values(), key=lambda one: one.minor)


SYSTEM = Interpreter.of(Path("/usr/bin/python3")) if Path("/usr/bin/python3").exists() else None


# Ray refuses to connect nodes of different patches.
KINDS: dict[str, Callable[[Interpreter, Interpreter], bool]] = {
    "patch": lambda one, system: one.minor == system.minor and one.version != system.version,
    "minor": lambda one, system: one.minor > (3, 9) and one.minor != system.minor,
    "old": lambda one, system: one.minor < (3, 10),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_python_that_does_not_fit(tmp_path: Path, kind: str) -> None:
    """One that differs from the others', or is too old on all: refused, and nothing is made."""
    assert SYSTEM is not None
    fits = [one for one in interpreters() if KINDS[kind](one, SYSTEM)]
    if not fits:
        pytest.skip("this machine has no such Python")
    other, everywhere = fits[-1], kind == "old"
    with lent(2) as metal:
        for host in metal.hosts if everywhere else metal.hosts[1:]:
            other.put(host)
        file = tmp_path / "cluster.yaml"
        file.write_text(metal.cluster_yaml("lab", setup_cmds=["touch setup-ran"]))
        done = flambe(file, env=environment(FLAMBE_HOME=str(tmp_path / "home")))
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        if everywhere:
            assert f"the hosts have Python {other.version}" in done.stderr
            assert "flambe needs 3.10 or newer" in done.stderr
        else:
            assert "the hosts have different versions of python3" in done.stderr
            assert f"{SYSTEM.version} on orchestrator; {other.version} on factory_1" in done.stderr
            assert "install the same one on all" in done.stderr
        for host in metal.hosts:
            assert "setup-ran" not in host.run("ls", f"/home/{host.user}").stdout
            assert "envs" not in host.run("ls", f"/home/{host.user}/.flambe").stdout
            assert "flambe" not in host.run("ls", f"/home/{host.user}/.ssh").stdout

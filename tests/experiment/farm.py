"""Experiments on clusters, for tests: ``flambe`` as people type it, with real hosts behind it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flambe.progress import RunFolder, VariantState
from tests.experiment.lab import COMMAND, until
from tests.metal import Host, Metal
from tests.metal.machine import command_line
from tests.raw import OUTPUTS

SHIPPED = Path(__file__).parent / "shipped"
MINUTES = 300.0


class Going:
    """A ``flambe`` that runs, and what it has said so far."""

    def __init__(self, command: list[str], env: Mapping[str, str], folder: Path) -> None:
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        OUTPUTS.note(f"flambe {' '.join(command[3:])}", lambda: self.text)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self._lines.append(line)

    @property
    def text(self) -> str:
        """All that it has said so far."""
        return "".join(self._lines)

    def says(self, pattern: str, times: int = 1, seconds: float = MINUTES) -> str:
        """Wait until it has said something so often; return what it said last of that."""

        def look() -> list[str]:
            found = [match.group(0) for match in re.finditer(pattern, self.text)]
            if len(found) < times and self.process.poll() is not None and not self._reading:
                raise AssertionError(f"it ended, and never said {pattern!r}:\n{self.text}")
            return found if len(found) >= times else []

        try:
            return str(until(look, f"it says {pattern!r}", seconds)[-1])
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text[-6000:]}") from None

    @property
    def _reading(self) -> bool:
        return self._reader.is_alive()

    def ends(self, code: int = 0, seconds: float = MINUTES) -> str:
        """Wait for its end, with that exit code; return all that it said."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on:\n{self.text[-6000:]}") from None
        self._reader.join(10)
        assert self.process.returncode == code, self.text[-6000:]
        return self.text

    def kill(self) -> None:
        """Kill it, and what it started of its own: as a laptop that loses its power."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(10)


class Farm:
    """A cluster, a folder with experiments for it, and the command.

    Parameters
    ----------
    folder
        The folder.
    metal
        The hosts of the cluster; those that live, the first one is the orchestrator. Without them,
        it is a LocalCluster.
    """

    def __init__(self, folder: Path, metal: Metal | None = None, **more: Any) -> None:
        self.folder, self.metal, self.more = folder, metal, more
        self.name = "farm" if metal is not None else f"farm-{os.getpid()}"
        self.cluster = folder / "cluster.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        self.env = {
            **os.environ,
            "FLAMBE_HOME": str(folder / "home"),
            "PYTHONPATH": str(folder / "site"),
            "COLUMNS": "200",
        }
        self._going: list[Going] = []
        OUTPUTS.watch(self.name, lambda: self.state / "work")
        OUTPUTS.watch(self.name, lambda: self.folder)
        self._install()
        self.write_cluster()

    def _install(self) -> None:
        """Install the extension, as -i would, and gone with the folder."""
        command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-build-isolation"]
        command += ["--offline", "--target", str(self.folder / "site"), "--no-deps", str(SHIPPED)]
        subprocess.run(command, check=True, capture_output=True)

    def write_cluster(self, **more: Any) -> Path:
        """Write the file of the cluster as the hosts are now."""
        if self.metal is None:
            entries = {"name": self.name, "factories_num": 2, "cpus": 2}
            kind = "!LocalCluster"
        else:
            first, *others = [host.address for host in self.hosts]
            entries = {"name": self.name, "orchestrator_ip": first, "factories_ips": others}
            entries |= {"key": str(self.metal.key), "username": self.metal.user}
            kind = "!SSHCluster"
        entries |= {**self.more, **more}
        text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in entries.items())
        self.cluster.write_text(f"{kind}\n{text}")
        return self.cluster

    @property
    def hosts(self) -> list[Host]:
        """The hosts that live, the orchestrator first."""
        assert self.metal is not None
        return [host for host in self.metal.hosts if host.alive]

    def write(self, name: str, pipeline: str, *, more: str = "") -> Path:
        """Write an experiment; return its file."""
        path = self.folder / f"{name}.yaml"
        body = "".join(f"  {line}\n" for line in pipeline.strip().splitlines())
        path.write_text(
            f"crops: {SHIPPED}\n---\n!Experiment\nname: {name}\n{more.strip()}\npipeline:\n{body}"
        )
        return path

    # -- the command --------------------------------------------------------------------------

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the command line of ``flambe`` with this Python."""
        return [sys.executable, "-c", COMMAND, *map(str, arguments)]

    def flambe(self, *arguments: str | Path, code: int = 0, **env: str) -> str:
        """Run the command to its end; return what it said."""
        return self.start(*arguments, **env).ends(code)

    def start(self, *arguments: str | Path, **env: str) -> Going:
        """Start the command."""
        going = Going(self.command(*arguments), {**self.env, **env}, self.folder)
        self._going.append(going)
        return going

    def run(self, file: Path, *options: str, **env: str) -> Going:
        """Start an experiment on the cluster."""
        return self.start(file, "--cluster", self.cluster, *options, **env)

    def end_commands(self) -> None:
        """End what was started and not waited for."""
        for going in self._going:
            if going.process.poll() is None:
                going.kill()
        self._going.clear()

    def close(self) -> None:
        """End what was started and not waited for, and the cluster."""
        self.end_commands()
        if self.metal is None or self.metal.hosts:
            subprocess.run(
                self.command("down", self.cluster, "--force"),
                env=self.env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=MINUTES,
            )

    # -- what is on the orchestrator ----------------------------------------------------------

    @property
    def state(self) -> Path:
        """Flambe's folder for the cluster on the orchestrator, as this machine sees it."""
        if self.metal is None:
            hosts = Path(self.env["FLAMBE_HOME"]) / "clusters" / self.name / "hosts"
            home = hosts / "orchestrator" / "home"
        else:
            home = self.hosts[0].root / "home" / self.metal.user
        return home / ".flambe" / "clusters" / self.name

    def output(self, name: str) -> RunFolder:
        """Return the folder of a run on the orchestrator."""
        return RunFolder(self.state / "work" / "flambe-output" / f"output__{name}")

    def fetched(self, name: str) -> RunFolder:
        """Bring the results here; return the folder of a run in them."""
        self.flambe("fetch", self.name, "fetched")
        return RunFolder(self.folder / "fetched" / "flambe-output" / f"output__{name}")


@contextlib.contextmanager
def farm_on(metal: Metal, folder: Path) -> Iterator[Farm]:
    """Make a farm on hosts that end with it: nothing on them has to be asked to end."""
    farm = Farm(folder, metal)
    try:
        yield farm
    finally:
        farm.end_commands()


def figures(folder: RunFolder) -> dict[str, tuple[Any, ...]]:
    """Return what must be the same wherever a run was made: id → what came of the variant."""
    return {one.id: _figures(one) for one in folder.read_variants().values()}


def _figures(one: VariantState) -> tuple[Any, ...]:
    return (one.stage, one.name, one.status, one.step, one.metric, one.best, one.kept)


def layout(folder: RunFolder) -> set[str]:
    """Return the files of the variants of a run, event files by their folder."""
    found = set()
    for one in folder.read_variants().values():
        place = folder.variant(one.stage, one.name)
        for path in place.rglob("*"):
            if path.is_file():
                told = str(path.relative_to(folder.root))
                found.add(re.sub(r"events\.out.*", "events", told))
    return found


def eventually(condition: Callable[[], Any], what: str, seconds: float = MINUTES) -> Any:
    """Wait for something that takes its time on a busy machine."""
    return until(condition, what, seconds)


def running(host: Host, *words: str) -> list[int]:
    """Return the processes of a host whose command lines hold all of these words."""
    return [
        pid
        for pid in host.pids()
        if all(any(word in part for part in command_line(pid)) for word in words)
    ]

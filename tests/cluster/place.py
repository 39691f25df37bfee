"""``flambe`` as people type it, in a folder with things to run in it, on a cluster of any kind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.experiment.lab import COMMAND

JOB = """
import os, subprocess, sys, threading, time
from flambe.runnable import ClusterRunnable

class Job(ClusterRunnable):
    def __init__(self, steps=3, code=0, made="", env=None):
        super().__init__(env)
        self.steps, self.code, self.made = steps, code, made

    def setup(self, cluster, extensions, force, **kwargs):
        cluster.create_dirs(["made"])
        cluster.send_content("content", "made/file")
        self.set_serializable_attr("made", "made/file")

    def run(self, force=False, **kwargs):
        if self.env is None:
            print("alone", flush=True)
            return
        hosts = [self.env.orchestrator_ip, *self.env.factories_ips]
        for host in hosts:
            done = subprocess.run([*self.env.ssh(host), "cat", self.made], capture_output=True, text=True)
            print("host", done.stdout, done.stderr, flush=True)
        print("secret", self.config["API"]["token"] if self.config else "none", flush=True)
        for step in range(self.steps):
            print("step", step, flush=True)
            time.sleep(0.5)
        with open("result.txt", "w") as stream:
            stream.write("the result")
        sys.exit(self.code)

class Calls(ClusterRunnable):
    # Says what a program says, on the orchestrator.
    def __init__(self, program, env=None):
        super().__init__(env)
        self.program = program

    def setup(self, cluster, extensions, force, **kwargs):
        assert cluster.run_cmds(["true"]), "on every host"
        assert list(extensions) == ["job_ext"], extensions
        self.set_serializable_attr("program", f"{self.program}{'-forced' if force else ''}")

    def run(self, force=False, **kwargs):
        print("it says", subprocess.check_output([self.program], text=True), flush=True)

class Lost(ClusterRunnable):
    # Its constructor takes no env.
    def __init__(self, steps=3):
        super().__init__()

    def setup(self, cluster, extensions, force, **kwargs):
        pass

    def run(self, force=False, **kwargs):
        pass

class Talk(ClusterRunnable):
    # Every factory says something each half second, by one login for all of it.
    def __init__(self, steps=3, code=0, env=None):
        super().__init__(env)
        self.steps, self.code = steps, code

    def setup(self, cluster, extensions, force, **kwargs):
        pass

    def run(self, force=False, **kwargs):
        def listen(name, host):
            script = f"for n in $(seq {self.steps}); do echo $n; sleep 0.5; done"
            with subprocess.Popen([*self.env.ssh(host), script], stdout=subprocess.PIPE, text=True) as talk:
                for line in talk.stdout:
                    print(f"{name} says {line.strip()}", flush=True)
            print(f"{name} ends with {talk.returncode}", flush=True)
        threads = [
            threading.Thread(target=listen, args=(f"factory_{n}", host))
            for n, host in enumerate(self.env.factories_ips, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sys.exit(self.code)

class Fails(ClusterRunnable):
    # Its own code raises, some calls away.
    def __init__(self, env=None):
        super().__init__(env)

    def setup(self, cluster, extensions, force, **kwargs):
        pass

    def run(self, force=False, **kwargs):
        self.outer({})

    def outer(self, known):
        return int(known["nowhere"])  # the last line of ours

class Flood(ClusterRunnable):
    # So many lines of 100 bytes.
    def __init__(self, lines=1, env=None):
        super().__init__(env)
        self.lines = lines

    def setup(self, cluster, extensions, force, **kwargs):
        pass

    def run(self, force=False, **kwargs):
        for number in range(self.lines):
            sys.stdout.write(f"{number:08} {'x' * 90}\\n")
        print("end", flush=True)
"""


class Place:
    """A folder with a job and a cluster in it, and ``flambe`` as it is called there.

    Parameters
    ----------
    folder
        The folder.
    cluster
        The text of the file of the cluster.
    """

    def __init__(self, folder: Path, cluster: str) -> None:
        self.folder = folder
        package = folder / "job_ext"
        (package / "job_ext").mkdir(parents=True)
        (package / "job_ext" / "__init__.py").write_text(JOB)
        (package / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
            '[project]\nname = "job-ext"\nversion = "1.0"\n'
        )
        self.cluster = folder / "cluster.yaml"
        self.cluster.write_text(cluster)
        self.env = {
            **os.environ,
            "FLAMBE_HOME": str(folder / "home"),
            "PYTHONPATH": str(folder / "site"),
            "COLUMNS": "100",
        }
        self.install(package)

    def install(self, package: Path) -> None:
        """Install an extension, as -i would, and gone with the folder."""
        command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-build-isolation"]
        command += ["--offline", "--target", str(self.folder / "site"), "--no-deps", str(package)]
        subprocess.run(command, check=True, capture_output=True)

    def job(self, what: str = "Job", **keywords: Any) -> Path:
        """Write a file that runs a class of the job; return it."""
        path = self.folder / "job.yaml"
        words = ", ".join(f"{key}: {value}" for key, value in keywords.items())
        path.write_text(f"job_ext: ./job_ext\n---\n!job_ext.{what} {{{words}}}\n")
        return path

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the command line of ``flambe`` with this Python."""
        return [sys.executable, "-c", COMMAND, *map(str, arguments)]

    def flambe(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start the command, as the leader of a process group."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@contextlib.contextmanager
def local(folder: Path, name: str) -> Iterator[Place]:
    """Lend a place with a cluster of this machine; it is taken down at the end."""
    made = Place(folder, f"!LocalCluster {{name: {name}, factories_num: 1}}\n")
    yield made
    made.flambe("down", made.cluster, "--force")
    shutil.rmtree(folder, ignore_errors=True)


def typed(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command with a home of its own in a folder."""
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        env={**os.environ, "FLAMBE_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

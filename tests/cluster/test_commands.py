"""The commands for clusters, as people type them, on real hosts."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.cluster.place import Place
from tests.experiment.lab import until
from tests.metal import Metal

EQUIPPED = True  # its hosts have flambe's environments from the start

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.faults,
    pytest.mark.xdist_group("metal-commands"),
]


@pytest.fixture(scope="module")
def place(metal: Metal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give a folder with a cluster of three real hosts that is ready for the jobs in it."""
    folder = tmp_path_factory.mktemp("place")
    made = Place(folder, metal.cluster_yaml("lab"))
    done = made.flambe(made.job(steps=1), "--cluster", made.cluster)
    assert done.returncode == 0, done.stderr
    yield made
    made.flambe("down", made.cluster, "--force")
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def unheard(metal: Metal) -> Iterator[None]:
    """Let nothing pass between this machine and the hosts, which reach one another."""
    rules = [["INPUT", "-s", metal.gateway], ["OUTPUT", "-d", metal.gateway]]
    for host in metal.hosts:
        for rule in rules:
            host.in_network("iptables", "-w", "-I", *rule, "-j", "DROP")
    try:
        yield
    finally:
        for host in metal.hosts:
            for rule in rules:
                host.in_network("iptables", "-w", "-D", *rule, "-j", "DROP")


def shown(run: subprocess.Popen[str], text: str) -> None:
    """Wait until a command shows something."""
    assert run.stdout is not None
    output = run.stdout
    until(lambda: text in output.readline(), f"{text!r} is shown", 60)


@pytest.mark.parametrize("seconds", [10, pytest.param(120, marks=pytest.mark.long)])
def test_a_link_that_is_down(place: Place, metal: Metal, seconds: int) -> None:
    """FAULTS 16: of a factory, and of whoever looks on; the run goes on and they come back."""
    steps = 2 * seconds + 20
    run = place.start(place.job("Talk", steps=steps, code=5), "--cluster", place.cluster)
    shown(run, "says 3")
    follower = place.start("logs", "lab", "-f")
    shown(follower, "says 3")
    factory = metal.hosts[1]
    with unheard(metal):
        factory.cut()
        time.sleep(seconds)
        factory.mend()
    for one in (run, follower):
        told, _ = one.communicate(timeout=seconds + 120)
        assert one.returncode == 5, told
        for name in ("factory_1", "factory_2"):
            said = [line for line in told.splitlines() if line.startswith(f"{name} says")]
            # From where it was, each line once.
            expected = [f"{name} says {n}" for n in range(1, steps + 1)]
            assert said == expected[-len(said) :]
            assert len(said) > 2 * seconds
            assert f"{name} ends with 0" in told
        # A short one is not noticed.
        assert ("the connection was lost; trying again" in told) == (seconds > 60)
        assert ("connected again" in told) == (seconds > 60)


# Ends with what it needed most of memory, in kB.
MEASURED = """
import sys
from flambe.cli.main import main
code = main(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak.split()[1], file=sys.stderr)
sys.exit(code)
"""
LINES = 500_000  # of 100 bytes


@pytest.mark.parametrize("how", ["attached", "logs", "logs -f"])
def test_fifty_megabytes_of_output(place: Place, how: str) -> None:
    """FAULTS 14: all of it comes, as it comes, and the client needs no memory for it."""
    job = place.job("Flood", lines=LINES)
    attached = [str(job), "--cluster", str(place.cluster)]
    if how != "attached":
        started = place.flambe(*attached, "--force", "--detach")
        assert started.returncode == 0, started.stderr
        until(lambda: "with exit code 0" in place.flambe("status", "lab").stdout, "its end", 60)
    what = attached if how == "attached" else [*how.split(), "lab"]
    output = place.folder / "output"
    with open(output, "wb") as stream:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *what],
            env=place.env,
            cwd=place.folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    with open(output) as lines:
        numbers = [line.split()[0] for line in lines if line.endswith(f" {'x' * 90}\n")]
    assert numbers == [f"{number:08}" for number in range(LINES)]
    assert int(done.stderr.split()[-1]) < 150_000
    if how != "attached":
        # Whoever reads may stop.
        head = f"{shlex.join(place.command(*what))} | head -n 1"
        few = subprocess.run(
            ["sh", "-c", head],
            check=False,
            env=place.env,
            cwd=place.folder,
            capture_output=True,
            timeout=60,
        )
        assert few.stdout.split()[0] == b"00000000"
        assert few.stderr == b""

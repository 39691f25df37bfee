"""What AWSCluster costs beyond the boot of its instances, on the stand-in for EC2; as root.

- ``launch``: from nothing to instances that run, for 1 + 1, 1 + 4 and 1 + 12 of them, without the
  time that they boot, and the calls of EC2's API; instances without hosts.
- ``ready``: from nothing to a cluster that is ready, for 1 + 1 and 1 + 4, each instance a real host
  that shares the processors of this machine; then once more: calls before the first SSH.
- ``ray``: the same without factories, beside ``ray up``, whose head makes its own workers later.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
from flambe.cluster.providers.aws import AWSCluster
from tests.cloud import Cloud
from tests.cloud.prepared import launched_by_ray
from tests.metal import missing

BOOT = 5.0  # seconds, of each instance
MOST_WARM = 3  # calls before the first SSH
LAUNCHED, READY = (1, 4, 12), (1, 4)


@contextlib.contextmanager
def cloud(folder: Path, **options: Any) -> Iterator[Cloud]:
    """Lend a cloud, to which boto3 goes here and in what is started."""
    with Cloud(seed=0, **options) as one:
        one.faults.boot_delay(BOOT, BOOT)
        before = dict(os.environ)
        os.environ.update(one.environment, FLAMBE_HOME=str(folder / "home"))
        try:
            yield one
        finally:
            os.environ.clear()
            os.environ.update(before)


def cluster(place: Cloud, factories: int, name: str = "bench") -> AWSCluster:
    """Return a cluster, which says nothing."""
    prepared = place.prepared
    made = AWSCluster(
        name=name,
        factories_num=factories,
        factories_type="t3.large",
        orchestrator_type="t3.large",
        key_name=prepared.key_name,
        key=str(prepared.key),
        creator="bench@example.com",
        security_group=prepared.security_group,
        subnet_id=prepared.subnet,
    )
    made.observer = Silent()
    return made


class Silent:
    """A ClusterObserver."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def host_line(self, host: str, text: str) -> None:
        """Say nothing."""


def launch(folder: Path, repeats: int) -> None:
    """Measure how launches grow with their number."""
    rows = []
    with cloud(folder, hosts=False) as place:

        def once(factories: int) -> float:
            # One of the same name would first meet the tokens of the last one.
            made = cluster(place, factories, f"bench-{time.time_ns()}")
            place.calls.clear()
            begun = time.perf_counter()
            made.create_machines([])
            seconds = time.perf_counter() - begun - BOOT
            calls[factories] = len(place.calls)
            made.remove_machines()
            return seconds

        calls: dict[int, int] = {}
        runs = {str(n): lambda n=n: once(n) for n in LAUNCHED}
        found = common.rounds(runs, repeats)
        for number in LAUNCHED:
            rows.append([f"1 + {number}", common.spread(found[str(number)]), calls[number]])
        growth = common.ratios(found[str(LAUNCHED[-1])], found[str(LAUNCHED[0])])
    print(f"\nlaunch: seconds beyond the boot of {BOOT:g} s, and calls of the API")
    common.table(["instances", "seconds", "calls"], rows)
    print(f"1 + {LAUNCHED[-1]} beside 1 + {LAUNCHED[0]}: {common.spread(growth, digits=2)}x")


def ready(folder: Path, repeats: int) -> None:
    """Measure how long it takes until a cluster is ready, and again."""
    rows = []
    for number in READY:
        with cloud(folder) as place:
            made = cluster(place, number)
            begun = time.perf_counter()
            made.run()
            cold, calls = time.perf_counter() - begun - BOOT, len(place.calls)
            tags = len(place.calls.of("CreateTags"))
            warm = []
            for _ in range(repeats):
                again = cluster(place, number)
                place.calls.clear()
                begun = time.perf_counter()
                again.run()
                warm.append(time.perf_counter() - begun)
            told = f"{len(place.calls)} (most {MOST_WARM})"
            rows.append([f"1 + {number}", f"{cold:.1f}", calls, tags, common.spread(warm), told])
            made.remove_machines()
    print("\nready: from nothing, beyond the boot; and when it is ready already")
    head = ["hosts", "cold s", "calls", "of them tags", "warm s", "warm calls"]
    common.table(head, rows)


def ray(folder: Path, repeats: int) -> None:
    """Measure one host, beside ``ray up``."""
    rows = []
    with cloud(folder) as place:
        made = cluster(place, 0)
        begun = time.perf_counter()
        made.run()
        rows.append(["flambe", f"{time.perf_counter() - begun - BOOT:.1f}", len(place.calls)])
        made.remove_machines()
    with cloud(folder) as place:
        config = folder / "ray.yaml"
        config.write_text(json.dumps(launched_by_ray(place, "bench", "true")), encoding="utf-8")
        command = [sys.executable, "-m", "ray.scripts.scripts", "up", "--yes", "--no-config-cache"]
        env = {**place.environment, "PATH": os.environ["PATH"], "HOME": str(folder)}
        begun = time.perf_counter()
        done = subprocess.run(
            [*command, str(config)], env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        rows.append(["ray up", f"{time.perf_counter() - begun - BOOT:.1f}", len(place.calls)])
        told: dict[str, int] = {}
        for call in place.calls:
            told[call.name] = told.get(call.name, 0) + 1
    print("\nray: one host, from nothing to ready; ray up installs nothing and starts no Ray here")
    common.table(["", "seconds beyond the boot", "calls"], rows)
    print("ray up asked for", ", ".join(f"{n} x {name}" for name, n in sorted(told.items())))


SECTIONS = {"launch": launch, "ready": ready, "ray": ray}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=SECTIONS)
    options = parser.parse_args()
    if os.geteuid() != 0 or missing():
        print("not run: needs root, and what tests/metal needs")
        return
    print(common.machine())
    with tempfile.TemporaryDirectory(prefix="flambe-") as folder:
        for name, measure in SECTIONS.items():
            if options.only in (None, name):
                measure(Path(folder), options.repeats)


if __name__ == "__main__":
    main()

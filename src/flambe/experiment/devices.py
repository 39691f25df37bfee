"""What a variant occupies of a host."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping

from flambe.errors import ConfigError, Problem, did_you_mean, listed

MOST_HOSTS = 8  # whose sizes are listed
GPU_SECONDS = 10.0  # that nvidia-smi has to answer


def local_capacity() -> dict[str, float]:
    """Return what this machine offers; Ray is not asked, and need not run."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = 0
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "--list-gpus"]
        listing = subprocess.run(
            command, capture_output=True, text=True, timeout=GPU_SECONDS, check=False
        )
        gpus = listing.stdout.count("GPU ") if listing.returncode == 0 else 0
    return {"cpu": float(cpus or 1), "gpu": float(gpus)}


def refuse_too_large(
    requested: Mapping[str, float] | None, hosts: Mapping[str, Mapping[str, float]]
) -> None:
    """Check that some host of a cluster has what a variant occupies: all of it, on one host.

    Parameters
    ----------
    requested
        As the experiment says it.
    hosts
        Host → what it offers, ``cpu`` and ``gpu``.

    Raises
    ------
    ConfigError
        If none has: the run would wait for ever.
    """
    devices = {name: amount for name, amount in (requested or {}).items() if name in ("cpu", "gpu")}
    if not hosts or any(
        all(offer.get(name, 0.0) >= amount for name, amount in devices.items())
        for offer in hosts.values()
    ):
        return
    needed = " and ".join(f"{amount:g} {name}" for name, amount in devices.items())
    sizes = [
        f"{host} has {offer.get('cpu', 0.0):g} cpu, {offer.get('gpu', 0.0):g} gpu"
        for host, offer in hosts.items()
    ]
    raise ConfigError(
        Problem(
            f"devices: a variant needs {needed}, and no host has that: {listed(sizes, MOST_HOSTS)}",
            hint="ask for less, or add a host that has as much",
        )
    )


def resolve_devices(
    requested: Mapping[str, float] | None, capacity: Mapping[str, float], *, local: bool
) -> dict[str, float]:
    """Return what a variant occupies.

    Parameters
    ----------
    requested
        As the experiment says it.
    capacity
        What the largest host offers; empty if nothing is too large.
    local
        Whether this machine is the only host.

    Raises
    ------
    ConfigError
        If no host has that much: the run would wait for ever.
    """
    if requested is None:
        return {"cpu": 1.0, "gpu": 1.0} if capacity.get("gpu") else {"cpu": 1.0}
    for name, amount in requested.items():
        most = capacity.get(name, 0.0)
        if not capacity or amount <= most:
            continue
        if most:
            reason, hint = f"the largest host has {most:g}", f"ask for at most {most:g}"
        elif local and name in capacity:
            reason = "this machine has none"
            hint = f"leave {name} out of devices, or run with --cluster on hosts that have some"
        elif name in capacity:
            reason, hint = "no host has any", f"leave {name} out of devices"
        else:
            reason = "no host has that"
            hint = did_you_mean(name, capacity) or f"available: {listed(list(capacity))}"
        message = f"devices: a variant needs {amount:g} {name}, and {reason}"
        raise ConfigError(Problem(message, hint=hint))
    return dict(requested)

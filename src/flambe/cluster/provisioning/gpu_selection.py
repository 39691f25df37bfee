"""Which GPUs of a host a cluster may use: all, or those that nothing else uses."""

from __future__ import annotations

from collections.abc import Sequence

from flambe.remote.agent.protocol import Gpu

# Drivers and desktops take a little memory. More than this share, without a visible process,
# means that the GPU is in use.
MEMORY_SHARE = 1 / 20
UNKNOWN_USER = "an unknown user"


def other_users(gpu: Gpu, cluster: str) -> list[str]:
    """Return who uses a GPU besides the cluster itself; empty if it is free.

    Parameters
    ----------
    gpu
        The GPU, as its host reports it.
    cluster
        The name of the cluster. Its processes are supervised under its name, or under its name, a
        dot and more.
    """
    others = [process for process in gpu.processes if process.run.partition(".")[0] != cluster]
    if others:
        return sorted({process.user or UNKNOWN_USER for process in others})
    in_use = not gpu.processes and gpu.used > gpu.memory * MEMORY_SHARE
    return [UNKNOWN_USER] if in_use else []


def free_gpus(gpus: Sequence[Gpu], cluster: str) -> list[Gpu]:
    """Return the GPUs that only the cluster uses, or that are idle."""
    return [gpu for gpu in gpus if not other_users(gpu, cluster)]


def summarize(gpus: Sequence[Gpu], cluster: str, usable: int | None = None) -> str:
    """Return a text about the GPUs of a host: their kinds, their users, how many may be used."""
    if not gpus:
        return "-"
    kinds = ", ".join(dict.fromkeys(gpu.name for gpu in gpus))
    count = str(len(gpus)) if usable in (None, len(gpus)) else f"{usable} of {len(gpus)}"
    users = [others for gpu in gpus if (others := other_users(gpu, cluster))]
    if not users:
        return f"{count} × {kinds}"
    names = ", ".join(sorted({name for group in users for name in group}))
    return f"{count} × {kinds}, {len(users)} in use by {names}"

"""Which GPUs of a host a cluster may use: all, or those that nobody else uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Without a process that could be seen, this share of its memory tells that somebody uses a GPU:
# drivers and desktops take a little.
SHARE = 1 / 20
SOMEBODY = "somebody"


def others(gpu: Mapping[str, Any], cluster: str) -> list[str]:
    """Return who uses a GPU, the cluster itself left out; nobody, if it is free.

    Parameters
    ----------
    gpu
        One of the facts of a host; see :mod:`flambe.remote.agent.gpus`.
    cluster
        Its name. What runs for it is supervised under its name, or its name, a dot and more.
    """
    processes = gpu["processes"]
    foreign = [one for one in processes if one["run"].partition(".")[0] != cluster]
    if foreign:
        return sorted({one["user"] or SOMEBODY for one in foreign})
    taken = not processes and gpu["used"] > gpu["memory"] * SHARE
    return [SOMEBODY] if taken else []


def free(gpus: Sequence[Mapping[str, Any]], cluster: str) -> list[Mapping[str, Any]]:
    """Return the GPUs that nobody but the cluster uses."""
    return [gpu for gpu in gpus if not others(gpu, cluster)]


def told(gpus: Sequence[Mapping[str, Any]], cluster: str, usable: int | None = None) -> str:
    """Return the GPUs of a host for people: which, who uses them, and how many may be used."""
    if not gpus:
        return "-"
    names = ", ".join(dict.fromkeys(gpu["name"] for gpu in gpus))
    count = str(len(gpus)) if usable in (None, len(gpus)) else f"{usable} of {len(gpus)}"
    users = [who for gpu in gpus if (who := others(gpu, cluster))]
    if not users:
        return f"{count} × {names}"
    by = ", ".join(sorted({name for who in users for name in who}))
    return f"{count} × {names}, {len(users)} in use by {by}"

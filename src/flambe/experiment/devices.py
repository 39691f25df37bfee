"""What a variant occupies of a host."""

from __future__ import annotations

from collections.abc import Mapping

from flambe.errors import ConfigError, Problem, did_you_mean, listed


def occupied(
    asked: Mapping[str, float] | None, capacity: Mapping[str, float], *, local: bool
) -> dict[str, float]:
    """Return what a variant occupies.

    Parameters
    ----------
    asked
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
    if asked is None:
        return {"cpu": 1.0, "gpu": 1.0} if capacity.get("gpu") else {"cpu": 1.0}
    for name, amount in asked.items():
        most = capacity.get(name, 0.0)
        if not capacity or amount <= most:
            continue
        what = f"devices: a variant needs {amount:g} {name}, and "
        if most:
            what += f"the largest host has {most:g}"
            hint = f"ask for at most {most:g}"
        elif local and name in capacity:
            what += "this machine has none"
            hint = f"leave {name} out of devices, or run with --cluster where there are some"
        elif name in capacity:
            what, hint = f"{what}no host has any", f"leave {name} out of devices"
        else:
            what += "no host has that"
            hint = did_you_mean(name, capacity) or f"there are: {listed(list(capacity))}"
        raise ConfigError(Problem(what, hint=hint))
    return dict(asked)

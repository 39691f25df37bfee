"""The extras of flambe that a configuration needs, by what it names."""

from __future__ import annotations

from flambe.compile import Schema
from flambe.compile.values import Grid

# The rooms that are written for torch.
_LEARN = ("dataset", "field", "learn", "metric", "nn", "sampler")

_OPTUNA = "ray.tune.search.optuna."


def extras_of(value: object) -> set[str]:
    """Return the extras that a configuration needs.

    Parameters
    ----------
    value
        The blueprint of a runnable, or a part of it.
    """
    if isinstance(value, Schema):
        own = _of_target(str(value.target or ""))
        return own.union(*map(extras_of, (*value.args, *value.kwargs.values())))
    if isinstance(value, Grid):
        return set().union(*map(extras_of, value.elements))
    if isinstance(value, dict):
        return set().union(*map(extras_of, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(extras_of, value))
    return set()


def _of_target(target: str) -> set[str]:
    package, _, rest = target.partition(":")[0].partition(".")
    room = rest.partition(".")[0]
    is_ours = package == "flambe" and room in _LEARN
    if is_ours or package == "torch":
        return {"learn"}
    return {"search"} if target.startswith(_OPTUNA) else set()

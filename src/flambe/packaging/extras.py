"""The extras of flambe that a configuration needs, by what it names."""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement

from flambe.compile import Schema
from flambe.compile.values import Grid

# The rooms that are written for torch.
_LEARN = ("dataset", "field", "learn", "metric", "nn", "sampler")

#: The modules of Ray's searchers and schedulers → the extra with the packages that they import.
ENGINES = {
    "ray.tune.schedulers.pb2": "pb2",
    "ray.tune.search.ax": "ax",
    "ray.tune.search.bayesopt": "bayesopt",
    "ray.tune.search.bohb": "bohb",
    "ray.tune.search.hyperopt": "hyperopt",
    "ray.tune.search.nevergrad": "nevergrad",
    "ray.tune.search.optuna": "search",
    "ray.tune.search.zoopt": "zoopt",
}


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
    return {extra} if (extra := extra_of_engine(target.partition(":")[0])) else set()


def extra_of_engine(module: str) -> str:
    """Return the extra that a module of Ray's searchers and schedulers needs, or nothing."""
    # As a package has it, and as its class is known by: ray.tune.search.ax, ….ax.ax_search.
    return ENGINES.get(module) or ENGINES.get(module.rpartition(".")[0], "")


def requirements_of(extra: str) -> list[Requirement]:
    """Return what an extra of flambe adds, as its metadata says."""
    declared = map(Requirement, metadata.requires("flambe") or ())
    return [each for each in declared if each.marker and each.marker.evaluate({"extra": extra})]

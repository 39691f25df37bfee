"""Population based training: which values its members explore, and within which bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flambe.compile import Schema, search_spaces
from flambe.compile.values import Path
from flambe.errors import did_you_mean, listed
from flambe.experiment.variants.dimensions import SEPARATOR

Finding = tuple[Path, str, str]  # path, message, hint

#: The keyword that names what is explored.
MUTATIONS, BOUNDS = "hyperparam_mutations", "hyperparam_bounds"


def match_space(name: str, paths: Iterable[str]) -> str | None:
    """Return the path of the search space that a name stands for: ``lr`` or ``optimizer.lr``.

    None if there is no such space, or more than one.
    """
    matches = [path for path in paths if name == path or _ends_with(path, name)]
    return matches[0] if len(matches) == 1 else None


def _ends_with(path: str, name: str) -> bool:
    keys = path.replace("[", ".").replace("]", "")
    return f".{keys}".endswith(f".{name}")


def explored_findings(
    keyword: str, written: object, spaces: Mapping[str, Schema], tag: str
) -> Iterator[Finding]:
    """Yield the mistakes in what a scheduler is to explore.

    Parameters
    ----------
    keyword, written
        ``hyperparam_mutations`` or ``hyperparam_bounds``, and its value; None without it.
    spaces
        The search spaces of the stage.
    tag
        The tag of the scheduler.
    """
    if not spaces:
        yield (
            (),
            f"schedulers: !{tag} needs search spaces in the stage: its members differ in them",
            "such as   lr: !tune.loguniform [1e-4, 1e-1]   and   search: {STAGE: {num_samples: 8}}",
        )
        return
    for key, space in spaces.items():
        if any(SEPARATOR in other and other.startswith(f"{key}{SEPARATOR}") for other in spaces):
            yield (
                (),
                f"schedulers: !{tag} explores values, and !{space.tag} of {key} chooses components",
                "the state of one component does not fit another: list them in a grid (!g), and "
                "each has a population of its own",
            )
            return
    names = list(map(str, written)) if isinstance(written, Mapping) else []
    for name in names:
        if match_space(name, spaces) is None:
            yield (
                (keyword, name),
                f"schedulers: {name!r} of {keyword} is not a search space of the stage",
                did_you_mean(name, spaces) or f"the search spaces: {listed(list(spaces))}",
            )
    if keyword == BOUNDS and not names:
        for path, space in spaces.items():
            if _numbers(space) is None:
                yield (
                    (),
                    f"schedulers: !{tag} explores numbers between bounds, and !{space.tag} of "
                    f"{path} is not a range",
                    "take !ray.PopulationBasedTraining, or name the ranges:   "
                    "hyperparam_bounds: {lr: [1e-4, 1e-1]}",
                )


def explored_arguments(
    keyword: str, written: object, spaces: Mapping[str, Schema]
) -> dict[str, object]:
    """Return the value of the keyword that names what is explored: by default, all spaces.

    Its keys are the paths of the spaces as text.
    """
    if isinstance(written, Mapping) and written:
        return {
            match_space(str(name), spaces) or str(name): _built(value)
            for name, value in written.items()
        }
    if keyword == BOUNDS:
        return {path: list(_numbers(space) or ()) for path, space in spaces.items()}
    return {path: _mutation(space) for path, space in spaces.items()}


def _built(value: object) -> object:
    return _mutation(value) if isinstance(value, Schema) else value


def _mutation(space: Schema) -> object:
    """Return a space as PBT takes it: it would multiply what ``choice`` chooses from."""
    domain: Any = space()
    categories = getattr(domain, "categories", None)
    return list(categories) if categories is not None else domain


def _numbers(space: Schema) -> tuple[float, float] | None:
    """Return the bounds of a space of numbers."""
    if not (search_spaces.draws_real(space) or search_spaces.draws_whole(space)):
        return None
    domain: Any = space()
    lower, upper = getattr(domain, "lower", None), getattr(domain, "upper", None)
    if not isinstance(lower, int | float) or not isinstance(upper, int | float):
        return None
    if lower == float("-inf") or upper == float("inf"):
        return None
    return lower, upper


def bounded(space: Any, value: object) -> object:
    """Return a value within a search space: exploring multiplies, and leaves its bounds."""
    lower, upper = getattr(space, "lower", None), getattr(space, "upper", None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if lower is None or upper is None:
        return value
    quantum = getattr(getattr(space, "sampler", None), "q", 0) or 0
    whole = type(space).__name__ == "Integer"
    if quantum and quantum != 1:
        value = round(value / quantum) * quantum
    if whole:
        value = round(value)
        upper = upper if quantum and quantum != 1 else upper - 1
    bound = min(max(value, lower), upper)
    return int(bound) if whole else float(bound)

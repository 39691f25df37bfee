"""Searchers and schedulers of Ray Tune: checked before anything runs, and built.

flambe ranks by one metric: what ``metric()`` of a component returns, higher is better. An engine
that ranks by something else, or waits for what no variant reports, would silently do nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from flambe.compile import Schema, signatures
from flambe.compile.values import Key, Path, children
from flambe.errors import ComponentError, ConfigError, Problem, listed
from flambe.experiment.search import population
from flambe.experiment.search.engine_packages import describe, install_command, missing_packages
from flambe.experiment.search.engine_types import (
    BOHB,
    HEBO,
    HYPERBAND_FOR_BOHB,
    LIMITING,
    PB2,
    PBT,
    REPLAY,
    SCHEDULER,
    SEARCH_ALGORITHM,
    SEARCHER,
    derives_from,
)
from flambe.experiment.search.searcher_arguments import argument_findings, with_defaults
from flambe.experiment.variants.dimensions import dimensions

#: The names under which a trial reports its metric, and the number of its steps.
METRIC = "metric"
STEPS = "steps"
MODE = "max"
#: What every trial reports and what only grows.
TIME_ATTRIBUTES = ("training_iteration", STEPS, "time_total_s")

Finding = tuple[Path, str, str]  # path, message, hint


@dataclass(frozen=True)
class _Kind:
    """A kind of engine: its name in messages, the classes it derives from, and an example."""

    name: str
    bases: tuple[str, ...]
    example: str


_KINDS = {
    "search": _Kind(
        "searcher",
        (SEARCHER, SEARCH_ALGORITHM),
        "!ray.OptunaSearch",
    ),
    "schedulers": _Kind(
        "trial scheduler",
        (SCHEDULER,),
        "!ray.AsyncHyperBandScheduler",
    ),
}
# Keywords of searchers.
_SPACES = ("space", "dim_dict")
_POINTS = ("points_to_evaluate", "evaluated_rewards")
_SPACE_HINT = "leave it out, and write   lr: !tune.loguniform [1e-4, 1e-1]   in the stage"


def engine_findings(values: Mapping[str, object]) -> Iterator[Finding]:
    """Yield the mistakes in the searchers and schedulers of an experiment.

    Parameters
    ----------
    values
        The keywords of an ``!Experiment``, not built.
    """
    for keyword, kind in _KINDS.items():
        for path, engine in _written_engines(values, keyword):
            yield from _engine_findings(keyword, kind, path, engine)
    yield from _pair_findings(values)


def _written_engines(values: Mapping[str, object], keyword: str) -> Iterator[tuple[Path, Schema]]:
    """Yield the engines below a keyword, and their paths."""
    stages = values.get(keyword)
    for stage, value in stages.items() if isinstance(stages, Mapping) else ():
        path: Path = (keyword, stage)
        if keyword == "search" and isinstance(value, Mapping):
            path, value = (*path, "searcher"), value.get("searcher")  # noqa: PLW2901
        if isinstance(value, Schema) and value.target:
            yield path, value


def _engine_findings(keyword: str, kind: _Kind, path: Path, engine: Schema) -> Iterator[Finding]:
    target = engine.resolve()
    if not derives_from(target, *kind.bases):
        yield path, f"{keyword}: !{engine.tag} is not a {kind.name}", f"such as {kind.example}"
        return
    if derives_from(target, REPLAY):
        yield (
            path,
            f"{keyword}: !{engine.tag} is not supported: it reads a file that Tune writes, and "
            "flambe keeps the history of a population in the state of the run",
            "run !ray.PopulationBasedTraining; to continue it, use --resume",
        )
        return
    if derives_from(target, HEBO):
        yield (
            path,
            f"{keyword}: !{engine.tag} is not supported: HEBO needs a NumPy older than 1.25",
            "use !ray.OptunaSearch or !ray.BayesOptSearch",
        )
        return
    if missing := missing_packages(target):
        yield path, f"{keyword}: !{engine.tag} needs {describe(missing)}", install_command(missing)
    else:
        for below, message, hint in argument_findings(target, _arguments(target, engine)):
            yield (*path, *below), f"{keyword}: {message}", hint
    for name, (below, value) in _arguments(target, engine).items():
        for message, hint in _argument_findings(name, value):
            yield (*path, *below), f"{keyword}: {name} of !{engine.tag} {message}", hint
    for key, child in children(engine):
        # One inside another: ConcurrencyLimiter, Repeater, ResourceChangingScheduler.
        if (
            isinstance(child, Schema)
            and child.target
            and derives_from(child.resolve(), *kind.bases)
        ):
            if derives_from(child.resolve(), PBT):
                yield (
                    (*path, key),
                    f"{keyword}: !{child.tag} does not work inside !{engine.tag}",
                    f"write it as the scheduler of the stage, without !{engine.tag}",
                )
            yield from _engine_findings(keyword, kind, (*path, key), child)


def _argument_findings(name: str, value: object) -> Iterator[tuple[str, str]]:
    if value is None:
        return
    if name == "metric" and value != METRIC:
        written = listed(value) if isinstance(value, list) else repr(value)
        yield (
            f"cannot be {written}: flambe ranks by what metric() of the component returns",
            "leave it out; to rank by another figure, return that from metric()",
        )
    elif name == "mode" and value != MODE:
        yield (
            f"cannot be {value!r}: flambe ranks by metric() of the component, higher is better",
            "leave it out; where lower is better, return the negative from metric()",
        )
    elif name == "time_attr" and value not in TIME_ATTRIBUTES:
        yield (
            f"cannot be {value!r}: no variant reports that",
            f"{TIME_ATTRIBUTES[0]} or {STEPS} (steps of run()), or {TIME_ATTRIBUTES[2]} (seconds)",
        )
    elif name in _SPACES:
        yield "is not used: the spaces are where their values go", _SPACE_HINT
    elif name in _POINTS:
        yield (
            "is not supported: an engine names hyper-parameters otherwise than the file",
            "leave it out; --resume tells a searcher what was tried before",
        )


def _pair_findings(values: Mapping[str, object]) -> Iterator[Finding]:
    """Yield searchers and schedulers that do not work together, or not without the other."""
    searchers = {path[1]: (path, engine) for path, engine in _written_engines(values, "search")}
    for stage, (path, engine) in searchers.items():
        search = values["search"]
        options = search.get(stage) if isinstance(search, Mapping) else None
        if isinstance(options, Mapping) and options.get("max_concurrent_trials") is not None:
            yield from _limit_findings((*path[:-1], "max_concurrent_trials"), engine)
    schedulers = {
        path[1]: (path, engine) for path, engine in _written_engines(values, "schedulers")
    }
    yield from _population_findings(values, searchers, schedulers)
    for stage, (path, engine) in schedulers.items():
        other = searchers.get(stage)
        if _holds(engine, HYPERBAND_FOR_BOHB) and not (other and _holds(other[1], BOHB)):
            message = f"schedulers: !{engine.tag} needs the searcher !ray.TuneBOHB in this stage"
            yield path, message, "use !ray.HyperBandScheduler without it"
    for stage, (path, engine) in searchers.items():
        other = schedulers.get(stage)
        if _holds(engine, BOHB) and not (other and _holds(other[1], HYPERBAND_FOR_BOHB)):
            message = f"search: !{engine.tag} needs the scheduler !ray.HyperBandForBOHB"
            yield path, message, f"write it below   schedulers:   for {stage!r}"


def _population_findings(
    values: Mapping[str, object],
    searchers: Mapping[Key, tuple[Path, Schema]],
    schedulers: Mapping[Key, tuple[Path, Schema]],
) -> Iterator[Finding]:
    pipeline = values.get("pipeline")
    for stage, (path, engine) in schedulers.items():
        if not derives_from(engine.resolve(), PBT) or not isinstance(pipeline, Mapping):
            continue
        if stage in searchers:
            yield (
                searchers[stage][0],
                f"search: !{engine.tag} explores the values itself, and takes no searcher",
                f"leave out the searcher:   search: {{{stage}: {{num_samples: 8}}}}",
            )
            continue
        keyword = explored_keyword(engine)
        arguments = _arguments(engine.resolve(), engine)
        _, written = arguments.get(keyword, ((), None))
        spaces = dimensions(pipeline.get(stage), (stage,))
        for below, message, hint in population.explored_findings(
            keyword, written, spaces, engine.tag
        ):
            yield (*path, *below), message, hint.replace("STAGE", str(stage))


def explored_keyword(engine: Schema) -> str:
    """Return the keyword of a scheduler that names what it explores."""
    bounds = derives_from(engine.resolve(), PB2)
    return population.BOUNDS if bounds else population.MUTATIONS


def _limit_findings(path: Path, engine: Schema) -> Iterator[Finding]:
    if derives_from(engine.resolve(), *LIMITING):
        message = f"search: max_concurrent_trials has no effect on !{engine.tag}"
        yield path, message, f"leave it out: max_concurrent of !{engine.tag} says how many"


def _holds(engine: Schema, *bases: str) -> bool:
    """Whether an engine, or one inside it, derives from a class."""
    if derives_from(engine.resolve(), *bases):
        return True
    return any(
        isinstance(child, Schema) and child.target and _holds(child, *bases)
        for _, child in children(engine)
    )


def _arguments(target: Callable[..., object], engine: Schema) -> dict[str, tuple[Path, object]]:
    """Return the arguments of an engine by name, each with its path below it."""
    signature = signatures.signature(target)
    names = list(signature.parameters) if signature is not None else []
    positional = {
        name: ((index,), value)
        for index, (name, value) in enumerate(zip(names, engine.args, strict=False))
    }
    return {**positional, **{name: ((name,), value) for name, value in engine.kwargs.items()}}


# -- engines that are built ---------------------------------------------------------------------


def build(schema: Schema, spaces: Mapping[str, Schema], num_samples: int = 1) -> object:
    """Build a searcher or scheduler, a new object each time.

    Parameters
    ----------
    schema
        Its blueprint.
    spaces
        The search spaces of the stage, which population based training explores.
    num_samples
        How many points are tried: the budget of a searcher that needs one.

    Raises
    ------
    ConfigError
        If it cannot be built, or ranks by something else.
    """
    if derives_from(schema.resolve(), PBT):
        keyword = explored_keyword(schema)
        explored = population.explored_arguments(keyword, schema.kwargs.get(keyword), spaces)
        schema = replace(schema, kwargs={**schema.kwargs, keyword: explored})
    schema = with_defaults(schema, num_samples)
    try:
        engine = schema()
    except ComponentError as error:
        raise ConfigError(
            Problem(f"!{schema.tag} cannot be made: {error.message}", error.place or schema.place)
        ) from error
    for inner in _unwrapped(engine):
        for name in ("metric", "mode", "time_attr"):
            value = getattr(inner, f"_{name}", None)
            for message, hint in _argument_findings(name, value):
                text = f"{name} of !{schema.tag} {message}"
                raise ConfigError(Problem(text, schema.place, hint))
    # Optuna logs each study and each point on stderr: flambe shows them.
    logging.getLogger("optuna").setLevel(logging.WARNING)
    return engine


def _unwrapped(engine: object) -> Iterator[object]:
    """Yield an engine, and those that it is wrapped around."""
    while engine is not None:
        yield engine
        engine = getattr(engine, "searcher", None) or getattr(engine, "_base_scheduler", None)

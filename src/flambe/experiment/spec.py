"""What an experiment says, as plain values: read once, and given to all that count, plan and run.

Nothing in here is built: the configurations of stages, searchers and schedulers are blueprints.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flambe._durations import parse_duration
from flambe.compile.schema import Schema
from flambe.compile.values import ClusterResource
from flambe.errors import ConfigError
from flambe.experiment.retention import Retention, retention_of
from flambe.runnable import RemoteEnvironment

DEFAULT_MAX_VARIANTS = 10_000
#: How many variants a searcher tries by default.
DEFAULT_SAMPLES = 10
#: How many seeds a variant may be run under.
LARGEST_SEEDS = 1000


@dataclass(frozen=True)
class SearchSpec:
    """How the values of the search spaces of a stage are chosen.

    Attributes
    ----------
    searcher
        The blueprint of a searcher; None for grids and random draws.
    num_samples
        How many variants a searcher tries; or how many are drawn from each search space.
    max_concurrent
        How many variants of a searcher may run at a time.
    """

    searcher: Schema | None = None
    num_samples: int = 1
    max_concurrent: int | None = None

    @classmethod
    def read(cls, value: object) -> SearchSpec:
        """Read the value of ``search`` for one stage: a searcher, or a mapping, or nothing."""
        if isinstance(value, Schema):
            return cls(value, DEFAULT_SAMPLES)
        if not isinstance(value, Mapping):
            return cls()
        searcher, limit = value.get("searcher"), value.get("max_concurrent_trials")
        samples = value.get("num_samples", DEFAULT_SAMPLES)
        return cls(
            searcher if isinstance(searcher, Schema) else None,
            samples if isinstance(samples, int) else DEFAULT_SAMPLES,
            limit if isinstance(limit, int) else None,
        )


@dataclass(frozen=True)
class StopSpec:
    """When a stage is stopped.

    Attributes
    ----------
    time
        After so many seconds.
    metric
        When a variant gets to this figure.
    variants
        When so many variants are done.
    """

    time: float | None = None
    metric: float | None = None
    variants: int | None = None

    @classmethod
    def read(cls, value: object) -> StopSpec:
        """Read the value of ``stop`` for one stage, in which mistakes are left out."""
        written = value if isinstance(value, Mapping) else {}
        metric, variants = written.get("metric"), written.get("variants")
        return cls(
            parse_duration(written.get("time")),
            float(metric) if isinstance(metric, int | float) else None,
            variants if isinstance(variants, int) else None,
        )


@dataclass(frozen=True)
class StageSpec:
    """One stage of the pipeline.

    Attributes
    ----------
    name
        Its name.
    config
        Its blueprint, with the options and links in it.
    search
        How the values of its search spaces are chosen.
    scheduler
        The blueprint of its trial scheduler, if it has one.
    reduce
        How many of its best variants are built upon; None for all.
    keep
        Which checkpoints of each of its variants are kept.
    stop
        When it is stopped before its end.
    max_parallel
        How many of its variants may run at the same time; None for as many as there is room for.
    """

    name: str
    config: object
    search: SearchSpec = field(default_factory=SearchSpec)
    scheduler: Schema | None = None
    reduce: int | None = None
    keep: Retention = field(default_factory=Retention)
    stop: StopSpec = field(default_factory=StopSpec)
    max_parallel: int | None = None


@dataclass(frozen=True)
class ExperimentSpec:
    """An experiment; see :class:`flambe.experiment.Experiment` for what its keywords mean.

    Attributes
    ----------
    stages
        The stages, in the order of the pipeline.
    variant_seconds, run_seconds
        How long a variant, and the run, may take; None for no limit.
    fingerprint
        What of the code is part of an identity: ``source``, ``version`` or ``off``.
    folder
        The folder that relative paths of resources start from.
    """

    stages: tuple[StageSpec, ...]
    name: str = ""
    seed: int = 0
    #: The seeds that each variant is run under; empty for ``seed`` alone.
    seeds: tuple[int, ...] = ()
    max_variants: int = DEFAULT_MAX_VARIANTS
    resources: Mapping[str, str | ClusterResource] = field(default_factory=dict)
    resume: bool | str | Sequence[str] = False
    devices: Mapping[str, float] | None = None
    save_path: str = "flambe-output"
    storage: str = ""
    env: RemoteEnvironment | None = None
    max_failures: int = 1
    stop_on_failure: bool = True
    reuse_actors: bool = True
    debug: bool = False
    fingerprint: str = "source"
    variant_seconds: float | None = None
    run_seconds: float | None = None
    folder: Path = field(default_factory=Path)

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, object]) -> ExperimentSpec:
        """Read what the keywords of an ``!Experiment`` say of its stages; they are not built.

        Raises
        ------
        ConfigError
            If there is no pipeline.
        """
        resources = _mapping(keywords.get("resources"))
        fingerprint = keywords.get("fingerprint", "source")
        seed, limit = keywords.get("seed", 0), keywords.get("max_variants", DEFAULT_MAX_VARIANTS)
        return cls(
            stages=read_stages(keywords),
            name=str(keywords.get("name", "")),
            seed=seed if isinstance(seed, int) else 0,
            seeds=read_seeds(seed, keywords.get("seeds")),
            max_variants=limit if isinstance(limit, int) else DEFAULT_MAX_VARIANTS,
            resources={
                str(name): location
                for name, location in resources.items()
                if isinstance(location, str | ClusterResource)
            },
            fingerprint=fingerprint if isinstance(fingerprint, str) else "source",
        )

    @functools.cached_property
    def pipeline(self) -> dict[str, object]:
        """Stage → blueprint, in order."""
        return {stage.name: stage.config for stage in self.stages}

    def stage(self, name: str) -> StageSpec:
        """Return the stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)


def read_seeds(seed: object, seeds: object) -> tuple[int, ...]:
    """Return the seeds that each variant is run under; none for the seed of the experiment alone.

    Parameters
    ----------
    seed
        That seed.
    seeds
        How many seeds from that one on, or a list of seeds.
    """
    if isinstance(seeds, list | tuple):
        numbers = [each for each in seeds if isinstance(each, int) and not isinstance(each, bool)]
        return tuple(dict.fromkeys(numbers))
    first = seed if isinstance(seed, int) else 0
    if isinstance(seeds, int) and 0 < seeds <= LARGEST_SEEDS:
        return tuple(range(first, first + seeds))
    return ()


def read_stages(keywords: Mapping[str, object]) -> tuple[StageSpec, ...]:
    """Return the stages that the keywords of an experiment describe.

    Raises
    ------
    ConfigError
        If there is no pipeline.
    """
    pipeline = keywords.get("pipeline")
    if not isinstance(pipeline, Mapping):
        raise ConfigError("the experiment has no pipeline")
    searches, schedulers = _mapping(keywords.get("search")), _mapping(keywords.get("schedulers"))
    reductions, keep = _mapping(keywords.get("reduce")), keywords.get("keep")
    stops = _mapping(keywords.get("stop"))
    limits = _mapping(keywords.get("max_parallel"))
    stages = []
    for name, config in pipeline.items():
        scheduler, reduce, limit = schedulers.get(name), reductions.get(name), limits.get(name)
        stages.append(
            StageSpec(
                name,
                config,
                SearchSpec.read(searches.get(name)),
                scheduler if isinstance(scheduler, Schema) else None,
                reduce if isinstance(reduce, int) else None,
                retention_of(keep, name),
                StopSpec.read(stops.get(name)),
                limit if isinstance(limit, int) else None,
            )
        )
    return tuple(stages)


def _mapping(value: object) -> Mapping[object, object]:
    return value if isinstance(value, Mapping) else {}

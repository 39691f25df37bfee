"""Experiment: a pipeline of stages, each run in all its variants."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flambe._grammar import (
    LONGEST_NAME,
    NAME_HINT,
    wrong_ascii_name,
    wrong_name,
    wrong_path,
    wrong_url,
)
from flambe.compile import Schema
from flambe.compile.values import ClusterResource, Grid, Path
from flambe.errors import ConfigError, Problem, did_you_mean, listed
from flambe.experiment import counting, validation
from flambe.experiment.counting import DEFAULT_MAX_VARIANTS, LARGEST_MAX_VARIANTS
from flambe.experiment.search import engines, space_validation, stage_search
from flambe.experiment.variants import expansion, options
from flambe.runnable import ClusterRunnable, RemoteEnvironment

if TYPE_CHECKING:
    # The cluster room comes above this one.
    Cluster = Any

_URLS = ("https", "http", "s3")
_RESERVED = {"resources"}

Finding = tuple[Path, str, str]  # path, message, hint


class Experiment(ClusterRunnable):
    """A pipeline of stages; each is run in all the variants that its options make.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``.
    pipeline
        Stage → component, in order. A stage may link to those above it.
    resume
        True: go on with an interrupted run; finished variants are kept, others go on from their
        last checkpoint. A stage, or a list of stages: use the saved results of those and of
        all before.
    devices
        What each variant occupies, ``{cpu: 4, gpu: 0.5}``; 1 CPU by default, and 1 GPU where there
        are GPUs.
    save_path
        Where the output folder is made; below the current folder by default. ``~`` and variables
        of the environment (``$SCRATCH``) are replaced.
    resources
        Name → a local path (from the folder of the configuration), an ``s3://`` or ``http(s)://``
        URL, or ``!cluster path``.
    search
        Stage → a searcher of Ray Tune, or a mapping: ``searcher``, ``num_samples`` (how many
        variants it tries, 10 by default), ``max_concurrent_trials``. Without a searcher,
        ``num_samples`` values are drawn at random from the ``!tune`` spaces of the stage.
    schedulers
        Stage → a trial scheduler of Ray Tune.
    reduce
        Stage → k: only its k best variants are built upon.
    env
        The cluster that the experiment runs on; injected when remote.
    max_failures
        How often a variant that fails is tried again, from its last checkpoint.
    stop_on_failure
        Whether the run stops after a stage in which a variant failed for good; else it continues
        without that variant and what builds on it, and fails when it is at its end.
    merge_plot
        Whether TensorBoard shows the variants of all stages together.
    user_provider
        A function that returns the name of the user who runs it.
    debug
        Stop in a debugger before each step; local only.
    seed
        Where ``!s`` and the random numbers of each stage start from.
    reuse_actors
        Whether one process may run several variants, one after another, which saves its start.
    storage
        An ``s3://bucket/folder`` that checkpoints are written to, from every host, instead of to
        the output folder; what else is in that one is copied beside them.
    max_variants
        How many variants a stage may have, those that ``reduce`` masks included: 10,000 by
        default, at most 100,000. All stages together may have ten times as many. With more,
        nothing is run.
    """

    #: The keywords whose tags are constructed; those of stages, searches … stay blueprints.
    _flambe_tagged: ClassVar[tuple[str, ...]] = ("env", "user_provider")
    _flambe_scopes: ClassVar[tuple[str, ...]] = ("resources", "pipeline")
    needs_workers: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        pipeline: Mapping[str, Schema | Grid | Any],
        resume: bool | str | Sequence[str] = False,
        devices: Mapping[str, float] | None = None,
        save_path: str = "flambe-output",
        resources: Mapping[str, str | ClusterResource] | None = None,
        search: Mapping[str, Schema | Mapping[str, Any]] | None = None,
        schedulers: Mapping[str, Schema] | None = None,
        reduce: Mapping[str, int] | None = None,
        env: RemoteEnvironment | None = None,
        max_failures: int = 1,
        stop_on_failure: bool = True,
        merge_plot: bool = True,
        user_provider: Any = None,
        debug: bool = False,
        seed: int = 0,
        reuse_actors: bool = True,
        storage: str | None = None,
        max_variants: int = DEFAULT_MAX_VARIANTS,
    ) -> None:
        super().__init__(env, user_provider)
        self.name = name
        self.pipeline = dict(pipeline)
        self.resume = resume
        self.devices = dict(devices) if devices is not None else None
        self.save_path = save_path
        self.resources = dict(resources or {})
        self.search = dict(search or {})
        self.schedulers = dict(schedulers or {})
        self.reduce = dict(reduce or {})
        self.max_failures = max_failures
        self.stop_on_failure = stop_on_failure
        self.merge_plot = merge_plot
        self.debug = debug
        self.seed = seed
        self.reuse_actors = reuse_actors
        self.storage = storage
        self.max_variants = max_variants

    @classmethod
    def check_schema(cls, schema: Schema) -> Iterator[Finding]:
        """Yield what is wrong with a configuration that keywords and types do not tell."""
        yield from _findings(schema.kwargs)
        if schema.place is not None and schema.place.folder and "FLAMBE_HOST" not in os.environ:
            resources = _mapping(schema.kwargs.get("resources"))
            yield from validation.resource_findings(resources, schema.place.folder)

    @classmethod
    def check_size(cls, schema: Schema) -> Iterator[Finding]:
        """Yield whether a configuration without mistakes describes more than is allowed."""
        return counting.size_findings(schema.kwargs)

    def parse(self) -> None:
        """Validate what needs no file position; see :class:`Runnable`."""
        findings = list(_findings(vars(self))) or counting.size_findings(vars(self))
        found = [Problem(message, hint=hint) for _, message, hint in findings]
        if self.on_cluster:
            from flambe.experiment import cluster_setup

            found += cluster_setup.check(self)
        elif self.env is None:
            found += [
                Problem(
                    f"resource {name!r} is on a cluster (!cluster {value.location}), "
                    "and this run is local",
                    hint="run with --cluster, or name a local path or a URL",
                )
                for name, value in self.resources.items()
                if isinstance(value, ClusterResource)
            ]
        if found:
            raise ConfigError(found)

    def run(self, force: bool = False, **kwargs: Any) -> None:
        """Run all stages.

        Parameters
        ----------
        force
            Whether results of the same name are moved aside.
        kwargs
            ``resume``, ``debug``: as in the constructor; ``observer``: who is told how it goes, a
            :class:`~flambe.experiment.run.Observer`; ``executor``: who runs the stages.

        Raises
        ------
        ConfigError
            If there are results already, or what is asked for is not there.
        RunError
            If it failed, or a variant failed for good: then the rest is done, as
            ``stop_on_failure`` says.
        Interrupted
            If the user stopped it.
        """
        from flambe.experiment.run import Run

        Run(self, force=force, **kwargs).execute()

    def setup(
        self, cluster: Cluster, extensions: dict[str, str], force: bool, **kwargs: Any
    ) -> None:
        """Prepare a cluster: bring the resources there, start Ray and the Report Site.

        Raises
        ------
        ConfigError
            If there are results already, or a resource is not there.
        """
        from flambe.experiment import cluster_setup

        resume = bool(kwargs.get("resume"))
        self.run_setup = cluster_setup.prepare(self, cluster, force=force, resume=resume)


def _findings(values: Mapping[str, Any]) -> Iterator[Finding]:
    pipeline = values.get("pipeline")
    pipeline = pipeline if isinstance(pipeline, Mapping) else {}
    yield from _name_findings(values, pipeline)
    yield from _resource_findings(_mapping(values.get("resources")), pipeline)
    for keyword in ("search", "schedulers", "reduce"):
        for stage in _mapping(values.get(keyword)):
            if stage not in pipeline:
                yield (
                    (keyword, stage),
                    f"{keyword}: there is no stage {stage!r}",
                    did_you_mean(str(stage), map(str, pipeline))
                    or f"the stages: {listed(list(map(str, pipeline)))}",
                )
            elif not expansion.may_run(pipeline[stage]):
                yield (
                    (keyword, stage),
                    f"{keyword}: stage {stage!r} has nothing to run",
                    "its component has no run(): it is built where it is used",
                )
    yield from validation.option_findings(pipeline, _mapping(values.get("search")))
    yield from _number_findings(values)
    yield from engines.findings(values)
    yield from space_validation.findings(values)
    storage = values.get("storage")
    if isinstance(storage, str) and (wrong_url(storage, "s3") or {"?", "#"} & set(storage)):
        yield (
            ("storage",),
            f"storage: {storage!r} is no bucket",
            "expected s3://BUCKET/FOLDER; a disk that all hosts mount is named by save_path",
        )
    resume = values.get("resume")
    for stage in resume if isinstance(resume, list) else [resume]:
        if isinstance(stage, str) and stage not in pipeline:
            yield ("resume",), f"resume: there is no stage {stage!r}", did_you_mean(stage, pipeline)
    for stage, value in _mapping(values.get("search")).items():
        for problem in stage_search.keyword_problems(value):
            yield ("search", stage), problem.message, problem.hint
        if stage in pipeline and not options.domains(pipeline[stage]):
            yield (
                ("search", stage),
                f"search: stage {stage!r} has nothing to search",
                "put a search space in it, such as   lr: !tune.loguniform [1e-4, 1e-1]",
            )


def _name_findings(values: Mapping[str, Any], pipeline: Mapping[str, Any]) -> Iterator[Finding]:
    name = values.get("name")
    if isinstance(name, str) and (what := wrong_ascii_name(name)):
        yield ("name",), what, NAME_HINT
    if "pipeline" in values and not pipeline:
        yield ("pipeline",), "the pipeline has no stages", "expected   stage: !Component"
    for stage in pipeline:
        if what := wrong_name(stage):
            what = what if len(str(stage)) > LONGEST_NAME else f"{stage!r} cannot name a stage"
            yield ("pipeline", stage), what, NAME_HINT
        elif stage in _RESERVED:
            yield ("pipeline", stage), f"a stage cannot be named {stage!r}", "the name is taken"
    save_path = values.get("save_path")
    if isinstance(save_path, str) and (what := validation.wrong_save_path(save_path)):
        yield ("save_path",), f"save_path: {what}", "expected a folder, such as $HOME/results"


def _resource_findings(
    resources: Mapping[Any, Any], pipeline: Mapping[str, Any]
) -> Iterator[Finding]:
    """Yield what is wrong with resources: their names become folders, here and on hosts."""
    for resource, location in resources.items():
        if what := wrong_name(resource):
            yield ("resources", resource), f"resources: {what}", NAME_HINT
        elif what := _wrong_location(location):
            yield ("resources", resource), f"resource {resource!r} {what}", "a path or a URL"
        if resource in pipeline:
            yield (
                ("resources", resource),
                f"{resource!r} is a stage and a resource",
                "links could mean either: rename one",
            )


def _wrong_location(written: Any) -> str:
    location = written.location if isinstance(written, ClusterResource) else written
    if not isinstance(location, str):
        return ""
    if location.partition(":")[0].lower() in _URLS:
        what = wrong_url(location, *_URLS)
        return f"has a URL that {what}" if what else ""
    return wrong_path(location)


def _number_findings(values: Mapping[str, Any]) -> Iterator[Finding]:
    for stage, k in _mapping(values.get("reduce")).items():
        if isinstance(k, int) and k < 1:
            yield ("reduce", stage), f"reduce: {k} variants cannot flow on", "expected 1 or more"
    for device, amount in _mapping(values.get("devices")).items():
        if isinstance(amount, int | float) and (amount < 0 or (amount > 1 and amount % 1)):
            yield (
                ("devices", device),
                f"devices: {amount} of {device!r} cannot be given to a variant",
                "a fraction below 1, or a whole number",
            )
    failures = values.get("max_failures")
    if isinstance(failures, int) and failures < -1:
        yield ("max_failures",), f"max_failures cannot be {failures}", "0 or more; -1 for no limit"
    most = values.get("max_variants")
    if isinstance(most, int) and not 1 <= most <= LARGEST_MAX_VARIANTS:
        yield (
            ("max_variants",),
            f"max_variants cannot be {most}",
            f"expected 1 to {LARGEST_MAX_VARIANTS:,}",
        )


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}

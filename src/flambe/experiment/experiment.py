"""Experiment: a pipeline of stages, each run in all its variants."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flambe._durations import parse_duration
from flambe._hints import use_python
from flambe.compile import Schema, registry, yaml
from flambe.compile.build import Origin, folder_of
from flambe.compile.values import ClusterResource, Grid
from flambe.errors import ConfigError, Problem, StateError
from flambe.experiment import counting, validation
from flambe.experiment.search.engines import Finding
from flambe.experiment.spec import DEFAULT_MAX_VARIANTS, ExperimentSpec, read_seeds, read_stages
from flambe.runnable import ClusterRunnable, RemoteEnvironment, Secrets

if TYPE_CHECKING:
    from flambe.cluster import Cluster
    from flambe.experiment.interactive.run_handle import RunHandle


class Experiment(ClusterRunnable):
    """A pipeline of stages; each is run in all the variants that its options make.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``.
    pipeline
        Stage → component, in order. A stage may link to those before it.
    resume
        True: continue an interrupted run; finished variants are kept, others continue from their
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
        Stage → k: later stages build upon its k best variants only.
    keep
        Which checkpoints of a variant are kept, ``{last: 1, best: 1, every: 10}``: the latest (1
        by default), those with the best figures, and that of each tenth step; for all stages, or
        stage → such a mapping.
    env
        The cluster that the experiment runs on; injected when remote.
    max_failures
        How often a variant that fails is tried again, from its last checkpoint.
    stop_on_failure
        Whether the run ends when a variant failed for good: its stage is finished, and so are the
        variants of other stages that run. Else it continues without that variant and what builds
        on it, and fails at its end.
    merge_plot
        Whether TensorBoard shows the variants of all stages together.
    user_provider
        A function that returns the name of the user who runs it.
    debug
        Stop in a debugger before each step; local only.
    seed
        The seed of ``!s`` and of the random numbers of each stage.
    seeds
        Run each variant under each of these seeds: a list, or how many from ``seed`` on. What is
        drawn by ``!s`` is the same under all; ``reduce`` goes by the mean over the seeds.
    reuse_actors
        Whether one process may run several variants, one after another, which saves its start.
    storage
        An ``s3://bucket/folder`` that checkpoints are written to, from every host, instead of to
        the output folder; the rest of the output folder is copied beside them.
    stop
        Stage → when it is stopped before its end: ``{time: 2h, metric: 0.95, variants: 50}``, after
        a time, when a variant gets to a figure, or when so many variants are done.
    limits
        How long a variant and the run may take: ``{variant: 30m, run: 8h}``.
    max_variants
        How many variants a stage may have, those that ``reduce`` masks included: 10,000 by
        default, at most 100,000. All stages together may have ten times as many. With more,
        nothing is run.
    fingerprint
        What of the code decides whether a result is reused: ``source`` of your classes and the
        versions of packages; ``version``: ``_flambe_version`` of your classes and the versions of
        packages; or ``off``.
    max_parallel
        Stage → how many of its variants may run at the same time; as many as there is room for by
        default.
    """

    #: The keywords whose tags are constructed; those of stages, searches … stay blueprints.
    _flambe_tagged: ClassVar[tuple[str, ...]] = ("env", "user_provider")
    _flambe_scopes: ClassVar[tuple[str, ...]] = ("resources", "pipeline")
    needs_workers: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        pipeline: Mapping[str, Schema | Grid | object],
        resume: bool | str | Sequence[str] = False,
        devices: Mapping[str, float] | None = None,
        save_path: str = "flambe-output",
        resources: Mapping[str, str | ClusterResource] | None = None,
        search: Mapping[str, Schema | Mapping[str, object]] | None = None,
        schedulers: Mapping[str, Schema] | None = None,
        reduce: Mapping[str, int] | None = None,
        keep: Mapping[str, int | Mapping[str, int]] | None = None,
        env: RemoteEnvironment | None = None,
        max_failures: int = 1,
        stop_on_failure: bool = True,
        merge_plot: bool = True,
        user_provider: object = None,
        debug: bool = False,
        seed: int = 0,
        seeds: int | Sequence[int] | None = None,
        reuse_actors: bool = True,
        storage: str | None = None,
        max_variants: int = DEFAULT_MAX_VARIANTS,
        fingerprint: str = "source",
        stop: Mapping[str, Mapping[str, str | float]] | None = None,
        limits: Mapping[str, str | float] | None = None,
        max_parallel: Mapping[str, int] | None = None,
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
        self.keep = dict(keep or {})
        self.max_parallel = dict(max_parallel or {})
        self.max_failures = max_failures
        self.stop_on_failure = stop_on_failure
        self.merge_plot = merge_plot
        self.debug = debug
        self.seed = seed
        self.seeds = seeds
        self.reuse_actors = reuse_actors
        self.storage = storage
        self.max_variants = max_variants
        self.fingerprint = fingerprint
        self.stop = dict(stop or {})
        self.limits = dict(limits or {})

    @classmethod
    def check_schema(cls, schema: Schema) -> Iterator[Finding]:
        """Yield what is wrong with a configuration beyond the names and types of keywords."""
        yield from validation.keyword_findings(schema.kwargs)
        if schema.place is not None and schema.place.folder and "FLAMBE_HOST" not in os.environ:
            resources = schema.kwargs.get("resources")
            yield from validation.missing_resources(resources, schema.place.folder)

    @classmethod
    def check_size(cls, schema: Schema) -> Iterator[Finding]:
        """Yield whether a configuration without mistakes describes more than is allowed."""
        return counting.size_findings(ExperimentSpec.from_keywords(schema.kwargs))

    def spec(self) -> ExperimentSpec:
        """Return what the experiment says, as plain values."""
        return ExperimentSpec(
            stages=read_stages(vars(self)),
            name=self.name,
            seed=self.seed,
            seeds=read_seeds(self.seed, self.seeds),
            max_variants=self.max_variants,
            resources=self.resources,
            resume=self.resume,
            devices=self.devices,
            save_path=self.save_path,
            storage=self.storage or "",
            env=self.env,
            max_failures=self.max_failures,
            stop_on_failure=self.stop_on_failure,
            reuse_actors=self.reuse_actors,
            debug=self.debug,
            fingerprint=self.fingerprint,
            variant_seconds=parse_duration(self.limits.get("variant")),
            run_seconds=parse_duration(self.limits.get("run")),
            folder=folder_of(self),
        )

    def parse(self) -> None:
        """Validate what needs no file position; see :class:`Runnable`."""
        findings = list(validation.keyword_findings(vars(self)))
        spec = self.spec()
        findings = findings or list(counting.size_findings(spec))
        problems = [Problem(message, hint=hint) for _, message, hint in findings]
        if self.on_cluster:
            from flambe.experiment import cluster_setup

            problems += cluster_setup.check(spec)
        elif self.env is None:
            problems += [
                Problem(
                    f"resource {name!r} is on a cluster (!cluster {value.location}), "
                    "and this run is local",
                    hint="run with --cluster, or name a local path or a URL",
                )
                for name, value in self.resources.items()
                if isinstance(value, ClusterResource)
            ]
        if problems:
            raise ConfigError(problems)

    def run(self, force: bool = False, *, show: Any = True, **kwargs: Any) -> RunHandle:
        """Run all stages.

        Parameters
        ----------
        force
            Whether results of the same name are moved aside.
        show
            Whether the run is shown, if there is no ``observer``: in a notebook as a table that
            changes in place, elsewhere by the log, which is printed if logging is not configured.
        kwargs
            ``resume``, ``debug``: as in the constructor; ``observer``: shows how the run goes, a
            :class:`~flambe.experiment.observer.Observer`; ``executor``: makes what runs the
            stages. All options: :class:`~flambe.experiment.run.RunOptions`.

        Returns
        -------
        RunHandle
            The variants as a table, the best ones, and what they saved.

        Raises
        ------
        ConfigError
            If there are results already, or something that the experiment names does not exist.
        RunError
            If it failed, or a variant failed for good: then the rest is done, as
            ``stop_on_failure`` says.
        Interrupted
            If the user stopped it.
        """
        from flambe.experiment.interactive.run_handle import RunHandle
        from flambe.experiment.interactive.session import observing
        from flambe.experiment.run import Run, RunContext, RunOptions
        from flambe.packaging.provenance import source_of

        use_python()
        self.parse()
        secrets = self.config.origin if isinstance(self.config, Secrets) else ""
        seeds = read_seeds(self.seed, self.seeds) or (self.seed,)
        source = source_of(self, registry.extensions().declared, seeds)
        context = RunContext(self._write_config, self._identify_user, secrets, source)
        with observing(kwargs.pop("observer", None), show=show) as observer:
            options = RunOptions(force=force, observer=observer, **kwargs)
            run = Run(self.spec(), options, context)
            run.execute()
        return RunHandle(run.folder.root)

    @property
    def last_run(self) -> RunHandle | None:
        """The results in the output folder, of this process or another one; None without."""
        from flambe.experiment.interactive.run_handle import RunHandle
        from flambe.experiment.storage.output_folder import output_folder

        with contextlib.suppress(ConfigError):
            return RunHandle(output_folder(self.spec()))
        return None

    def _write_config(self, path: Path) -> None:
        """Write the configuration: the file that it was read from, or its YAML form."""
        origin: Origin | None = vars(self).get("_flambe_origin")
        position = origin.schema.place if origin is not None else None
        if position is not None and os.path.isfile(position.file):
            shutil.copyfile(position.file, path)
            return
        try:
            text = yaml.dump(self)
        except StateError as error:  # made in Python, with values that have no YAML form
            text = "".join(f"# {line}\n" for line in str(error).splitlines())
        path.write_text(text, encoding="utf-8")

    def _identify_user(self) -> str:
        """Return the name of the user who runs it, or nothing."""
        if callable(self.user_provider):
            return str(self.user_provider())
        with contextlib.suppress(Exception):
            return getpass.getuser()
        return ""

    def setup(
        self, cluster: Cluster, extensions: dict[str, str], force: bool, **kwargs: object
    ) -> None:
        """Prepare a cluster: bring the resources there, start Ray and the Report Site.

        Raises
        ------
        ConfigError
            If there are results already, or a resource does not exist.
        """
        from flambe.experiment import cluster_setup

        resume = bool(kwargs.get("resume"))
        self.run_setup = cluster_setup.prepare(self.spec(), cluster, force=force, resume=resume)

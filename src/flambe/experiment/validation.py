"""What is wrong with the keywords of an experiment beyond their names and types.

Each function yields findings: the path of a value below the keywords, a message and a hint. The
keywords may have mistakes of any kind, those included that annotations tell.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from flambe._grammar import (
    LONGEST_NAME,
    NAME_HINT,
    wrong_ascii_name,
    wrong_name,
    wrong_path,
    wrong_url,
)
from flambe.compile import Schema, search_spaces
from flambe.compile.annotation_checks import kind_of
from flambe.compile.values import ClusterResource, Grid, Key, Link, Path, Sample, children
from flambe.errors import did_you_mean, listed
from flambe.experiment import retention
from flambe.experiment.counting import LARGEST_MAX_VARIANTS
from flambe.experiment.search import engines, space_validation, stage_limits, stage_search
from flambe.experiment.search.engines import Finding
from flambe.experiment.spec import LARGEST_SEEDS, SearchSpec, read_seeds
from flambe.experiment.storage.output_folder import wrong_save_path
from flambe.experiment.variants import expansion, options
from flambe.experiment.variants.inputs import FINGERPRINTS
from flambe.experiment.variants.options import is_domain

_URLS = ("https", "http", "s3")
_RESERVED = {"resources"}
# Schedulers that replace the hyper-parameters of variants.
_CHANGING = {"PopulationBasedTraining", "PopulationBasedTrainingReplay", "PB2"}
#: The schedulers that stop variants, and never pause them.
_NEVER_PAUSE = {"ASHAScheduler", "AsyncHyperBandScheduler", "FIFOScheduler"}

Keywords = Mapping[Key, object]


def keyword_findings(values: Mapping[str, object]) -> Iterator[Finding]:
    """Yield what is wrong with the keywords of an ``!Experiment``, built or not."""
    pipeline = _mapping(values.get("pipeline"))
    yield from _name_findings(values, pipeline)
    yield from _resource_findings(_mapping(values.get("resources")), pipeline)
    for keyword in ("search", "schedulers", "reduce", "stop", "max_parallel"):
        yield from _stage_findings(keyword, _mapping(values.get(keyword)), pipeline)
    yield from _keep_findings(values.get("keep"), pipeline)
    yield from _option_findings(pipeline)
    yield from _number_findings(values)
    for stage, stop in _mapping(values.get("stop")).items():
        for below, message, hint in stage_limits.stop_findings(stop):
            yield ("stop", stage, *below), message, hint
    for below, message, hint in stage_limits.limit_findings(_mapping(values.get("limits"))):
        yield ("limits", *below), message, hint
    yield from _seed_findings(values)
    yield from engines.engine_findings(values)
    yield from space_validation.space_findings(values)
    storage = values.get("storage")
    if isinstance(storage, str) and (wrong_url(storage, "s3") or {"?", "#"} & set(storage)):
        yield (
            ("storage",),
            f"storage: {storage!r} is not a bucket",
            "expected s3://BUCKET/FOLDER; a disk that all hosts mount is named by save_path",
        )
    fingerprint = values.get("fingerprint")
    if isinstance(fingerprint, str) and fingerprint not in FINGERPRINTS:
        yield (
            ("fingerprint",),
            f"fingerprint: {fingerprint!r} is not known",
            did_you_mean(fingerprint, FINGERPRINTS) or f"expected {', '.join(FINGERPRINTS)}",
        )
    yield from _resume_findings(values.get("resume"), pipeline)
    yield from _search_findings(_mapping(values.get("search")), pipeline)


def missing_resources(resources: object, folder: str) -> Iterator[Finding]:
    """Yield which local resources do not exist.

    Parameters
    ----------
    resources
        Name → location.
    folder
        The folder of the configuration.
    """
    for name, location in _mapping(resources).items():
        if not isinstance(location, str) or not location or "://" in location:
            continue
        path = FilePath(folder, os.path.expanduser(location))
        try:
            missing = not path.exists()
        except (OSError, ValueError):  # too long, say: reported by _resource_findings
            continue
        if missing:
            message = f"resource {name!r}: there is no {path}"
            yield ("resources", name), message, "relative paths start at the folder of the file"


# -- keywords -----------------------------------------------------------------------------------


def _name_findings(values: Mapping[str, object], pipeline: Keywords) -> Iterator[Finding]:
    name = values.get("name")
    if isinstance(name, str) and (mistake := wrong_ascii_name(name)):
        yield ("name",), mistake, NAME_HINT
    if "pipeline" in values and not pipeline:
        yield ("pipeline",), "the pipeline has no stages", "expected   stage: !Component"
    for stage in pipeline:
        if mistake := wrong_name(stage):
            too_long = len(str(stage)) > LONGEST_NAME
            message = mistake if too_long else f"{stage!r} cannot name a stage"
            yield ("pipeline", stage), message, NAME_HINT
        elif stage in _RESERVED:
            yield ("pipeline", stage), f"a stage cannot be named {stage!r}", "the name is reserved"
    save_path = values.get("save_path")
    if isinstance(save_path, str) and (mistake := wrong_save_path(save_path)):
        yield ("save_path",), f"save_path: {mistake}", "expected a folder, such as $HOME/results"


def _stage_findings(keyword: str, named: Keywords, pipeline: Keywords) -> Iterator[Finding]:
    """Yield which stages a keyword names that do not exist, or have nothing to run."""
    for stage in named:
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


def _keep_findings(keep: object, pipeline: Keywords) -> Iterator[Finding]:
    stages = _mapping(keep) if retention.by_stage(keep) else {}
    yield from _stage_findings("keep", stages, pipeline)
    for stage, value in stages.items():
        for message, hint in retention.problems(value):
            yield ("keep", stage), message, hint
    if keep and not stages:
        for message, hint in retention.problems(keep):
            yield ("keep",), message, hint


def _resume_findings(resume: object, pipeline: Keywords) -> Iterator[Finding]:
    for stage in resume if isinstance(resume, list) else [resume]:
        if isinstance(stage, str) and stage not in pipeline:
            hint = did_you_mean(stage, map(str, pipeline))
            yield ("resume",), f"resume: there is no stage {stage!r}", hint


def _search_findings(searches: Keywords, pipeline: Keywords) -> Iterator[Finding]:
    for stage, value in searches.items():
        for problem in stage_search.keyword_problems(value):
            yield ("search", stage), problem.message, problem.hint
        if stage in pipeline and not options.domains(pipeline[stage]):
            yield (
                ("search", stage),
                f"search: stage {stage!r} has nothing to search",
                "put a search space in it, such as   lr: !tune.loguniform [1e-4, 1e-1]",
            )


def _resource_findings(resources: Keywords, pipeline: Keywords) -> Iterator[Finding]:
    """Yield what is wrong with resources: their names become folders, here and on hosts."""
    for resource, location in resources.items():
        if mistake := wrong_name(resource):
            yield ("resources", resource), f"resources: {mistake}", NAME_HINT
        elif mistake := _wrong_location(location):
            yield ("resources", resource), f"resource {resource!r} {mistake}", "a path or a URL"
        if resource in pipeline:
            yield (
                ("resources", resource),
                f"{resource!r} is a stage and a resource",
                "links could mean either: rename one",
            )


def _wrong_location(value: object) -> str:
    location = value.location if isinstance(value, ClusterResource) else value
    if not isinstance(location, str):
        return ""
    if location.partition(":")[0].lower() in _URLS:
        mistake = wrong_url(location, *_URLS)
        return f"has a URL that {mistake}" if mistake else ""
    return wrong_path(location)


def _number_findings(values: Mapping[str, object]) -> Iterator[Finding]:
    for stage, k in _mapping(values.get("reduce")).items():
        if isinstance(k, int) and k < 1:
            yield ("reduce", stage), f"reduce: cannot keep {k} variants", "expected 1 or more"
    schedulers = _mapping(values.get("schedulers"))
    for stage, limit in _mapping(values.get("max_parallel")).items():
        scheduler = schedulers.get(stage)
        if isinstance(limit, int) and limit < 1:
            message = f"max_parallel: {limit} variants cannot run at the same time"
            yield ("max_parallel", stage), message, "expected 1 or more"
        elif isinstance(scheduler, Schema) and scheduler.tag.rpartition(".")[2] not in _NEVER_PAUSE:
            message = (
                f"max_parallel: !{scheduler.tag} pauses variants to compare them, and needs all of "
                f"stage {stage!r} at once"
            )
            yield ("max_parallel", stage), message, "leave out max_parallel, or use ASHAScheduler"
    for device, amount in _mapping(values.get("devices")).items():
        if isinstance(amount, int | float) and (amount < 0 or (amount > 1 and amount % 1)):
            yield (
                ("devices", device),
                f"devices: a variant cannot have {amount} of {device!r}",
                "a fraction below 1, or a whole number",
            )
    failures = values.get("max_failures")
    if isinstance(failures, int) and failures < -1:
        yield ("max_failures",), f"max_failures cannot be {failures}", "0 or more; -1 for no limit"
    limit = values.get("max_variants")
    if isinstance(limit, int) and not 1 <= limit <= LARGEST_MAX_VARIANTS:
        yield (
            ("max_variants",),
            f"max_variants cannot be {limit}",
            f"expected 1 to {LARGEST_MAX_VARIANTS:,}",
        )


def _seed_findings(values: Mapping[str, object]) -> Iterator[Finding]:
    """Yield what is wrong with ``seeds``, and what cannot be combined with several."""
    seeds = values.get("seeds")
    if isinstance(seeds, int) and not 1 <= seeds <= LARGEST_SEEDS:
        hint = f"1 to {LARGEST_SEEDS:,} seeds; for a single other one:   seed: {seeds}"
        yield ("seeds",), f"there cannot be {seeds} seeds", hint
    if isinstance(seeds, list | tuple):
        if not 1 <= len(seeds) <= LARGEST_SEEDS:
            message = f"there cannot be {len(seeds)} seeds"
            yield ("seeds",), message, f"1 to {LARGEST_SEEDS:,} seeds"
        for position, seed in enumerate(seeds):
            if seeds.index(seed) < position:
                yield ("seeds", position), f"the seed {seed} is listed twice", "list it once"
    if len(read_seeds(values.get("seed", 0), seeds)) < 2:
        return
    for stage, value in _mapping(values.get("search")).items():
        if SearchSpec.read(value).searcher is not None:
            yield (
                ("search", stage),
                f"seeds: stage {stage!r} has a searcher, which learns from single figures",
                "leave out the searcher, and values are drawn once for all seeds; or search with "
                "one seed, and run the best under several",
            )
    for stage, value in _mapping(values.get("schedulers")).items():
        if isinstance(value, Schema) and value.tag.rpartition(".")[2] in _CHANGING:
            yield (
                ("schedulers", stage),
                f"seeds: !{value.tag} of stage {stage!r} changes configurations while they run, so "
                "there is no mean over seeds",
                "leave out seeds, or use another scheduler",
            )


def _mapping(value: object) -> Keywords:
    return value if isinstance(value, Mapping) else {}


# -- options ------------------------------------------------------------------------------------


def _option_findings(pipeline: Keywords) -> Iterator[Finding]:
    """Yield which options are where they are not resolved."""
    for stage, value in pipeline.items():
        yield from _misplaced(value, ("pipeline", stage))


def _misplaced(value: object, path: Path, space: Schema | None = None) -> Iterator[Finding]:
    if space is not None and isinstance(value, Grid | Sample):
        yield path, f"!{space.tag} does not draw {_kind(value)}", _alternative(value)
        return
    if (
        space is not None
        and search_spaces.categories(space) is None
        and isinstance(value, Schema | Link | ClusterResource)
    ):
        yield path, f"!{space.tag} draws plain values, not {_kind(value)}", _alternative(value)
        return
    if isinstance(value, Schema) and is_domain(value):
        space = value
    for key, child in children(value):
        yield from _misplaced(child, (*path, key), space)


def _kind(value: object) -> str:
    if isinstance(value, Grid | Sample):
        return "options (!g)" if isinstance(value, Grid) else "options (!s)"
    return f"a link (!@ {value})" if isinstance(value, Link) else kind_of(value)


def _alternative(value: object) -> str:
    if isinstance(value, Grid | Sample):
        return "write its values themselves"
    if is_domain(value):
        return "a search space is the value of a keyword, or an element of a list or mapping"
    return "to choose between components, links or resources:   !tune.choice [a, b]"

"""How the values of one stage are searched: random draws, a searcher, a trial scheduler."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flambe.compile import Schema
from flambe.compile.values import walk
from flambe.errors import Problem
from flambe.experiment.search import engines
from flambe.experiment.search.engine_types import PBT, SEARCHER, derives_from
from flambe.experiment.search.spaces import distinct_points, values_of
from flambe.experiment.spec import StageSpec
from flambe.experiment.variants.dimensions import dimensions, joint_dimensions, options_of
from flambe.experiment.variants.expansion import Expander, Variant
from flambe.progress import VariantState, is_number

DRAWS_PER_VALUE = 20  # before rarely drawn values are listed instead
KEYWORDS = ("searcher", "num_samples", "max_concurrent_trials")


@dataclass(frozen=True)
class EvaluatedPoint:
    """A point that a searcher proposed in an earlier run.

    Attributes
    ----------
    base
        The id of the variant whose search spaces the values are for.
    values
        The path of each search space as text → its value.
    metric
        The metric; None if the point failed: no metric was reported, or it was NaN.
    step
        After how many steps.
    """

    base: str
    values: Mapping[str, object]
    metric: float | None
    step: int = 0

    @classmethod
    def of(cls, entry: VariantState, base: str, values: Mapping[str, object]) -> EvaluatedPoint:
        """Return the point of a result, whose values are those of today's variant."""
        return cls(base, values, entry.metric if is_number(entry.metric) else None, entry.step)


@dataclass(frozen=True)
class UnfinishedPoint:
    """A point that a searcher proposed in an earlier run, and that is to be finished.

    Attributes
    ----------
    variant_id
        The id of its variant.
    base, values
        As of an :class:`EvaluatedPoint`.
    """

    variant_id: str
    base: str
    values: Mapping[str, object]


@dataclass(frozen=True)
class SearcherOptions:
    """A searcher of Ray Tune, ready to propose the values of a stage.

    Attributes
    ----------
    searcher
        The searcher.
    space
        The dimensions of the search: path as text → search space.
    num_samples
        How many variants it tries.
    max_concurrent
        How many of them may run at a time; None for as many as there is room for.
    evaluated
        What it proposed in the run that is resumed.
    unfinished
        What it proposed there that is not finished; ``num_samples`` includes it.
    suggested_ids
        The ids of the variants that it proposed before: the same values again are a repetition.
    """

    searcher: object
    space: Mapping[str, object] = field(default_factory=dict)
    num_samples: int = 1
    max_concurrent: int | None = None
    evaluated: Sequence[EvaluatedPoint] = ()
    unfinished: Sequence[UnfinishedPoint] = ()
    suggested_ids: Collection[str] = ()


@dataclass
class StageSearch:
    """The search of one stage, as the configuration describes it.

    Attributes
    ----------
    searcher
        The blueprint of a searcher; None for grids and random draws.
    num_samples
        How many variants a searcher tries; or how many values are drawn from each search space.
    max_concurrent
        How many trials of a searcher may run at a time.
    scheduling
        The blueprint of a trial scheduler.
    spaces
        The search spaces of the stage: path as text → blueprint.
    seed
        Where random draws start from.
    evaluated
        What the searcher proposed in the run that is resumed.
    bases
        The variants whose search spaces are searched, by id.
    """

    searcher: Schema | None = None
    num_samples: int = 1
    max_concurrent: int | None = None
    scheduling: Schema | None = None
    spaces: Mapping[str, Schema] = field(default_factory=dict)
    seed: int = 0
    evaluated: list[EvaluatedPoint] = field(default_factory=list)
    bases: Mapping[str, Variant] = field(default_factory=dict)

    @classmethod
    def of(cls, stage: StageSpec, seed: int) -> StageSearch:
        """Return the search of a stage.

        Parameters
        ----------
        stage
            The stage.
        seed
            The seed of the experiment.
        """
        return cls(
            stage.search.searcher,
            stage.search.num_samples,
            stage.search.max_concurrent,
            stage.scheduler,
            spaces_of(stage.name, stage.config),
            seed,
        )

    def draw(self, expander: Expander, bases: list[Variant]) -> list[Variant]:
        """Return the variants that are known before the stage starts.

        Without a searcher, values are drawn from the search spaces, the same on every machine; with
        one, the variants that it will propose values for are returned.
        """
        self.bases = {base.id: base for base in bases}
        if not self.spaces or self.searcher is not None:
            return bases
        result: dict[str, Variant] = {}
        for base in bases:
            drawn: dict[str, Variant] = {}
            spaces = spaces_of(base.stage, base.config)
            distinct = distinct_points(base.config)
            for values in self._points(base, spaces, expander):
                variant = expander.suggest(base, values) if values else base
                drawn.setdefault(variant.id, variant)
                if len(drawn) >= min(self.num_samples, distinct):
                    break
            result |= drawn
        return list(result.values())

    def _points(
        self, base: Variant, spaces: Mapping[str, Schema], expander: Expander
    ) -> Iterator[dict[str, object]]:
        """Yield points at random; a point that was drawn before is replaced while others exist."""
        if not spaces:
            yield {}
            return
        built = {path: space() for path, space in spaces.items()}
        # A stage that was renamed draws as it did under its first name.
        origin, length = expander.origin(base.stage), len(base.stage)
        for index in range(DRAWS_PER_VALUE * self.num_samples):
            yield {
                path: space.sample(
                    random_state=self._seed(
                        origin + path[length:], base.group or base.config_id, index
                    )
                )
                for path, space in built.items()
            }
        # Values that are rarely drawn are listed instead.
        if any(options_of(space) is not None for _, space in walk(base.config)):
            return
        listed = [values_of(space) for space in spaces.values()]
        for point in itertools.product(*(values for values in listed if values is not None)):
            if len(point) == len(spaces):
                yield dict(zip(spaces, point, strict=True))

    def _seed(self, path: str, config_id: str, index: int) -> int:
        digest = hashlib.sha256(f"{self.seed}:{path}:{config_id}:{index}".encode()).digest()
        return int.from_bytes(digest[:4], "big")

    @property
    def continues_points(self) -> bool:
        """Whether its searcher continues unfinished points itself, among those it proposes."""
        target = self.searcher.resolve() if self.searcher is not None else None
        return derives_from(target, SEARCHER)

    @property
    def is_population(self) -> bool:
        """Whether its variants are a population, whose members copy one another."""
        target = self.scheduling.resolve() if self.scheduling is not None else None
        return derives_from(target, PBT)

    def built_spaces(self) -> dict[str, object]:
        """Return the dimensions of the search, built: key → space."""
        bases = [(base.config, (base.stage,)) for base in self.bases.values()]
        spaces = joint_dimensions(bases) if bases else self.spaces
        return {key: space() for key, space in spaces.items()}

    def check_engines(self) -> None:
        """Check that the searcher and the scheduler can be built.

        Raises
        ------
        ConfigError
            If one cannot.
        """
        for engine in (self.searcher, self.scheduling):
            if engine is not None:
                engines.build(engine, self.spaces, self.num_samples)

    def build_scheduler(self) -> object | None:
        """Build the scheduler: one object cannot serve two searches."""
        return engines.build(self.scheduling, self.spaces) if self.scheduling is not None else None

    def build_searcher(
        self, suggested_ids: Collection[str], unfinished: Sequence[Variant] = ()
    ) -> SearcherOptions:
        """Build the searcher.

        Parameters
        ----------
        suggested_ids
            The ids of the variants that it proposed in the run that is resumed.
        unfinished
            Those of them that are to be finished.
        """
        assert self.searcher is not None
        return SearcherOptions(
            engines.build(self.searcher, self.spaces, self.num_samples + len(self.evaluated)),
            self.built_spaces(),
            self.num_samples + len(unfinished),
            self.max_concurrent,
            self.evaluated,
            [UnfinishedPoint(v.id, v.base, v.values) for v in unfinished],
            suggested_ids,
        )


def spaces_of(stage: str, config: object) -> dict[str, Schema]:
    """Return the dimensions of the search of a stage: key → blueprint."""
    return dimensions(config, (stage,))


def by_base(variants: Sequence[Variant]) -> list[list[Variant]]:
    """Return variants in groups that differ in the values of their search spaces only."""
    groups: dict[str, list[Variant]] = {}
    for variant in variants:
        groups.setdefault(variant.base, []).append(variant)
    return list(groups.values())


def keyword_problems(value: object) -> list[Problem]:
    """Return the mistakes in the value of ``search`` for one stage."""
    if isinstance(value, Schema) or not isinstance(value, Mapping):
        return []
    problems = [
        Problem(f"search: unknown keyword {key!r}", hint=f"expected {', '.join(KEYWORDS)}")
        for key in value
        if key not in KEYWORDS
    ]
    searcher = value.get("searcher")
    if searcher is not None and not isinstance(searcher, Schema):
        problems.append(
            Problem("search: the searcher of a stage is a tag such as !ray.OptunaSearch")
        )
    for key in KEYWORDS[1:]:
        number = value.get(key, 1)
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            problems.append(Problem(f"search: {key} cannot be {number!r}", hint="1 or more"))
    return problems

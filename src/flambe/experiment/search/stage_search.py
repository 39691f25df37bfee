"""How the values of one stage are searched: random draws, a searcher, a trial scheduler."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flambe.compile import Schema
from flambe.compile.values import path_text
from flambe.errors import Problem
from flambe.experiment.search import engines
from flambe.experiment.search.spaces import distinct_values, values_of
from flambe.experiment.spec import StageSpec
from flambe.experiment.variants.expansion import Expander, Variant
from flambe.experiment.variants.options import domains

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
    """

    base: str
    values: Mapping[str, object]
    metric: float | None


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
        How many of them may run at a time.
    evaluated
        What it proposed in the run that is resumed.
    suggested_ids
        The ids of the variants that it proposed before: the same values again are a repetition.
    """

    searcher: object
    space: Mapping[str, object] = field(default_factory=dict)
    num_samples: int = 1
    max_concurrent: int | None = None
    evaluated: Sequence[EvaluatedPoint] = ()
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
    """

    searcher: Schema | None = None
    num_samples: int = 1
    max_concurrent: int | None = None
    scheduling: Schema | None = None
    spaces: Mapping[str, Schema] = field(default_factory=dict)
    seed: int = 0
    evaluated: list[EvaluatedPoint] = field(default_factory=list)

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
        if not self.spaces or self.searcher is not None:
            return bases
        result: dict[str, Variant] = {}
        for base in bases:
            drawn: dict[str, Variant] = {}
            spaces = spaces_of(base.stage, base.config)
            distinct = math.prod(distinct_values(space) for space in spaces.values())
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
                    random_state=self._seed(origin + path[length:], base.config_id, index)
                )
                for path, space in built.items()
            }
        # Values that are rarely drawn are listed instead.
        listed = [values_of(space) for space in spaces.values()]
        for point in itertools.product(*(values for values in listed if values is not None)):
            if len(point) == len(spaces):
                yield dict(zip(spaces, point, strict=True))

    def _seed(self, path: str, config_id: str, index: int) -> int:
        digest = hashlib.sha256(f"{self.seed}:{path}:{config_id}:{index}".encode()).digest()
        return int.from_bytes(digest[:4], "big")

    def check_engines(self) -> None:
        """Check that the searcher and the scheduler can be built.

        Raises
        ------
        ConfigError
            If one cannot.
        """
        for engine in (self.searcher, self.scheduling):
            if engine is not None:
                engines.build(engine)

    def build_scheduler(self) -> object | None:
        """Build the scheduler: one object cannot serve two searches."""
        return engines.build(self.scheduling) if self.scheduling is not None else None

    def build_searcher(self, suggested_ids: Collection[str]) -> SearcherOptions:
        """Build the searcher.

        Parameters
        ----------
        suggested_ids
            The ids of the variants that it proposed in the run that is resumed.
        """
        assert self.searcher is not None
        return SearcherOptions(
            engines.build(self.searcher),
            {path: space() for path, space in self.spaces.items()},
            self.num_samples,
            self.max_concurrent,
            self.evaluated,
            suggested_ids,
        )


def spaces_of(stage: str, config: object) -> dict[str, Schema]:
    """Return the search spaces in the configuration of a stage: path as text → blueprint."""
    return {path_text((stage, *path)): space for path, space in domains(config).items()}


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

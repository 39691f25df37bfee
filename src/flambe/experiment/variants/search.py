"""How the variants of a stage are found and cut short: searchers, random draws, schedulers."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flambe.compile import Schema
from flambe.compile.values import path_text
from flambe.errors import Problem
from flambe.experiment.executors.base import StageOptions, Tried
from flambe.experiment.variants import engines
from flambe.experiment.variants.expansion import Expander, Variant
from flambe.experiment.variants.identity import canonical_text
from flambe.experiment.variants.options import domains

if TYPE_CHECKING:
    from flambe.experiment.experiment import Experiment

SAMPLES = 10
TRIES = 20  # draws for each value that is wanted
KEYWORDS = ("searcher", "num_samples", "max_concurrent_trials")


@dataclass
class Search:
    """The search of one stage.

    Attributes
    ----------
    searcher
        The blueprint of a searcher; None for grids and random draws.
    num_samples
        How many variants a searcher tries; or how many are drawn from each search space.
    max_concurrent
        How many a searcher has under way at a time.
    scheduling
        The blueprint of a trial scheduler.
    earlier
        What it tried in the run that is resumed.
    """

    searcher: Schema | None = None
    num_samples: int = 1
    max_concurrent: int | None = None
    scheduling: Schema | None = None
    spaces: Mapping[str, Schema] | None = None
    seed: int = 0
    earlier: list[Tried] = field(default_factory=list)

    @classmethod
    def of(cls, experiment: Experiment, stage: str) -> Search:
        """Read what an experiment says of a stage."""
        found = cls.read(experiment.search.get(stage))
        found.scheduling = experiment.schedulers.get(stage)
        found.spaces = {
            path_text((stage, *path)): space
            for path, space in domains(experiment.pipeline[stage]).items()
        }
        found.seed = experiment.seed
        return found

    @classmethod
    def read(cls, value: Schema | Mapping[str, Any] | None) -> Search:
        """Read the value of ``search`` for one stage: a searcher, or a mapping, or nothing."""
        if value is None:
            return cls()
        if isinstance(value, Schema):
            value = {"searcher": value}
        return cls(
            value.get("searcher"),
            value.get("num_samples", SAMPLES),
            value.get("max_concurrent_trials"),
        )

    def draw(self, expander: Expander, bases: list[Variant]) -> list[Variant]:
        """Return the variants that are known before the stage starts.

        Search spaces without a searcher are drawn from, the same on every machine; with one, the
        bases of what it will suggest are returned.
        """
        if not self.spaces or self.searcher is not None:
            return bases
        result: dict[str, Variant] = {}
        for base in bases:
            drawn: dict[str, Variant] = {}
            own = self.spaces_of(base)
            there_are = math.prod(distinct_values(space) for space in own.values())
            wanted = min(self.num_samples, there_are)
            for values in self._points(base, own):
                variant = expander.suggest(base, values) if values else base
                drawn.setdefault(variant.id, variant)
                if len(drawn) >= wanted:
                    break
            result |= drawn
        return list(result.values())

    def _points(self, base: Variant, own: Mapping[str, Schema]) -> Iterator[dict[str, Any]]:
        """Yield values to draw; what is drawn twice is replaced, as long as there is more."""
        if not own:
            yield {}
            return
        spaces = {text: space() for text, space in own.items()}
        for index in range(TRIES * self.num_samples):
            yield {
                text: space.sample(random_state=self._seed(text, base.config_id, index))
                for text, space in spaces.items()
            }
        # Some values are rarely drawn.
        known = [values_of(space) for space in own.values()]
        for point in itertools.product(*(values for values in known if values is not None)):
            if len(point) == len(own):
                yield dict(zip(own, point, strict=True))

    def spaces_of(self, variant: Variant) -> dict[str, Schema]:
        """Return the search spaces of one base variant."""
        return {
            path_text((variant.stage, *path)): space
            for path, space in domains(variant.config).items()
        }

    def _seed(self, text: str, config_id: str, index: int) -> int:
        digest = hashlib.sha256(f"{self.seed}:{text}:{config_id}:{index}".encode()).digest()
        return int.from_bytes(digest[:4], "big")

    def try_engines(self) -> None:
        """See that the searcher and the scheduler can be built.

        Raises
        ------
        ConfigError
            If one cannot.
        """
        for engine in (self.searcher, self.scheduling):
            if engine is not None:
                engines.build(engine)

    def scheduler(self) -> Any:
        """Build the scheduler; each search needs one of its own."""
        return engines.build(self.scheduling) if self.scheduling is not None else None

    def into(self, options: StageOptions) -> None:
        """Set what a searcher needs in the options of a stage."""
        assert self.searcher is not None
        options.search = engines.build(self.searcher)
        options.num_samples = self.num_samples
        options.max_concurrent = self.max_concurrent
        options.earlier = self.earlier
        options.space = {text: space() for text, space in (self.spaces or {}).items()}


def values_of(space: Schema) -> Sequence[Any] | None:
    """Return the different values of a search space, if there are finitely many and it is known."""
    from ray.tune.search.sample import Categorical, Float, Integer, Quantized

    try:
        domain: Any = space()
        if isinstance(domain, Categorical):
            return list({canonical_text(value): value for value in domain.categories}.values())
        if not isinstance(domain, Float | Integer):
            return None
        sampler: Any = domain.get_sampler()
        q: float = sampler.q if isinstance(sampler, Quantized) else 0
        if q not in (0, 1):
            first, last = math.ceil(domain.lower / q - 1e-9), math.floor(domain.upper / q + 1e-9)
            return _Multiples(range(first, last + 1), q)
        if isinstance(domain, Integer):
            return range(int(domain.lower), int(domain.upper))
        if q == 1:
            return _Multiples(range(math.ceil(domain.lower), math.floor(domain.upper) + 1), 1.0)
    except Exception:  # a mistake in it, or bounds that are infinite
        return None
    return None


class _Multiples(Sequence[Any]):
    """Multiples of a number, as a quantized space draws them."""

    def __init__(self, factors: range, of: float) -> None:
        self.factors, self.of = factors, of

    def __len__(self) -> int:
        return len(self.factors)

    def __getitem__(self, index: Any) -> Any:
        return self.factors[index] * self.of


def distinct_values(space: Schema) -> float:
    """Return how many different values a search space has; infinity if that is not known."""
    values = values_of(space)
    try:
        return len(values) if values else math.inf
    except OverflowError:  # more than can be counted
        return math.inf


def findings(stage: str, value: Any) -> list[Problem]:
    """Return what is wrong with the search of a stage."""
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

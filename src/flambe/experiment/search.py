"""How the variants of a stage are found and cut short: searchers, random draws, schedulers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flambe.compile import Schema
from flambe.compile.values import path_text
from flambe.errors import Problem
from flambe.experiment import engines
from flambe.experiment.executor import StageOptions, Tried
from flambe.experiment.variants import Expander, Variant, domains

if TYPE_CHECKING:
    from flambe.experiment.experiment import Experiment

SAMPLES = 10
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
            own = domains(base.config)
            for index in range(self.num_samples if own else 1):
                values = {
                    text: space().sample(random_state=self._seed(text, base.config_id, index))
                    for text, space in self.spaces_of(base).items()
                }
                variant = expander.suggest(base, values) if values else base
                result[variant.id] = variant
        return list(result.values())

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

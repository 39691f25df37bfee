"""How many variants the stages of a pipeline have, computed without expanding them.

A stage is described by its link sets: how many of its configurations link to which stages. A
variant is one configuration of a stage, and one of every stage that it needs. So variants are
counted by replacing the last of the needed stages by what it links to, until none is left, and each
set of needed stages is counted once. Stages with a single configuration never enter those sets,
which therefore stay small: each stage in them at least doubles the count.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from flambe.compile.schema import Schema
from flambe.compile.values import Grid, Link, Path, Sample, children
from flambe.errors import ConfigError, Problem
from flambe.experiment.search.spaces import distinct_values, linked_roots
from flambe.experiment.spec import ExperimentSpec, StageSpec
from flambe.experiment.variants.identity import canonical_text
from flambe.experiment.variants.options import (
    alternatives,
    grid_elements,
    has_options,
    is_domain,
    shape,
)

LARGEST_MAX_VARIANTS = 100_000
# All stages together may have that many times the variants that one may have.
ALL_STAGES = 10
# The limit of work: only links in very many combinations of options come near it.
MAX_STEPS = 500_000

# The stages that a configuration links to → how many configurations do.
LinkSets = Counter[frozenset[str]]
# Stages that are needed, and stages that one that was searched or reduced determines.
_State = tuple[frozenset[int], frozenset[int]]
_NOTHING: frozenset[int] = frozenset()
_END: _State = (_NOTHING, _NOTHING)
# In link sets, beside names of stages: the configuration has a search space. A space that has fewer
# values than are drawn has a mark of its own, which starts like this.
_SPACE = "\0"


class _TooManyVariantsError(Exception):
    def __init__(self, stage: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.stage, self.message, self.hint = stage, message, hint


@dataclass(frozen=True)
class StageCount:
    """How many variants a stage has.

    Attributes
    ----------
    count
        The number of its variants, those that ``reduce`` masks included: of those that a search
        tries, where there is one.
    running
        Without those that ``reduce`` masks. Where two stages that are searched or reduced share an
        ancestor, it is an upper bound: which of their variants share one is known in the run only.
    method
        How their values are chosen: ``"grid"``, ``"search"`` or ``"draw"``.
    factors
        What ``count`` is the product of: the numbers of ancestors' variants, then of own values.
    """

    count: int
    running: int
    method: str = "grid"
    factors: tuple[int, ...] = ()


def count_variants(spec: ExperimentSpec) -> dict[str, StageCount]:
    """Return how many variants each stage of an experiment has.

    Parameters
    ----------
    spec
        The experiment, without mistakes.

    Raises
    ------
    ConfigError
        If a stage has more than ``max_variants``.
    """
    try:
        counts = _counts(spec)
        if all(stage.reduce is None for stage in spec.stages):
            return counts
        kept = _counts(spec, reduced=True)
    except _TooManyVariantsError as error:
        raise ConfigError(Problem(error.message, hint=error.hint)) from None
    # The product of what is kept of several stages may be more than there is.
    return {
        stage: replace(count, running=min(count.count, kept[stage].count))
        for stage, count in counts.items()
    }


def size_findings(spec: ExperimentSpec) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield the path, the message and the hint of the first stage that has too many variants.

    Variants that ``reduce`` masks count: a run lists them.
    """
    try:
        _counts(spec)
    except _TooManyVariantsError as error:
        yield ("pipeline", error.stage), error.message, error.hint


def _counts(spec: ExperimentSpec, *, reduced: bool = False) -> dict[str, StageCount]:
    most = spec.max_variants
    counter = _Counter(math.inf if reduced else most, spec.seed, max(1, len(spec.seeds)))
    counts: dict[str, StageCount] = {}
    total = 0
    for stage in spec.stages:
        counts[stage.name] = counter.add(stage, reduced=reduced)
        total += counts[stage.name].count
        if total > ALL_STAGES * most and not reduced:
            raise _TooManyVariantsError(
                stage.name,
                f"the stages up to {stage.name!r} have {_number(total)} variants in all, "
                f"more than {ALL_STAGES} times max_variants ({most:,})",
                _hint(total / ALL_STAGES),
            )
    return counts


@dataclass
class _Stage:
    sizes: list[int]  # of its options; their product is the number of its configurations
    needs: Counter[frozenset[int]]  # the stages that configurations need → how many do
    kept: int | None = None  # of its variants, if a search or "reduce" decides which
    ancestors: frozenset[int] | None = field(default=None, repr=False)

    @property
    def single(self) -> bool:
        """Whether it has one configuration."""
        return self.kept is None and list(self.needs.values()) == [1]

    @property
    def needed(self) -> frozenset[int]:
        """The stages that it needs, where all its configurations need the same."""
        [needed] = self.needs
        return needed


class _Counter:
    """Counts the variants of stages that are added in the order of the pipeline."""

    def __init__(self, most: float, seed: int, seeds: int = 1) -> None:
        # How many variants of a stage there may be: in all, and under each seed.
        self.allowed, self.seeds = most, seeds
        self.most = most // seeds if most < math.inf else most
        self.seed = seed
        #: How many are drawn from each search space of the stage, and how many values some have.
        self.drawn = 1
        self.values: dict[str, int] = {}
        self.names: list[str] = []
        self.positions: dict[str, int] = {}
        self.stages: list[_Stage] = []
        self.counts: dict[_State, int] = {_END: 1}
        self.steps = 0

    def add(self, spec: StageSpec, *, reduced: bool) -> StageCount:
        """Return how many variants a stage has; those before it have been added.

        If reduced, only the variants that ``reduce`` keeps count for later stages.
        """
        name, value, search = spec.name, spec.config, spec.search
        reduce = spec.reduce if reduced else None
        self.names.append(name)
        self.drawn, self.values = search.num_samples, {}
        sizes = self._sizes(value, (name,))
        if math.prod(sizes) > self.most:
            raise self._too_many(sizes, math.prod(sizes))
        link_sets = self._link_sets(value, (name,))
        spaces = {links for links in link_sets if any(mark.startswith(_SPACE) for mark in links)}
        method = "grid" if not spaces else "draw" if search.searcher is None else "search"
        if method == "draw":
            draws = {links: self._draws(links) for links in spaces}
            link_sets = Counter({links: n * draws.get(links, 1) for links, n in link_sets.items()})
            uniform = len(spaces) == len(link_sets) and len(set(draws.values())) == 1
            sizes = [*sizes, *set(draws.values())] if uniform else [sum(link_sets.values())]
        stage = _Stage(sizes, self._needs(link_sets))
        count = sum(n * self._count((needed, _NOTHING)) for needed, n in stage.needs.items())
        if count > self.most:
            raise self._too_many(self._factors(stage, count), count)
        if method == "search":
            stage.kept = count = search.num_samples
            if count > self.most:
                raise self._too_many([], count)
        if reduce is not None and reduce < count:
            stage.kept = reduce
        self.positions[name] = len(self.stages)
        self.stages.append(stage)
        factors = [*([count] if method == "search" else self._factors(stage, count)), self.seeds]
        count *= self.seeds
        return StageCount(count, count, method, tuple(f for f in factors if f != 1))

    def _too_many(self, factors: list[int], count: int) -> _TooManyVariantsError:
        factors, count = [*factors, self.seeds], count * self.seeds
        return _TooManyVariantsError(
            self.names[-1],
            f"stage {self.names[-1]!r} has {product_text(factors, count)} variants, "
            f"more than max_variants ({self.allowed:,})",
            _hint(count),
        )

    def _step(self, work: int) -> None:
        self.steps += work
        if self.steps > MAX_STEPS:
            raise _TooManyVariantsError(
                self.names[-1],
                f"stage {self.names[-1]!r} depends on too many combinations of links in options",
                "put fewer links into options (!g), or split the experiment",
            )

    # -- one stage ----------------------------------------------------------------------------

    def _link_sets(self, value: object, path: Path) -> LinkSets:
        """Return which stages the configurations of a value link to → how many do."""
        if isinstance(value, Link):
            return Counter({frozenset((value.root,)): 1})
        if isinstance(value, Sample):
            return Counter({frozenset(): value.n})
        if isinstance(value, Grid):
            elements: LinkSets = Counter()
            for element in self._distinct(value, path):
                elements.update(self._link_sets(element, path))
            return elements
        link_sets: LinkSets = Counter({frozenset(): 1})
        always = {self._mark(value), *linked_roots(value)} if is_domain(value) else set()
        factor = 1
        for key, child in () if is_domain(value) else children(value):
            below = self._link_sets(child, (*path, key))
            if len(below) == 1:
                [(links, number)] = below.items()
                always |= links
                factor *= number
            else:
                link_sets = self._multiply(link_sets, below)
        return self._multiply(link_sets, Counter({frozenset(always): factor}))

    def _sizes(self, value: object, path: Path) -> list[int]:
        """Return the sizes of the options in a value: it has their product of configurations."""
        if isinstance(value, Grid):
            elements = self._distinct(value, path)
            return [sum(math.prod(self._sizes(element, path)) for element in elements)]
        if isinstance(value, Sample):
            return [value.n]
        if is_domain(value):
            return []
        return [n for key, child in children(value) for n in self._sizes(child, (*path, key))]

    def _distinct(self, grid: Grid, path: Path) -> list[object]:
        """Return the elements of a grid, equal ones once.

        Elements with options in them that may turn out equal are replaced by all their values.
        """
        groups: dict[object, list[object]] = {}
        for element in grid_elements(grid):
            groups.setdefault(shape(element), []).append(element)
        result: list[object] = []
        for group in groups.values():
            options = [element for element in group if has_options(element)]
            size = sum(math.prod(self._sizes(element, path)) for element in options)
            if not options:
                result += {canonical_text(element): element for element in group}.values()
            elif len(group) == 1 or size > self.most:
                result += group
            else:
                self._step(size)
                resolved = alternatives(Grid(tuple(group)), path, self.seed)
                result += (element for element, _ in resolved)
        return result

    def _mark(self, space: Schema) -> str:
        """Return the mark of a search space in link sets."""
        size = distinct_values(space)
        if size >= self.drawn:
            return _SPACE
        self.values[mark := f"{_SPACE}{len(self.values)}"] = int(size)
        return mark

    def _draws(self, links: frozenset[str]) -> int:
        """Return how many different values are drawn from the search spaces together."""
        if _SPACE in links:
            return self.drawn
        return min(self.drawn, math.prod(self.values[m] for m in links if m in self.values))

    def _multiply(self, link_sets: LinkSets, others: LinkSets) -> LinkSets:
        self._step(len(link_sets) * len(others))
        product: LinkSets = Counter()
        for links, number in link_sets.items():
            for more, times in others.items():
                product[links | more] += number * times
        return product

    def _needs(self, link_sets: LinkSets) -> Counter[frozenset[int]]:
        """Return the sets of stages that configurations need → how many do.

        A stage with one configuration is replaced by what it needs itself.
        """
        result: Counter[frozenset[int]] = Counter()
        for links, number in link_sets.items():
            needed: set[int] = set()
            for position in (self.positions[name] for name in links if name in self.positions):
                stage = self.stages[position]
                needed |= stage.needed if stage.single else {position}
            self._step(1 + len(needed))
            result[frozenset(needed)] += number
        return result

    # -- what a stage depends on --------------------------------------------------------------

    def _count(self, start: _State) -> int:
        """Return how many combinations there are of variants of stages that are needed together."""
        branches: dict[_State, list[tuple[int, _State]]] = {}
        stack = [start]
        while stack:
            state = stack[-1]
            if state in self.counts:
                stack.pop()
                continue
            if state not in branches:
                branches[state] = self._branches(state)
                stack += [below for _, below in branches[state] if below not in self.counts]
            else:
                self.counts[state] = sum(n * self.counts[below] for n, below in branches[state])
        return self.counts[start]

    def _branches(self, state: _State) -> list[tuple[int, _State]]:
        """Replace the last stage that is needed by each set of stages that it needs."""
        needed, settled = state
        last = max(needed)
        stage, rest = self.stages[last], needed - {last}
        self._step(len(needed) + len(stage.needs))
        if stage.kept is not None:
            ancestors = self._ancestors(last) if rest else _NOTHING
            branches = [(stage.kept, rest - ancestors, settled | ancestors)]
        else:
            branches = [(n, rest | (below - settled), settled) for below, n in stage.needs.items()]
        return [(n, (below, closed if below else _NOTHING)) for n, below, closed in branches]

    def _ancestors(self, position: int) -> frozenset[int]:
        """Return what a stage may depend on."""
        stage = self.stages[position]
        if stage.ancestors is None:
            ancestors: set[int] = set()
            ahead = [position]
            while ahead:
                for needed in self.stages[ahead.pop()].needs:
                    self._step(1 + len(needed))
                    ahead += needed - ancestors
                    ancestors |= needed
            stage.ancestors = frozenset(ancestors)
        return stage.ancestors

    def _factors(self, stage: _Stage, count: int) -> list[int]:
        """Return the factors of the number of variants of a stage, those of its ancestors first."""
        if len(stage.needs) > 1:
            return [count]
        factors = list(stage.sizes)
        state: _State = (stage.needed, _NOTHING)
        while state != _END:
            below = self.stages[max(state[0])]
            branches = self._branches(state)
            if len(branches) > 1:
                return [self._count(state), *factors]
            factors = [*([below.kept] if below.kept is not None else below.sizes), *factors]
            state = branches[0][1]
        return factors


def _hint(count: float) -> str:
    if count > LARGEST_MAX_VARIANTS:
        return "try fewer values, or draw some of them: !s [low, high, n], or a search"
    return f"try fewer values, or allow as many with   max_variants: {math.ceil(count)}"


def product_text(factors: Sequence[int], count: int) -> str:
    """Write a product: ``10 × 10 × 10 = 1,000``."""
    written = [_number(factor) for factor in factors if factor != 1]
    if len(written) < 2:
        return _number(count)
    if len(written) > 14:
        written = [*written[:5], f"… ({len(written) - 6} more)", written[-1]]
    return f"{' × '.join(written)} = {_number(count)}"


def _number(number: int) -> str:
    # Python refuses to write numbers of more than 4,300 digits.
    return f"{number:,}" if number < 10**15 else f"about 10^{math.floor(math.log10(number))}"

"""The values of the search spaces of Ray Tune: counted and listed where there are finitely many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import overload

from flambe.compile import Schema
from flambe.compile.values import children, links
from flambe.experiment.variants.dimensions import options_of
from flambe.experiment.variants.identity import canonical_text
from flambe.experiment.variants.options import is_domain


def values_of(space: Schema) -> Sequence[object] | None:
    """Return the distinct values of a search space; None if they are infinite or unknown."""
    if options_of(space) is not None:
        return None
    from ray.tune.search.sample import Categorical, Float, Integer, Quantized

    try:
        domain = space()
        if isinstance(domain, Categorical):
            return list({canonical_text(value): value for value in domain.categories}.values())
        if not isinstance(domain, Float | Integer):
            return None
        sampler = domain.get_sampler()
        q: float = sampler.q if isinstance(sampler, Quantized) else 0
        if q not in (0, 1):
            first, last = math.ceil(domain.lower / q - 1e-9), math.floor(domain.upper / q + 1e-9)
            return _Multiples(range(first, last + 1), q)
        if isinstance(domain, Integer):
            return range(int(domain.lower), int(domain.upper))
        if q == 1:
            return _Multiples(range(math.ceil(domain.lower), math.floor(domain.upper) + 1), 1.0)
    except Exception:  # invalid arguments, or infinite bounds
        return None
    return None


class _Multiples(Sequence[float]):
    """Multiples of a number, as a quantized space draws them."""

    def __init__(self, factors: range, quantum: float) -> None:
        self.factors, self.quantum = factors, quantum

    def __len__(self) -> int:
        return len(self.factors)

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[float]: ...
    def __getitem__(self, index: int | slice) -> float | Sequence[float]:
        if isinstance(index, slice):
            return _Multiples(self.factors[index], self.quantum)
        return self.factors[index] * self.quantum


def as_plain(value: object) -> object:
    """Return a number of NumPy as Python's, which can be written down: searchers propose both."""
    item = getattr(value, "item", None)
    return item() if callable(item) and type(value).__module__ == "numpy" else value


def linked_roots(value: object) -> set[str]:
    """Return what the links in a value start from."""
    return {link.root for _, link in links(value)}


def distinct_points(config: object) -> float:
    """Return how many distinct points the search spaces of a configuration have together."""
    if is_domain(config):
        return distinct_values(config)
    return math.prod(distinct_points(child) for _, child in children(config))


def distinct_values(space: Schema) -> float:
    """Return how many distinct values a search space has; infinity if unknown."""
    options = options_of(space)
    if options is not None:
        return sum(distinct_points(option) for option in options.values())
    values = values_of(space)
    try:
        return len(values) if values else math.inf
    except OverflowError:  # longer than sys.maxsize
        return math.inf

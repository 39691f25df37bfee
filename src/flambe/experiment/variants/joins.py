"""Joins the variants of several stages: those that share an ancestor stay paired with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, Protocol, TypeVar


class _Joinable(Protocol):
    """A variant, as far as it is joined."""

    @property
    def id(self) -> str: ...

    @property
    def ancestry(self) -> Mapping[str, str]: ...

    @property
    def seed(self) -> int: ...


V = TypeVar("V", bound=_Joinable)


def join_by_seed(
    stages: Sequence[str], variants: Mapping[str, Sequence[V]]
) -> Iterator[tuple[V, ...]]:
    """Yield each combination of variants of several stages that agree on ancestors and seed."""
    seeds = list(dict.fromkeys(variant.seed for s in stages for variant in variants.get(s, ())))
    if len(seeds) < 2:
        yield from join(stages, variants)
        return
    by_seed: dict[int, dict[str, list[V]]] = {seed: {s: [] for s in stages} for seed in seeds}
    order: dict[str, int] = {}
    for stage in stages:
        for variant in variants.get(stage, ()):
            by_seed[variant.seed][stage].append(variant)
            order[variant.id] = len(order)
    joined = [combination for own in by_seed.values() for combination in join(stages, own)]
    yield from sorted(joined, key=lambda c: tuple(order[variant.id] for variant in c))


def join(stages: Sequence[str], variants: Mapping[str, Sequence[V]]) -> Iterator[tuple[V, ...]]:
    """Yield each combination of variants of several stages that agree on shared ancestors."""
    # The latest stage first: its ancestry mostly determines the stages before it.
    partial: list[tuple[dict[str, str], dict[str, V]]] = [({}, {})]
    for stage in reversed(stages):
        by_id = {variant.id: variant for variant in variants.get(stage, ())}
        index = _Index(list(by_id.values()))
        extended = []
        for ancestry, chosen in partial:
            if stage in ancestry:
                matching = [by_id[ancestry[stage]]] if ancestry[stage] in by_id else []
            else:
                matching = list(index.agreeing(ancestry))
            extended += [
                ({**ancestry, **variant.ancestry, stage: variant.id}, {**chosen, stage: variant})
                for variant in matching
            ]
        partial = extended
    order = {
        variant.id: position for stage in stages for position, variant in enumerate(variants[stage])
    }
    combinations = [tuple(chosen[stage] for stage in stages) for _, chosen in partial]
    yield from sorted(combinations, key=lambda c: tuple(order[variant.id] for variant in c))


class _Index(Generic[V]):
    """Finds the variants of one stage that agree with an ancestry."""

    def __init__(self, variants: Sequence[V]) -> None:
        # Links may differ between the elements of an option, and ancestors with them.
        self.shapes: dict[tuple[str, ...], list[V]] = {}
        for variant in variants:
            self.shapes.setdefault(tuple(variant.ancestry), []).append(variant)
        self.groups: dict[object, dict[tuple[str, ...], list[V]]] = {}

    def agreeing(self, ancestry: Mapping[str, str]) -> Iterator[V]:
        """Yield the variants whose ancestors are those of an ancestry wherever both have one."""
        for shape, variants in self.shapes.items():
            shared = tuple(stage for stage in shape if stage in ancestry)
            if (shape, shared) not in self.groups:
                groups = self.groups[shape, shared] = {}
                for variant in variants:
                    key = tuple(variant.ancestry[stage] for stage in shared)
                    groups.setdefault(key, []).append(variant)
            yield from self.groups[shape, shared].get(tuple(ancestry[s] for s in shared), ())

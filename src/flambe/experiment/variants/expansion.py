"""Variants: one value for each combination of the options of a stage, with a stable identity.

Stages are expanded here and nowhere else. The variants of a stage are the product of its own
options and of the variants of the stages that it links to; those that share an ancestor stay
paired with it.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flambe.compile.component import component_class
from flambe.compile.component import runs as has_run
from flambe.compile.schema import Schema
from flambe.compile.values import Grid, Path, links, path_text, replace
from flambe.experiment.variants.identity import canonical, identity
from flambe.experiment.variants.inputs import Inputs
from flambe.experiment.variants.options import (
    Choices,
    alternatives,
    count_written,
    is_domain,
    label,
    short_names,
)
from flambe.progress import choices_text

NAME_LENGTH = 100


@dataclass(frozen=True)
class Variant:
    """One combination of the options of a stage, and of all stages that it links to.

    Attributes
    ----------
    id
        A hash of the resolved configuration, of the ancestors' ids, of the code of its components
        and of the content of what it reads: the same on every machine, and the same in the next
        run if nothing about it changed.
    stage
        Its stage.
    name
        The name of its folder: its hyper-parameters and the start of its id.
    config
        The stage's blueprint, options resolved and links as they were written.
    choices
        Its hyper-parameters by their short names, those of its ancestors first.
    parents
        Stage → id of the variants that it links to directly.
    ancestry
        Stage → id of all variants that it depends on.
    runs
        Whether it has something to run; else it is built where it is used.
    base, values
        Of a variant that a search suggested: the id of what it was made from, and the values of
        its search spaces by path.
    repetition
        How many times a search had suggested the same values before.
    config_id
        A hash of its configuration and of those of its ancestors alone.
    config_parents
        Stage → ``config_id`` of the variants that it links to directly.
    code
        The hash of the code of each component in it that is the user's, by its tag.
    data
        The hash of the content of what it reads: ``"resource 'corpus'"``, ``"file data.csv"``.
    """

    id: str
    stage: str
    name: str
    config: object
    choices: Mapping[str, object] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    ancestry: Mapping[str, str] = field(default_factory=dict)
    runs: bool = True
    base: str = ""
    values: Mapping[str, object] = field(default_factory=dict)
    repetition: int = 0
    config_id: str = ""
    config_parents: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)


def folder_name(stage: str, choices: Mapping[str, object], variant_id: str) -> str:
    """Return the name of a variant's folder: ``n_layers=2,hidden_size=128_1a2b3c4d``."""
    text = choices_text(choices) or stage
    text = re.sub(r"[^\w.=,+#-]+", "-", text, flags=re.ASCII)[:NAME_LENGTH]
    return f"{text}_{variant_id[:8]}"


def positions(pipeline: Iterable[str]) -> dict[str, int]:
    """Return the position of each stage of a pipeline."""
    return {stage: position for position, stage in enumerate(pipeline)}


def stages_linked(value: object, order: Mapping[str, int], stage: str) -> list[str]:
    """Return the stages that a stage, or one of its configurations, links to, in their order."""
    roots = {link.root for _, link in links(value)}
    return sorted((r for r in roots if r in order and r != stage), key=order.__getitem__)


def may_run(value: object) -> bool:
    """Whether a stage has something to run, in at least one of its configurations."""
    if isinstance(value, Grid):
        return any(may_run(element) for element in value.elements)
    if isinstance(value, Schema) and not value.target:
        return True
    return runs(value)


def runs(config: object) -> bool:
    """Whether a stage's configuration has something to run."""
    if not isinstance(config, Schema):
        return False
    owner = component_class(config.resolve())
    return owner is not None and has_run(owner)


# -- expansion ----------------------------------------------------------------------------------


@dataclass
class Expander:
    """Expands the stages of one pipeline.

    Parameters
    ----------
    pipeline
        Stage → blueprint, in order.
    seed
        Where ``!s`` draws from.
    resources
        Name → location, as written: a part of ``config_id``.
    inputs
        The code and the data of configurations: a part of ``id``.
    """

    pipeline: Mapping[str, object]
    seed: int = 0
    resources: Mapping[str, object] = field(default_factory=dict)
    inputs: Inputs = field(default_factory=Inputs)

    def __post_init__(self) -> None:
        self.names = short_names(self.pipeline)
        self.order = positions(self.pipeline)
        #: Stage → how many of its configurations are written a second time or more.
        self.repeated: Counter[str] = Counter()

    def expand(self, stage: str, earlier: Mapping[str, Sequence[Variant]]) -> list[Variant]:
        """Return the variants of a stage: one for each identity, however often it is written.

        Parameters
        ----------
        stage
            Its name.
        earlier
            The variants of the stages before it, without those that are not built upon.
        """
        joins: dict[tuple[str, ...], list[tuple[Variant, ...]]] = {}
        variants: dict[str, Variant] = {}
        configs = alternatives(self.pipeline[stage], (stage,), self.seed)
        self.repeated[stage] = count_written(self.pipeline[stage]) - len(configs)
        for config, choices in configs:
            parents = tuple(stages_linked(config, self.order, stage))
            if parents not in joins:
                joins[parents] = list(_join(parents, earlier))
            for joined in joins[parents]:
                variant = self.variant(stage, config, choices, joined)
                variants.setdefault(variant.id, variant)
        return list(variants.values())

    def variant(
        self, stage: str, config: object, own: Choices, joined: Sequence[Variant]
    ) -> Variant:
        """Make the variant of a stage with a resolved configuration and direct ancestors."""
        ancestry: dict[str, str] = {}
        choices: dict[str, object] = {}
        for parent in joined:
            ancestry |= {**parent.ancestry, parent.stage: parent.id}
            choices |= parent.choices
        choices |= {self.names.get(path, path_text(path)): v for path, v in own.items()}
        return self._identified(
            Variant(
                "",
                stage,
                "",
                config,
                choices,
                {parent.stage: parent.id for parent in joined},
                {name: ancestry[name] for name in sorted(ancestry, key=self.order.__getitem__)},
                runs(config),
                config_parents={parent.stage: parent.config_id for parent in joined},
                code=self.inputs.code_of(config),
                data=self.inputs.data_of(config),
            )
        )

    def suggest(self, base: Variant, values: Mapping[str, object], repetition: int = 0) -> Variant:
        """Return a variant with values for the search spaces that its base has.

        Parameters
        ----------
        base
            A variant of a stage with search spaces in it.
        values
            The path of each as text → its value.
        repetition
            How many times the same values were suggested before: each is a variant of its own, and
            starts from other random numbers.
        """
        by_text = {path_text(path): name for path, name in self.names.items()}
        choices = {**base.choices, **{by_text.get(k, k): label(v) for k, v in values.items()}}
        if repetition:
            choices["repetition"] = repetition
        return self._identified(
            dataclasses.replace(
                base,
                config=_substitute(base.config, (base.stage,), values),
                choices=choices,
                base=base.id,
                values=dict(values),
                repetition=repetition,
            )
        )

    def _identified(self, variant: Variant) -> Variant:
        """Return a variant with its identity and name, which depend on everything else in it."""
        stage, config = variant.stage, variant.config
        repeated = [["repetition", variant.repetition]] if variant.repetition else []
        inputs = (
            [sorted(set(variant.code.values())), sorted(variant.data.items())]
            if variant.code or variant.data
            else []
        )
        seeded, written = _context(self.seed, {}), _context(self.seed, self.resources)
        variant_id = identity(stage, config, variant.parents, seeded, *inputs, *repeated)
        return dataclasses.replace(
            variant,
            id=variant_id,
            name=folder_name(stage, variant.choices, variant_id),
            config_id=identity(stage, config, variant.config_parents, written, *repeated),
        )


def _context(seed: int, resources: Mapping[str, object]) -> str:
    return f"{seed}:{canonical(resources)}"


def _substitute(value: object, path: Path, values: Mapping[str, object]) -> object:
    if is_domain(value) and path_text(path) in values:
        return values[path_text(path)]
    return replace(value, lambda key, child: _substitute(child, (*path, key), values))


def _join(
    stages: Sequence[str], variants: Mapping[str, Sequence[Variant]]
) -> Iterator[tuple[Variant, ...]]:
    """Yield each combination of variants of several stages that agree on shared ancestors."""
    # The latest stage first: its ancestry mostly determines the stages before it.
    partial: list[tuple[dict[str, str], dict[str, Variant]]] = [({}, {})]
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


class _Index:
    """Finds the variants of one stage that agree with an ancestry."""

    def __init__(self, variants: Sequence[Variant]) -> None:
        # Links may differ between the elements of an option, and ancestors with them.
        self.shapes: dict[tuple[str, ...], list[Variant]] = {}
        for variant in variants:
            self.shapes.setdefault(tuple(variant.ancestry), []).append(variant)
        self.groups: dict[object, dict[tuple[str, ...], list[Variant]]] = {}

    def agreeing(self, ancestry: Mapping[str, str]) -> Iterator[Variant]:
        """Yield the variants whose ancestors are those of an ancestry wherever both have one."""
        for shape, variants in self.shapes.items():
            shared = tuple(stage for stage in shape if stage in ancestry)
            if (shape, shared) not in self.groups:
                groups = self.groups[shape, shared] = {}
                for variant in variants:
                    key = tuple(variant.ancestry[stage] for stage in shared)
                    groups.setdefault(key, []).append(variant)
            yield from self.groups[shape, shared].get(tuple(ancestry[s] for s in shared), ())

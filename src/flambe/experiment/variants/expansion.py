"""Variants: one value for each combination of the options of a stage, with a stable identity.

Stages are expanded here and nowhere else. The variants of a stage are the product of its own
options and of the variants of the stages that it links to; those that share an ancestor stay
paired with it.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flambe.compile.component import component_class
from flambe.compile.component import runs as has_run
from flambe.compile.schema import Schema
from flambe.compile.values import Grid, Path, links, path_text, replace
from flambe.experiment.variants.dimensions import dimension_path, put_values
from flambe.experiment.variants.identity import ConfigTexts, context_of, identity, input_parts
from flambe.experiment.variants.inputs import FactReader, Inputs
from flambe.experiment.variants.joins import join_by_seed
from flambe.experiment.variants.options import (
    Choices,
    alternatives,
    count_written,
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
    seed
        The seed of its random numbers.
    group, group_parents
        Where there are several seeds: its ``config_id`` under the seed of the experiment, which
        all of its configuration share; and stage → that of the variants that it links to directly.
    config_id
        A hash of its configuration and of those of its ancestors alone.
    config_parents
        Stage → ``config_id`` of the variants that it links to directly.
    code
        The hash of the code of each component in it that is the user's, by its tag.
    data
        The hash of the content of what it reads: ``"resource 'corpus'"``, ``"file data.csv"``.
    packages
        The packages that its components come from, with their versions.
    resources
        The resources that it, or an ancestor, links to.
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
    seed: int = 0
    group: str = ""
    group_parents: Mapping[str, str] = field(default_factory=dict)
    config_id: str = ""
    config_parents: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    resources: frozenset[str] = frozenset()


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
        Name → location, as written: a part of ``config_id``, where it is linked to.
    inputs
        The code and the data of configurations: a part of ``id``.
    origins
        Stage → the name that it had when its results were begun, of stages that were renamed. That
        name is a part of ``id``, and what random numbers and values are drawn from.
    all_resources
        Whether all resources are a part of ``config_id``: for results of earlier versions.
    seeds
        The seeds that each variant is run under; empty for ``seed`` alone.
    """

    pipeline: Mapping[str, object]
    seed: int = 0
    resources: Mapping[str, object] = field(default_factory=dict)
    inputs: Inputs = field(default_factory=Inputs)
    origins: dict[str, str] = field(default_factory=dict)
    all_resources: bool = False
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.names = short_names(self.pipeline)
        self.seeds = self.seeds or (self.seed,)
        self.seed_name = "run_seed" if "seed" in self.names.values() else "seed"
        self.order = positions(self.pipeline)
        self._texts: dict[str, ConfigTexts] = {}
        self._facts: dict[str, FactReader] = {}
        self._runnable: dict[str, bool] = {}
        #: Stage → how many of its configurations are written a second time or more.
        self.repeated: Counter[str] = Counter()

    def __getstate__(self) -> dict[str, object]:
        # What was read of objects by their id() is true in this process only.
        return {**vars(self), "_texts": {}, "_facts": {}}

    def origin(self, stage: str) -> str:
        """Return the name that a stage had when its results were begun."""
        return self.origins.get(stage, stage)

    def rename(self, stage: str, origin: str) -> None:
        """Take a stage for one that had another name before."""
        self.origins[stage] = origin
        self._texts.clear()

    def forget_name(self, stage: str) -> None:
        """Take a stage for one that has always had its name."""
        self.origins.pop(stage, None)
        self._texts.clear()

    def _stage_texts(self, stage: str) -> ConfigTexts:
        if stage not in self._texts:
            self._texts[stage] = ConfigTexts(self.pipeline[stage], self.origins)
        return self._texts[stage]

    def _stage_facts(self, stage: str) -> FactReader:
        if stage not in self._facts:
            self._facts[stage] = FactReader(self.pipeline[stage])
        return self._facts[stage]

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
        configs = self._alternatives(stage)
        self.repeated[stage] = count_written(self.pipeline[stage]) - len(configs)
        for config, choices in configs:
            parents = self._parents_of(stage, config)
            if parents not in joins:
                joins[parents] = list(join_by_seed(parents, earlier))
            for joined in joins[parents]:
                for seed in (joined[0].seed,) if joined else self.seeds:
                    variant = self.variant(stage, config, choices, joined, seed)
                    variants.setdefault(variant.id, variant)
        return list(variants.values())

    def _parents_of(self, stage: str, config: object) -> tuple[str, ...]:
        """Return the stages that one of the configurations of a stage links to, in their order."""
        roots = self._stage_facts(stage).read(config).roots
        linked = (root for root in roots if root in self.order and root != stage)
        return tuple(sorted(linked, key=self.order.__getitem__))

    def _alternatives(self, stage: str) -> list[tuple[object, Choices]]:
        """Return the configurations of a stage; what is drawn is drawn by its original name."""
        origin = self.origin(stage)
        configs = alternatives(self.pipeline[stage], (origin,), self.seed)
        if origin == stage:
            return configs
        return [(c, {(stage, *path[1:]): v for path, v in own.items()}) for c, own in configs]

    def variant(
        self, stage: str, config: object, own: Choices, joined: Sequence[Variant], seed: int
    ) -> Variant:
        """Make the variant of a stage with a resolved configuration and direct ancestors."""
        ancestry: dict[str, str] = {}
        choices: dict[str, object] = {}
        for parent in joined:
            ancestry |= {**parent.ancestry, parent.stage: parent.id}
            choices |= parent.choices
        choices |= {self.names.get(path, path_text(path)): v for path, v in own.items()}
        facts = self._stage_facts(stage).read(config)
        linked = facts.roots.intersection(self.resources)
        if len(self.seeds) > 1:
            choices.pop(self.seed_name, None)
            choices[self.seed_name] = seed
        return self._identified(
            Variant(
                "",
                stage,
                "",
                config,
                choices,
                {parent.stage: parent.id for parent in joined},
                {name: ancestry[name] for name in sorted(ancestry, key=self.order.__getitem__)},
                self._runs(config),
                seed=seed,
                group_parents={parent.stage: parent.group for parent in joined},
                config_parents={parent.stage: parent.config_id for parent in joined},
                code=self.inputs.code_of(facts),
                data=self.inputs.data_of(facts),
                packages=self.inputs.packages_of(facts),
                resources=linked.union(*(parent.resources for parent in joined)),
            )
        )

    def _runs(self, config: object) -> bool:
        """Whether there is something to run: asked once for each class."""
        if not isinstance(config, Schema):
            return False
        if config.target not in self._runnable:
            self._runnable[config.target] = runs(config)
        return self._runnable[config.target]

    def suggest(self, base: Variant, values: Mapping[str, object], repetition: int = 0) -> Variant:
        """Return a variant with values for the search spaces that its base has.

        Parameters
        ----------
        base
            A variant of a stage with search spaces in it.
        values
            The value of each dimension: see :mod:`flambe.experiment.variants.dimensions`. Those
            of options that are not chosen are left out.
        repetition
            How many times the same values were suggested before: each is a variant of its own, and
            starts from other random numbers.
        """
        by_text = {path_text(path): name for path, name in self.names.items()}
        config, used = put_values(base.config, (base.stage,), values)
        paths = {key: dimension_path(key) for key in used}
        choices = {
            **base.choices,
            **{by_text.get(paths[key], paths[key]): label(v) for key, v in used.items()},
        }
        if repetition:
            choices["repetition"] = repetition
        return self._identified(
            dataclasses.replace(
                base,
                config=config,
                choices=choices,
                base=base.id,
                values=used,
                repetition=repetition,
            )
        )

    def explored(self, variant: Variant, values: Mapping[str, object]) -> Variant:
        """Return a variant with other values for its search spaces: it stays the variant it is."""
        config = _put(variant.config, (variant.stage,), values)
        return dataclasses.replace(variant, config=config)

    def _identified(self, variant: Variant) -> Variant:
        """Return a variant with its identity and name, which depend on everything else in it."""
        text, shared = self._written(variant)
        repeated = _repetition(variant)
        inputs = input_parts(variant.code, variant.data, variant.packages)
        stage, resources = self.origin(variant.stage), self._resources_of(variant)

        def config_id(seed: int, parents: Mapping[str, str]) -> str:
            context = context_of(seed, resources)
            return identity(stage, text, self._by_origin(parents), context, shared, *repeated)

        parents, seeded = self._by_origin(variant.parents), context_of(variant.seed, {})
        variant_id = identity(stage, text, parents, seeded, shared, *inputs, *repeated)
        is_grouped = self.seeds != (self.seed,)
        return dataclasses.replace(
            variant,
            id=variant_id,
            name=folder_name(variant.stage, variant.choices, variant_id),
            config_id=config_id(variant.seed, variant.config_parents),
            group=config_id(self.seed, variant.group_parents) if is_grouped else "",
        )

    def former_id(self, variant: Variant) -> str:
        """Return the id that versions of flambe gave a variant that did not record packages."""
        text, shared = self._written(variant)
        former = self.former_code(variant)
        code = {tag: former.get(tag, value) for tag, value in variant.code.items()}
        return identity(
            self.origin(variant.stage),
            text,
            self._by_origin(variant.parents),
            context_of(variant.seed, {}),
            shared,
            *input_parts(code, variant.data, {}),
            *_repetition(variant),
        )

    def former_code(self, variant: Variant) -> dict[str, str]:
        """Return the tag of each component of the user's → the hash of earlier versions."""
        if not self.inputs.former_code:
            return {}
        targets = self._stage_facts(variant.stage).read(variant.config).components
        former = self.inputs.former_code
        return {tag: former[target] for tag, target in targets.items() if target in former}

    def _written(self, variant: Variant) -> tuple[str, list[str]]:
        texts = self._stage_texts(variant.stage)
        return texts.text(variant.config), texts.shared(variant.config)

    def _by_origin(self, parents: Mapping[str, str]) -> Mapping[str, str]:
        if not self.origins:
            return parents
        return {self.origin(stage): parent for stage, parent in parents.items()}

    def _resources_of(self, variant: Variant) -> Mapping[str, object]:
        if self.all_resources:
            return self.resources
        return {name: self.resources[name] for name in self.resources if name in variant.resources}


def _repetition(variant: Variant) -> list[object]:
    return [["repetition", variant.repetition]] if variant.repetition else []


def _put(value: object, path: Path, values: Mapping[str, object]) -> object:
    if path_text(path) in values:
        return values[path_text(path)]
    return replace(value, lambda key, child: _put(child, (*path, key), values))

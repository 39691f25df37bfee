"""Variants: one value for each way through the options of a stage, with a stable identity.

Expanded here and nowhere else. A stage's variants are the product of its own options and of the
variants of the stages that it links to; variants that share an ancestor stay paired with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flambe._grammar import is_one_line
from flambe.compile import spaces
from flambe.compile.component import Component
from flambe.compile.component import runs as has_run
from flambe.compile.values import (
    ClusterResource,
    Grid,
    Link,
    Path,
    Sample,
    Schema,
    children,
    links,
    path_text,
    replace,
    walk,
)
from flambe.experiment.inputs import Inputs

NAME_LENGTH = 100
Choices = dict[Path, Any]


@dataclass(frozen=True)
class Variant:
    """One way through the options of a stage and of all that it links to.

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
        Whether there is something to run; else it is built where it is used.
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
    config: Any
    choices: Mapping[str, Any] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    ancestry: Mapping[str, str] = field(default_factory=dict)
    runs: bool = True
    base: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    repetition: int = 0
    config_id: str = ""
    config_parents: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)


# -- options ------------------------------------------------------------------------------------


def is_domain(value: Any) -> bool:
    """Whether a value is a search space of Ray Tune (``!tune.loguniform …``)."""
    return spaces.is_space(value)


def domains(value: Any) -> dict[Path, Schema]:
    """Return the search spaces in a value, by path."""
    return {path: child for path, child in walk(value) if is_domain(child)}


def has_options(value: Any) -> bool:
    """Whether there is an option in a value."""
    return any(isinstance(child, Grid | Sample) for _, child in walk(value))


def option_paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the paths of all options, those inside other options included."""
    if isinstance(value, Grid):
        yield path
        for element in value.elements:
            yield from option_paths(element, path)
    elif isinstance(value, Sample) or is_domain(value):
        yield path
    else:
        for key, child in children(value):
            yield from option_paths(child, (*path, key))


def alternatives(value: Any, path: Path, seed: int) -> list[tuple[Any, Choices]]:
    """Return each way to resolve the options in a value, with the choices that were made.

    What has no options is shared between the results, so that many variants stay small.
    """
    if isinstance(value, Grid):
        return _alternatives_of_grid(value, path, seed)
    if isinstance(value, Sample):
        text = f"{seed}:{path_text(path)}:{value!r}"
        return [(number, {path: number}) for number in value.draw(text)]
    if not has_options(value):
        return [(value, {})]
    keys, options = [], []
    for key, child in children(value):
        keys.append(key)
        options.append(alternatives(child, (*path, key), seed))
    result = []
    for combination in itertools.product(*options):
        chosen = {key: part for key, (part, _) in zip(keys, combination, strict=True)}
        choices: Choices = {}
        for _, part in combination:
            choices.update(part)
        result.append((replace(value, _chooser(chosen)), choices))
    return result


def _written(value: Any) -> int:
    """Return how many ways through the options of a value are written, equal ones included."""
    if isinstance(value, Grid):
        return sum(map(_written, value.elements))
    if isinstance(value, Sample):
        return value.n
    return math.prod(_written(child) for _, child in children(value))


def _chooser(chosen: Mapping[Any, Any]) -> Callable[[Any, Any], Any]:
    return lambda key, _: chosen[key]


def grid_elements(grid: Grid) -> Iterator[Any]:
    """Yield the elements of a grid, those of a grid that is an element itself among them."""
    for element in grid.elements:
        if isinstance(element, Grid):
            yield from grid_elements(element)
        else:
            yield element


def _alternatives_of_grid(grid: Grid, path: Path, seed: int) -> list[tuple[Any, Choices]]:
    """Return each value that a grid tries, once: equal values would be the same variant."""
    unique: dict[str, tuple[int, Any, Choices]] = {}
    for index, element in enumerate(grid_elements(grid)):
        for resolved, choices in alternatives(element, path, seed):
            unique.setdefault(canonical_text(resolved), (index, resolved, choices))
    # A label that elements share is told apart by their positions.
    owners: dict[str, set[int]] = {}
    for index, resolved, _ in unique.values():
        owners.setdefault(str(label(resolved)), set()).add(index)
    result = []
    for index, resolved, choices in unique.values():
        text = label(resolved)
        own = f"{text}#{index}" if len(owners[str(text)]) > 1 else text
        result.append((resolved, {path: own, **choices}))
    return result


def label(value: Any) -> Any:
    """Return a choice as people read it: a scalar, or the tag or text of what was chosen."""
    if isinstance(value, str):  # a line of a log, and a cell of a table
        return value if is_one_line(value) else json.dumps(value, ensure_ascii=False)[1:-1]
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Schema):
        return value.tag
    if isinstance(value, Link):
        return str(value)
    return json.dumps(_readable(value), separators=(",", ":"))[:40]


def _readable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _readable(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(child) for child in value]
    return f"!{value.tag}" if isinstance(value, Schema) else canonical(value)


def short_names(pipeline: Mapping[str, Any]) -> dict[Path, str]:
    """Return, for every option of a pipeline, the shortest name that no other option has."""
    paths = list(
        dict.fromkeys(
            path for stage, value in pipeline.items() for path in option_paths(value, (stage,))
        )
    )
    occurrences = Counter(path[-length:] for path in paths for length in range(1, len(path) + 1))
    names: dict[Path, str] = {}
    for path in paths:
        for length in range(1, len(path) + 1):
            if isinstance(path[-length], int) and length < len(path):
                continue
            tail = path[-length:]
            if occurrences[tail] == 1 or length == len(path):
                names[path] = ".".join(str(key) for key in tail)
                break
    return names


# -- identity -----------------------------------------------------------------------------------


def canonical(value: Any) -> Any:
    """Return a configuration as plain JSON, the same for the same meaning."""
    if isinstance(value, Schema):
        content = canonical(value.content) if value.content is not None else None
        kwargs = {key: canonical(child) for key, child in sorted(value.kwargs.items())}
        return ["!", value.target, [canonical(arg) for arg in value.args], kwargs, content]
    if isinstance(value, Link):
        return ["!@", str(value)]
    if isinstance(value, ClusterResource):
        return ["!cluster", value.location]
    if isinstance(value, Grid):  # inside the element of another one
        return ["!g", [canonical(element) for element in value.elements]]
    if isinstance(value, Sample):
        return ["!s", value.low, value.high, value.n, value.decimals]
    if isinstance(value, Mapping):
        pairs = [(key, canonical(child)) for key, child in value.items()]
        if all(isinstance(key, str) for key, _ in pairs):
            return dict(pairs)
        # A key of JSON is text: {1: x} is not {"1": x}.
        return [_MAPPING, sorted(([key, child] for key, child in pairs), key=_sorting_text)]
    if isinstance(value, list | tuple):
        parts = [canonical(child) for child in value]
        # A list of the user's may start like one of the above.
        return [_LIST, parts] if parts and parts[0] in _MARKS else parts
    return value


_MAPPING, _LIST = "!map", "!list"
_MARKS = ("!", "!@", "!cluster", "!g", "!s", _MAPPING, _LIST)


def _sorting_text(pair: list[Any]) -> str:
    return json.dumps(pair[0])


def canonical_text(value: Any) -> str:
    """Return :func:`canonical` as text: equal for the same meaning, whatever the order of keys."""
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))


def identity(stage: str, config: Any, parents: Mapping[str, str], context: str, *more: Any) -> str:
    """Return the id of a variant: 48 bits in hexadecimal.

    Parameters
    ----------
    stage, config, parents
        See :class:`Variant`.
    context
        What all variants of a run depend on: the seed.
    more
        What else this one depends on, as JSON takes it.
    """
    value = [stage, canonical(config), sorted(parents.items()), context, *more]
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folder_name(stage: str, choices: Mapping[str, Any], variant_id: str) -> str:
    """Return the name of a variant's folder: ``n_layers=2,hidden_size=128_1a2b3c4d``."""
    text = choices_text(choices) or stage
    text = re.sub(r"[^\w.=,+#-]+", "-", text, flags=re.ASCII)[:NAME_LENGTH]
    return f"{text}_{variant_id[:8]}"


def choices_text(choices: Mapping[str, Any]) -> str:
    """Return hyper-parameters on one line: ``n_layers=2,lr=0.001``."""
    return ",".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in choices.items()
    )


def positions(pipeline: Iterable[str]) -> dict[str, int]:
    """Return the position of each stage of a pipeline."""
    return {stage: position for position, stage in enumerate(pipeline)}


def stages_linked(value: Any, order: Mapping[str, int], stage: str) -> list[str]:
    """Return the stages that a stage, or one way through its options, links to, in their order."""
    roots = {link.root for _, link in links(value)}
    return sorted((r for r in roots if r in order and r != stage), key=order.__getitem__)


def may_run(value: Any) -> bool:
    """Whether a stage has something to run, in one way through its options at least."""
    if isinstance(value, Grid):
        return any(may_run(element) for element in value.elements)
    if isinstance(value, Schema) and not value.target:
        return True
    return runs(value)


def runs(config: Any) -> bool:
    """Whether a stage's configuration has something to run."""
    if not isinstance(config, Schema):
        return False
    target = config.resolve()
    owner = target if inspect.isclass(target) else getattr(target, "__self__", None)
    return inspect.isclass(owner) and issubclass(owner, Component) and has_run(owner)


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

    pipeline: Mapping[str, Any]
    seed: int = 0
    resources: Mapping[str, Any] = field(default_factory=dict)
    inputs: Inputs = field(default_factory=Inputs)

    def __post_init__(self) -> None:
        self.names = short_names(self.pipeline)
        self.order = positions(self.pipeline)
        #: Stage → how many of its configurations are written once more.
        self.repeated: Counter[str] = Counter()

    def expand(self, stage: str, known: Mapping[str, Sequence[Variant]]) -> list[Variant]:
        """Return the variants of a stage: one for each identity, however often it is written.

        Parameters
        ----------
        stage
            Its name.
        known
            The variants of the stages before it, those that are not to be built upon left out.
        """
        joins: dict[tuple[str, ...], list[tuple[Variant, ...]]] = {}
        variants: dict[str, Variant] = {}
        configs = alternatives(self.pipeline[stage], (stage,), self.seed)
        self.repeated[stage] = _written(self.pipeline[stage]) - len(configs)
        for config, choices in configs:
            parents = tuple(stages_linked(config, self.order, stage))
            if parents not in joins:
                joins[parents] = list(_join(parents, known))
            for joined in joins[parents]:
                variant = self.variant(stage, config, choices, joined)
                variants.setdefault(variant.id, variant)
        return list(variants.values())

    def variant(self, stage: str, config: Any, own: Choices, joined: Sequence[Variant]) -> Variant:
        """Make the variant of a stage with a resolved configuration and direct ancestors."""
        ancestry: dict[str, str] = {}
        choices: dict[str, Any] = {}
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

    def suggest(self, base: Variant, values: Mapping[str, Any], repetition: int = 0) -> Variant:
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
        """Return a variant with the identity and the name that all else of it gives."""
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


def _context(seed: int, resources: Mapping[str, Any]) -> str:
    return f"{seed}:{canonical(resources)}"


def _substitute(value: Any, path: Path, values: Mapping[str, Any]) -> Any:
    if is_domain(value) and path_text(path) in values:
        return values[path_text(path)]
    return replace(value, lambda key, child: _substitute(child, (*path, key), values))


def _join(
    stages: Sequence[str], known: Mapping[str, Sequence[Variant]]
) -> Iterator[tuple[Variant, ...]]:
    """Yield each combination of variants of several stages that agree on shared ancestors."""
    # The latest stage first: what stands above it is mostly settled by its ancestry then.
    partial: list[tuple[dict[str, str], dict[str, Variant]]] = [({}, {})]
    for stage in reversed(stages):
        by_id = {variant.id: variant for variant in known.get(stage, ())}
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
        variant.id: position for stage in stages for position, variant in enumerate(known[stage])
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
        self.groups: dict[Any, dict[tuple[str, ...], list[Variant]]] = {}

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

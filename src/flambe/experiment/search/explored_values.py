"""The values that a population explores, in objects whose state was another member's.

The state of an optimizer holds its learning rate, and that of a component may hold its parameters:
loading it brings back the values that the state was saved with. They are replaced by the new ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from flambe.compile import Schema, signatures
from flambe.compile.component import Component
from flambe.compile.state import component_state
from flambe.compile.values import Key, Path, path_text, walk

Built = Mapping[Path, object]


def explore(
    built: Built,
    config: object,
    stage: str,
    before: Mapping[str, object],
    values: Mapping[str, object],
) -> None:
    """Set the values that a population explores, wherever loading a state has replaced them.

    Parameters
    ----------
    built
        Path → the object that was built there.
    config
        The configuration of the stage.
    stage
        Its name.
    before
        The values that the state was saved with: path as text → value.
    values
        The values from now on.
    """
    for path, _ in walk(config, (stage,)):
        text = path_text(path)
        if text not in values:
            continue
        owner_path, name = _owner(built, config, path)
        owner = built.get(owner_path)
        if owner is None or name is None:
            continue
        if groups := getattr(owner, "param_groups", None):
            factor = _factor(before.get(text), values[text])
            _set_groups(groups, name, values[text], factor)
            for scheduler in _schedulers(built, owner):
                if name == "lr" and factor is not None:
                    scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
                    scheduler._last_lr = [rate * factor for rate in scheduler._last_lr]
        elif hasattr(owner, name):
            with contextlib.suppress(AttributeError):  # a property that cannot be set
                setattr(owner, name, values[text])


def _owner(built: Built, config: object, path: Path) -> tuple[Path, str | None]:
    """Return the path of the object that a value is an argument of, and the name of that."""
    for length in range(len(path) - 1, 0, -1):
        blueprint = _at(config, path[1:length])
        if not isinstance(blueprint, Schema) or path[:length] not in built:
            continue
        if length < len(path) - 1:  # inside a list or a mapping: the object may have copied that
            return path[:length], None
        return path[:length], _parameter(blueprint, path[length])
    return (), None


def _at(value: Any, path: Path) -> object:
    for key in path:
        if isinstance(value, Schema):
            value = value.args[key] if isinstance(key, int) else value.kwargs[key]
        else:
            value = value[key]
    return value


def _parameter(blueprint: Schema, key: Key) -> str | None:
    """Return the name of a parameter that may be passed by its position."""
    if isinstance(key, str):
        return key
    signature = signatures.signature(blueprint.resolve())
    names = list(signature.parameters) if signature is not None else []
    return names[key] if key < len(names) else None


def _factor(before: object, value: object) -> float | None:
    """Return by what a number was multiplied: what a schedule has made of it is, too."""
    numbers = (before, value)
    if all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers) and before:
        return float(str(value)) / float(str(before))
    return None


def _set_groups(
    groups: list[dict[str, Any]], name: str, value: object, factor: float | None
) -> None:
    for group in groups:
        if name not in group:
            continue
        scaled = factor is not None and isinstance(group[name], int | float)
        group[name] = group[name] * factor if scaled else value
        if name == "lr" and factor is not None and "initial_lr" in group:
            group["initial_lr"] *= factor


def _schedulers(built: Built, optimizer: object) -> Iterator[Any]:
    """Yield the schedules of an optimizer's learning rate."""
    seen = set()
    roots = [value for value in built.values() if isinstance(value, Component)]
    parts = [part for root in roots for _, part in component_state.components(root)]
    for part in [*built.values(), *(held for p in parts for held in vars(p).values())]:
        if id(part) not in seen and getattr(part, "optimizer", None) is optimizer:
            seen.add(id(part))
            if hasattr(part, "base_lrs"):
                yield part

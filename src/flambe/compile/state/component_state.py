"""The state of a tree of components: collected, restored, compared.

A component's own state is its registered attributes, the parameters and buffers that are its own if
it is a ``torch.nn.Module``, and the ``state_dict`` of what it holds that has one and is not a
component (an optimizer, a plain module). Components that it holds have a state of their own; one
that is held twice is kept once, where it is found first.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, TypeGuard

from flambe.compile.state.digest import digest
from flambe.errors import StateError, listed

State = dict[str, dict[str, Any]]


class HasState(Protocol):
    """An optimizer, a module: what gives its state, and takes it back."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> object:
        """Take a state back."""


def has_state(value: object) -> TypeGuard[HasState]:
    """Whether an object gives its state, and takes it back; a class does not."""
    return (
        not inspect.isclass(value)
        and callable(getattr(value, "state_dict", None))
        and callable(getattr(value, "load_state_dict", None))
    )


class Stateful:
    """What components are to the code below: objects with a state, its version, and hooks."""

    #: Stored with the state and compared when it is loaded; ``"0.0.0"`` means not versioned.
    _flambe_version: ClassVar[str] = "0.0.0"
    #: Attributes that change while it runs, and that nothing depends on: caches, say.
    _transient: ClassVar[tuple[str, ...]] = ()

    def _state(self, values: dict[str, Any]) -> dict[str, Any]:
        """Change, before it is saved, the component's own state (a hook)."""
        return values

    def _load_state(self, values: dict[str, Any]) -> dict[str, Any]:
        """Change, before it is loaded, the component's own state (a hook)."""
        return values


def components(root: Stateful) -> Iterator[tuple[str, Stateful]]:
    """Yield ``(path, component)`` for a component and all below it, each once, parents first."""
    seen: set[int] = set()

    def visit(component: Stateful, path: str) -> Iterator[tuple[str, Stateful]]:
        if id(component) in seen:
            return
        seen.add(id(component))
        yield path, component
        for name, child in _held(component):
            yield from visit(child, f"{path}/{name}" if path else name)

    return visit(root, "")


def _attributes(component: object) -> Iterator[tuple[str, object]]:
    for name, value in list(vars(component).items()):
        if not name.startswith("_"):
            yield name, value
    # A torch.nn.Module keeps the modules assigned to it apart.
    yield from (vars(component).get("_modules") or {}).items()


def _held(component: object) -> Iterator[tuple[str, Stateful]]:
    for name, value in _attributes(component):
        if isinstance(value, Stateful):
            yield name, value
        elif isinstance(value, list | tuple | dict):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in pairs:
                if isinstance(item, Stateful) and "/" not in str(key):
                    yield f"{name}/{key}", item
        else:
            for below, item in _inside(value):
                yield f"{name}/{below}", item


def _inside(module: object, path: str = "") -> Iterator[tuple[str, Stateful]]:
    """Yield the outermost components in a module that is not one (a ``torch.nn.ModuleList``)."""
    if inspect.isclass(module) or not hasattr(module, "__dict__"):
        return
    for key, child in (vars(module).get("_modules") or {}).items():
        if isinstance(child, Stateful):
            yield f"{path}{key}", child
        else:
            yield from _inside(child, f"{path}{key}/")


def _components_in(holder: object, values: Mapping[str, object]) -> set[str]:
    """Return the entries of a module's state that belong to components inside of it."""
    starts = tuple(f"{path.replace('/', '.')}." for path, _ in _inside(holder))
    return {key for key in values if str(key).startswith(starts)} if starts else set()


def _holders(component: object) -> Iterator[tuple[str, HasState]]:
    """Yield what has a state_dict and is not a component."""
    for name, value in _attributes(component):
        if has_state(value) and not isinstance(value, Stateful):
            yield name, value


def _tensors(component: object) -> Iterator[tuple[str, Any]]:
    """Yield the parameters and buffers that are a module's own."""
    yield from (vars(component).get("_parameters") or {}).items()
    transient = vars(component).get("_non_persistent_buffers_set") or ()
    for name, value in (vars(component).get("_buffers") or {}).items():
        if name not in transient:
            yield name, value


def collect(root: Stateful) -> State:
    """Return the state of a tree; see :meth:`Component.get_state`."""
    return {path: component._state(own(component)) for path, component in components(root)}


def own(component: object) -> dict[str, object]:
    """Return the state that is a component's own, without those below it."""
    values: dict[str, object] = {}
    for name in vars(component).get("_flambe_attributes", ()):
        values[name] = getattr(component, name)
    for name, tensor in _tensors(component):
        if tensor is not None:
            values[name] = tensor.detach()
    for name, holder in _holders(component):
        held = holder.state_dict()
        theirs = _components_in(holder, held)
        # Modules give an OrderedDict, and take any mapping; what is not torch's gives anything.
        is_mapping = isinstance(held, Mapping)
        values[name] = {k: held[k] for k in held if k not in theirs} if is_mapping else held
    return values


def restore(root: Stateful, values: Mapping[str, Mapping[str, object]]) -> None:
    """Give a tree its state back; see :meth:`Component.load_state`."""
    tree = dict(components(root))
    problems = [f"no component at {path!r}" for path in values if path not in tree]
    problems += [f"no state for the component at {path!r}" for path in tree if path not in values]
    for path, component in tree.items():
        if path in values:
            own_state = component._load_state(dict(values[path]))
            problems += [f"{path or 'itself'}: {text}" for text in _set(component, own_state)]
    if problems:
        raise StateError(
            f"the state does not fit {type(root).__name__}: {listed(problems, 8)}\n"
            "  was the class or its configuration changed since it was saved?"
        )


def _set(component: object, values: dict[str, Any]) -> Iterator[str]:
    tensors, holders = dict(_tensors(component)), dict(_holders(component))
    plain = vars(component).get("_flambe_attributes", ())
    for name in sorted({*tensors, *holders, *plain} - set(values)):
        if name not in tensors or tensors[name] is not None:
            yield f"{name!r} is missing"
    for name, value in values.items():
        if name in tensors and tensors[name] is not None:
            tensor = tensors[name]
            shape = getattr(value, "shape", None)
            if shape is None:
                yield f"{name!r} is not a tensor"
            elif tensor.shape != shape:
                yield f"{name!r} has shape {tuple(shape)}, not {tuple(tensor.shape)}"
            else:
                try:
                    tensor.data.copy_(value)
                except (RuntimeError, TypeError) as error:  # of another layout, or no data
                    yield f"{name!r}: {error}"
        elif name in holders:
            try:
                now = holders[name].state_dict()
                theirs = _components_in(holders[name], now)
                if theirs:
                    value = {**value, **{key: now[key] for key in theirs}}  # noqa: PLW2901
                holders[name].load_state_dict(value)
            except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
                yield f"{name!r}: {error}"
        elif name in plain:
            setattr(component, name, value)
        else:
            yield f"{name!r} is not known"


#: Random number generators: equal if they continue with the same numbers.
_GENERATORS = ("Random", "Generator", "RandomState")


def same(first: object, second: object) -> bool:
    """Whether two states are equal: tensors, arrays and tables by value, NaN equal to NaN."""
    if first is second:
        return True
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    torch, numpy, pandas = (sys.modules.get(name) for name in ("torch", "numpy", "pandas"))
    if torch is not None and isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and bool(torch.equal(first.cpu(), second.cpu()))
    if numpy is not None and isinstance(first, numpy.ndarray):
        return (
            isinstance(second, numpy.ndarray)
            and first.dtype == second.dtype
            and first.shape == second.shape
            and first.tobytes() == second.tobytes()
        )
    if pandas is not None and isinstance(first, pandas.DataFrame | pandas.Series | pandas.Index):
        return bool(first.equals(second)) and type(second) is type(first)
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    if type(first) is type(second) and type(first).__name__ in _GENERATORS:
        return digest(first) == digest(second)  # of their states
    try:
        return bool(first == second)
    except Exception:  # raised by the object's own comparison
        return False

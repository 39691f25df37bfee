"""What a component forgot: attributes that change while it runs, and are in no state.

They are missing after a resume and in what is loaded, so they are reported where they can be fixed:
with the line of code that sets them, and the line that keeps them.
"""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType

from flambe.compile.state import component_state
from flambe.compile.state.component_state import Stateful
from flambe.compile.state.digest import digest
from flambe.compile.state.encoding import needs_pickle

MOST_COMPONENTS = 10_000  # of a tree that is watched
_LONGEST_TEXT = 40  # characters of a value
_OUR_OWN = "_flambe_"


@dataclass(frozen=True)
class Forgotten:
    """An attribute that is in no state.

    Attributes
    ----------
    path
        Where its component is in the tree.
    key
        Its class and its name: one of many components of a class stands for all.
    name
        Its name.
    text
        The warning.
    """

    path: str
    key: str
    name: str
    text: str


class Watch:
    """Remembers what the components of a tree hold, to report later what changed.

    Parameters
    ----------
    root
        The tree, as it is before it runs.
    """

    def __init__(self, root: Stateful) -> None:
        self.root = root
        tree = dict(itertools.islice(component_state.components(root), MOST_COMPONENTS))
        self._ids = {id(component) for component in tree.values()}
        # The components are kept: no object that is made later has the id of one.
        self._before = {id(c): (c, _Held(c, self._ids)) for c in tree.values()}

    def forgotten(self, values: component_state.State) -> Iterator[Forgotten]:
        """Yield what changed since and is in no state, each attribute of a class once.

        Parameters
        ----------
        values
            The state of the tree now.
        """
        seen: set[str] = set()
        for path, component in component_state.components(self.root):
            if id(component) not in self._before or path not in values:
                continue  # what holds it is named
            _, before = self._before[id(component)]
            for name, text in _lost(component, before, _Held(component, self._ids), values[path]):
                cls = type(component)
                key = f"{cls.__module__}.{cls.__qualname__}.{name}"
                if key not in seen:
                    seen.add(key)
                    yield Forgotten(path, key, name, text)


class _Held:
    """What a component held at a time: names, digests, and plain values as text."""

    def __init__(self, component: Stateful, tree: set[int]) -> None:
        self.digests: dict[str, bytes] = {}
        self.texts: dict[str, str] = {}
        skipped = _never_named(component)
        for name, value in {
            **vars(component),
            **dict(component_state._attributes(component)),
        }.items():
            if name in skipped or name.startswith(_OUR_OWN):
                continue
            self.digests[name] = digest(value, tree)
            if value is None or type(value) in (bool, int, float, str):
                text = repr(value)
                self.texts[name] = (
                    text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"
                )
        self.holders = {name for name, _ in component_state._holders(component)}
        self.tensors = {name for name, _ in component_state._tensors(component)}
        #: The components that an attribute holds itself, not in a list or mapping.
        self.components = {
            name: id(value)
            for name, value in component_state._attributes(component)
            if isinstance(value, Stateful)
        }


def _never_named(component: Stateful) -> set[str]:
    """Return what is not state, because its class says so or because a framework keeps it."""
    cls: type = type(component)
    names = {
        "training",
        *(vars(component).get("_flambe_attributes") or ()),
        *(vars(component).get("_flambe_pickled") or ()),
        *_transient(cls),
        *_mentioned(cls),
    }
    if "_parameters" in vars(component):
        names |= _of_module()
    return names


@functools.cache
def _of_module() -> frozenset[str]:
    return frozenset(vars(sys.modules["torch"].nn.Module()))


@functools.cache
def _transient(cls: type) -> frozenset[str]:
    names: set[str] = set()
    for base in cls.__mro__:
        declared = base.__dict__.get("_transient", ())
        names.update([declared] if isinstance(declared, str) else declared)
        # What it computes once, from the rest.
        cached = (k for k, v in base.__dict__.items() if isinstance(v, functools.cached_property))
        names.update(cached)
    return frozenset(names)


@functools.cache
def _mentioned(cls: type) -> frozenset[str]:
    """Return the names that the ``_state`` hooks of a class read: they save them under any name."""
    names: set[str] = set()
    for base in cls.__mro__:
        hook = base.__dict__.get("_state")
        if base is not Stateful and hook is not None:
            for code in _codes(inspect.unwrap(hook)):
                names.update(_read_of_self(code))
    return frozenset(names)


def _read_of_self(code: CodeType) -> Iterator[str]:
    own = {"self", *code.co_varnames[:1]}
    before: object = None
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and (
            before in own or (isinstance(before, tuple) and before[-1] in own)
        ):
            yield str(instruction.argval)
        before = instruction.argval


def _codes(function: object) -> Iterator[CodeType]:
    """Yield the code of a function and of those within it."""
    ahead = [getattr(function, "__code__", None)]
    while ahead:
        code = ahead.pop()
        if isinstance(code, CodeType):
            yield code
            ahead += code.co_consts


def _lost(
    component: Stateful, before: _Held, now: _Held, saved: Mapping[str, object]
) -> Iterator[tuple[str, str]]:
    """Yield the names of attributes that are lost, each with its warning."""
    cls: type = type(component)
    new = (now.holders - before.holders) | (now.tensors - before.tensors)
    new |= {name for name, i in now.components.items() if before.components.get(name) != i}
    for name in sorted(new & (set(saved) | set(now.components))):
        yield name, _made_late(cls, name)
    for name, summary in now.digests.items():
        if name in new or name in saved or name in now.components:
            continue
        if before.digests.get(name) == summary:
            continue
        assignment = _assignment(cls, name)
        if name.startswith("_") and not assignment:
            continue  # a library's own: no code of the component sets it
        change = _Change(before.texts.get(name), now.texts.get(name), name in before.digests)
        yield name, _text(cls, name, vars(component).get(name), change, assignment)


@dataclass(frozen=True)
class _Change:
    """Plain values of an attribute, as text, and whether it was there before."""

    before: str | None
    now: str | None
    existed: bool


def _text(cls: type, name: str, value: object, change: _Change, assignment: str) -> str:
    was = change.before
    values = f" ({was} → {change.now})" if was is not None and change.now is not None else ""
    again = f"{was} again" if was is not None else "as it was built"
    after = again if change.existed else "missing"
    verb = "changed" if change.existed else "was set"
    lines = [
        f"{cls.__name__}.{name} {verb} during the run{values} but is not saved: after a resume, "
        f"in later stages and when it is loaded it is {after}",
        f"  at {assignment or _class_position(cls)}",
        *_advice(name, value),
        f'  if nothing depends on it:  _transient = ("{name}",)   in the class',
    ]
    return "\n".join(lines)


def _advice(name: str, value: object) -> list[str]:
    if callable(getattr(value, "state_dict", None)):
        return ["  to keep it:  give it a name without the underscore, so that its state is saved"]
    if isinstance(value, Stateful):
        return ["  to keep it:  give it a name without the underscore, so that its state is saved"]
    kind = needs_pickle(value)
    if kind is None:
        return [f'  to keep it:  self.register_attrs("{name}")   in __init__']
    if kind in ("Component", "state_dict"):
        return ["  to keep it:  hold each in an attribute, a list or a mapping of its own"]
    if inspect.isroutine(value) or hasattr(value, "__next__"):
        return [f"  to keep it:  save what it is made from; a {kind} itself cannot be saved"]
    return [
        f'  to keep it:  self.register_attrs("{name}", pickle=True)   in __init__: a {kind} '
        "needs pickle"
    ]


def _made_late(cls: type, name: str) -> str:
    return (
        f"{cls.__name__}.{name} was created during the run: it is missing when the component is "
        "built again, so it can be neither resumed, nor loaded, nor used by later stages\n"
        f"  at {_assignment(cls, name) or _class_position(cls)}\n"
        f"  make self.{name} in __init__"
    )


# -- where it is in the source ------------------------------------------------------------------


@functools.cache
def _assignment(cls: type, name: str) -> str:
    """Return where a component's own code sets an attribute, rather not in its constructor."""
    assignments: list[tuple[bool, str]] = []
    for base in cls.__mro__:
        if not issubclass(base, Stateful) or base is Stateful:
            continue
        for key, function in base.__dict__.items():
            for code in _codes(inspect.unwrap(function) if callable(function) else None):
                for stored, line in _stored(code):
                    if stored == name:
                        where = f"{_short_path(code.co_filename)}:{line}, in {code.co_name}"
                        assignments.append((key == "__init__", where))
    return min(assignments, key=lambda assignment: assignment[0])[1] if assignments else ""


def names_set_by(function: Callable[..., object]) -> list[str]:
    """Return the attributes that the code of a function sets."""
    return [name for code in _codes(inspect.unwrap(function)) for name, _ in _stored(code)]


def _stored(code: CodeType) -> Iterator[tuple[str, int | None]]:
    """Yield the names of the attributes that a code sets, each with its line."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "STORE_ATTR":
            lines = (ln for a, b, ln in code.co_lines() if a <= instruction.offset < b)
            yield str(instruction.argval), next(lines, None)


@functools.cache
def _class_position(cls: type) -> str:
    try:
        _, line = inspect.getsourcelines(cls)
        return f"{_short_path(inspect.getsourcefile(cls) or '')}:{line}, class {cls.__name__}"
    except (OSError, TypeError):
        return f"{cls.__module__}.{cls.__qualname__}"


def _short_path(file: str) -> str:
    return file.rpartition("/site-packages/")[2]

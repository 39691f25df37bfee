"""Arguments of constructors that change nothing: with a default, and used by no code.

A class that gets an argument for later use computes what it did before. The argument may be stored
(``self.x = x``) as long as no code reads it: neither ``.x``, nor ``"x"``, nor anything that reads
attributes without naming them. A base class outside of the code that is read may do so.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Mapping, Sequence

from flambe.experiment.variants.definitions import DefinitionName

# Read arguments or attributes without naming them.
_READS_ALL = {
    "locals",
    "vars",
    "eval",
    "exec",
    "getattr",
    "inspect",
    "__dict__",
    "asdict",
    "fields",
}
# Classes outside that read no attributes of classes below them.
_NEUTRAL = {"Component", "Module", "object", "ABC", "Generic", "Protocol", "Exception"}

_Parts = Mapping[DefinitionName, Sequence[object]]


def without_unused_arguments(parts: _Parts) -> dict[DefinitionName, Sequence[object]]:
    """Return definitions without the arguments of their constructors that change nothing.

    Parameters
    ----------
    parts
        The parts of all definitions that are used together.
    """
    nodes = [node for part in parts.values() for node in part if isinstance(node, ast.stmt)]
    if not any(_candidates(node) for node in nodes):
        return dict(parts)
    usage = _Usage(nodes)
    return {
        name: [usage.reduce(node) if isinstance(node, ast.ClassDef) else node for node in part]
        for name, part in parts.items()
    }


class _Usage:
    """Which names some definitions use, and how often."""

    def __init__(self, nodes: Sequence[ast.stmt]) -> None:
        self.names: Counter[str] = Counter()
        classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)} | _NEUTRAL
        #: Whether attributes may be read by what is not named here.
        self.reads_all = False
        for part in (part for node in nodes for part in ast.walk(node)):
            if isinstance(part, ast.Attribute):
                self.names[part.attr] += 1
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                self.names[part.value] += 1
            elif isinstance(part, ast.keyword) and part.arg:
                self.names[part.arg] += 1
            elif isinstance(part, ast.ClassDef):
                self.reads_all |= not all(_name(base) in classes for base in part.bases)
            if _name(part) in _READS_ALL:
                self.reads_all = True

    def reduce(self, node: ast.ClassDef) -> ast.ClassDef:
        """Return a class without the arguments of its constructor that change nothing."""
        removed = self._unused(node)
        if not removed:
            return node
        node = copy.deepcopy(node)
        constructor = _constructor(node)
        assert constructor is not None
        arguments = constructor.args
        while arguments.args and arguments.args[-1].arg in removed:
            arguments.args.pop()
            arguments.defaults.pop()
        kept = [
            (argument, default)
            for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            if argument.arg not in removed
        ]
        arguments.kwonlyargs = [argument for argument, _ in kept]
        arguments.kw_defaults = [default for _, default in kept]
        constructor.body = [s for s in constructor.body if _stored(s) not in removed]
        return node

    def _unused(self, node: ast.ClassDef) -> set[str]:
        constructor = _constructor(node)
        if constructor is None:
            return set()
        used = Counter(
            part.id
            for statement in constructor.body
            for part in ast.walk(statement)
            if isinstance(part, ast.Name)
        )
        stored = Counter(filter(None, map(_stored, constructor.body)))
        if used.keys() & _READS_ALL:
            return set()
        unused = set()
        for name in _candidates(node):
            # Classes outside may read what is stored; of torch.nn.Module, "training".
            is_read = stored[name] and (self.reads_all or name == "training")
            is_used = not used[name] == stored[name] == self.names[name] <= 1
            if not is_read and not is_used:
                unused.add(name)
        # Of the arguments by position only the last ones: others would move.
        by_position = [argument.arg for argument in constructor.args.args]
        while by_position and by_position[-1] in unused:
            by_position.pop()
        return unused - set(by_position)


def _candidates(node: ast.stmt) -> list[str]:
    """Return the arguments of the constructor of a class that have a default."""
    constructor = _constructor(node)
    if constructor is None:
        return []
    arguments = constructor.args
    count = len(arguments.defaults)
    by_position = arguments.args[-count:] if count else []
    by_name = [
        argument
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is not None
    ]
    return [argument.arg for argument in [*by_position, *by_name]]


def _constructor(node: ast.stmt) -> ast.FunctionDef | None:
    if not isinstance(node, ast.ClassDef):
        return None
    functions = [s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"]
    # A decorator sees all arguments.
    return functions[0] if len(functions) == 1 and not functions[0].decorator_list else None


def _stored(statement: ast.stmt) -> str:
    """Return the name that ``self.name = name`` stores; empty if it is another statement."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        [target], value = statement.targets, statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        target, value = statement.target, statement.value
    else:
        return ""
    is_own = (
        isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and target.value.id == "self"
        and isinstance(value, ast.Name)
        and value.id == target.attr
    )
    return target.attr if is_own and isinstance(target, ast.Attribute) else ""


def _name(node: ast.AST) -> str:
    """Return the last name of ``name`` and ``module.name``; of ``name[T]``, of its first part."""
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""

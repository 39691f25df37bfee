"""The definitions of a module, by name: what each says, and which others it uses.

Two definitions are the same where their programs are: comments, docstrings and formatting do not
count.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flambe._source import parse
from flambe.compile.persistence import UNVERSIONED

# Fields of nodes that do not change what a program does.
_SILENT = {"ctx", "kind", "type_comment"}
DefinitionName = tuple[str, str]  # module, name


@dataclass
class Definition:
    """What defines a name.

    Attributes
    ----------
    parts
        What its statements say, as JSON; or the statements, where they are code.
    used
        The definitions that it uses, in this module or another one.
    """

    parts: list[object] = field(default_factory=list)
    used: set[DefinitionName] = field(default_factory=set)


class ModuleSource:
    """The definitions of one module, by name."""

    def __init__(self, name: str, file: Path, text: bytes) -> None:
        self.name, self.lines = name, text.decode("utf-8", "replace").splitlines()
        tree = parse(text)
        self.package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        self.nodes: dict[str, list[ast.stmt]] = {}
        self.stars: list[str] = []
        self._definitions: dict[str, Definition] = {}
        self._shapes: dict[ast.stmt, object] = {}
        for node in _statements(tree.body):
            for defined in self._names(node):
                self.nodes.setdefault(defined, []).append(node)

    def _names(self, node: ast.stmt) -> Iterator[str]:
        """Yield the names that a statement defines, or changes."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            if node.names[0].name == "*":
                self.stars.append(self._source(node))
            for alias in node.names:
                yield alias.asname or alias.name
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                # Of ``Net.depth = 3`` it is the class.
                yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))

    def definition(self, name: str) -> Definition:
        """Return the definition of a name: empty, with what may have it, if it is not here.

        An import counts for what it imports, which is used.
        """
        if name not in self._definitions:
            self._definitions[name] = self._define(name)
        return self._definitions[name]

    def _define(self, name: str) -> Definition:
        if name not in self.nodes:
            return Definition(used={(star, name) for star in self.stars})
        definition = Definition()
        for node in self.nodes[name]:
            if isinstance(node, ast.Import | ast.ImportFrom):
                target = self._imported(node, name)
                definition.parts.append(list(target))
                definition.used.add(target)
            elif isinstance(node, ast.ClassDef) and (version := _version(node)):
                definition.parts.append(["version", node.name, version])
            else:
                definition.parts.append(node)
                definition.used |= set(self._used(node))
        return definition

    def shape(self, part: object) -> object:
        """Return a part of a definition as JSON; if it is nested very deeply, its text."""
        if not isinstance(part, ast.stmt):
            return part
        if part not in self._shapes:
            try:
                self._shapes[part] = shape(part)
            except RecursionError:
                self._shapes[part] = self.lines[part.lineno - 1 : part.end_lineno]
        return self._shapes[part]

    def _source(self, node: ast.ImportFrom) -> str:
        relative = "." * node.level + (node.module or "")
        return importlib.util.resolve_name(relative, self.package) if node.level else relative

    def _imported(self, node: ast.Import | ast.ImportFrom, name: str) -> DefinitionName:
        """Return the module and the name in it that a name stands for; no name for a module."""
        for alias in node.names:
            if (alias.asname or alias.name.partition(".")[0]) != name:
                continue
            if isinstance(node, ast.ImportFrom):
                return self._source(node), alias.name
            return (alias.name if alias.asname else name), ""
        return "", ""

    def _used(self, node: ast.AST) -> Iterator[DefinitionName]:
        """Yield the names of this module, and of modules that it imports, that a node uses."""
        imports: dict[str, list[ast.stmt]] = {}  # within a function
        for part in ast.walk(node):
            if isinstance(part, ast.Import | ast.ImportFrom):
                for name in self._names(part):
                    imports.setdefault(name, []).append(part)
                    yield self._imported(part, name)
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and part.id in self.nodes:
                yield self.name, part.id
            elif isinstance(part, ast.Name) and self.stars:
                yield from ((star, part.id) for star in self.stars)
            elif isinstance(part, ast.Attribute):
                yield from self._through_modules(part, imports)

    def _through_modules(
        self, node: ast.Attribute, imports: Mapping[str, list[ast.stmt]]
    ) -> Iterator[DefinitionName]:
        """Yield what ``module.name`` and ``package.module.name`` stand for."""
        names: list[str] = []
        base: ast.expr = node
        while isinstance(base, ast.Attribute):
            names.insert(0, base.attr)
            base = base.value
        if not isinstance(base, ast.Name):
            return
        for imported in [*self.nodes.get(base.id, ()), *imports.get(base.id, ())]:
            if isinstance(imported, ast.Import | ast.ImportFrom):
                module, name = self._imported(imported, base.id)
                path = [part for part in (module, name) if part]
                for length in range(len(names)):
                    yield ".".join([*path, *names[:length]]), names[length]


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, those below conditions and the like one by one."""
    for node in body:
        blocks = [block for _, block in ast.iter_fields(node) if isinstance(block, list) and block]
        inner = [block for block in blocks if isinstance(block[0], ast.stmt)]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or not inner:
            yield node
            continue
        for block in inner:
            yield from _statements(block)
        for handler in getattr(node, "handlers", ()):
            yield from _statements(handler.body)


def _version(node: ast.ClassDef) -> str:
    """Return the ``_flambe_version`` that a class sets; empty if it sets none."""
    for statement in node.body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        value = getattr(statement, "value", None)
        if "_flambe_version" in names and isinstance(value, ast.Constant):
            return "" if value.value == UNVERSIONED else str(value.value)
    return ""


def shape(node: object) -> object:
    """Return a node as lists: the same on every version of Python, for the same program."""
    if isinstance(node, ast.AST):
        fields = [
            [name, shape(value)]
            for name, value in ast.iter_fields(node)
            if name not in _SILENT and value is not None and value != []
        ]
        return [type(node).__name__, fields]
    if isinstance(node, list):
        return [shape(element) for element in _without_docstring(node)]
    return [type(node).__name__, repr(node)]


def _without_docstring(body: list[object]) -> list[object]:
    """Return a list of nodes without strings that are statements of their own."""
    return [
        node
        for node in body
        if not (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        )
    ]

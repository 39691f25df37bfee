"""The code that a component runs, as a hash: of its class, and of all that its class uses.

The source is read, nothing is run. From the definition of a class, the names that it uses are
followed through the modules of extensions and of the user: its bases, the functions and constants
that it uses, what these use in turn. Comments, docstrings and formatting do not count, nor does
code of those modules that is not used. A class that sets ``_flambe_version`` is described by
that version alone.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import inspect
import json
import os
import site
import sys
import sysconfig
import textwrap
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from flambe.compile import Schema
from flambe.compile.persistence import UNVERSIONED
from flambe.compile.registry import CLASSES
from flambe.compile.values import walk

LENGTH = 16  # hexadecimal digits
# Fields of nodes that do not change what a program does.
_SILENT = {"ctx", "kind", "type_comment"}
# Folders that packages are installed to, of whatever Python: those of a cluster are not its own.
_PACKAGES = {"site-packages", "dist-packages"}
_Definition = tuple[str, str]  # module, name


def fingerprints(
    pipeline: Mapping[str, object], extensions: Collection[str] = ()
) -> dict[str, str]:
    """Return the hash of the code of each class that a pipeline names.

    Parameters
    ----------
    pipeline
        Stage → blueprint.
    extensions
        Modules that count, wherever they are installed. Beside these, all count that are neither
        flambe's own, nor Python's, nor installed.

    Returns
    -------
    dict
        Target of a blueprint → hash. What has no source is left out.
    """
    sources = Sources(extensions)
    hashes: dict[str, str] = {}
    for _, schema in walk(dict(pipeline)):
        if not isinstance(schema, Schema) or not schema.target or schema.target in hashes:
            continue
        if fingerprint := sources.fingerprint(schema.target):
            hashes[schema.target] = fingerprint
    return hashes


def script_hash(path: Path) -> str:
    """Return the hash of what a Python file does; if it is not valid Python, of its text.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    text = path.read_bytes()
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        text = json.dumps(_shape(ast.parse(text))).encode()
    return hashlib.sha256(text).hexdigest()[:LENGTH]


class Sources:
    """The definitions in the modules of extensions and of the user.

    Parameters
    ----------
    extensions
        See :func:`fingerprints`.
    """

    def __init__(self, extensions: Collection[str] = ()) -> None:
        self.extensions = set(extensions)
        self._modules: dict[str, _Module | None] = {}

    def fingerprint(self, target: str) -> str:
        """Return the hash of what a target (``"package.module:Class.factory"``) runs.

        Empty if there is no source of it, or its module does not count.
        """
        module, _, path = target.partition(":")
        start = (module, path.partition(".")[0])
        definitions = dict(self._reached(start))
        if start not in definitions:
            return self._without_file(module, target)
        text = json.dumps(sorted([*name, shape] for name, shape in definitions.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]

    def _without_file(self, module: str, target: str) -> str:
        """Return the hash of the methods of a class that is not in a file: in a notebook, say."""
        if getattr(sys.modules.get(module), "__file__", None) or module not in sys.modules:
            return ""
        shapes: list[list[object]] = []
        with contextlib.suppress(OSError, TypeError, SyntaxError, ValueError, RecursionError):
            imported = CLASSES.import_target(target)
            # The factory of a class counts as the class.
            owner = imported if inspect.isclass(imported) else getattr(imported, "__self__", None)
            for name, member in sorted(vars(owner).items()):
                function = inspect.unwrap(getattr(member, "__func__", member))
                if inspect.isfunction(function):  # Python finds classes in files only
                    text = textwrap.dedent(inspect.getsource(function))
                    shapes.append([name, _shape(ast.parse(text))])
        return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:LENGTH] if shapes else ""

    def _reached(self, start: _Definition) -> Iterator[tuple[_Definition, object]]:
        """Yield each definition that one uses, itself included, with what it says."""
        seen, ahead = {start}, [start]
        while ahead:
            name = ahead.pop()
            module = self._module(name[0])
            if module is None:
                continue
            shape, used = module.definition(name[1])
            if shape:
                yield name, shape
            for other in used:
                if other not in seen:
                    seen.add(other)
                    ahead.append(other)

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            self._modules[name] = self._parsed(name)
        return self._modules[name]

    def _parsed(self, name: str) -> _Module | None:
        file = self._file(name)
        if file is None:
            return None
        with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError):
            return _Module(name, file, file.read_bytes())
        return None

    def _file(self, name: str) -> Path | None:
        """Return the source of a module that counts; nothing is imported to find it."""
        module = sys.modules.get(name)
        origin = getattr(module, "__file__", None)
        if module is not None:
            file = Path(origin).resolve() if isinstance(origin, str) else None
        else:
            file = _find_source(name)
        if file is None or file.suffix != ".py" or not self._counts(name, file):
            return None
        return file

    def _counts(self, name: str, file: Path) -> bool:
        top = name.partition(".")[0]
        if top in self.extensions or name in self.extensions:
            return True
        installed = _PACKAGES.intersection(file.parts) or any(
            file.is_relative_to(folder) for folder in _installed()
        )
        return top not in {"flambe", *sys.stdlib_module_names} and not installed


class _Module:
    """The definitions of one module, by name."""

    def __init__(self, name: str, file: Path, text: bytes) -> None:
        self.name, self.lines = name, text.decode("utf-8", "replace").splitlines()
        tree = ast.parse(text)
        self.package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        self.nodes: dict[str, list[ast.stmt]] = {}
        self.stars: list[str] = []
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

    def definition(self, name: str) -> tuple[object, set[_Definition]]:
        """Return what the definition of a name says, and the definitions that it uses.

        An import counts for what it imports, which is used.
        """
        if name not in self.nodes:
            return None, {(star, name) for star in self.stars}
        shapes: list[object] = []
        used: set[_Definition] = set()
        for node in self.nodes[name]:
            if isinstance(node, ast.Import | ast.ImportFrom):
                target = self._imported(node, name)
                shapes.append(list(target))
                used.add(target)
            elif isinstance(node, ast.ClassDef) and (version := _version(node)):
                shapes.append(["version", node.name, version])
            else:
                shapes.append(self._shape(node))
                used |= set(self._used(node))
        return shapes, used

    def _shape(self, node: ast.stmt) -> object:
        """Return the shape of a definition; if it is nested very deeply, its text."""
        try:
            return _shape(node)
        except RecursionError:
            return self.lines[node.lineno - 1 : node.end_lineno]

    def _source(self, node: ast.ImportFrom) -> str:
        relative = "." * node.level + (node.module or "")
        return importlib.util.resolve_name(relative, self.package) if node.level else relative

    def _imported(self, node: ast.Import | ast.ImportFrom, name: str) -> _Definition:
        """Return the module and the name in it that a name stands for; no name for a module."""
        for alias in node.names:
            if (alias.asname or alias.name.partition(".")[0]) != name:
                continue
            if isinstance(node, ast.ImportFrom):
                return self._source(node), alias.name
            return (alias.name if alias.asname else name), ""
        return "", ""

    def _used(self, node: ast.AST) -> Iterator[_Definition]:
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
    ) -> Iterator[_Definition]:
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


def _shape(node: object) -> object:
    """Return a node as lists: the same on every version of Python, for the same program."""
    if isinstance(node, ast.AST):
        fields = [
            [name, _shape(value)]
            for name, value in ast.iter_fields(node)
            if name not in _SILENT and value is not None and value != []
        ]
        return [type(node).__name__, fields]
    if isinstance(node, list):
        return [_shape(element) for element in _without_docstring(node)]
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


def _find_source(name: str) -> Path | None:
    """Return the file of a module that is not imported, as the path of Python leads to it."""
    top, *below = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    bases = [Path(path).joinpath(*below) for path in spec.submodule_search_locations or ()]
    files = [base / "__init__.py" for base in bases]
    files += [base.with_suffix(".py") for base in bases] if below else []
    if not below and spec.has_location and spec.origin:
        files.append(Path(spec.origin))
    return next((file.resolve() for file in files if file.is_file()), None)


@functools.cache
def _installed() -> set[Path]:
    """Return the folders that packages are installed to."""
    named = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders = [*named, *site.getsitepackages(), site.getusersitepackages()]
    return {Path(os.path.realpath(folder)) for folder in folders if folder}

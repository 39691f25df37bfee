"""The code that a component runs, as a hash: of its class, and of all that its class uses.

The source is read, nothing is run. From the definition of a class, the names that it uses are
followed through the modules of extensions and of the user: its bases, the functions and constants
that it uses, what these use in turn. Comments, docstrings and formatting do not count, nor does
code of those modules that is not used. A class that sets ``_flambe_version`` is described by
that version alone.
"""

from __future__ import annotations

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
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from flambe._source import parse, source_of
from flambe.compile import Schema
from flambe.compile.registry import CLASSES
from flambe.compile.values import walk
from flambe.experiment.variants.definitions import (
    Definition,
    DefinitionName,
    ModuleSource,
    shape,
)
from flambe.experiment.variants.unused_arguments import without_unused_arguments

LENGTH = 16  # hexadecimal digits
# Folders that packages are installed to, of whatever Python: those of a cluster are not its own.
_PACKAGES = {"site-packages", "dist-packages"}


def _start(target: str) -> DefinitionName:
    module, _, path = target.partition(":")
    return module, path.partition(".")[0]


def script_hash(path: Path) -> str:
    """Return the hash of what a Python file does; if it is not valid Python, of its text.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    text = path.read_bytes()
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        text = json.dumps(shape(parse(text))).encode()
    return hashlib.sha256(text).hexdigest()[:LENGTH]


class Sources:
    """The definitions in the modules of extensions and of the user.

    Parameters
    ----------
    extensions
        Modules that count, wherever they are installed. Beside these, all count that are neither
        flambe's own, nor Python's, nor installed.
    """

    def __init__(self, extensions: Collection[str] = ()) -> None:
        self.extensions = set(extensions)
        self._modules: dict[str, ModuleSource | None] = {}
        #: Target → what it uses, and the top-level modules of that.
        self._reached: dict[str, dict[DefinitionName, Definition]] = {}
        self._imports: dict[str, set[str]] = {}

    def of_pipeline(
        self, pipeline: Mapping[str, object], *, versions_only: bool = False
    ) -> dict[str, str]:
        """Return the hash of the code of each class that a pipeline names.

        Parameters
        ----------
        pipeline
            Stage → blueprint.
        versions_only
            Whether only classes count that set ``_flambe_version``.

        Returns
        -------
        dict
            Target of a blueprint → hash. What has no source is left out.
        """
        hashes: dict[str, str] = {}
        for _, schema in walk(dict(pipeline)):
            if not isinstance(schema, Schema) or not schema.target or schema.target in hashes:
                continue
            if versions_only and not self._has_version(schema.target):
                continue
            if fingerprint := self.fingerprint(schema.target):
                hashes[schema.target] = fingerprint
        return hashes

    def former_hashes(self, targets: Collection[str]) -> dict[str, str]:
        """Return the hashes that versions of flambe computed that counted unused arguments."""
        hashes = {target: self.fingerprint(target, unused=True) for target in targets}
        return {
            target: former
            for target, former in hashes.items()
            if former != self.fingerprint(target)
        }

    def fingerprint(self, target: str, *, unused: bool = False) -> str:
        """Return the hash of what a target (``"package.module:Class.factory"``) runs.

        Empty if there is no source of it, or its module does not count. Arguments of constructors
        that have a default and that nothing uses count only if ``unused`` is set.
        """
        module = target.partition(":")[0]
        definitions = self._definitions(target)
        if _start(target) not in definitions:
            return self._without_file(module, target)
        parts: dict[DefinitionName, Sequence[object]] = {
            name: definition.parts for name, definition in definitions.items()
        }
        if not unused:
            parts = without_unused_arguments(parts)
        shapes = {
            name: [self._modules_of(name).shape(part) for part in parts[name]] for name in parts
        }
        text = json.dumps(sorted([*name, content] for name, content in shapes.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]

    def imports(self, target: str) -> set[str]:
        """Return the top-level modules that the code of a target uses, its own included."""
        self._definitions(target)
        return self._imports[target]

    def counts(self, module: str) -> bool:
        """Whether the source of a top-level module counts."""
        return self._file(module) is not None

    def _has_version(self, target: str) -> bool:
        definition = self._definitions(target).get(_start(target))
        return definition is not None and any(
            isinstance(part, list) and part[:1] == ["version"] for part in definition.parts
        )

    def _modules_of(self, name: DefinitionName) -> ModuleSource:
        module = self._module(name[0])
        assert module is not None
        return module

    def _definitions(self, target: str) -> dict[DefinitionName, Definition]:
        """Return each definition that a target uses, itself included."""
        if target not in self._reached:
            self._imports[target] = set()
            self._reached[target] = dict(self._reach(target))
        return self._reached[target]

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
                    text = textwrap.dedent(source_of(function))
                    shapes.append([name, shape(parse(text))])
        return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:LENGTH] if shapes else ""

    def _reach(self, target: str) -> Iterator[tuple[DefinitionName, Definition]]:
        start = _start(target)
        seen, ahead = {start}, [start]
        while ahead:
            name = ahead.pop()
            module = self._module(name[0])
            self._imports[target].add(name[0].partition(".")[0])
            if module is None:
                continue
            definition = module.definition(name[1])
            if definition.parts:
                yield name, definition
            for other in definition.used:
                if other not in seen:
                    seen.add(other)
                    ahead.append(other)

    def _module(self, name: str) -> ModuleSource | None:
        if name not in self._modules:
            self._modules[name] = self._parsed(name)
        return self._modules[name]

    def _parsed(self, name: str) -> ModuleSource | None:
        file = self._file(name)
        if file is None:
            return None
        with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError):
            return ModuleSource(name, file, file.read_bytes())
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

"""What results depend on besides their configuration: code, and the content of data, as hashes."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

from flambe.compile import Component, Schema
from flambe.compile.component import component_class
from flambe.compile.registry import CLASSES, extensions
from flambe.compile.values import ClusterResource, Grid, Link, children, links, walk
from flambe.errors import ResourceError
from flambe.experiment.spec import ExperimentSpec
from flambe.experiment.variants.fingerprint import Sources, script_hash
from flambe.experiment.variants.packages import packages_of
from flambe.packaging.contents import Notify, content_hash, ignore, listing_hash

#: What ``fingerprint`` of an experiment may be: what of the code is part of an identity.
FINGERPRINTS = ("source", "version", "off")


@dataclass(frozen=True)
class ConfigFacts:
    """What is in a configuration.

    Attributes
    ----------
    components
        Tag → target of each component in it.
    roots
        What it links to: stages and resources.
    files
        Name → path of the files that its components read.
    """

    components: Mapping[str, str] = field(default_factory=dict)
    roots: frozenset[str] = frozenset()
    files: Mapping[str, str] = field(default_factory=dict)


class FactReader:
    """Reads what is in the configurations of one stage; what variants share is read once.

    Parameters
    ----------
    blueprint
        The stage as it is written, with its options.
    """

    def __init__(self, blueprint: object) -> None:
        self._blueprint = blueprint  # keeps the objects alive whose id() is remembered
        self._kept = {id(child) for _, child in walk(blueprint)}
        self._facts: dict[int, ConfigFacts] = {}

    def read(self, config: object) -> ConfigFacts:
        """Return what is in a configuration."""
        if isinstance(config, Link):
            return ConfigFacts(roots=frozenset((config.root,)))
        if not isinstance(config, Schema | Mapping | Grid | list | tuple):
            return _NO_FACTS
        key = id(config)
        if key in self._facts:
            return self._facts[key]
        facts = self._merge(config)
        if key in self._kept:
            self._facts[key] = facts
        return facts

    def _merge(self, config: object) -> ConfigFacts:
        components: dict[str, str] = {}
        roots: set[str] = set()
        files: dict[str, str] = {}
        if isinstance(config, Schema) and config.target:
            components[config.tag] = config.target
            files = {_name_of_file(path, config): path for path in _input_files(config)}
        for _, child in children(config):
            below = self.read(child)
            if below is not _NO_FACTS:
                components.update(below.components)
                roots |= below.roots
                files.update(below.files)
        return ConfigFacts(components, frozenset(roots), files)


_NO_FACTS = ConfigFacts()


@dataclass
class Inputs:
    """The code that blueprints run, and the content of what they read.

    Parameters
    ----------
    code
        Target of a blueprint → the hash of its code, of those that count.
    contents
        Name of a resource → the hash of its content.
    packages
        Target of a blueprint → the packages that it comes from, with their versions.
    former_code
        Target → the hash that earlier versions of flambe computed, where it is another one.
    fingerprint
        What of the code counts: ``source``, ``version`` or ``off``.
    """

    code: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    former_code: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = "source"
    _files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, spec: ExperimentSpec, paths: Mapping[str, str | Path], notify: Notify = ignore
    ) -> Inputs:
        """Return the code and the data of an experiment as they are now.

        Parameters
        ----------
        spec
            The experiment.
        paths
            Resource → its path on this host, for the resources that it has.
        notify
            Called with each message for the user.

        Raises
        ------
        ResourceError
            If one cannot be read.
        """
        pipeline, resources = spec.pipeline, spec.resources
        linked = {link.root for value in pipeline.values() for _, link in links(value)}
        contents = {
            name: _content(name, resources[name], paths[name], notify)
            for name in linked & set(resources) & set(paths)
        }
        contents = {name: content for name, content in contents.items() if content}
        if spec.fingerprint == "off":
            return cls(contents=contents, fingerprint=spec.fingerprint)
        sources = Sources(extensions().declared)
        code = sources.of_pipeline(pipeline, versions_only=spec.fingerprint == "version")
        packages, former = packages_of(pipeline, sources), sources.former_hashes(code)
        return cls(code, contents, packages, former, spec.fingerprint)

    def code_of(self, facts: ConfigFacts) -> dict[str, str]:
        """Return the tag of each component in a configuration that is the user's → its hash."""
        return {
            tag: self.code[target]
            for tag, target in facts.components.items()
            if target in self.code
        }

    def packages_of(self, facts: ConfigFacts) -> dict[str, str]:
        """Return the packages that the components in a configuration come from → their versions."""
        versions: dict[str, str] = {}
        for target in facts.components.values():
            versions.update(self.packages.get(target, ()))
        return versions

    def data_of(self, facts: ConfigFacts) -> dict[str, str]:
        """Return what a configuration reads → its hash: resources, and files of components."""
        hashes = {
            f"resource {root!r}": self.contents[root]
            for root in facts.roots
            if root in self.contents
        }
        for name, path in facts.files.items():
            if file_hash := self._hash_file(path):
                hashes[f"file {name}"] = file_hash
        return hashes

    def _hash_file(self, path: str) -> str:
        if path not in self._files:
            self._files[path] = ""
            with contextlib.suppress(OSError):  # reported where it is read
                python = path.endswith(".py")
                self._files[path] = script_hash(Path(path)) if python else content_hash(path)
        return self._files[path]


def _input_files(schema: Schema) -> Iterator[str]:
    """Yield the files that the component of a blueprint declares that it reads."""
    owner = _reader(schema.target) if schema.target else None
    if owner is not None:
        files = owner.input_files(schema)
        # A single path is one file, not a sequence of letters.
        yield from map(str, [files] if isinstance(files, str | os.PathLike) else files)


@functools.cache
def _reader(target: str) -> type[Component] | None:
    """Return the class of components that a target names, if it declares files."""
    owner = component_class(CLASSES.import_target(target))
    if owner is None:
        return None
    own = owner.input_files.__func__  # type: ignore[attr-defined]
    return None if own is Component.input_files.__func__ else owner  # type: ignore[attr-defined]


def _name_of_file(path: str, schema: Schema) -> str:
    """Return the name of a file: the same wherever the folder of the configuration is."""
    base = schema.place.folder if schema.place is not None else ""
    inside = base and os.path.isabs(path) and Path(path).is_relative_to(Path(base).resolve())
    return str(Path(path).relative_to(Path(base).resolve())) if inside else path


def local_resource_paths(spec: ExperimentSpec) -> dict[str, str | Path]:
    """Return the paths of the resources on this machine: nothing is fetched."""
    paths: dict[str, str | Path] = {}
    for name, location in spec.resources.items():
        if isinstance(location, str) and not urlparse(location).scheme:
            path = spec.folder / os.path.expanduser(location)
            if path.exists():
                paths[name] = path
    return paths


def _content(name: str, location: str | ClusterResource, path: str | Path, notify: Notify) -> str:
    """Return the hash of a resource; empty if it is not on this host.

    A resource that was on the cluster before may be too large to read: its names and sizes count.
    """
    expanded = os.path.expanduser(str(path))
    was_there = isinstance(location, ClusterResource) and not urlparse(location.location).scheme
    try:
        return listing_hash(expanded) if was_there else content_hash(expanded, notify)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ResourceError(f"resource {name!r} cannot be read: {error}") from None

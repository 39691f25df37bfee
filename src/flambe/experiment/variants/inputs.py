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
from flambe.compile.values import ClusterResource, links, walk
from flambe.errors import ResourceError
from flambe.experiment.spec import ExperimentSpec
from flambe.experiment.variants.fingerprint import fingerprints, script_hash
from flambe.packaging.contents import Notify, content_hash, ignore, listing_hash


@dataclass
class Inputs:
    """The code that blueprints run, and the content of what they read.

    Parameters
    ----------
    code
        Target of a blueprint → the hash of its code, of those that count.
    contents
        Name of a resource → the hash of its content.
    """

    code: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
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
        return cls(
            fingerprints(pipeline, extensions().declared), {k: v for k, v in contents.items() if v}
        )

    def code_of(self, config: object) -> dict[str, str]:
        """Return the tag of each component in a configuration that is the user's → its hash."""
        if not self.code:
            return {}
        return {
            child.tag: self.code[child.target]
            for _, child in walk(config)
            if isinstance(child, Schema) and child.target in self.code
        }

    def data_of(self, config: object) -> dict[str, str]:
        """Return what a configuration reads → its hash: resources, and files of components."""
        hashes = {
            f"resource {link.root!r}": self.contents[link.root]
            for _, link in links(config)
            if link.root in self.contents
        }
        for _, child in walk(config):
            if isinstance(child, Schema):
                for path in _input_files(child):
                    if file_hash := self._hash_file(path):
                        hashes[f"file {_name_of_file(path, child)}"] = file_hash
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

"""What results depend on beside their configuration: code, and the content of data, as hashes."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from flambe.compile import Component, Schema
from flambe.compile.build import folder_of
from flambe.compile.component import component_class
from flambe.compile.registry import CLASSES, extensions
from flambe.compile.values import ClusterResource, links, walk
from flambe.errors import ResourceError
from flambe.experiment.variants.fingerprint import fingerprints, script_hash
from flambe.packaging.contents import Notify, content_hash, ignore, listing_hash

if TYPE_CHECKING:
    from flambe.experiment.experiment import Experiment


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
    def of(cls, experiment: Experiment, places: Mapping[str, Any], note: Notify = ignore) -> Inputs:
        """Return the code and the data of an experiment as they are now.

        Parameters
        ----------
        experiment
            The experiment.
        places
            Resource → its path on this host, of those that are here.
        note
            Told what people want to know.

        Raises
        ------
        ResourceError
            If one cannot be read.
        """
        pipeline, resources = experiment.pipeline, experiment.resources
        linked = {link.root for value in pipeline.values() for _, link in links(value)}
        contents = {
            name: _content(name, resources[name], places[name], note)
            for name in linked & set(resources) & set(places)
        }
        return cls(
            fingerprints(pipeline, extensions().declared), {k: v for k, v in contents.items() if v}
        )

    def code_of(self, config: Any) -> dict[str, str]:
        """Return the tag of each component in a configuration that is the user's → its hash."""
        if not self.code:
            return {}
        return {
            child.tag: self.code[child.target]
            for _, child in walk(config)
            if isinstance(child, Schema) and child.target in self.code
        }

    def data_of(self, config: Any) -> dict[str, str]:
        """Return what a configuration reads → its hash: resources, and files of components."""
        found = {
            f"resource {link.root!r}": self.contents[link.root]
            for _, link in links(config)
            if link.root in self.contents
        }
        for _, child in walk(config):
            for path in _input_files(child):
                if value := self._file(path):
                    found[f"file {_named(path, child)}"] = value
        return found

    def _file(self, path: str) -> str:
        if path not in self._files:
            self._files[path] = ""
            with contextlib.suppress(OSError):  # it is told where it is read
                python = path.endswith(".py")
                self._files[path] = script_hash(Path(path)) if python else content_hash(path)
        return self._files[path]


def _input_files(schema: Any) -> Iterator[str]:
    """Yield the files that the component of a blueprint says that it reads."""
    owner = _reader(schema.target) if isinstance(schema, Schema) and schema.target else None
    if owner is not None:
        found = owner.input_files(schema)
        # One path is meant as one, not as its letters.
        yield from map(str, [found] if isinstance(found, str | os.PathLike) else found)


@functools.cache
def _reader(target: str) -> type[Component] | None:
    """Return the class of components that a target leads to, if it names files."""
    owner = component_class(CLASSES.import_target(target))
    if owner is None:
        return None
    own = owner.input_files.__func__  # type: ignore[attr-defined]
    return None if own is Component.input_files.__func__ else owner  # type: ignore[attr-defined]


def _named(path: str, schema: Schema) -> str:
    """Return what a file is called, the same wherever the folder of the configuration is."""
    base = schema.place.folder if schema.place is not None else ""
    inside = base and os.path.isabs(path) and Path(path).is_relative_to(Path(base).resolve())
    return str(Path(path).relative_to(Path(base).resolve())) if inside else path


def local_places(experiment: Experiment) -> dict[str, Path]:
    """Return the paths of the resources that are on this machine: nothing is fetched."""
    base = folder_of(experiment)
    found = {}
    for name, location in experiment.resources.items():
        if isinstance(location, str) and not urlparse(location).scheme:
            path = base / os.path.expanduser(location)
            if path.exists():
                found[name] = path
    return found


def _content(name: str, written: Any, place: Any, note: Notify) -> str:
    """Return the hash of a resource; empty if it is not on this host.

    What stands on a cluster already may be larger than can be read: of that, the names and sizes.
    """
    path = os.path.expanduser(str(place))
    brought = not isinstance(written, ClusterResource) or bool(urlparse(written.location).scheme)
    try:
        return content_hash(path, note) if brought else listing_hash(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ResourceError(f"resource {name!r} cannot be read: {error}") from None

"""Components on disk: a folder for each, with its state and what says how to build it."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from flambe._files import read_regular
from flambe._source import source_of
from flambe.compile import workspace, yaml
from flambe.compile.component import Component
from flambe.compile.state import archive, component_state, pickled, s3
from flambe.compile.state.component_state import Stateful
from flambe.compile.state.encoding import Encoder
from flambe.compile.state.file_writer import FileWriter
from flambe.compile.state.manifests import compare_with_manifest
from flambe.compile.state.pickled import NOBODY, Trust
from flambe.compile.state.state_file import holds_state, read_state, write_state
from flambe.errors import StateError
from flambe.progress.lines import parse_json

CONFIG_FILE = "config.yaml"
VERSION_FILE = "version.txt"
SOURCE_FILE = "source.py"
FORGOTTEN_FILE = "forgotten.json"
UNVERSIONED = "0.0.0"
# Bytes that are read of it, of why it is not loaded alone, and of what was not saved.
MAX_VERSION, MAX_REASON, MAX_FORGOTTEN = 200, 10_000, 100_000


class VersionWarning(UserWarning):
    """State was saved by another version of its class."""


class ForgottenWarning(UserWarning):
    """An attribute of a component was not saved."""


_EXISTS = "{} already exists: choose another path, or pass overwrite=True"


def save(obj: Component, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Save a component: a folder, with a folder for each component below it.

    Parameters
    ----------
    obj
        The component.
    path
        The folder; one that ends in ``.tar.gz`` is packed, and ``s3://bucket/key`` is uploaded.
    overwrite
        Whether to replace what is at the path.

    Raises
    ------
    StateError
        If something in the state would need pickle (the attribute is named), or if the path exists.
    """
    target = str(path)
    if target.startswith("s3://"):
        if not overwrite and s3.exists(target):
            raise StateError(_EXISTS.format(target))
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, target.rstrip("/").rpartition("/")[2])
            save(obj, local)
            s3.upload(local, target)
        return
    if os.path.lexists(target) and not overwrite:
        raise StateError(_EXISTS.format(target))
    parent = os.path.dirname(os.path.abspath(target))
    os.makedirs(parent, exist_ok=True)
    # Written beside, then moved into place: what is at the path is always complete.
    with tempfile.TemporaryDirectory(dir=parent, prefix=".flambe-save-") as folder:
        written = os.path.join(folder, "component")
        write(obj, FileWriter(written))
        if target.endswith((".tar.gz", ".tgz")):
            packed = os.path.join(folder, "packed")
            with tarfile.open(packed, "w:gz") as file:
                file.add(written, arcname=".")
            written = packed
        if os.path.lexists(target):
            os.replace(target, os.path.join(folder, "old"))
        os.replace(written, target)


def write(
    obj: Component,
    folder: FileWriter,
    values: component_state.State | None = None,
    forgotten: Mapping[str, Mapping[str, str]] | None = None,
    key: bytes = b"",
) -> None:
    """Write the folders of a component.

    Parameters
    ----------
    obj
        The component.
    folder
        Writes its folder, which does not exist yet.
    values
        Its state, if it was collected before.
    forgotten
        Path → attribute → the warning for those who read the state without it.
    key
        Readers that have this key trust what is pickled.

    Raises
    ------
    UnsavableError
        If something cannot be saved: the attribute is named.
    """
    values = component_state.collect(obj) if values is None else values
    for path, component in component_state.components(obj):
        below = folder.below(path) if path else folder
        where = f"{type(component).__name__}" + (f" at {path!r}" if path else "")
        write_state(below, _encoded(component, values[path], below, where, key))
        if forgotten and path in forgotten:
            below.write(FORGOTTEN_FILE, json.dumps(forgotten[path], indent=1))
        for name, text in _description(component, alone=not path).items():
            below.write(name, text)


def _encoded(
    component: Stateful, values: Mapping[str, object], folder: FileWriter, where: str, key: bytes
) -> dict[str, object]:
    encoder, apart = Encoder(where), vars(component).get("_flambe_pickled", ())
    return {
        name: pickled.write(folder, name, value, where, key)
        if name in apart
        else encoder.encode(value, name)
        for name, value in values.items()
    }


def _description(component: Stateful, *, alone: bool) -> dict[str, str]:
    """Return the files that describe a component; they are composed once, and written each time.

    A component that cannot be built on its own is an error if it is saved alone; below another
    component, which builds it, the file says why.
    """
    description: dict[str, str] | None = vars(component).get("_flambe_description")
    if description is None:
        cls: type = type(component)
        stream = io.StringIO()
        try:
            yaml.dump_standalone(component, stream)
        except StateError as error:
            if alone:
                raise
            reason = str(error).replace("\n", "\n# ")
            stream = io.StringIO(f"# loaded with the component above only: {reason}\n")
        description = {
            CONFIG_FILE: stream.getvalue(),
            VERSION_FILE: component._flambe_version + "\n",
            SOURCE_FILE: _source(cls),
        }
        vars(component)["_flambe_description"] = description
    return description


@functools.cache
def _source(cls: type) -> str:
    try:
        return source_of(cls)
    except (OSError, TypeError):
        return f"# the source of {cls.__module__}.{cls.__qualname__} is not available\n"


def load(
    path: str | os.PathLike[str], *, extensions: Iterable[str] = (), trust: bool = False
) -> Any:
    """Load a component that :func:`save` wrote, or one below it.

    The author of the files need not be trusted: only Components of flambe, modules of ``torch`` and
    classes of extensions that *you* declared are built. Naming a module does not import it.

    Parameters
    ----------
    path
        A folder (of the whole, or of a component inside:
        ``".../checkpoint.flambe/model/encoder"``), a ``.tar.gz``, or ``s3://bucket/key``.
    extensions
        Modules that it may be built from: ``["my_ext"]``. Those of the run that this is called in
        count too, and so do Components that you have imported yourself.
    trust
        Whether the files may have anything that they name imported and built, and an archive may
        have any size. Such a component can run code as you.

    Raises
    ------
    StateError
        If there is no component there, if its state no longer fits its class, or if a file is not
        what the manifest of its checkpoint says.
    ConfigError
        If it names a class that it may not be built from.
    """
    if isinstance(extensions, str):
        raise TypeError(f"extensions is a list: [{extensions!r}]")
    allowed = set(extensions)
    target = str(path)
    with contextlib.ExitStack() as stack:
        if target.startswith("s3://"):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            target = str(s3.download(target, Path(folder)))
        if os.path.isfile(target):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            archive.unpack(target, Path(folder), bounded=not trust)
            target = folder
        try:
            return _load_folder(target, allowed, trust=trust)
        except RecursionError:
            raise StateError(f"{path} is nested too deeply to be loaded") from None


def _load_folder(folder: str, extensions: Collection[str], *, trust: bool) -> Component:
    config = os.path.join(folder, CONFIG_FILE)
    if not os.path.isfile(config):
        raise StateError(f"no saved component at {folder}: {CONFIG_FILE} is missing")
    start = _read_text(config, MAX_REASON)
    if start.startswith("# loaded with"):
        raise StateError(f"{folder} cannot be loaded alone\n{start}")
    compare_with_manifest(folder)
    with workspace.using(workspace.of_saved(Path(folder).absolute())):
        obj = yaml.load_standalone(config, extensions, trust=trust)
    if not isinstance(obj, Component):
        raise StateError(f"{config} describes a {type(obj).__name__}, which is not a component")
    component_state.restore(obj, read(folder, obj, trust=Trust(everybody=trust)))
    return obj


def _warn_of_forgotten(path: str, about: str, text: str) -> None:
    warnings.warn(text, ForgottenWarning, stacklevel=5)


def read(
    folder: str,
    obj: Component,
    notify: Callable[[str, str, str], object] = _warn_of_forgotten,
    trust: Trust = NOBODY,
) -> component_state.State:
    """Read the state of a component from its folder, comparing versions.

    Folders of components that the object does not have are read too, so that they are reported.

    Parameters
    ----------
    folder
        The folder.
    obj
        The component.
    notify
        Called with each attribute that was not saved: the path of its component, its class and
        name, and the text. By default it warns.
    trust
        Whose pickles are read.

    Raises
    ------
    StateError
        If a state is damaged, or a pickle is not trusted.
    """
    values: component_state.State = {}
    tree = dict(component_state.components(obj))
    for below, folders, files in os.walk(folder):
        folders.sort()
        if below.count(os.sep) - folder.count(os.sep) > archive.MAX_DEPTH:
            raise StateError(f"{folder} is nested deeper than {archive.MAX_DEPTH} folders")
        if not holds_state(files):
            continue
        path = os.path.relpath(below, folder).replace(os.sep, "/")
        path = "" if path == "." else path
        where = type(tree[path]).__name__ if path in tree else path
        values[path] = read_state(
            below, functools.partial(pickled.read, below, where=where, trust=trust)
        )
        if path in tree:
            _compare_versions(below, path, tree[path])
            if FORGOTTEN_FILE in files:
                cls = type(tree[path])
                for name, text in _forgotten_in(below).items():
                    notify(path, f"{cls.__module__}.{cls.__qualname__}.{name}", text)
    return values


def _forgotten_in(folder: str) -> dict[str, str]:
    """Return what a folder says of attributes that were not saved; broken files are ignored."""
    try:
        text = _read_text(os.path.join(folder, FORGOTTEN_FILE), MAX_FORGOTTEN)
        entries: object = parse_json(text)
        return {
            str(name): "".join(c for c in str(text) if c.isprintable() or c == "\n")
            for name, text in (entries.items() if isinstance(entries, dict) else ())
        }
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def _compare_versions(folder: str, path: str, component: Stateful) -> None:
    saved, now = UNVERSIONED, component._flambe_version
    with contextlib.suppress(OSError):
        saved = _read_text(os.path.join(folder, VERSION_FILE), MAX_VERSION).strip()
    if UNVERSIONED not in (saved, now) and saved != now:
        name = type(component).__name__ + (f" at {path!r}" if path else "")
        warnings.warn(
            f"{name} was saved by version {saved} and is loaded by version {now}: "
            f"compare {os.path.join(folder, SOURCE_FILE)} with the class of today",
            VersionWarning,
            stacklevel=4,
        )


def _read_text(path: str, most: int) -> str:
    """Read the start of a text file, whatever it holds."""
    return read_regular(path, most).decode("utf-8", errors="replace")

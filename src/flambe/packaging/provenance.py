"""How a run is made: recorded when it starts, without keeping its first variant waiting."""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import json
import os
import platform
import re
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from flambe._disk import Appender
from flambe._nvidia_smi import NvidiaSmiError, Query
from flambe._version import __version__
from flambe.compile import Schema, yaml
from flambe.compile.build import Origin
from flambe.compile.values import walk
from flambe.logging import redact
from flambe.packaging.closure import installed_versions
from flambe.packaging.extras import extras_of
from flambe.packaging.repositories import find_repositories
from flambe.packaging.wheel import distribution_of
from flambe.progress import COLLECTED, Invocation, finite, read_invocation, steady_time

T = TypeVar("T")
#: Names the file, on the orchestrator of a cluster, of what was recorded where the run was started.
VARIABLE = "FLAMBE_INVOCATION"
LARGEST_CONFIG = 1 << 20  # characters
GPU_SECONDS = 5.0
WAIT_SECONDS = 10.0  # for the collection, at the end of the run
# What the client of a cluster knows, and its orchestrator does not.
_OF_CLIENT = ("id", "command", "working_folder", "user", "host", "overrides", "file", "config")
_COLLECTED_BY_CLIENT = ("resolved", "repositories")


@dataclass(frozen=True)
class Source:
    """What is run, as it is recorded.

    Attributes
    ----------
    file, config
        The file of the configuration, and its text.
    folder
        What its paths start from; by default, the folder of the file.
    resolve
        Returns its text as it was resolved; takes a while.
    extensions
        The modules of its extensions.
    extras
        The extras of flambe that it needs.
    overrides, seeds, resumed
        As in :class:`~flambe.progress.Invocation`.
    """

    file: str = ""
    config: str = ""
    folder: str = ""
    resolve: Callable[[], str] = str
    extensions: Sequence[str] = ()
    extras: Sequence[str] = ()
    overrides: Sequence[str] = ()
    seeds: Sequence[int] = ()
    resumed: bool = False


def source_of(component: object, extensions: Iterable[str], seeds: Sequence[int] = ()) -> Source:
    """Return what is recorded of something that is run.

    Parameters
    ----------
    component
        It, built from a file or made in Python.
    extensions
        The modules of the extensions that this process declared: those that it uses are recorded.
    seeds
        Its seeds.
    """
    origin: Origin | None = vars(component).get("_flambe_origin")
    position = origin.schema.place if origin is not None else None
    path = Path(position.file).absolute() if position is not None else None
    text = ""
    if path is not None:
        with contextlib.suppress(OSError, ValueError):  # on a cluster it is on another machine
            text = path.read_text(encoding="utf-8-sig")
    used = _modules(origin.schema) if origin is not None else set()
    return Source(
        str(path) if text else "",
        text,
        position.folder if position is not None else "",
        resolve=lambda: yaml.dump(component, resolve=True),
        extensions=tuple(name for name in extensions if origin is None or name in used),
        extras=tuple(sorted(extras_of(origin.schema))) if origin is not None else (),
        overrides=origin.schema.overrides if origin is not None else (),
        seeds=tuple(seeds),
    )


def _modules(schema: object) -> set[str]:
    """Return the top-level modules and prefixes that the tags of a blueprint name."""
    return {
        name
        for _, child in walk(schema)
        if isinstance(child, Schema)
        for name in (child.tag.partition(".")[0], re.split("[.:]", child.target)[0])
    }


def describe_start(source: Source) -> Invocation:
    """Return what is known at once of a run that starts."""
    user = ""
    with contextlib.suppress(Exception):  # KeyError, ImportError, OSError: by the platform
        user = getpass.getuser()
    return Invocation(
        uuid.uuid4().hex[:12],
        at=steady_time(),
        command=[os.path.basename(sys.argv[0]), *sys.argv[1:]],
        working_folder=os.getcwd(),
        user=user,
        host=socket.gethostname(),
        resumed=source.resumed,
        overrides=list(source.overrides),
        file=source.file,
        config=source.config[:LARGEST_CONFIG],
        seeds=list(source.seeds),
        flambe=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=platform.platform(),
        cpus=os.cpu_count() or 0,
    )


def collect(invocation: Invocation, source: Source, *, machine: bool = True) -> None:
    """Complete what is recorded of a run; where something fails, the record says why.

    Parameters
    ----------
    invocation
        The record.
    source
        What is run.
    machine
        Whether the run is on this machine.
    """
    problems: list[str] = []

    def attempt(name: str, function: Callable[[], T], default: T) -> T:
        try:
            return function()
        except Exception as error:  # a record that is not whole is better than none
            problems.append(f"{name}: {error}")
            return default

    invocation.resolved = attempt("configuration", source.resolve, "")[:LARGEST_CONFIG]
    invocation.repositories = attempt("git", lambda: find_repositories(_folders(source)), [])
    if machine:
        invocation.packages = attempt("packages", lambda: _packages(source), {})
        invocation.gpus = attempt("GPUs", _gpus, [])
    invocation.problem = "; ".join(problems)
    invocation.complete = machine


def _folders(source: Source) -> dict[str, Path]:
    """Return the folders of the configuration and the extensions, by what they are."""
    folders: dict[str, Path] = {}
    if source.file or source.folder:
        name = Path(source.file).name or "configuration"
        folders[name] = Path(source.folder) if source.folder else Path(source.file).parent
    for name in source.extensions:
        spec = importlib.util.find_spec(name)
        locations = list(spec.submodule_search_locations or ()) if spec is not None else []
        origin = locations[0] if locations else spec.origin if spec is not None else None
        if origin and "site-packages" not in Path(origin).parts:
            folders[f"extension {name}"] = Path(origin) if locations else Path(origin).parent
    return folders


def _packages(source: Source) -> dict[str, str]:
    """Return the versions of flambe, the extensions, what is imported, and all that they need."""
    extras = f"[{','.join(sorted(source.extras))}]" if source.extras else ""
    names = {name.partition(".")[0] for name in list(sys.modules)} - sys.stdlib_module_names
    imported = [name for name in names if not name.startswith("_") and _is_installed(name)]
    extensions = [name for each in source.extensions if (name := distribution_of(each))]
    return dict(installed_versions((f"flambe{extras}", *sorted({*imported, *extensions}))))


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return False
    return True


def _gpus() -> list[str]:
    try:
        rows = Query("gpu=name,memory.total,driver_version").rows(GPU_SECONDS)
    except NvidiaSmiError as error:
        return [f"unknown: {error}"]
    return [f"{name}, {memory} MiB, driver {driver}" for name, memory, driver in rows]


# -- a run on a cluster ---------------------------------------------------------------------------


def record_client(source: Source) -> str:
    """Return, as JSON, what the machine knows that starts a run on a cluster."""
    invocation = describe_start(source)
    collect(invocation, source, machine=False)
    return json.dumps(_hidden(finite(asdict(invocation))))


def _client_record() -> Invocation | None:
    """Return what :func:`record_client` wrote, on the orchestrator."""
    path = os.environ.pop(VARIABLE, "")
    with contextlib.suppress(OSError, ValueError, RecursionError):
        values = json.loads(Path(path).read_text(encoding="utf-8")) if path else None
        return read_invocation(values) if isinstance(values, dict) else None
    return None


# -- the record of a run --------------------------------------------------------------------------


@dataclass
class Recording:
    """Records the start of a run: what is known at once first, the rest from a thread.

    Parameters
    ----------
    path
        The file of records.
    source
        What is run.
    """

    path: Path
    source: Source
    invocation: Invocation = field(init=False)

    def __post_init__(self) -> None:
        self.invocation = describe_start(self.source)
        self._client = _client_record()
        if self._client is not None:
            for name in _OF_CLIENT:
                setattr(self.invocation, name, getattr(self._client, name))
        self._file = Appender(self.path, lines=True)
        self._thread = threading.Thread(target=self._collect, name="flambe-provenance", daemon=True)

    def begin(self) -> None:
        """Write what is known at once, and start to collect the rest."""
        self._append([name for name in vars(self.invocation) if name not in COLLECTED])
        self._thread.start()

    def end(self) -> None:
        """Wait until all is collected, but not for long."""
        if self._thread.ident is not None:
            self._thread.join(WAIT_SECONDS)
            self._file.close()

    def _collect(self) -> None:
        invocation, client = self.invocation, self._client
        source = self.source
        if client is not None:  # the repositories are there
            source = replace(source, file="", folder="", resolve=lambda: client.resolved)
        collect(invocation, source)
        if client is not None:
            for name in _COLLECTED_BY_CLIENT:
                setattr(invocation, name, getattr(client, name))
            problems = (client.problem, invocation.problem)
            invocation.problem = "; ".join(filter(None, problems))
        self._append(COLLECTED)

    def _append(self, names: Sequence[str]) -> None:
        values = asdict(self.invocation)
        line = finite({name: values[name] for name in ("id", *names)})
        with contextlib.suppress(OSError):  # where the disk is full, the run says so
            self._file.append(json.dumps(_hidden(line)).encode() + b"\n")


def _hidden(value: object) -> object:
    """Return JSON values with every secret replaced."""
    if isinstance(value, str):
        return redact.hide(value)
    if isinstance(value, Mapping):
        return {name: _hidden(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_hidden(child) for child in value]
    return value

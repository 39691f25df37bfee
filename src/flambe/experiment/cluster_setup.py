"""An experiment on a cluster: what is prepared from the user's machine before it runs there."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from flambe._disk import DEADLINE
from flambe.cluster import layout
from flambe.cluster.context import ClusterContext
from flambe.cluster.environment import proxy
from flambe.compile.values import ClusterResource
from flambe.errors import ConfigError, Problem
from flambe.experiment.devices import refuse_too_large
from flambe.experiment.executors.tune.factory_settings import ALONE, JOIN
from flambe.experiment.spec import ExperimentSpec
from flambe.packaging import resources
from flambe.runnable.run_setup import RunSetup

if TYPE_CHECKING:
    from flambe.cluster import Cluster

# Prints a folder of results, if the folder of a run has one.
_FIND_RESULTS = (
    'find "$1" -mindepth 1 -maxdepth 1 -type d ! -name resources 2> /dev/null | head -n 1'
)

_DEADLINES = (ALONE, JOIN, DEADLINE)

# Adds a line to a file that does not have it.
_REMEMBER = 'grep -qxFe "$2" "$1" 2> /dev/null || printf "%s\\n" "$2" >> "$1"'


def results_path(cluster: ClusterContext, spec: ExperimentSpec) -> str:
    """Return where the results of an experiment are on the orchestrator, from the user's home."""
    base = "" if spec.save_path.startswith("~/") else f"{cluster.folder}/work"
    path = posixpath.join(base, spec.save_path.removeprefix("~/"), f"output__{spec.name}")
    return posixpath.normpath(path)


def prepare(spec: ExperimentSpec, cluster: Cluster, *, force: bool, resume: bool) -> RunSetup:
    """Bring the resources to all hosts, and start Ray and the Report Site.

    Raises
    ------
    ConfigError
        If there are results in the way, or a resource does not exist.
    """
    host, context = cluster.orchestrator, cluster.context
    root = host.path(results_path(context, spec))
    results = host.run(["sh", "-c", _FIND_RESULTS, "sh", root], repeat=True).stdout.strip()
    if results and not (force or resume or spec.resume):
        raise ConfigError(
            Problem(
                f"{host.name}: {root} holds the results of an earlier run",
                hint="--resume continues it; --force moves it aside and starts afresh",
            )
        )
    offers = {
        worker.machine.name: {"cpu": worker.facts.cpus, "gpu": len(worker.gpus)}
        for worker in context.workers
    }
    if not offers:
        hint = "add a factory, or say   orchestrator_works: true   in its file"
        raise ConfigError(Problem(f"{cluster.name}: no host would run the variants", hint=hint))
    refuse_too_large(spec.devices, offers)
    variables = cluster.ray.start()
    variables.update({name: os.environ[name] for name in _DEADLINES if name in os.environ})
    host.run(["mkdir", "-p", "--", root], repeat=True)
    if not root.startswith(f"{context.work}/"):
        host.run(
            ["sh", "-c", _REMEMBER, "sh", layout.external_results(context.folder), root],
            repeat=True,
        )
    cluster.report.start(root)
    # Records how the run ended, where the run was killed before it could.
    interrupted = [context.python(host), "-m", "flambe.experiment.storage.mark_interrupted", root]
    resource_paths = {name: _provide(spec, cluster, name) for name in spec.resources}
    return RunSetup(variables, [interrupted], resource_paths)


def check(spec: ExperimentSpec) -> list[Problem]:
    """Return what is wrong with ``save_path``, and with resources that are to be uploaded."""
    problems: list[Problem] = []
    if "$" in spec.save_path:
        problems.append(
            Problem(
                f"save_path: {spec.save_path!r} has a variable of this machine in it",
                hint="on a cluster, write the path itself; ~/ is the home of its user",
            )
        )
    for name in _uploaded(spec):
        try:
            _local_path(spec, name)
        except ConfigError as error:
            problems += error.problems
    return problems


def local_resources(spec: ExperimentSpec) -> dict[str, Path]:
    """Return the resources that are uploaded: name → path."""
    return {name: _local_path(spec, name) for name in _uploaded(spec)}


def _uploaded(spec: ExperimentSpec) -> list[str]:
    """Return the names of the resources on this machine."""
    return [
        name
        for name, location in spec.resources.items()
        if not isinstance(location, ClusterResource) and not _is_url(str(location))
    ]


def _local_path(spec: ExperimentSpec, name: str) -> Path:
    """Return the path of a resource on this machine.

    Raises
    ------
    ConfigError
        If it does not exist.
    """
    return Path(resources.fetch(name, str(spec.resources[name]), spec.folder, Path()))


def _is_url(location: str) -> bool:
    return urlparse(location).scheme in ("http", "https", "s3")


def _provide(spec: ExperimentSpec, cluster: Cluster, name: str) -> str:
    """Bring a resource to every host; return its path, the same one on all of them."""
    location = spec.resources[name]
    folder = f"{cluster.context.folder}/resources/{name}"
    if isinstance(location, ClusterResource):
        if _is_url(location.location):
            return _fetch(cluster, name, location.location, folder)
        return _check_on_hosts(cluster, name, location.location)
    if _is_url(location):
        return _fetch(cluster, name, location, folder)
    path = _local_path(spec, name)
    cluster.observer.note(f"resource {name}: sending {path.name}")
    target = f"{folder}/{path.name}"
    cluster.files.send(path, target, delete=path.is_dir())
    return _from_home(target)


def _fetch(cluster: Cluster, name: str, url: str, folder: str) -> str:
    """Let the orchestrator fetch a URL, and copy it to the factories."""
    host = cluster.orchestrator
    cluster.observer.note(f"resource {name}: fetching {url}")
    above = posixpath.dirname(folder)
    script = f'{proxy.line(cluster.context)}exec "$@"'
    command = ["sh", "-c", script, "sh", cluster.context.python(host)]
    command += ["-m", "flambe.packaging.resources", name, url, above]
    output = host.run(command, deadline=6 * 3600, shown=f"fetching {url}").stdout
    path = output.strip().splitlines()[-1]
    cluster.files.spread(f"{folder}/", folder, delete=True)
    return _from_home(f"{folder}/{posixpath.basename(path)}")


def _check_on_hosts(cluster: Cluster, name: str, path: str) -> str:
    """Return a path that exists on the cluster already.

    Raises
    ------
    ConfigError
        If it does not exist on every host: those without it are named.
    """
    missing_hosts = []
    for host in cluster.hosts:
        expanded = host.path(path.removeprefix("~/"))
        if host.run(["test", "-e", expanded], check=False, repeat=True).code:
            missing_hosts.append(host.machine.name)
    if missing_hosts:
        raise ConfigError(
            Problem(
                f"resource {name!r}: there is no {path} on {', '.join(missing_hosts)}",
                hint="!cluster names what is on every host; a plain path is uploaded from here",
            )
        )
    return _from_home(path)


def _from_home(path: str) -> str:
    """Return a path that is the same on all hosts, whatever their homes are."""
    return path if path.startswith(("/", "~")) else f"~/{path}"

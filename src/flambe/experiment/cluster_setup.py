"""An experiment on a cluster: what is prepared from the user's machine before it runs there."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from flambe._disk import DEADLINE
from flambe.cluster import layout
from flambe.cluster.context import ClusterContext
from flambe.cluster.environment import proxy
from flambe.compile.build import folder_of
from flambe.compile.values import ClusterResource
from flambe.errors import ConfigError, Problem
from flambe.experiment.devices import refuse_too_large
from flambe.experiment.executors.tune.deadlines import ALONE, JOIN
from flambe.packaging import resources
from flambe.runnable.run_setup import RunSetup

if TYPE_CHECKING:
    from flambe.cluster import Cluster
    from flambe.experiment.experiment import Experiment

# What is in the folder of a run that has no results: see flambe.experiment.run.
_RESULTS = 'find "$1" -mindepth 1 -maxdepth 1 -type d ! -name resources 2> /dev/null | head -n 1'

# Adds a line to a file that does not have it.
_REMEMBER = 'grep -qxFe "$2" "$1" 2> /dev/null || printf "%s\\n" "$2" >> "$1"'


def results(cluster: ClusterContext, experiment: Experiment) -> str:
    """Return where the results of an experiment are on the orchestrator, from the user's home."""
    written = experiment.save_path
    work = "" if written.startswith("~/") else f"{cluster.folder}/work"
    place = posixpath.join(work, written.removeprefix("~/"), f"output__{experiment.name}")
    return posixpath.normpath(place)


def prepare(experiment: Experiment, cluster: Cluster, *, force: bool, resume: bool) -> RunSetup:
    """Bring the resources to all hosts, and start Ray and the Report Site.

    Raises
    ------
    ConfigError
        If there are results in the way, or a resource is not there.
    """
    host, context = cluster.orchestrator, cluster.context
    root = host.path(results(context, experiment))
    found = host.run(["sh", "-c", _RESULTS, "sh", root], repeat=True).stdout.strip()
    if found and not (force or resume or experiment.resume):
        raise ConfigError(
            Problem(
                f"{host.name}: {root} holds the results of an earlier run",
                hint="--resume goes on with it; --force moves it aside and starts anew",
            )
        )
    offers = {
        worker.machine.name: {"cpu": worker.facts["cpus"], "gpu": len(worker.gpus)}
        for worker in context.workers
    }
    if not offers:
        hint = "add a factory, or say   orchestrator_works: true   in its file"
        raise ConfigError(Problem(f"{cluster.name}: no host would run the variants", hint=hint))
    refuse_too_large(experiment.devices, offers)
    variables = cluster.ray.start()
    variables.update({n: os.environ[n] for n in (ALONE, JOIN, DEADLINE) if n in os.environ})
    host.run(["mkdir", "-p", "--", root], repeat=True)
    if not root.startswith(f"{context.work}/"):
        host.run(["sh", "-c", _REMEMBER, "sh", layout.beside(context.folder), root], repeat=True)
    cluster.report.start(root)
    # If it cannot say itself how it ended.
    interrupted = [context.python(host), "-m", "flambe.experiment.storage.mark_interrupted", root]
    return RunSetup(
        variables,
        [interrupted],
        {name: _place(experiment, cluster, name) for name in experiment.resources},
    )


def check(experiment: Experiment) -> list[Problem]:
    """Return what is wrong with resources that are to be uploaded."""
    problems: list[Problem] = []
    if "$" in experiment.save_path:
        problems.append(
            Problem(
                f"save_path: {experiment.save_path!r} has a variable of this machine in it",
                hint="on a cluster write the path itself; ~/ is the home of its user",
            )
        )
    for name in _uploaded(experiment):
        try:
            _local(experiment, name)
        except ConfigError as error:
            problems += error.problems
    return problems


def local_resources(experiment: Experiment) -> dict[str, Path]:
    """Return the resources that are uploaded: name → path."""
    return {name: _local(experiment, name) for name in _uploaded(experiment)}


def _uploaded(experiment: Experiment) -> list[str]:
    """Return the names of the resources that are here."""
    return [
        name
        for name, location in experiment.resources.items()
        if not isinstance(location, ClusterResource) and not _is_url(str(location))
    ]


def _local(experiment: Experiment, name: str) -> Path:
    """Return the path of a resource that is here.

    Raises
    ------
    ConfigError
        If it is not.
    """
    location = str(experiment.resources[name])
    return Path(resources.fetch(name, location, folder_of(experiment), Path()))


def _is_url(location: str) -> bool:
    return urlparse(location).scheme in ("http", "https", "s3")


def _place(experiment: Experiment, cluster: Cluster, name: str) -> str:
    """See that a resource is on every host; return its path, the same one on all of them."""
    location = experiment.resources[name]
    folder = f"{cluster.context.folder}/resources/{name}"
    if isinstance(location, ClusterResource):
        written = str(location.location)
        return (
            _fetched(cluster, name, written, folder)
            if _is_url(written)
            else _there(cluster, name, written)
        )
    if _is_url(str(location)):
        return _fetched(cluster, name, str(location), folder)
    path = _local(experiment, name)
    cluster.observer.note(f"resource {name}: sending {path.name}")
    target = f"{folder}/{path.name}"
    cluster.files.send(path, target, delete=path.is_dir())
    return _from_home(target)


def _fetched(cluster: Cluster, name: str, url: str, folder: str) -> str:
    """Have the orchestrator fetch a URL, and give it to the factories."""
    host = cluster.orchestrator
    cluster.observer.note(f"resource {name}: fetching {url}")
    above = posixpath.dirname(folder)
    script = f'{proxy.line(cluster.context)}exec "$@"'
    command = ["sh", "-c", script, "sh", cluster.context.python(host)]
    command += ["-m", "flambe.packaging.resources", name, url, above]
    told: Any = host.run(command, deadline=6 * 3600, shown=f"fetching {url}").stdout
    path = told.strip().splitlines()[-1]
    cluster.files.spread(f"{folder}/", folder, delete=True)
    return _from_home(f"{folder}/{posixpath.basename(path)}")


def _there(cluster: Cluster, name: str, path: str) -> str:
    """Return a path that is on the cluster already.

    Raises
    ------
    ConfigError
        If it is not on every host: those that lack it are named.
    """
    lacking = []
    for host in cluster.hosts:
        expanded = host.path(path.removeprefix("~/"))
        if host.run(["test", "-e", expanded], check=False, repeat=True).code:
            lacking.append(host.machine.name)
    if lacking:
        raise ConfigError(
            Problem(
                f"resource {name!r}: there is no {path} on {', '.join(lacking)}",
                hint="!cluster names what is on every host; a plain path is uploaded from here",
            )
        )
    return _from_home(path)


def _from_home(path: str) -> str:
    """Return a path that is the same on all hosts, whatever their homes are."""
    return path if path.startswith(("/", "~")) else f"~/{path}"

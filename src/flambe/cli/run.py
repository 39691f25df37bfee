"""``flambe CONFIG``, ``plan`` and ``validate``: run what a file describes, or check it."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flambe.cli.arguments import RunOptions, ValidateOptions
from flambe.cli.exit_handling import as_interrupt, disk_error, print_message
from flambe.compile import Schema
from flambe.compile.checks.calls import check
from flambe.compile.reader.document import header, read_file
from flambe.compile.reader.source import Document
from flambe.errors import (
    ConfigError,
    FlambeError,
    Problem,
    did_you_mean,
    listed,
)
from flambe.logging import redact

if TYPE_CHECKING:  # imported when they are needed: "flambe validate" is quick
    from flambe.cluster.cluster import Cluster
    from flambe.compile.component import Component
    from flambe.runnable import Runnable, Secrets

_log = logging.getLogger(__name__)

_EXPERIMENT = "flambe.experiment.experiment:Experiment"


def _read_document(options: ValidateOptions) -> Document:
    """Read and check the file.

    Raises
    ------
    ConfigError
        With every mistake in it.
    """
    if options.install_extensions:
        from flambe.packaging.extensions import install_all

        folder = Path(options.config).absolute().parent
        install_all(header(options.config), folder, print_message)
    _restore_variables()
    document = read_file(options.config, overrides=options.overrides)
    return check_document(document)


def check_document(document: Document) -> Document:
    """Check what was read.

    Raises
    ------
    ConfigError
        With every mistake in it.
    """
    if redact.values():  # some values of "!env" are secrets
        redact.guard_streams()
    _restore_source_map(document)
    check(document)
    if not document.problems:
        _expect_runnable(document)
        _refuse_env(document)
    document.raise_problems()
    return document


def _restore_source_map(document: Document) -> None:
    """Let errors name the user's file, where this one was generated from it for a cluster."""
    from flambe.compile import source_map

    path = os.environ.pop(source_map.VARIABLE, "")
    if path and isinstance(document.root, Schema) and os.path.isfile(path):
        source_map.restore(document.root, Path(path).read_text(encoding="utf-8"))


def _restore_variables() -> None:
    """Use the values that variables had where this run was started, if that was elsewhere."""
    from flambe.compile import variables

    if path := os.environ.pop(variables.FILE, ""):
        variables.provide(json.loads(Path(path).read_text(encoding="utf-8")))


def _root_class(document: Document) -> type | None:
    """Return the class that the file describes an object of."""
    target = document.root.resolve() if isinstance(document.root, Schema) else None
    return target if isinstance(target, type) else None


def _expect_runnable(document: Document) -> None:
    from flambe.compile.component import Component, runs
    from flambe.runnable import Runnable

    root, root_class = document.root, _root_class(document)
    if root_class is not None and issubclass(root_class, Runnable):
        return
    if root_class is not None and issubclass(root_class, Component) and runs(root_class):
        return
    document.problem(
        f"!{root.tag} cannot be run" if isinstance(root, Schema) else "there is nothing to run",
        (),
        "expected a Runnable, such as !Experiment",
    )


def _refuse_env(document: Document) -> None:
    """Refuse a file that sets ``env``: ssh would read the files that it names."""
    from flambe.runnable import ClusterRunnable

    root_class = _root_class(document)
    if root_class is None or not issubclass(root_class, ClusterRunnable):
        return
    if document.root.kwargs.get("env") is not None and "FLAMBE_HOST" not in os.environ:
        hint = "leave it out; --cluster runs the file on a cluster"
        document.problem("env is set by flambe when it starts a run", ("env",), hint)


# -- flambe validate ----------------------------------------------------------------------------


def validate(options: ValidateOptions) -> int:
    """Print what a file would run; raise what is wrong with it."""
    document = _read_document(options)
    root: Schema = document.root
    print(f"{options.config} is valid: !{root.tag} {root.kwargs.get('name', '')}".rstrip())
    if root.target == _EXPERIMENT:
        from flambe.cli.display import print_plan

        print_plan(root)
    return 0


# -- flambe CONFIG ------------------------------------------------------------------------------


def run(options: RunOptions) -> int:
    """Run a file."""
    return run_document(_read_document(options), options)


def run_document(document: Document, options: RunOptions) -> int:
    """Run what was read and checked."""
    from flambe.compile.component import Component
    from flambe.runnable import ClusterRunnable, Runnable

    cluster = _read_target(document, options.cluster, options) if options.cluster else None
    _check_options(document, cluster, options)
    secrets = _read_secrets(options.secrets, for_cluster=cluster is not None)
    is_cluster = _is_cluster(document.root)
    for name, is_set in (("prune", options.prune), ("setup", options.setup)):
        if is_set and cluster is None and not is_cluster:
            hint = f"flambe CLUSTER.yaml --{name}"
            raise ConfigError(Problem(f"--{name} applies to clusters only", hint=hint))
    if options.json and not options.dry_run:
        raise ConfigError(Problem("--json applies to plans only", hint="flambe plan ... --json"))
    if options.dry_run:
        return _dry_run(document, cluster, secrets, options)
    runnable = document.root()
    if isinstance(runnable, Component):
        return _run_component(runnable)
    assert isinstance(runnable, Runnable)
    runnable.config = secrets
    if cluster is not None:
        from flambe.cli.remote_run import run_on

        assert isinstance(runnable, ClusterRunnable)
        runnable.on_cluster = True
        runnable.parse()
        return run_on(cluster, runnable, document.extensions, options)
    runnable.parse()
    if is_cluster:
        return _provision(runnable, options)
    if document.root.target != _EXPERIMENT:  # its workers do that
        secrets.export()
    _run_here(runnable, options)
    return 0


def _check_options(document: Document, cluster: Cluster | None, options: RunOptions) -> None:
    """Refuse options that contradict one another, or the file."""
    for name, is_set in (("--detach", options.detach), ("--fetch", options.fetch is not None)):
        if is_set and cluster is None:
            hint = f"add --cluster, or leave {name} out"
            raise ConfigError(Problem(f"{name} requires --cluster", hint=hint))
    _check_stages(document, options.stages_to_resume)
    resumed = options.resumes or document.root.kwargs.get("resume")
    if options.stale == "reuse" and not resumed:
        text = "--stale applies only to a run that continues an earlier one"
        raise ConfigError(Problem(text, hint="add --resume"))
    if options.detach and options.fetch is not None:
        hint = "flambe fetch CLUSTER -f   copies the results later"
        raise ConfigError(Problem("--fetch cannot be combined with --detach", hint=hint))
    if options.prune and cluster is not None:
        hint = f"run   flambe {options.cluster} --prune   first"
        raise ConfigError(Problem("--prune applies to clusters, not to runs on them", hint=hint))


def _read_secrets(path: str | None, *, for_cluster: bool) -> Secrets:
    """Read the file of secrets, and hide them in everything that is printed or logged."""
    from flambe.runnable import Secrets

    secrets = Secrets.read(Path(path) if path else None)
    if short := secrets.unmaskable:
        reason = f"shorter than {redact.SHORTEST} characters, so logs show them"
        _log.warning("secrets in %s are %s: %s", secrets.origin, reason, ", ".join(short))
    if for_cluster:
        secrets.for_factories()  # raises if a section that it names is missing
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        redact.add_url(os.environ.get(name, ""))
    if redact.values():
        redact.guard_streams()
    return secrets


def _is_cluster(root: Schema) -> bool:
    """Whether it is a cluster of any kind: all of them are built on this module."""
    module, target = sys.modules.get("flambe.cluster"), root.resolve()
    return module is not None and isinstance(target, type) and issubclass(target, module.Cluster)


def _check_stages(document: Document, names: list[str]) -> None:
    """Check that the stages named on the command line exist.

    Raises
    ------
    ConfigError
        If one does not.
    """
    if document.root.target != _EXPERIMENT:
        return  # what the names mean is up to the Runnable
    pipeline = document.root.kwargs.get("pipeline") or {}
    problems = [
        Problem(
            f"--resume-from: unknown stage {name!r}",
            document.places.key(("pipeline",)),
            did_you_mean(name, pipeline) or f"the stages: {listed(list(pipeline))}",
        )
        for name in names
        if name not in pipeline
    ]
    if problems:
        raise ConfigError(problems)


def _dry_run(
    document: Document, cluster: Cluster | None, secrets: Secrets, options: RunOptions
) -> int:
    """Print what a run would do. No object that the file names is constructed for it."""
    from flambe.cli.plan import PlanOptions, dry_run, plan_here
    from flambe.compile.build import outlined

    root: Schema = document.root
    if cluster is None and _is_cluster(root):
        described = outlined(root)
        described.config = secrets
        described.parse()
        return dry_run(described, {}, options=PlanOptions(as_json=options.json))
    experiment = outlined(root) if root.target == _EXPERIMENT else None
    if experiment is not None:
        experiment.config = secrets
        experiment.on_cluster = cluster is not None
        experiment.parse()
    plan_options = PlanOptions(
        options.config,
        resume=options.resumes or (experiment is not None and bool(experiment.resume)),
        force=options.force and not options.resumes,
        use_stale=options.stale == "reuse",
        as_json=options.json,
    )
    if cluster is not None:
        return dry_run(cluster, document.extensions, root, experiment, plan_options)
    if experiment is None:
        hint = "flambe validate   checks any file"
        raise ConfigError(Problem("--dry-run applies to experiments and clusters", hint=hint))
    return plan_here(experiment, plan_options)


def _read_target(document: Document, path: str, options: RunOptions) -> Cluster:
    """Read the file of a cluster, and check that the document can run there.

    Raises
    ------
    ConfigError
        If it cannot, or the file does not describe a cluster.
    """
    from flambe.cli.targets import read_cluster
    from flambe.compile import signatures
    from flambe.runnable import ClusterRunnable

    root, root_class = document.root, _root_class(document)
    if root_class is None or not issubclass(root_class, ClusterRunnable):
        hint = "leave --cluster out, or build it on ClusterRunnable"
        document.problem(f"!{root.tag} cannot run on a cluster", (), hint)
    elif not signatures.takes(root_class, "env"):
        hint = "add env=None to its __init__, and call super().__init__(env)"
        document.problem(f"!{root.tag} cannot run on a cluster: it has no keyword 'env'", (), hint)
    document.raise_problems()
    if options.debug:
        raise ConfigError(Problem("--debug works on this machine only", hint="leave it out"))
    cluster = read_cluster(path, options.secrets)
    assert root_class is not None
    assert issubclass(root_class, ClusterRunnable)
    if root_class.needs_workers and not cluster.has_workers:
        hint = "add a factory, or set   orchestrator_works: true   in its file"
        text = f"the cluster {cluster.name!r} has no factories: no host would run the variants"
        raise ConfigError(Problem(text, hint=hint))
    return cluster


def _run_here(runnable: Runnable, options: RunOptions) -> None:
    """Run something in this process, and show its progress."""
    from flambe.cli.display import display
    from flambe.cli.site import SiteDisplay
    from flambe.compile.build import run_error
    from flambe.experiment.observer import guard

    resume: bool | list[str] = options.stages_to_resume or options.resume
    # A debugger needs the terminal for itself.
    remote = getattr(runnable, "env", None) is not None
    plain = display(verbose=options.verbose, live=not options.debug, remote=remote)
    observer = guard(SiteDisplay(plain) if options.site else plain)
    try:
        runnable.run(
            force=options.force,
            resume=resume,
            stale=options.stale,
            debug=options.debug,
            verbose=options.verbose,
            observer=observer,
        )
    except (FlambeError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise disk_error(error) or run_error(runnable, error) from error
    finally:
        observer.close()


def _provision(cluster: Runnable, options: RunOptions) -> int:
    """Provision a cluster, and show its hosts."""
    from flambe.cli.hosts_table import hosts_table
    from flambe.cli.targets import ClusterDisplay, user_errors
    from flambe.cluster.cluster import Cluster
    from flambe.progress import format_duration

    assert isinstance(cluster, Cluster)
    display = ClusterDisplay()
    started = time.monotonic()
    with user_errors(cluster), as_interrupt():
        cluster.run(force=options.force, prune=options.prune, setup=options.setup, observer=display)
    display.console.print(
        hosts_table(cluster.name, cluster.hosts, prepared=True, width=display.console.width)
    )
    display.note(f"{cluster.name} is ready, in {format_duration(time.monotonic() - started)}")
    return 0


def _run_component(component: Component) -> int:
    """Run a single component, a script for example, to its end."""
    from flambe.compile.stepping import Stepper

    stepper = Stepper(component, interrupt=KeyboardInterrupt)
    while stepper.step():
        pass
    return 0

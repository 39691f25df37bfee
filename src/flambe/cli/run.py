"""``flambe CONFIG`` and ``flambe validate``: run what a file describes, or check it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flambe.cli.exit_handling import refused, say
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

if TYPE_CHECKING:
    from flambe.runnable import Secrets

_log = logging.getLogger(__name__)

_EXPERIMENT = "flambe.experiment.experiment:Experiment"


def _document(options: argparse.Namespace) -> Document:
    """Read and check the file.

    Raises
    ------
    ConfigError
        With every mistake in it.
    """
    if options.install_extensions:
        from flambe.packaging.extensions import install_all

        install_all(header(options.config), Path(options.config).absolute().parent, say)
    document = read_file(options.config)
    _give_places(document)
    check(document)
    root = document.root
    if not document.problems:
        _expect_runnable(document, root)
        _refuse_env(document, root)
    document.raise_problems()
    return document


def _give_places(document: Document) -> None:
    """Tell errors by the file that the user wrote, where this one was made of it for a cluster."""
    from flambe.compile import source_map

    path = os.environ.pop(source_map.VARIABLE, "")
    if path and isinstance(document.root, Schema) and os.path.isfile(path):
        source_map.restore(document.root, Path(path).read_text(encoding="utf-8"))


def _expect_runnable(document: Document, root: Any) -> None:
    from flambe.compile.component import Component, runs
    from flambe.runnable import Runnable

    target = root.resolve() if isinstance(root, Schema) else None
    if isinstance(target, type) and issubclass(target, Runnable):
        return
    if isinstance(target, type) and issubclass(target, Component) and runs(target):
        return
    document.problem(
        f"!{root.tag} cannot be run"
        if isinstance(root, Schema)
        else "there is nothing to run here",
        (),
        "expected a Runnable, such as !Experiment",
    )


def _refuse_env(document: Document, root: Any) -> None:
    """See that no file says that it runs on a cluster: ssh would read the files that it names."""
    from flambe.runnable import ClusterRunnable

    target = root.resolve() if isinstance(root, Schema) else None
    if not (isinstance(target, type) and issubclass(target, ClusterRunnable)):
        return
    if root.kwargs.get("env") is not None and "FLAMBE_HOST" not in os.environ:
        hint = "leave it out; --cluster runs the file on a cluster"
        document.problem("env is set by flambe, where it starts a run", ("env",), hint)


# -- flambe validate ----------------------------------------------------------------------------


def validate(options: argparse.Namespace) -> int:
    """Say what is wrong with a file, or what it would run."""
    document = _document(options)
    root: Schema = document.root
    print(f"{options.config} is valid: !{root.tag} {root.kwargs.get('name', '')}".rstrip())
    if root.target == _EXPERIMENT:
        from flambe.cli.display import print_plan

        print_plan(root)
    return 0


# -- flambe CONFIG ------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    """Run a file."""
    from flambe.compile.component import Component
    from flambe.runnable import Runnable, Secrets

    document = _document(options)
    cluster = _cluster(document, options.cluster, options) if options.cluster else None
    for name, value in (("--detach", options.detach), ("--fetch", options.fetch is not None)):
        if value and cluster is None:
            hint = f"give --cluster, or leave {name} out"
            raise ConfigError(Problem(f"{name} is for runs on a cluster", hint=hint))
    _check_stages(document, _stages_to_resume(options))
    resumed = options.resume or options.resume_from or document.root.kwargs.get("resume")
    if options.stale == "reuse" and not resumed:
        hint = "add --resume"
        raise ConfigError(
            Problem("--stale is for a run that goes on with an earlier one", hint=hint)
        )
    if options.detach and options.fetch is not None:
        hint = "flambe fetch CLUSTER -f   does that later"
        raise ConfigError(Problem("--fetch needs somebody who stays: no --detach", hint=hint))
    if options.prune and cluster is not None:
        hint = f"flambe {options.cluster} --prune   first"
        raise ConfigError(Problem("--prune is for clusters, not for runs on them", hint=hint))
    secrets = Secrets.read(Path(options.secrets) if options.secrets else None)
    if short := secrets.unmaskable:
        why = f"shorter than {redact.SHORTEST} characters, so logs show them"
        _log.warning("secrets in %s are %s: %s", secrets.origin, why, ", ".join(short))
    if cluster is not None:
        secrets.for_factories()  # what it names is there
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        redact.add_url(os.environ.get(name, ""))
    if redact.values():
        redact.guard_streams()
    is_cluster = _is_cluster(document.root)
    for name in ("prune", "setup"):
        if getattr(options, name) and cluster is None and not is_cluster:
            hint = f"flambe CLUSTER.yaml --{name}"
            raise ConfigError(Problem(f"--{name} is for clusters", hint=hint))
    if options.dry_run:
        return _dry_run(document, cluster, secrets, options)
    runnable = document.root()
    if isinstance(runnable, Component):
        return _run_component(runnable)
    assert isinstance(runnable, Runnable)
    runnable.config = secrets
    if cluster is not None:
        from flambe.cli.remote_run import run_on

        runnable.on_cluster = True  # type: ignore[attr-defined]
        runnable.parse()
        return run_on(cluster, runnable, document.extensions, options)
    runnable.parse()
    if is_cluster:
        return _up(runnable, force=options.force, prune=options.prune, setup=options.setup)
    if document.root.target != _EXPERIMENT:  # its workers do that
        secrets.export()
    _run(runnable, options)
    return 0


def _is_cluster(root: Schema) -> bool:
    """Whether it is a kind of cluster, anybody's: they are built upon this module."""
    module, target = sys.modules.get("flambe.cluster"), root.resolve()
    return module is not None and isinstance(target, type) and issubclass(target, module.Cluster)


def _stages_to_resume(options: argparse.Namespace) -> list[str]:
    """Return the stages that ``--resume-from`` names."""
    return [name.strip() for name in (options.resume_from or "").split(",") if name.strip()]


def _check_stages(document: Document, names: list[str]) -> None:
    """See that the stages which are named on the command line are there.

    Raises
    ------
    ConfigError
        If one is not.
    """
    if document.root.target != _EXPERIMENT:
        return  # what they mean is the Runnable's own
    pipeline = document.root.kwargs.get("pipeline") or {}
    problems = [
        Problem(
            f"--resume-from: there is no stage {name!r}",
            document.places.key(("pipeline",)),
            did_you_mean(name, pipeline) or f"the stages: {listed(list(pipeline))}",
        )
        for name in names
        if name not in pipeline
    ]
    if problems:
        raise ConfigError(problems)


def _dry_run(
    document: Document, cluster: Any, secrets: Secrets, options: argparse.Namespace
) -> int:
    """Say what a run would do. No object that the file names is constructed for it."""
    from flambe.cli.plan import dry_run, plan_here
    from flambe.compile.build import outlined

    root: Schema = document.root
    if cluster is None and _is_cluster(root):
        described = outlined(root)
        described.config = secrets
        described.parse()
        return dry_run(described, {})
    experiment = outlined(root) if root.target == _EXPERIMENT else None
    if experiment is not None:
        experiment.config = secrets
        experiment.on_cluster = cluster is not None
        experiment.parse()
    if cluster is not None:
        extensions, resume = document.extensions, options.resume or bool(options.resume_from)
        return dry_run(cluster, extensions, root, experiment, options.config, resume=resume)
    if experiment is None:
        raise ConfigError(
            Problem("--dry-run is for experiments and clusters", hint="see: flambe validate")
        )
    resume = options.resume or bool(options.resume_from)
    return plan_here(root, experiment, resume=resume)


def _cluster(document: Document, path: str, options: argparse.Namespace) -> Any:
    """Read the file of a cluster, and see that what is to be run can run there.

    Raises
    ------
    ConfigError
        If it cannot, or the file describes no cluster.
    """
    from flambe.cli.targets import read_cluster
    from flambe.compile import signatures
    from flambe.runnable import ClusterRunnable

    root: Schema = document.root
    target = root.resolve()
    if not (isinstance(target, type) and issubclass(target, ClusterRunnable)):
        hint = "leave --cluster out, or build it on ClusterRunnable"
        document.problem(f"!{root.tag} cannot run on a cluster", (), hint)
    elif not signatures.takes(target, "env"):
        hint = "add env=None to its __init__, and call super().__init__(env)"
        document.problem(f"!{root.tag} cannot run on a cluster: it has no keyword 'env'", (), hint)
    document.raise_problems()
    if options.debug:
        raise ConfigError(Problem("--debug works on this machine only", hint="leave it out"))
    cluster = read_cluster(path, options.secrets)
    assert isinstance(target, type)
    if issubclass(target, ClusterRunnable) and target.needs_workers and not cluster.has_workers:
        hint = "add a factory, or say   orchestrator_works: true   in its file"
        text = f"the cluster {cluster.name!r} has no factories: no host would run the variants"
        raise ConfigError(Problem(text, hint=hint))
    return cluster


def _run(runnable: Any, options: argparse.Namespace) -> None:
    from flambe.cli.display import display
    from flambe.compile.build import run_error
    from flambe.experiment.observer import guard

    resume: bool | list[str] = _stages_to_resume(options) or options.resume
    # A debugger needs the terminal for itself.
    remote = getattr(runnable, "env", None) is not None
    shown: Any = display(verbose=options.verbose, live=not options.debug, remote=remote)
    if options.site:
        from flambe.cli.site import SiteDisplay

        shown = SiteDisplay(shown)
    shown = guard(shown)
    try:
        runnable.run(
            force=options.force,
            resume=resume,
            stale=options.stale,
            debug=options.debug,
            verbose=options.verbose,
            observer=shown,
        )
    except (FlambeError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise refused(error) or run_error(runnable, error) from error
    finally:
        shown.close()


def _up(cluster: Any, **options: bool) -> int:
    """Make a cluster ready, and show its hosts."""
    import time

    from flambe.cli.exit_handling import as_interrupt
    from flambe.cli.hosts_table import hosts_table
    from flambe.cli.results_table import took
    from flambe.cli.targets import ClusterDisplay, own_errors

    shown = ClusterDisplay()
    begun = time.monotonic()
    with own_errors(cluster), as_interrupt():
        cluster.run(**options, observer=shown)
    shown.console.print(
        hosts_table(cluster.name, cluster.hosts, prepared=True, width=shown.console.width)
    )
    shown.note(f"{cluster.name} is ready, in {took(time.monotonic() - begun)}")
    return 0


def _run_component(component: Any) -> int:
    """Run a component that stands alone, a script for example, to its end."""
    from flambe.compile.stepping import Stepper

    stepper = Stepper(component, interrupt=KeyboardInterrupt)
    while stepper.step():
        pass
    return 0

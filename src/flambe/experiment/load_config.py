"""Experiments from files, for Python: what the command does before it runs one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from flambe.compile import Schema
from flambe.compile.checks.calls import check
from flambe.compile.reader.document import read_file
from flambe.experiment.experiment import Experiment
from flambe.runnable import Secrets


def load_config(
    path: str | os.PathLike[str],
    overrides: Mapping[str, object] | None = None,
    *,
    secrets: str | os.PathLike[str] | None = None,
) -> Experiment:
    """Read an experiment from a file, checked as ``flambe validate`` checks it.

    Parameters
    ----------
    path
        The file.
    secrets
        The file with secrets; ``~/.flambe/secrets.ini`` by default, which need not exist.

    Raises
    ------
    ConfigError
        With every mistake in the file; if it does not describe an ``!Experiment``.
    """
    document = read_file(os.fspath(path))
    check(document)
    root = document.root
    if not document.problems:
        target = root.resolve() if isinstance(root, Schema) else None
        if not (isinstance(target, type) and issubclass(target, Experiment)):
            tag = f"!{root.tag}" if isinstance(root, Schema) else "plain values"
            hint = "flambe.compile.yaml.load reads a blueprint of any object"
            document.problem(f"expected an !Experiment, not {tag}", (), hint)
        elif root.kwargs.get("env") is not None:
            hint = "leave it out"
            document.problem("env is set by flambe when it starts a run", ("env",), hint)
    document.raise_problems()
    experiment = root()
    assert isinstance(experiment, Experiment)
    experiment.config = Secrets.read(Path(secrets) if secrets is not None else None)
    return experiment

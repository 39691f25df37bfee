"""Experiments from files, for Python: what the command does before it runs one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from flambe.compile import Schema, yaml
from flambe.compile.checks.calls import check
from flambe.compile.reader.document import read_file
from flambe.errors import ConfigError, Problem, StateError
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
    overrides
        Path → value: changes to what the file says, as those of the command, checked in the same
        way: ``{"train.optimizer.lr": 0.1}``. A path with ``+`` in front is added, and one with
        ``~``, whose value is None, is removed. Values are Python's, components and blueprints, and
        ``Grid`` and ``Sample`` for ``!g`` and ``!s``.
    secrets
        The file with secrets; ``~/.flambe/secrets.ini`` by default, which need not exist.

    Raises
    ------
    ConfigError
        With every mistake in the file and in the overrides; if the file does not describe an
        ``!Experiment``.
    """
    document = read_file(os.fspath(path), overrides=_texts(overrides or {}))
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


def _texts(overrides: Mapping[str, object]) -> list[str]:
    """Return overrides as the command takes them.

    Raises
    ------
    ConfigError
        If a value has no YAML form, or a path that is to be removed has one.
    """
    texts = []
    for path, value in overrides.items():
        if path.startswith("~"):
            if value is not None:
                hint = f"expected   {{{path!r}: None}}"
                raise ConfigError(Problem(f"{path} removes a key, and takes no value", hint=hint))
            texts.append(path)
            continue
        try:
            texts.append(f"{path}={yaml.dump_line(value)}")
        except StateError as error:
            raise ConfigError(f"override {path}: {error}") from None
    return texts

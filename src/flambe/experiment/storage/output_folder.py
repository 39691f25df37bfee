"""Where the output folder of a run is, and what is wrong with a ``save_path``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flambe._grammar import wrong_path
from flambe.errors import ConfigError, Problem
from flambe.experiment.spec import ExperimentSpec

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)  # as os.path.expandvars has it


def output_folder(spec: ExperimentSpec) -> Path:
    """Return the folder of a run on this host: ``~`` and variables in ``save_path`` are replaced.

    Raises
    ------
    ConfigError
        If a variable is not set.
    """
    if mistake := wrong_save_path(spec.save_path):
        raise ConfigError(Problem(f"save_path: {mistake}"))
    path = Path(os.path.expanduser(os.path.expandvars(spec.save_path)))
    return path.absolute() / f"output__{spec.name}"


def wrong_save_path(save_path: str) -> str:
    """Return what is wrong with where results are to be written; empty if nothing is."""
    if mistake := wrong_path(save_path):
        return mistake
    unset = [a or b for a, b in _VARIABLE.findall(save_path) if (a or b) not in os.environ]
    if unset:
        return f"the variable {unset[0]} is not set"
    if os.path.expanduser(save_path).startswith("~"):
        return f"there is no user {save_path.partition('/')[0][1:]!r}"
    return ""

"""Why a trial of Ray Tune failed, without the layers of Ray around it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import ray

from flambe.errors import ComponentError

_LOST = (
    ray.exceptions.ActorUnavailableError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.LocalRayletDiedError,
)


def raised(trial: Any) -> BaseException | None:
    """Return what a trial failed of, as Ray has it."""
    error: BaseException | None = None
    with contextlib.suppress(Exception):
        # Tune has just written it beside itself, in this very process: nobody else's file is read.
        written = Path(trial.pickled_error_file or "")
        if written.is_file():
            error = ray.cloudpickle.loads(written.read_bytes())
        else:
            error = trial.get_pickled_error() or trial.get_error()
    return error


def cause(error: BaseException | None) -> tuple[ComponentError | None, str]:
    """Return what a trial failed of, without the layers of Ray around it."""
    seen = 0
    while error is not None and seen < 10:
        # An error of a task is an instance of its cause's class as well: the cause comes first.
        inner = getattr(error, "cause", None)
        if inner is None and isinstance(error, ComponentError):
            return error, str(error)
        inner = inner or error.__cause__
        if inner is None:
            break
        error, seen = inner, seen + 1
    if error is None:
        return None, "the trial failed; its log says more"
    text = str(error).strip()
    return None, f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_loss(error: BaseException | None) -> bool:
    """Whether a trial ended because its host did: that is told as soon as a connection breaks."""
    if isinstance(error, _LOST):
        return True
    return isinstance(error, ray.exceptions.RayActorError) and "node has died" in str(error)

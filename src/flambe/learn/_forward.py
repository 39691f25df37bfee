"""How a model is called, and where."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch

from flambe.errors import RunError

Precision = Literal["fp32", "bf16", "fp16"]
# A model takes the columns of a batch, and returns predictions; or, given the target too, both.
Model = Callable[..., Any]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(device: str | None) -> torch.device:
    """Return a device: by default the GPU, if there is one."""
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wants_target(model: torch.nn.Module) -> bool:
    """Whether a model is called with the target too."""
    return "target" in inspect.signature(model.forward).parameters


def predict(
    call: Model, batch: Sequence[torch.Tensor], with_target: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the predictions for a batch, and the target to compare them with.

    The last column of a batch is the target. A model that takes a ``target`` returns both.
    """
    if with_target:
        pred, target = call(*batch[:-1], target=batch[-1])
        return pred, target
    return call(*batch[:-1]), batch[-1]


def to_device(batch: Sequence[torch.Tensor], device: torch.device) -> Sequence[torch.Tensor]:
    """Move a batch."""
    if device.type == "cpu":
        return batch
    return [column.to(device, non_blocking=True) for column in batch]


def autocast(
    device: torch.device, precision: Precision
) -> contextlib.AbstractContextManager[object]:
    """Return what the forward pass is done in."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


@contextlib.contextmanager
def determinism(enabled: bool) -> Iterator[None]:
    """Let torch choose deterministic algorithms only, for a while.

    See https://docs.pytorch.org/docs/stable/notes/randomness.html; on a GPU it takes
    ``CUBLAS_WORKSPACE_CONFIG=:4096:8`` in the environment as well.
    """
    if not enabled:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark


def move(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, device: torch.device
) -> None:
    """Move a model in place, so that its optimizer keeps referring to its parameters.

    Raises
    ------
    RunError
        If the optimizer holds parameters that did not move along.
    """
    model.to(device)
    if optimizer is None:
        return
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if any(parameter.device.type != device.type for parameter in held):
        raise RunError(
            f"the optimizer holds parameters that are not on {device}: link its params to the "
            "model of the trainer:   params: !@ train[model].trainable_params"
        )
    if optimizer.state and device.type != "cpu":
        # Loading moves each value to where its parameter is, except those that stay on the CPU.
        optimizer.load_state_dict(optimizer.state_dict())

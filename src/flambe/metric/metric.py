"""The base of all metrics."""

from __future__ import annotations

from typing import ClassVar

import torch

from flambe.compile import Component
from flambe.compile.state.forgotten import names_set_by


class Metric(Component):
    """A figure of quality.

    What :meth:`compute` returns is the figure over all that was given to :meth:`update` since
    :meth:`reset`, not a mean over batches. A metric of your own implements those three; it keeps
    tensors where the predictions are, so that an update does not wait for the device.
    """

    #: Whether a smaller figure is a better one. What ranks (a ``metric()``) is negated then.
    lower_is_better: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        # What is forgotten at each measurement anyhow need not be kept.
        if "reset" in cls.__dict__:
            cls._transient = (*cls._transient, *names_set_by(cls.reset))

    def reset(self) -> None:
        """Forget all that was given."""
        raise NotImplementedError(f"{type(self).__name__} must implement reset()")

    def update(self, pred: torch.Tensor, target: torch.Tensor) -> None:
        """Take a batch of predictions and what they should be."""
        raise NotImplementedError(f"{type(self).__name__} must implement update(pred, target)")

    def compute(self) -> float:
        """Return the figure; NaN where it is not defined (of nothing, say)."""
        raise NotImplementedError(f"{type(self).__name__} must implement compute()")

    def __call__(self, pred: torch.Tensor, target: torch.Tensor) -> float:
        """Return the figure of one batch alone; what was given before is forgotten."""
        self.reset()
        self.update(pred, target)
        value = self.compute()
        self.reset()
        return value

    @property
    def name(self) -> str:
        """What the figure is called in logs."""
        return type(self).__name__.lower()

    def score(self, value: float) -> float:
        """Return a figure so that higher is better."""
        return -value if self.lower_is_better else value


def classes(
    pred: torch.Tensor, target: torch.Tensor, ignore_index: int | None, threshold: float = 0.5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the predicted and the true classes.

    Parameters
    ----------
    pred
        Scores of the classes, shape (..., classes); or, of the shape of ``target``, the classes
        themselves (integers) or the probability of class 1 (floats).
    target
        The classes, shape (...), or vectors with a single one, shape (..., classes).
    ignore_index
        Rows of that true class are left out.
    threshold
        From which probability on class 1 is predicted.

    Returns
    -------
    tuple
        Two tensors of shape (n,), int64.
    """
    if pred.dim() == target.dim() + 1:
        pred = pred.argmax(-1)
    elif pred.dim() >= 2 and pred.shape == target.shape and target.is_floating_point():
        pred, target = pred.argmax(-1), target.argmax(-1)
    elif pred.shape != target.shape:
        raise ValueError(
            f"predictions of shape {tuple(pred.shape)} do not fit targets of shape "
            f"{tuple(target.shape)}"
        )
    elif pred.is_floating_point():
        pred = pred >= threshold
    pred, target = pred.reshape(-1).long(), target.reshape(-1).long()
    if ignore_index is not None:
        kept = target != ignore_index
        pred, target = pred[kept], target[kept]
    return pred, target

"""The base of all models."""

from __future__ import annotations

import torch

from flambe.compile import Component


class Module(torch.nn.Module, Component):
    """A ``torch.nn.Module`` that is a component: it can be a tag, and is saved as a folder.

    Call ``super().__init__()`` first in a constructor, as with any module. A trainer calls a model
    with all columns of a batch but the last, which is the target. A model whose ``forward`` has a
    parameter ``target`` is given that too, and returns its predictions and the target to compare
    them with.
    """

    @property
    def trainable_params(self) -> list[torch.nn.Parameter]:
        """The parameters that require gradients: what an optimizer takes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @property
    def num_parameters(self) -> int:
        """The number of weights, frozen or not."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def num_trainable_parameters(self) -> int:
        """The number of weights that are trained."""
        return sum(parameter.numel() for parameter in self.trainable_params)

    def freeze(self) -> None:
        """Exclude all parameters from training."""
        self.requires_grad_(False)

    def unfreeze(self) -> None:
        """Include all parameters in training."""
        self.requires_grad_(True)


def output_size(module: torch.nn.Module, default: int | None = None) -> int:
    """Return the size of a module's output: its ``output_size``, or that of a linear layer.

    Raises
    ------
    ValueError
        If it is not known.
    """
    for name in ("output_size", "out_features"):
        size = getattr(module, name, None)
        if isinstance(size, int):
            return size
    if default is None:
        raise ValueError(f"{type(module).__name__} has no output_size")
    return default

"""Multi-layer perceptrons."""

from __future__ import annotations

import copy

import torch

from flambe.nn.module import Module


class MLPEncoder(Module):
    """Fully connected layers.

    Parameters
    ----------
    input_size
        The size of the input.
    output_size
        The size of the output.
    n_layers
        How many layers; with one there is no hidden one.
    dropout
        The probability of dropping an input of a layer.
    output_activation
        What follows the last layer: ``!torch.Tanh``. Nothing by default.
    hidden_size
        The size of what is between layers; that of the output by default.
    hidden_activation
        What follows all other layers; ``ReLU`` by default.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        n_layers: int = 1,
        *,
        dropout: float = 0.0,
        output_activation: torch.nn.Module | None = None,
        hidden_size: int | None = None,
        hidden_activation: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, not {n_layers}")
        self.input_size = input_size
        self.output_size = output_size
        self.hidden_size = hidden_size or output_size
        sizes = [input_size, *[self.hidden_size] * (n_layers - 1), output_size]
        layers: list[torch.nn.Module] = []
        for index in range(n_layers):
            if dropout:
                layers.append(torch.nn.Dropout(dropout))
            layers.append(torch.nn.Linear(sizes[index], sizes[index + 1]))
            if index < n_layers - 1:
                layers.append(
                    torch.nn.ReLU()
                    if hidden_activation is None
                    else copy.deepcopy(hidden_activation)
                )
        if output_activation is not None:
            layers.append(output_activation)
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Encode: from shape (..., input_size) to (..., output_size)."""
        encoded: torch.Tensor = self.layers(data)
        return encoded


class SoftmaxLayer(Module):
    """Probabilities of classes from an encoding.

    Parameters
    ----------
    input_size
        The size of the encoding.
    output_size
        The number of classes.
    n_layers, dropout
        Of the :class:`MLPEncoder` inside.
    take_log
        Whether to return logarithms, for ``!torch.NLLLoss``.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        n_layers: int = 1,
        dropout: float = 0.0,
        take_log: bool = True,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.output_size = output_size
        self.take_log = take_log
        self.mlp = MLPEncoder(
            input_size, output_size, n_layers, dropout=dropout, hidden_size=input_size
        )

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Classify: from shape (..., input_size) to (..., output_size)."""
        logits: torch.Tensor = self.mlp(data)
        return logits.log_softmax(-1) if self.take_log else logits.softmax(-1)

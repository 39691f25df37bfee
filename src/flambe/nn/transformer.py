"""Transformers."""

from __future__ import annotations

import math

import torch

from flambe.nn.module import Module


class TransformerEncoder(Module):
    """Self-attention over a sequence (Vaswani et al., 2017), normalized before each layer.

    Parameters
    ----------
    input_size
        The size of an input vector; if it is not ``hidden_size`` it is projected first.
    hidden_size
        The size inside, and of the output; ``input_size`` by default.
    n_heads
        How many heads of attention; they divide ``hidden_size``.
    n_layers
        How many layers.
    feedforward_size
        The size of the hidden layer of each; 4 × ``hidden_size`` by default.
    dropout
        In each layer.
    positions
        Whether sines of the position are added to the input.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | None = None,
        *,
        n_heads: int = 4,
        n_layers: int = 2,
        feedforward_size: int | None = None,
        dropout: float = 0.1,
        positions: bool = True,
    ) -> None:
        super().__init__()
        size = hidden_size or input_size
        if size % n_heads:
            raise ValueError(f"n_heads: {n_heads} does not divide the hidden size {size}")
        self.input_size = input_size
        self.hidden_size = size
        self.output_size = size
        self.positions = positions
        self.projection = (
            torch.nn.Linear(input_size, size) if size != input_size else torch.nn.Identity()
        )
        layer = torch.nn.TransformerEncoderLayer(
            size,
            n_heads,
            feedforward_size or 4 * size,
            dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.transformer = torch.nn.TransformerEncoder(
            layer, n_layers, torch.nn.LayerNorm(size), enable_nested_tensor=False
        )

    def forward(self, data: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Encode: (batch, tokens, input_size), mask (batch, tokens) → (batch, tokens, output_size).

        The mask is true where there is a token.
        """
        hidden = self.projection(data)
        if self.positions:
            hidden = hidden + _sines(data.shape[1], self.hidden_size, hidden)
        padding = None if mask is None else ~mask.bool()
        encoded: torch.Tensor = self.transformer(hidden, src_key_padding_mask=padding)
        return encoded


def _sines(length: int, size: int, like: torch.Tensor) -> torch.Tensor:
    """Return the encoding of positions: shape (length, size)."""
    rates = torch.exp(torch.arange(0, size, 2, device=like.device) * (-math.log(1e4) / size))
    angles = torch.arange(length, device=like.device).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :size].to(like.dtype)

"""From the vectors of a sequence to one vector."""

from __future__ import annotations

import torch

from flambe.nn.module import Module


class Pooling(Module):
    """Pools (batch, tokens, size) with a mask (batch, tokens) to (batch, size)."""

    def forward(self, data: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Pool; the mask is true where there is a token."""
        if mask is None:
            mask = torch.ones(data.shape[:2], dtype=torch.bool, device=data.device)
        return self.pool(data, mask.bool())

    def pool(self, data: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pool: implement this."""
        raise NotImplementedError(f"{type(self).__name__} must implement pool(data, mask)")


class FirstPooling(Pooling):
    """The vector of the first token."""

    def pool(self, data: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Take the first."""
        return data[:, 0]


class LastPooling(Pooling):
    """The vector of the last token."""

    def pool(self, data: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Take the last that is no padding."""
        last = (mask.sum(1) - 1).clamp(min=0)
        return data[torch.arange(len(data), device=data.device), last]


class MeanPooling(Pooling):
    """The mean of the vectors."""

    def pool(self, data: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Take the mean of those that are no padding."""
        weights = mask.to(data.dtype).unsqueeze(-1)
        return (data * weights).sum(1) / weights.sum(1).clamp(min=1)


class MaxPooling(Pooling):
    """The largest value of each feature."""

    def pool(self, data: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Take the maximum over those that are no padding; 0 if there are none."""
        largest = data.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)
        return largest.masked_fill(~mask.any(1, keepdim=True), 0.0)


class AttentionPooling(Pooling):
    """A weighted mean, by learned attention (Yang et al., 2016, without their context layer).

    Parameters
    ----------
    input_size
        The size of a vector.
    n_heads
        How many weightings; each pools an equal part of the features.
    """

    def __init__(self, input_size: int, n_heads: int = 1) -> None:
        super().__init__()
        if input_size % n_heads:
            raise ValueError(f"n_heads: {n_heads} does not divide input_size: {input_size}")
        self.input_size = input_size
        self.output_size = input_size
        self.n_heads = n_heads
        self.attention = torch.nn.Linear(input_size, n_heads)

    def pool(self, data: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Take the weighted mean of those that are no padding."""
        scores = self.attention(data).masked_fill(~mask.unsqueeze(-1), torch.finfo(data.dtype).min)
        weights = scores.softmax(1).unsqueeze(-1)
        pooled: torch.Tensor = (torch.unflatten(data, -1, (self.n_heads, -1)) * weights).sum(1)
        return pooled.flatten(1)

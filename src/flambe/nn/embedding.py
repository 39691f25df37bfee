"""Vectors of tokens."""

from __future__ import annotations

import torch

from flambe.compile import registrable_factory
from flambe.nn.module import Module


class Embeddings(Module):
    """A vector for each token, as ``torch.nn.Embedding``, and optionally for each position.

    Parameters
    ----------
    num_embeddings
        The number of tokens.
    embedding_dim
        The size of a vector.
    padding_idx
        The token whose vector stays zero; null for none.
    max_positions
        If given, a learned vector of the position is added, for texts of at most so many tokens.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = 0,
        max_positions: int | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.weight = torch.nn.Parameter(torch.randn(num_embeddings, embedding_dim))
        self.positions: torch.nn.Parameter | None = None
        if max_positions is not None:
            self.positions = torch.nn.Parameter(0.02 * torch.randn(max_positions, embedding_dim))
        if padding_idx is not None:
            with torch.no_grad():
                self.weight[padding_idx].zero_()

    @registrable_factory
    @classmethod
    def from_pretrained(
        cls,
        embeddings: torch.Tensor,
        freeze: bool = True,
        padding_idx: int | None = 0,
        max_positions: int | None = None,
    ) -> Embeddings:
        """Start from vectors that were trained before.

        Parameters
        ----------
        embeddings
            The vectors, shape (tokens, size): ``!@ dataset[transform][text].embedding_matrix``.
        freeze
            Whether they stay as they are.
        padding_idx, max_positions
            As in the constructor.
        """
        if not isinstance(embeddings, torch.Tensor) or embeddings.dim() != 2:
            raise ValueError(
                "embeddings must be a matrix of shape (tokens, size); "
                "a TextField has one if it is given a file of embeddings"
            )
        tokens, size = embeddings.shape
        embedder = cls(tokens, size, padding_idx, max_positions)
        with torch.no_grad():
            embedder.weight.copy_(embeddings)
        embedder.weight.requires_grad_(not freeze)
        return embedder

    @property
    def output_size(self) -> int:
        """The size of a vector."""
        return self.embedding_dim

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Look tokens up: from shape (batch, tokens), int64, to (batch, tokens, size)."""
        vectors = torch.nn.functional.embedding(data, self.weight, self.padding_idx)
        if self.positions is None:
            return vectors
        if data.shape[1] > len(self.positions):
            raise ValueError(
                f"a text of {data.shape[1]} tokens, but max_positions is {len(self.positions)}: "
                "set max_length of the TextField"
            )
        return vectors + self.positions[: data.shape[1]]

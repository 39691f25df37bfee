"""From tokens to an encoding."""

from __future__ import annotations

import torch

from flambe.nn.module import Module, output_size


class Embedder(Module):
    """Vectors of tokens, encoded, and pooled to one vector if wanted.

    Parameters
    ----------
    embedding
        From tokens (batch, tokens) to vectors: :class:`Embeddings` or ``!torch.Embedding``.
    encoder
        Takes the vectors and a mask, and returns vectors: :class:`RNNEncoder`,
        :class:`TransformerEncoder`. Without it the vectors stay as they are.
    pooling
        From the vectors and a mask to one vector; without it all are returned.
    embedding_dropout
        The probability of dropping a feature of a vector.
    padding_index
        The token that is padding.
    """

    def __init__(
        self,
        embedding: torch.nn.Module,
        encoder: torch.nn.Module | None = None,
        pooling: torch.nn.Module | None = None,
        embedding_dropout: float = 0.0,
        padding_index: int = 0,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.encoder = encoder
        self.pooling = pooling
        self.dropout = torch.nn.Dropout(embedding_dropout)
        self.padding_index = padding_index

    @property
    def output_size(self) -> int:
        """The size of what is returned."""
        vectors = getattr(self.embedding, "embedding_dim", None)
        encoded = vectors if self.encoder is None else output_size(self.encoder, vectors)
        if encoded is None:
            raise ValueError(f"{type(self.embedding).__name__} has no embedding_dim")
        return encoded if self.pooling is None else output_size(self.pooling, encoded)

    @property
    def hidden_size(self) -> int:
        """The same: what configurations call it."""
        return self.output_size

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Encode tokens.

        Parameters
        ----------
        data
            Shape (batch, tokens), int64.

        Returns
        -------
        torch.Tensor
            Shape (batch, output_size) with a pooling, else (batch, tokens, output_size).
        """
        mask = data != self.padding_index
        encoded: torch.Tensor = self.dropout(self.embedding(data))
        if self.encoder is not None:
            encoded = self.encoder(encoded, mask)
        if self.pooling is None:
            return encoded
        pooled: torch.Tensor = self.pooling(encoded, mask)
        return pooled

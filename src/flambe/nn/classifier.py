"""Classifiers."""

from __future__ import annotations

import torch

from flambe.nn.module import Module, output_size


class Classifier(Module):
    """An encoder with a linear layer on top: returns logits, for ``!torch.CrossEntropyLoss``.

    Parameters
    ----------
    encoder
        Encodes features; it has an ``output_size``.
    n_classes
        The number of classes.
    dropout
        Between the two.
    """

    def __init__(self, encoder: torch.nn.Module, n_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = torch.nn.Dropout(dropout)
        self.output_layer = torch.nn.Linear(output_size(encoder), n_classes)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Return the logits: shape (batch, n_classes)."""
        logits: torch.Tensor = self.output_layer(self.dropout(self.encoder(data)))
        return logits


class TextClassifier(Module):
    """An embedder with an output layer on top.

    Parameters
    ----------
    embedder
        From tokens to one vector; it has an ``output_size``.
    output_layer
        From that to what the loss takes: :class:`SoftmaxLayer`, say.
    n_classes
        Instead of an output layer: a linear one that returns logits.
    dropout
        Between the two.
    """

    def __init__(
        self,
        embedder: torch.nn.Module,
        output_layer: torch.nn.Module | None = None,
        n_classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if (output_layer is None) == (n_classes is None):
            raise ValueError("TextClassifier takes either an output_layer or n_classes")
        self.embedder = embedder
        self.dropout = torch.nn.Dropout(dropout)
        if output_layer is None:
            output_layer = torch.nn.Linear(output_size(embedder), int(n_classes or 0))
        self.output_layer = output_layer

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Return what the output layer does: from shape (batch, tokens), int64, to (batch, …)."""
        output: torch.Tensor = self.output_layer(self.dropout(self.embedder(data)))
        return output

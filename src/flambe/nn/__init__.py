"""Models and their parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flambe._lazy import lazy_exports

if TYPE_CHECKING:
    from flambe.nn.classifier import Classifier, TextClassifier
    from flambe.nn.embedder import Embedder
    from flambe.nn.embedding import Embeddings
    from flambe.nn.mlp import MLPEncoder, SoftmaxLayer
    from flambe.nn.module import Module
    from flambe.nn.pooling import (
        AttentionPooling,
        FirstPooling,
        LastPooling,
        MaxPooling,
        MeanPooling,
        Pooling,
    )
    from flambe.nn.rnn import RNNEncoder
    from flambe.nn.transformer import TransformerEncoder

__all__ = [
    "AttentionPooling",
    "Classifier",
    "Embedder",
    "Embeddings",
    "FirstPooling",
    "LastPooling",
    "MLPEncoder",
    "MaxPooling",
    "MeanPooling",
    "Module",
    "Pooling",
    "RNNEncoder",
    "SoftmaxLayer",
    "TextClassifier",
    "TransformerEncoder",
]

# Loaded when they are used, so that what needs no torch does not import it.
__getattr__ = lazy_exports(
    __name__,
    {
        "Classifier": "classifier",
        "TextClassifier": "classifier",
        "Embedder": "embedder",
        "Embeddings": "embedding",
        "MLPEncoder": "mlp",
        "SoftmaxLayer": "mlp",
        "Module": "module",
        "AttentionPooling": "pooling",
        "FirstPooling": "pooling",
        "LastPooling": "pooling",
        "MaxPooling": "pooling",
        "MeanPooling": "pooling",
        "Pooling": "pooling",
        "RNNEncoder": "rnn",
        "TransformerEncoder": "transformer",
    },
)

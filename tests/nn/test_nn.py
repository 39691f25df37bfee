from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flambe.compile import load, save
from flambe.compile.state.component_state import same
from flambe.nn import (
    AttentionPooling,
    Classifier,
    Embedder,
    Embeddings,
    FirstPooling,
    LastPooling,
    MaxPooling,
    MeanPooling,
    MLPEncoder,
    Module,
    Pooling,
    RNNEncoder,
    SoftmaxLayer,
    TextClassifier,
    TransformerEncoder,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


TOKENS = torch.tensor([[3, 4, 5, 0, 0], [6, 7, 8, 9, 2], [5, 0, 0, 0, 0]])


def test_module_parameters_and_freezing() -> None:
    model = Classifier(MLPEncoder(4, 8, n_layers=2, hidden_size=6), 3)
    assert model.num_parameters == 4 * 6 + 6 + 6 * 8 + 8 + 8 * 3 + 3
    assert isinstance(model.encoder, Module)
    model.encoder.freeze()
    assert model.num_trainable_parameters == 27
    assert len(model.trainable_params) == 2
    model.encoder.unfreeze()
    assert len(model.trainable_params) == 6
    assert model(torch.zeros(5, 4)).shape == (5, 3)


def test_own_module_records_its_arguments(tmp_path: Path) -> None:
    model = TextClassifier(
        Embedder(Embeddings(10, 6), RNNEncoder(6, 4), AttentionPooling(4)), n_classes=3
    )
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert same(again.get_state(), model.get_state())
    assert torch.equal(again(TOKENS), model(TOKENS))
    encoder = load(tmp_path / "model" / "embedder" / "encoder")
    assert encoder.rnn.hidden_size == 4


def test_mlp() -> None:
    encoder = MLPEncoder(
        4, 2, n_layers=3, dropout=0.5, output_activation=torch.nn.Tanh(),
        hidden_activation=torch.nn.Sigmoid(),
    )  # fmt: skip
    kinds = [type(layer).__name__ for layer in encoder.layers]
    assert kinds == ["Dropout", "Linear", "Sigmoid"] * 2 + ["Dropout", "Linear", "Tanh"]
    with pytest.raises(ValueError, match="at least 1"):
        MLPEncoder(4, 2, 0)


def test_softmax_layer() -> None:
    layer = SoftmaxLayer(4, 3)
    assert torch.allclose(layer(torch.randn(2, 4)).exp().sum(-1), torch.ones(2))
    assert torch.allclose(SoftmaxLayer(4, 3, take_log=False)(torch.ones(4)).sum(), torch.ones(()))


def test_embeddings() -> None:
    ours = Embeddings(10, 6, padding_idx=0)
    assert ours(TOKENS)[0, 3].abs().sum() == 0
    ours(TOKENS).sum().backward()
    assert ours.weight.grad is not None
    assert ours.weight.grad[0].abs().sum() == 0
    matrix = torch.randn(10, 6)
    frozen = Embeddings.from_pretrained(matrix)
    assert torch.equal(frozen(TOKENS), matrix[TOKENS])
    assert frozen.trainable_params == []
    assert len(Embeddings.from_pretrained(matrix, freeze=False).trainable_params) == 1
    with pytest.raises(ValueError, match="given a file of embeddings"):
        Embeddings.from_pretrained(None)
    placed = Embeddings(10, 6, max_positions=5)
    assert not torch.equal(placed(TOKENS)[0, 2], placed(TOKENS)[2, 0])
    with pytest.raises(ValueError, match="max_positions is 5"):
        placed(torch.ones(1, 6, dtype=torch.int64))


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_rnn_skips_padding(kind: str, bidirectional: bool) -> None:
    encoder = RNNEncoder(6, 4, rnn_type=kind, bidirectional=bidirectional, n_layers=2)  # type: ignore[arg-type]
    data = torch.randn(3, 5, 6)
    mask = TOKENS != 0
    states = encoder(data, mask)
    assert states.shape == (3, 5, encoder.output_size)
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = encoder(data[row : row + 1, :length])
        assert torch.allclose(states[row, :length], alone[0], atol=1e-6)
        assert states[row, length:].abs().sum() == 0


def test_transformer_ignores_padding() -> None:
    encoder = TransformerEncoder(6, 8, n_heads=2).eval()
    data, mask = torch.randn(3, 5, 6), TOKENS != 0
    encoded = encoder(data, mask)
    alone = encoder(data[:1, :3])
    assert torch.allclose(encoded[0, :3], alone[0], atol=1e-5)
    assert not torch.allclose(encoder(data.flip(1)), encoder(data).flip(1), atol=1e-3)
    unordered = TransformerEncoder(6, 8, n_heads=2, positions=False).eval()
    assert torch.allclose(unordered(data.flip(1)), unordered(data).flip(1), atol=1e-5)
    with pytest.raises(ValueError, match="does not divide"):
        TransformerEncoder(6, 9, n_heads=2)


@pytest.mark.parametrize(
    "pooling",
    [FirstPooling(), LastPooling(), MeanPooling(), MaxPooling(), AttentionPooling(6, n_heads=2)],
)
def test_pooling_ignores_padding(pooling: Pooling) -> None:
    data, mask = torch.randn(3, 5, 6), TOKENS != 0
    pooled = pooling(data, mask)
    assert pooled.shape == (3, 6)
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = pooling(data[row : row + 1, :length])
        assert torch.allclose(pooled[row], alone[0], atol=1e-6)


def test_pooling_of_known_values() -> None:
    data = torch.tensor([[[1.0], [5.0], [3.0], [9.0]]])
    mask = torch.tensor([[True, True, True, False]])
    values = [float(p(data, mask)) for p in (FirstPooling(), LastPooling(), MeanPooling())]
    assert values == [1, 3, 3]
    assert float(MaxPooling()(data, mask)) == 5


def test_text_classifier_is_the_same_with_more_padding() -> None:
    embedder = Embedder(
        torch.nn.Embedding(10, 6), RNNEncoder(6, 4, bidirectional=True), AttentionPooling(8)
    )
    assert embedder.output_size == embedder.hidden_size == 8
    model = TextClassifier(embedder, SoftmaxLayer(embedder.hidden_size, 3)).eval()
    padded = torch.nn.functional.pad(TOKENS, (0, 4))
    assert torch.allclose(model(TOKENS), model(padded), atol=1e-6)
    with pytest.raises(ValueError, match="either an output_layer or n_classes"):
        TextClassifier(embedder)


def test_embedder_without_encoder_or_pooling() -> None:
    plain = Embedder(Embeddings(10, 6))
    assert plain.output_size == 6
    assert plain(TOKENS).shape == (3, 5, 6)
    assert Embedder(Embeddings(10, 6), pooling=MeanPooling())(TOKENS).shape == (3, 6)
    with pytest.raises(ValueError, match="Linear has no embedding_dim"):
        _ = Embedder(torch.nn.Linear(1, 2)).output_size

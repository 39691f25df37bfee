"""Recurrent networks."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from flambe.nn.module import Module


class RNNEncoder(Module):
    """A recurrent network over a sequence; padding is skipped.

    Parameters
    ----------
    input_size
        The size of an input vector.
    hidden_size
        The size of the state, in each direction.
    n_layers
        How many layers.
    rnn_type
        ``rnn``, ``gru`` (Cho et al., 2014) or ``lstm`` (Hochreiter and Schmidhuber, 1997).
    dropout
        Between layers.
    bidirectional
        Whether the sequence is read backwards as well.

    Attributes
    ----------
    rnn
        The ``torch.nn.RNN``, ``GRU`` or ``LSTM``: ``!@ model[encoder].rnn.hidden_size``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        n_layers: int = 1,
        rnn_type: Literal["rnn", "gru", "lstm"] = "lstm",
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = hidden_size * (2 if bidirectional else 1)
        kinds = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
        if rnn_type not in kinds:
            raise ValueError(f"rnn_type is one of {', '.join(kinds)}, not {rnn_type!r}")
        self.rnn: torch.nn.RNNBase = kinds[rnn_type](
            input_size,
            hidden_size,
            num_layers=n_layers,
            batch_first=True,
            # torch warns where there is nothing to drop.
            dropout=dropout if n_layers > 1 else 0.0,
            bidirectional=bidirectional,
        )

    def forward(self, data: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Encode a batch of sequences.

        Parameters
        ----------
        data
            Shape (batch, tokens, input_size).
        mask
            True where there is a token, shape (batch, tokens); padding is at the end.

        Returns
        -------
        torch.Tensor
            The state at each token, shape (batch, tokens, output_size); 0 at padding.
        """
        if mask is None:
            plain: torch.Tensor = self.rnn(data)[0]
            return plain
        # Packing takes no empty sequences, and the lengths on the CPU.
        lengths = mask.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(data, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(
            self.rnn(packed)[0], batch_first=True, total_length=data.shape[1]
        )
        return states

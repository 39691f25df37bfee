"""Text."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch

from flambe.field.field import Field, FieldError
from flambe.field.ragged import Ragged
from flambe.field.tokenizer import CharTokenizer, WordTokenizer
from flambe.field.vectors import read_vectors


class TextField(Field):
    """Turns text into the indices of its tokens.

    Parameters
    ----------
    tokenizer
        ``word``, ``char``, or what splits a text into tokens (a :class:`Tokenizer`).
    lowercase
        Whether text is lowercased first.
    min_freq
        Rarer tokens are unknown.
    max_size
        Keep so many tokens, the most frequent; those below are not counted.
    pad_token, unk_token, bos_token, eos_token
        The tokens for padding (index 0), for what is unknown, and at the beginning and the end of
        each text; leave out with null. Without ``unk_token`` unknown tokens are dropped.
    max_length
        Longer texts are cut to so many tokens, those at the beginning and the end included.
    all_splits
        Whether tokens of the validation and test data enter the vocabulary. Only useful with
        ``embeddings``: no others are ever trained.
    embeddings
        A file of vectors in the text format of GloVe or word2vec.

    Attributes
    ----------
    embedding_matrix
        The vectors of the vocabulary, shape (tokens, dimension), if a file is given: for
        ``!Embeddings.from_pretrained``.
    """

    #: What the vocabulary, which is registered, is kept as.
    _transient: ClassVar[tuple[str, ...]] = ("_vocabulary", "_index")

    def __init__(
        self,
        tokenizer: Literal["word", "char"] | Callable[[str], Sequence[str]] = "word",
        *,
        lowercase: bool = False,
        min_freq: int = 1,
        max_size: int | None = None,
        pad_token: str | None = "<pad>",
        unk_token: str | None = "<unk>",
        bos_token: str | None = None,
        eos_token: str | None = None,
        max_length: int | None = None,
        all_splits: bool = False,
        embeddings: str | None = None,
    ) -> None:
        if max_length is not None and max_length < 1 + (bos_token is not None) + (
            eos_token is not None
        ):
            raise ValueError(f"max_length: {max_length} leaves no room for a token")
        self.tokenizer = {"word": WordTokenizer(), "char": CharTokenizer()}.get(
            tokenizer if isinstance(tokenizer, str) else "", tokenizer
        )
        self.lowercase = lowercase
        self.min_freq = min_freq
        self.max_size = max_size
        self.pad_token = pad_token
        self.unk_token = unk_token
        self.bos_token = bos_token
        self.eos_token = eos_token
        self.max_length = max_length
        self.all_splits = all_splits
        self.embeddings = embeddings
        self.embedding_matrix: torch.Tensor | None = None
        self._vocabulary: list[str] = []
        self._index: dict[str, int] = {}
        self.register_attrs("vocabulary", "embedding_matrix")

    @property
    def vocabulary(self) -> list[str]:
        """The tokens, in the order of their indices."""
        return self._vocabulary

    @vocabulary.setter
    def vocabulary(self, tokens: Sequence[str]) -> None:
        self._vocabulary = list(tokens)
        self._index = {token: index for index, token in enumerate(self._vocabulary)}

    @property
    def vocab_size(self) -> int:
        """The number of tokens, those for padding and the like included."""
        return len(self._vocabulary)

    @property
    def specials(self) -> list[str]:
        """The tokens that do not come from text."""
        named = (self.pad_token, self.unk_token, self.bos_token, self.eos_token)
        return list(dict.fromkeys(token for token in named if token is not None))

    @property
    def pad_index(self) -> int:
        """The index to pad with: what a sampler's ``pad_index`` should be."""
        return 0 if self.pad_token is None else self._index[self.pad_token]

    def tokenize(self, text: object) -> list[str]:
        """Split a text, without adding anything."""
        if not isinstance(text, str):
            raise FieldError(f"{text!r} is not text")
        if not callable(self.tokenizer):
            raise TypeError(f"the tokenizer is a {type(self.tokenizer).__name__}")
        return list(self.tokenizer(text.lower() if self.lowercase else text))

    def setup(self, train: Sequence[object], *others: Sequence[object]) -> None:
        """Make the vocabulary: the most frequent tokens first."""
        splits = (train, *others) if self.all_splits else (train,)
        counts: Counter[str] = Counter()
        for text in itertools.chain.from_iterable(splits):
            counts.update(self.tokenize(text))
        specials = self.specials
        for token in specials:
            counts.pop(token, None)
        frequent = [token for token, count in counts.items() if count >= self.min_freq]
        frequent.sort(key=lambda token: (-counts[token], token))
        self.vocabulary = specials + frequent[: self.max_size]
        if self.embeddings is not None:
            # What stands for padding stays at zero.
            padding = [] if self.pad_token is None else [self.pad_index]
            self.embedding_matrix = read_vectors(self.embeddings, self._index, padding)

    def _indices(self, text: object) -> list[int]:
        unknown = None if self.unk_token is None else self._index.get(self.unk_token)
        looked_up = (self._index.get(token, unknown) for token in self.tokenize(text))
        indices = [index for index in looked_up if index is not None]
        ends = [self._index[t] for t in (self.bos_token,) if t is not None]
        tail = [self._index[t] for t in (self.eos_token,) if t is not None]
        if self.max_length is not None:
            indices = indices[: self.max_length - len(ends) - len(tail)]
        indices = ends + indices + tail
        # A model cannot take a sequence of nothing.
        return indices or [unknown if unknown is not None else self.pad_index]

    def process(self, value: object) -> torch.Tensor:
        """Return the indices of a text's tokens: shape (tokens,), int64, at least one."""
        return torch.tensor(self._indices(value), dtype=torch.int64)

    def process_column(self, values: Sequence[object]) -> Ragged:
        """Return the indices of the tokens of all texts."""
        indices: list[int] = []
        lengths: list[int] = []
        for row, value in enumerate(values):
            try:
                row_indices = self._indices(value)
            except FieldError as error:
                raise FieldError(error.message, row) from None
            indices += row_indices
            lengths.append(len(row_indices))
        return Ragged(
            torch.tensor(indices, dtype=torch.int64), torch.tensor(lengths, dtype=torch.int64)
        )

    def text(self, indices: Sequence[int] | torch.Tensor) -> list[str]:
        """Return the tokens at indices, without padding."""
        numbers = indices.tolist() if isinstance(indices, torch.Tensor) else indices
        return [
            self._vocabulary[index]
            for index in numbers
            if self._vocabulary[index] != self.pad_token
        ]

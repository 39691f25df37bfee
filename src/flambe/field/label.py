"""Labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import torch

from flambe._grammar import as_list
from flambe.errors import did_you_mean, listed
from flambe.field.field import Field, FieldError


class LabelField(Field):
    """Numbers the labels of a column.

    Parameters
    ----------
    one_hot
        Whether a label becomes a vector of zeros with a one (float32) instead of an index (int64).
    multilabel_sep
        What separates the labels of one row; the vector then has several ones.
    labels
        All labels, in the order of their indices. By default those of the training data, sorted.

    Attributes
    ----------
    vocabulary
        The labels: a label's index is its position.
    """

    #: What the vocabulary, which is registered, is kept as.
    _transient: ClassVar[tuple[str, ...]] = ("_vocabulary", "_index")

    def __init__(
        self,
        one_hot: bool = False,
        multilabel_sep: str | None = None,
        labels: Sequence[str | int | float] | None = None,
    ) -> None:
        self.one_hot = one_hot or multilabel_sep is not None
        self.multilabel_sep = multilabel_sep
        self.labels = None if labels is None else as_list(labels, "labels takes a list")
        self.counts: list[int] = []
        self._vocabulary: list[str] = []
        self._index: dict[str, int] = {}
        if labels is not None:
            self.vocabulary = [str(label) for label in labels]
            self.counts = [0] * len(self.vocabulary)
        self.register_attrs("vocabulary", "counts")

    @property
    def vocabulary(self) -> list[str]:
        """The labels, in the order of their indices."""
        return self._vocabulary

    @vocabulary.setter
    def vocabulary(self, labels: Sequence[str]) -> None:
        self._vocabulary = list(labels)
        self._index = {label: index for index, label in enumerate(self._vocabulary)}

    @property
    def vocab_size(self) -> int:
        """The number of labels."""
        return len(self._vocabulary)

    @property
    def label_count(self) -> torch.Tensor:
        """How often each label stands in the training data: shape (labels,), float32."""
        return torch.tensor(self.counts, dtype=torch.float32)

    @property
    def label_freq(self) -> torch.Tensor:
        """The share of each label in the training data: shape (labels,)."""
        return self.label_count / self.label_count.sum()

    @property
    def label_inv_freq(self) -> torch.Tensor:
        """One over the share of each label, as weights of a loss: shape (labels,)."""
        return 1.0 / self.label_freq

    def _split(self, value: object) -> list[str]:
        text = str(value)
        if self.multilabel_sep is None:
            return [text]
        return [part for part in text.split(self.multilabel_sep) if part]

    def setup(self, train: Sequence[object], *others: Sequence[object]) -> None:
        """Collect and count the labels of the training data."""
        counts = Counter(label for value in train for label in self._split(value))
        if self.labels is None:
            self.vocabulary = sorted(counts)
        self.counts = [counts[label] for label in self.vocabulary]

    def process(self, value: object) -> torch.Tensor:
        """Return the index of a label, shape (), or its vector, shape (labels,)."""
        indices = [self._lookup(label) for label in self._split(value)]
        if not self.one_hot:
            return torch.tensor(indices[0])
        vector = torch.zeros(self.vocab_size)
        vector[indices] = 1.0
        return vector

    def process_column(self, values: Sequence[object]) -> torch.Tensor:
        """Return the indices, shape (n,), or the vectors, shape (n, labels)."""
        rows, indices = [], []
        for row, value in enumerate(values):
            try:
                labels = [self._lookup(label) for label in self._split(value)]
            except FieldError as error:
                raise FieldError(error.message, row, error.unseen) from None
            rows += [row] * len(labels)
            indices += labels
        if not self.one_hot:
            return torch.tensor(indices, dtype=torch.int64)
        vectors = torch.zeros(len(values), self.vocab_size)
        vectors[rows, indices] = 1.0
        return vectors

    def _lookup(self, label: str) -> int:
        index = self._index.get(label)
        if index is None:
            hint = did_you_mean(label, self.vocabulary)
            raise FieldError(
                f"unknown label {label!r}{f': {hint}' if hint else ''}; "
                f"the labels of the training data: {listed(self.vocabulary)}",
                unseen=self.labels is None,
            )
        return index

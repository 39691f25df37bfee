"""From text to tokens."""

from __future__ import annotations

import re

from flambe.compile import Component

_WORDS = re.compile(r"\w+|[^\w\s]")


class Tokenizer(Component):
    """Splits text: implement :meth:`tokenize`."""

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        raise NotImplementedError(f"{type(self).__name__} must implement tokenize(text)")

    def __call__(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        return self.tokenize(text)


class WordTokenizer(Tokenizer):
    """Splits into words and punctuation marks."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words and punctuation marks of a text."""
        return _WORDS.findall(text)


class CharTokenizer(Tokenizer):
    """Splits into characters, or into overlapping runs of them.

    Parameters
    ----------
    n
        How many characters a token has.
    """

    def __init__(self, n: int = 1) -> None:
        if n < 1:
            raise ValueError(f"n is the number of characters of a token: at least 1, not {n}")
        self.n = n

    def tokenize(self, text: str) -> list[str]:
        """Return the characters of a text; a text shorter than ``n`` is one token."""
        if self.n == 1:
            return list(text)
        count = max(1, len(text) - self.n + 1)
        return [text[start : start + self.n] for start in range(count)] if text else []

"""Files of pretrained vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from flambe.field.field import FieldError


def read_vectors(path: str, index: Mapping[str, int], zeros: Sequence[int] = ()) -> torch.Tensor:
    """Read the vectors of a vocabulary from a file.

    Parameters
    ----------
    path
        A file in the text format of GloVe (``token x y z …`` in each line) or word2vec (the same,
        below a line with the number of tokens and their dimension).
    index
        From token to row.
    zeros
        Rows that stay at zero.

    Returns
    -------
    torch.Tensor
        Shape (tokens, dimension). A token that is not in the file gets a random vector, always the
        same, of the mean and spread of the others.

    Raises
    ------
    FieldError
        If a line cannot be read, or the file has no vector for any token.
    """
    rows: dict[int, list[float]] = {}
    dimension = 0
    with open(path, encoding="utf-8", errors="replace", newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            parts = line.rstrip().split(" ")
            if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
                dimension = int(parts[1])
                continue
            dimension = dimension or len(parts) - 1
            # A token may itself contain spaces.
            token = " ".join(parts[: len(parts) - dimension])
            if len(parts) <= dimension or dimension < 1:
                raise FieldError(f"{path}:{number}: {len(parts) - 1} numbers, not {dimension}")
            if token in index:
                try:
                    rows[index[token]] = [float(part) for part in parts[-dimension:]]
                except ValueError as error:
                    raise FieldError(f"{path}:{number}: {error}") from None
    if not rows:
        raise FieldError(f"{path} has no vector for any of the {len(index)} tokens")
    vectors = torch.tensor(list(rows.values()))
    spread, mean = torch.std_mean(vectors, correction=0)
    generator = torch.Generator().manual_seed(0)
    matrix = mean + spread * torch.randn(len(index), dimension, generator=generator)
    matrix[list(rows)] = vectors
    matrix[list(zeros)] = 0.0
    return matrix

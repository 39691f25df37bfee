"""The output of processes, as error messages quote it."""

from __future__ import annotations


def quote_tail(output: str, lines: int = 12, prefix: str = "  | ") -> str:
    """Return the last lines of an output for an error message, each on a line of its own.

    Empty for an output without text. Secrets must have been removed: see
    :func:`flambe.logging.redact.hide`.

    Parameters
    ----------
    output
        What a process printed.
    lines
        The number of lines to keep.
    prefix
        What each line starts with.
    """
    return "".join(f"\n{prefix}{line}" for line in output.strip().splitlines()[-lines:])

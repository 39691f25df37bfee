"""Source code of Python and its syntax trees, from any thread."""

from __future__ import annotations

import ast
import inspect
import threading

# Where two threads make trees at once, Python 3.11 raises "SystemError: AST constructor recursion
# depth mismatch": https://github.com/python/cpython/issues/106905. inspect makes them too.
_LOCK = threading.RLock()


def parse(text: str | bytes) -> ast.Module:
    """Return the tree of a module, as :func:`ast.parse` does."""
    with _LOCK:
        return ast.parse(text)


def source_of(target: object) -> str:
    """Return the source of a class or function, as :func:`inspect.getsource` does."""
    with _LOCK:
        return inspect.getsource(target)  # type: ignore[arg-type]

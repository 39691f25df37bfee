"""ARCHITECTURE.md names files, classes and functions that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "flambe"


def names(path: Path) -> set[str]:
    """Return the functions and classes of a module, and its methods as ``Class.method``."""
    defined = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (
                n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
            )
            defined |= {f"{node.name}.{method.name}" for method in methods}
    return defined


def test_what_the_walks_name_is_there() -> None:
    text = re.sub(r"\s+", " ", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    files = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|js))`", text))
    assert len(files) > 20
    assert (
        sorted(file for file in files if not ((SOURCE / file).exists() or (ROOT / file).exists()))
        == []
    )
    calls = re.findall(r"`((?:\w+/)*\w+\.py)`: `([\w.]+)`", text)
    assert len(calls) > 15
    assert [(file, name) for file, name in calls if name not in names(SOURCE / file)] == []

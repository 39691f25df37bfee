"""Print figures of the source: names, types, lengths, imports. ``python tools/house.py [--list]``.

Each has a limit, which the last column shows; ``--list`` prints what stands above it, by file and
line. Imports below ``TYPE_CHECKING`` and in functions count like all others.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"
PACKAGE = SOURCE / "flambe"
# Names that fit any value say nothing of the one that they hold.
VAGUE = {"told", "one", "found", "known", "given", "said", "wanted", "what", "place", "there"}
VAGUE |= {"made", "lacking", "shown"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Figure:
    """Something counted: where it occurs, of how many, and how many there may be."""

    name: str
    limit: float
    where: list[str] = field(default_factory=list)
    total: int = 0
    share: bool = False  # whether the limit is a percentage of the total

    @property
    def value(self) -> float:
        """What the limit is compared with."""
        return 100 * len(self.where) / max(self.total, 1) if self.share else len(self.where)

    def __str__(self) -> str:
        count = f"{self.value:.2f} %" if self.share else f"{len(self.where):,}"
        of = f" of {self.total:,}" if self.total else ""
        limit = f"{self.limit:g} %" if self.share else f"{self.limit:g}"
        mark = " " if self.value <= self.limit else "!"
        return f"{mark} {self.name:<44}{count + of:>18}   at most {limit}"


def bindings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each name that is bound, and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield node.name, node.lineno


def explicit_any(tree: ast.AST) -> Iterator[int]:
    """Yield the line of each ``Any``, its imports aside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "Any":
            yield node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [node.lineno] * (node.value in ("Any", "dict[str, Any]"))


def public_methods(node: ast.ClassDef) -> int:
    """Return how many methods a class has that callers may use, overloads counted once."""
    names = {m.name for m in node.body if isinstance(m, FUNCTIONS)}
    return sum(not name.startswith("_") for name in names)


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a body, its docstring aside."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def module_name(path: Path) -> str:
    """Return the name that a file is imported by."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of flambe that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from (name for name in [full if full in modules else node.module])


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one node (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                components.append(sorted(component))

    sys.setrecursionlimit(10_000)
    for node in sorted(graph):
        if node not in index:
            visit(node)
    return components


def figures() -> list[Figure]:
    """Read all of the source, and count."""
    paths = [p for p in sorted(PACKAGE.rglob("*.py")) if "static" not in p.parts]
    modules = {module_name(path): path for path in paths}
    vague = Figure("bindings that are one of 13 vague names", 60)
    anys = Figure("explicit Any", 250)
    classes = Figure("classes of more than 15 public methods", 2)
    bodies = Figure("bodies of more than 40 lines", 0.5, share=True)
    long = Figure("modules of more than 400 lines", 0)
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        short = path.relative_to(SOURCE)
        graph[name] = {other for other in imports(tree, modules) if other in modules} - {name}
        for bound, line in bindings(tree):
            vague.total += 1
            if bound.strip("_") in VAGUE:
                vague.where.append(f"{short}:{line}: {bound}")
        anys.where += [f"{short}:{line}" for line in explicit_any(tree)]
        long.where += [f"{short}: {text.count(chr(10))}"] * (text.count("\n") > 400)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes.total += 1
                if public_methods(node) > 15:
                    classes.where.append(f"{short}:{node.lineno}: {node.name}")
            elif isinstance(node, FUNCTIONS):
                bodies.total += 1
                if body_lines(node) > 40:
                    bodies.where.append(f"{short}:{node.lineno}: {node.name}")
    found = circles(graph)
    circular = Figure("circles of files", 0, [" ".join(circle) for circle in found])
    folders = Counter(str(path.parent.relative_to(SOURCE)) for path in paths)
    fullest = folders.most_common(1)[0][0]
    full = Figure(f"modules in the fullest folder, {fullest}", 20)
    full.where = [str(p.relative_to(SOURCE)) for p in paths if str(p.parent).endswith(fullest)]
    return [vague, anys, classes, bodies, long, circular, full]


def main() -> int:
    """Print each figure, and where its limit is passed."""
    for figure in figures():
        print(figure)
        if "--list" in sys.argv and figure.value > figure.limit:
            print(*(f"    {line}" for line in figure.where), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

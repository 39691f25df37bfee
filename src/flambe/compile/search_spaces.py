"""Search spaces of Ray Tune (``!tune.uniform [0, 1]``): which values they draw. Ray is not used."""

from __future__ import annotations

from flambe.compile.values import Blueprint, Key

_MODULE = "ray.tune.search.sample:"
CHOICE = f"{_MODULE}choice"


def is_space(value: object) -> bool:
    """Whether a value is a search space."""
    return isinstance(value, Blueprint) and value.target.startswith(_MODULE)


def kind(space: Blueprint) -> str:
    """Return which kind of space it is: ``loguniform``."""
    return space.target.removeprefix(_MODULE)


def draws_whole(space: Blueprint) -> bool:
    """Whether a space draws whole numbers."""
    return kind(space).endswith("randint")


def draws_real(space: Blueprint) -> bool:
    """Whether a space draws numbers with a fraction."""
    return kind(space).endswith(("uniform", "randn"))


def categories(space: Blueprint) -> tuple[tuple[Key, ...], list[object]] | None:
    """Return where it is written what a space chooses from, and that; None if unknown."""
    if space.target != CHOICE:
        return None
    key: Key = 0 if space.args else "categories"
    written = space.args[0] if space.args else space.kwargs.get("categories")
    return ((key,), written) if isinstance(written, list) else None

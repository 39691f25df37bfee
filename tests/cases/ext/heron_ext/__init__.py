"""The extension that the golden cases declare."""

from __future__ import annotations

import abc
import subprocess  # noqa: F401 (a case shows that no tag leads through it)
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional

from flambe.compile import (
    Component,
    MappedRegistrable,
    Registrable,
    Schema,
    alias,
    registrable_factory,
)

if TYPE_CHECKING:
    from decimal import Decimal

LIMIT = 3


class HeronNest(Component):
    """A component without a step."""

    def __init__(self, eggs: int = 2, twigs: Sequence[str] = ()) -> None:
        self.eggs = eggs
        self.twigs = twigs

    @registrable_factory
    @classmethod
    def from_twigs(cls, count: int, kind: str = "reed") -> HeronNest:
        return cls(0, [kind] * count)

    @classmethod
    def unmarked(cls) -> HeronNest:
        return cls()


class HeronWorker(Component):
    """A component with a step, to stand as a stage."""

    def __init__(
        self,
        nest: HeronNest | None = None,
        rate: float = 0.1,
        size: int = 1,
        extra: Any = None,
        more: Any = None,
    ) -> None:
        self.nest = nest
        self.rate = rate
        self.size = size
        self.extra = extra
        self.more = more

    def run(self) -> bool:
        return False


class HeronTypes(Component):
    """One keyword for each kind of annotation."""

    def __init__(
        self,
        whole: int = 1,
        real: float = 0.5,
        flag: bool = False,
        text: str = "",
        path: Path | None = None,
        choice: Literal["left", "right"] = "left",
        items: list[int] | None = None,
        pair: tuple[int, str] = (1, "a"),
        many: tuple[float, ...] = (),
        table: Mapping[str, int] | None = None,
        call: Callable[[int], int] | None = None,
        either: int | str = 1,
        old: Optional[int] = None,
        words: Iterable[str] = (),
        nest: HeronNest | None = None,
        blueprint: Schema | None = None,
        anything: Any = None,
        unknown: Decimal | None = None,
    ) -> None:
        self.given = dict(locals())


class HeronNeeds(Component):
    """Keywords without a default."""

    def __init__(self, first: int, second: str, third: float = 0.5) -> None:
        self.values = first, second, third


class HeronFlock(Component):
    """Any number of values, and a keyword."""

    def __init__(self, *birds: Any, place: str = "marsh") -> None:
        self.birds = birds
        self.place = place


class HeronOpen(Component):
    """Any keyword."""

    def __init__(self, **values: Any) -> None:
        self.values = values


class HeronAbstract(Component, abc.ABC):
    """Not to be built."""

    @abc.abstractmethod
    def wade(self) -> None: ...


@alias("grey_heron")
class HeronAliased(Component):
    """A class with another tag."""

    def __init__(self, depth: int = 1) -> None:
        self.depth = depth


class HeronScalar(Registrable):
    """Reads a scalar."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @classmethod
    def from_yaml(cls, value: Any) -> HeronScalar:
        return cls(value)

    def to_yaml(self) -> Any:
        return self.value


class HeronList(Registrable):
    """Reads a list."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    @classmethod
    def from_yaml(cls, value: Any) -> HeronList:
        return cls(list(value))

    def to_yaml(self) -> Any:
        return self.items


class HeronTable(Registrable):
    """Reads a mapping."""

    def __init__(self, rows: dict[str, Any]) -> None:
        self.rows = rows

    @classmethod
    def from_yaml(cls, value: Any) -> HeronTable:
        return cls(dict(value))

    def to_yaml(self) -> Any:
        return self.rows


class HeronSettings(MappedRegistrable):
    """Keywords, loaded at once."""

    def __init__(self, host: str, port: int = 22, options: Mapping[str, Any] | None = None) -> None:
        self.host = host
        self.port = port
        self.options = options


class HeronPlain:
    """Neither a component nor registered."""

    def __init__(self, length: int = 0) -> None:
        self.length = length


class _Hidden(Component):
    pass


def make_heron() -> HeronPlain:
    return HeronPlain()

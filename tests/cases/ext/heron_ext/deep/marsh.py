"""A module two levels down."""

from __future__ import annotations

from flambe.compile import registrable_factory


class MarshBird:
    """A plain class."""

    def __init__(self, legs: int = 2) -> None:
        self.legs = legs

    @registrable_factory
    @classmethod
    def on_one_leg(cls) -> MarshBird:
        return cls(1)

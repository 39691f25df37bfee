"""A terminal, or what stands for one: what is shown there is text, and nothing but text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from flambe.cli.streams import SteadyStream
from flambe.logging.plain import plain

PLAIN_WIDTH = 140  # columns, where there is no terminal


class TextConsole(Console):
    """A console for which text is text: markup, emoji codes and escape sequences mean nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return text as it is: every string that is printed or put into a table comes here."""
        return super().render_str(plain(text), **{**options, "markup": False, "emoji": False})

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield what is shown, without what a :class:`~rich.text.Text` smuggled in."""
        for segment in super().render(renderable, options):
            text = segment.text
            if segment.control or text.isprintable() or (kept := plain(text)) == text:
                yield segment
            else:
                yield Segment(kept, segment.style)


def console(*, steady: bool = False) -> TextConsole:
    """Return a console on the output; where it is not a terminal, tables have room.

    A steady one shows what goes on whether somebody reads it or not. Another ends the command
    when its reader is gone.
    """
    stream: Any = SteadyStream(sys.stdout) if steady and sys.stdout is not None else sys.stdout
    shown = TextConsole(file=stream, soft_wrap=False)
    if not shown.is_terminal and "COLUMNS" not in os.environ:
        shown.width = PLAIN_WIDTH
    return shown

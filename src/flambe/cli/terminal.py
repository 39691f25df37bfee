"""The console that commands print on: text is printed as text, never as markup or escapes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, JustifyMethod, OverflowMethod, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from flambe.cli.streams import SteadyStream
from flambe.logging.plain import plain

PLAIN_WIDTH = 140  # columns, where the output is not a terminal


class TextConsole(Console):
    """A console without markup, emoji codes and escape sequences: text is text.

    Parameters
    ----------
    file, width, force_terminal
        As in :class:`rich.console.Console`.
    """

    def __init__(
        self,
        file: IO[str] | None = None,
        width: int | None = None,
        force_terminal: bool | None = None,
    ) -> None:
        super().__init__(
            file=file,
            width=width,
            force_terminal=force_terminal,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def render_str(
        self,
        text: str,
        *,
        style: str | Style = "",
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        emoji: bool | None = None,
        markup: bool | None = None,
        highlight: bool | None = None,
        highlighter: Callable[[str | Text], Text] | None = None,
    ) -> Text:
        """Return text as it is: every string that is printed or put into a table comes here."""
        return super().render_str(
            plain(text),
            style=style,
            justify=justify,
            overflow=overflow,
            emoji=False,
            markup=False,
            highlight=highlight,
            highlighter=highlighter,
        )

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield segments without the control characters of a :class:`~rich.text.Text`."""
        for segment in super().render(renderable, options):
            text = segment.text
            if segment.control or text.isprintable() or (cleaned := plain(text)) == text:
                yield segment
            else:
                yield Segment(cleaned, segment.style)


def console(*, steady: bool = False) -> TextConsole:
    """Return a console on stdout; where that is not a terminal, tables are wide.

    A steady console ignores that its reader has exited. Any other ends the command then.
    """
    # Any: the stream passes on every other method of a text file.
    stream: Any = SteadyStream(sys.stdout) if steady and sys.stdout is not None else sys.stdout
    screen = TextConsole(file=stream)
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = PLAIN_WIDTH
    return screen

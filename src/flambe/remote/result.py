"""The result of a command."""

from __future__ import annotations

from dataclasses import dataclass

from flambe.errors import CommandError
from flambe.logging import redact


@dataclass(frozen=True)
class Result:
    """The end of a command.

    Attributes
    ----------
    host
        Where it ran, as people call it.
    command
        What ran, as a shell would take it.
    code
        Its exit code.
    stdout, stderr
        Its output; of very long ones the end.
    """

    host: str
    command: str
    code: int
    stdout: str
    stderr: str

    def checked(self) -> Result:
        """Return the result itself.

        Raises
        ------
        CommandError
            If the exit code is not 0.
        """
        if self.code:
            texts = [redact.hide(text) for text in (self.command, self.stdout, self.stderr)]
            raise CommandError(self.host, texts[0], self.code, *texts[1:])
        return self

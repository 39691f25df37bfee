"""What can go wrong, and how it is told.

::

    FlambeError
    ├── ConfigError              the configuration is wrong: exit code 2, nothing was touched
    ├── RunError                 the run failed: exit code 1
    │   ├── ComponentError       a component raised while it was built or run
    │   ├── ResourceError        a resource could not be fetched
    │   ├── HaltedError          what a run needs is gone: it is interrupted, --resume continues it
    │   └── RemoteError          something failed on a host; it is named
    │       ├── UnreachableError     no connection, or it was lost
    │       ├── HostKeyError         the host is not the one that it was
    │       ├── ShellError           the shell there did something else than to run our command
    │       ├── CommandError         a command ended with an exit code other than 0
    │       │   └── DeadlineError    … or had not ended in time, and was killed
    │       └── FanOutError          several hosts: the error of each
    ├── StateError               a saved component cannot be written or read
    │   └── UnsavableError           it holds what no file of a state can: trying again is no use
    ├── UnsafePathError          a folder that must be ours alone is a link or another user's
    └── Interrupted              the user stopped the run: exit code 130

A :class:`ConfigError` carries any number of :class:`Problem`, so that every mistake in a file is
reported at once, each with its place, the line with a caret, what was expected and a suggestion.
All of them survive pickling, because they cross processes.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from flambe._process import quote_tail

# To compare two names takes a time that grows with the product of their lengths.
LONGEST_NAME = 64
MOST_CANDIDATES = 1000


@dataclass(frozen=True, order=True)
class Place:
    """A position in a configuration file.

    Attributes
    ----------
    file
        The file as the user named it, or ``<text>``.
    line, column
        Both start at 1.
    width
        How many characters the caret underlines.
    text
        The whole line, without its end.
    folder
        The folder of the file, absolute; empty where the text is in no file.
    """

    file: str
    line: int
    column: int
    width: int = 1
    text: str = ""
    folder: str = field(default="", repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def excerpt(self) -> str:
        """Return the line with a caret below it, or nothing where the text is not known."""
        if not self.text:
            return ""
        number = f"{self.line:>5} | "
        start = self.column - 1
        # Long lines (a JSON blob, say) are cut around the caret.
        offset = max(0, start - 70)
        shown = self.text[offset : offset + 110].replace("\t", " ")
        width = max(1, min(self.width, len(shown) - (start - offset)))
        return f"{number}{shown}\n{' ' * 5} | {' ' * (start - offset)}{'^' * width}"


@dataclass(frozen=True)
class Problem:
    """One mistake in a configuration.

    Attributes
    ----------
    message
        What is wrong.
    place
        Where, if it has a place in a file.
    hint
        What was expected, and what to write or type instead.
    """

    message: str
    place: Place | None = None
    hint: str = ""

    def __str__(self) -> str:
        lines = [f"{self.place}: {self.message}" if self.place else self.message]
        if self.place and self.place.text:
            lines.append(self.place.excerpt())
        if self.hint:
            lines.append(f"      = {self.hint}")
        return "\n".join(lines)


class FlambeError(Exception):
    """Base of all errors that flambe raises on purpose."""

    exit_code = 1


class ConfigError(FlambeError):
    """The configuration is wrong; nothing was built or touched.

    Parameters
    ----------
    problems
        A message, a :class:`Problem`, or several problems.
    """

    exit_code = 2

    def __init__(self, problems: str | Problem | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        if isinstance(problems, Problem):
            problems = [problems]
        self.problems: tuple[Problem, ...] = tuple(dict.fromkeys(problems))
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n\n".join(str(problem) for problem in self.problems)


class RunError(FlambeError):
    """The run failed."""


class ComponentError(RunError):
    """A component raised while it was built or run.

    Parameters
    ----------
    message
        The original exception in one line.
    place
        Where the component is written, if known.
    what
        What flambe was doing, for people: ``"building !Trainer"``.
    traceback
        The original traceback as text; the original exception may not survive pickling.
    frame
        The last line of the user's code that it came by, with its place, if it did.
    """

    def __init__(
        self,
        message: str,
        place: Place | None = None,
        what: str = "",
        traceback: str = "",
        frame: str = "",
    ) -> None:
        super().__init__(message, place, what, traceback, frame)
        self.message = message
        self.place = place
        self.what = what
        self.traceback = traceback
        self.frame = frame

    def __str__(self) -> str:
        text = f"{self.what}: {self.message}" if self.what else self.message
        return str(Problem(text, self.place)) + (f"\n  at {self.frame}" if self.frame else "")


class ResourceError(RunError):
    """A resource could not be fetched."""


class HaltedError(RunError):
    """What a run needs is gone, through no fault of its own: what is done is kept.

    Parameters
    ----------
    message
        What is gone.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return f"{self.message}\n  to continue, run the same command with --resume"


class RemoteError(RunError):
    """Something failed on a host.

    Parameters
    ----------
    host
        The name of the host, for people.
    message
        What failed, and what to do.
    """

    def __init__(self, host: str, message: str) -> None:
        super().__init__(host, message)
        self.host = host
        self.message = message

    def __str__(self) -> str:
        return f"{self.host}: {self.message}"


class UnreachableError(RemoteError):
    """A host could not be reached, or the connection was lost."""


class HostKeyError(RemoteError):
    """A host showed another key than the one that is known of it; nothing was sent."""


class ShellError(RemoteError):
    """The shell of a host printed, read the input or ended before it ran our command."""


class HeldError(RemoteError):
    """Somebody else holds a lock of the cluster."""


class CommandError(RemoteError):
    """A command failed on a host.

    Attributes
    ----------
    host, command, code, stdout, stderr
        As in :class:`flambe.remote.Result`.
    """

    def __init__(self, host: str, command: str, code: int, stdout: str, stderr: str) -> None:
        RunError.__init__(self, host, command, code, stdout, stderr)
        self.host, self.command, self.code = host, command, code
        self.stdout, self.stderr = stdout, stderr
        self.message = self._message()

    def _ended(self) -> str:
        return f"exit code {self.code}"

    def _message(self) -> str:
        return f"{self._ended()}: {self.command}{quote_tail(self.stderr.strip() or self.stdout)}"


class DeadlineError(CommandError):
    """A command had not ended in time; its process group on the host was killed."""

    def _ended(self) -> str:
        return "not ended in time, and killed"


class FanOutError(RemoteError):
    """Something failed on several hosts.

    Attributes
    ----------
    errors
        The error of each.
    """

    def __init__(self, errors: Sequence[RemoteError]) -> None:
        RunError.__init__(self, errors)
        self.errors = tuple(errors)
        self.host = ", ".join(error.host for error in errors)
        self.message = f"{len(self.errors)} hosts failed"

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class StateError(FlambeError):
    """A saved component cannot be written or read."""


class UnsavableError(StateError):
    """A component holds what no file of its state can: trying again is of no use."""


class UnsafePathError(FlambeError, PermissionError):
    """A folder that must be ours alone is a link, not a folder, or another user's."""


class Interrupted(FlambeError):
    """The user stopped the run."""

    exit_code = 130


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra of flambe, from where flambe was installed.

    It never says ``flambe[…]``: on PyPI that name belongs to another project.
    """
    import shlex

    if (checkout := _checkout()) is not None:
        return shlex.join(["pip", "install", "-e", f"{checkout}[{extra}]"])
    return f"pip install '.[{extra}]', in the checkout of flambe"


def _checkout() -> str | None:
    """Return the folder that flambe was installed from, if it is on this machine."""
    import json
    import os
    from importlib import metadata
    from urllib.parse import unquote, urlsplit

    try:
        text = metadata.distribution("flambe").read_text("direct_url.json") or "{}"
    except metadata.PackageNotFoundError:
        return None
    origin = json.loads(text)
    path = unquote(urlsplit(origin.get("url", "")).path)
    return path if "dir_info" in origin and os.path.isdir(path) else None


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return ``"did you mean 'x'?"`` for the closest candidate, or an empty string."""
    if len(str(word)) > LONGEST_NAME:
        return ""
    names = (str(name) for name in candidates if len(str(name)) <= LONGEST_NAME)
    by_lower = {name.lower(): name for name in itertools.islice(names, MOST_CANDIDATES)}
    close = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean {by_lower[close[0]]!r}?" if close else ""


def counted(number: int, one: str, many: str = "") -> str:
    """Return ``"1 command"`` or ``"2 commands"``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def listed(words: Sequence[str], limit: int = 12) -> str:
    """Return ``"a, b, c"``, cut with the number of those left out."""
    shown = ", ".join(words[:limit])
    return shown if len(words) <= limit else f"{shown} and {len(words) - limit} more"

"""The errors that flambe raises on purpose, and how they are printed.

::

    FlambeError
    ├── ConfigError              the configuration is wrong: exit code 2, no changes were made
    │   └── MissingSecretError   a secret is missing (flambe.runnable); also a KeyError
    │       ├── MissingSectionError
    │       └── MissingOptionError
    ├── RunError                 the run failed: exit code 1
    │   ├── ComponentError       a component raised an exception while it was built or run
    │   ├── ResourceError        a resource could not be fetched
    │   ├── DataError            data is missing or cannot be read (flambe.dataset)
    │   ├── FieldError           a value cannot be turned into a tensor (flambe.field)
    │   ├── HaltedError          something that a run needs is gone; --resume continues the run
    │   └── RemoteError          something failed on a host, which the error names
    │       ├── UnreachableError     the host cannot be reached, or the connection was lost
    │       ├── HostKeyError         the host key has changed
    │       ├── ShellError           the shell of the host did something else than run the command
    │       ├── HeldError            another user or process holds a lock of the cluster
    │       ├── DockerError          Docker on the host failed (flambe.cluster)
    │       ├── CommandError         a command ended with an exit code other than 0
    │       │   └── DeadlineError        … or did not end in time, and was killed
    │       └── FanOutError          several hosts failed: the error of each
    ├── StateError               a saved component cannot be written or read
    │   ├── UnsavableError           it holds an object that cannot be saved at all
    │   └── DamagedError             a file of a checkpoint is not what was written
    ├── UnsafePathError          a private folder is a link, or belongs to another user
    └── Interrupted              the user stopped the run: exit code 130

A :class:`ConfigError` carries any number of :class:`Problem`, so that every mistake in a file is
reported at once, each with its position, the line with a caret, what was expected and a suggestion.
All of them survive pickling, because they cross processes. ``tests/test_errors.py`` compares the
tree with the classes.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from flambe._hints import to_continue
from flambe._process import quote_tail

# Comparing two names takes time in proportion to the product of their lengths.
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
        """Return the line with a caret below it; empty if the text of the line is unknown."""
        if not self.text:
            return ""
        number = f"{self.line:>5} | "
        start = self.column - 1
        # Long lines (a JSON blob, say) are cut around the caret.
        offset = max(0, start - 70)
        excerpt = self.text[offset : offset + 110].replace("\t", " ")
        width = max(1, min(self.width, len(excerpt) - (start - offset)))
        return f"{number}{excerpt}\n{' ' * 5} | {' ' * (start - offset)}{'^' * width}"


@dataclass(frozen=True)
class Problem:
    """One mistake in a configuration.

    Attributes
    ----------
    message
        What is wrong.
    place
        Its position in a file, if it has one.
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

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows of it (a hook): the message, without frames inside flambe."""
        return [f"{type(self).__name__}: {self}"]


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
    """A component raised an exception while it was built or run.

    Parameters
    ----------
    message
        The original exception in one line.
    place
        The position of the component in its file, if known.
    what
        What flambe was doing: ``"building !Trainer"``.
    traceback
        The original traceback as text; the original exception may not survive pickling.
    frame
        The last line of the user's code in the traceback, with its position, if any.
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
    """Something that a run needs is gone, through no fault of the run; its results are kept.

    Parameters
    ----------
    message
        What is gone.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return f"{self.message}\n  {to_continue()}"


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
    """The host key differs from the one that was recorded; nothing was sent."""


class ShellError(RemoteError):
    """The shell of a host printed text, read input or exited before it ran the command."""


class HeldError(RemoteError):
    """Another user or process holds a lock of the cluster."""


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
    """A command did not end in time; its process group on the host was killed."""

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
    """A component holds an object that cannot be saved; trying again does not help."""


class DamagedError(StateError):
    """A file of a checkpoint was truncated or altered since it was written."""


class UnsafePathError(FlambeError, PermissionError):
    """A private folder is a link, is not a folder, or belongs to another user."""


class Interrupted(FlambeError):
    """The user stopped the run."""

    exit_code = 130


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra of flambe, from where flambe was installed.

    It never contains ``flambe[…]``: on PyPI that name belongs to another project.
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


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return ``"did you mean 'x'?"`` for the closest candidate, or an empty string."""
    if len(str(name)) > LONGEST_NAME:
        return ""
    known_names = (str(each) for each in candidates if len(str(each)) <= LONGEST_NAME)
    by_lower = {each.lower(): each for each in itertools.islice(known_names, MOST_CANDIDATES)}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean {by_lower[close[0]]!r}?" if close else ""


def counted(number: int, singular: str, plural: str = "") -> str:
    """Return ``"1 command"`` or ``"2 commands"``."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def listed(names: Sequence[str], limit: int = 12) -> str:
    """Return ``"a, b, c"``, cut with the number of those left out."""
    text = ", ".join(names[:limit])
    return text if len(names) <= limit else f"{text} and {len(names) - limit} more"

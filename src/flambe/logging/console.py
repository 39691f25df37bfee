"""The logs of the ``flambe`` command itself: the console, and rotating files."""

from __future__ import annotations

import io
import logging
import logging.handlers
import os
import warnings
from pathlib import Path

from flambe._files import private_folder, private_opener
from flambe.logging.plain import plain
from flambe.logging.redact import Filter

#: Whose DEBUG is logged too.
OWN = ("flambe", "__main__")


def home() -> Path:
    """Return flambe's own folder: ``~/.flambe``, or ``$FLAMBE_HOME``."""
    return Path(os.environ.get("FLAMBE_HOME") or Path.home() / ".flambe")


def home_folder(*names: str) -> Path:
    """Make a folder below :func:`home`, accessible to its owner only, like those above it.

    Raises
    ------
    UnsafePathError
        If one of them is a link, not a folder, or another user's; flambe's own folder may be a
        link to a folder of the same user.
    """
    private_folder(home().resolve())
    folder = home()
    for name in names:
        folder = private_folder(folder / name)
    return folder


def setup(*, verbose: bool = False) -> None:
    """Log to the console, and to rotating files that only their owner reads.

    Of flambe, the console shows INFO and up, the files have everything; of other libraries, both
    have WARNING and up. If verbose, the console shows all of flambe, and both have INFO of others.
    DEBUG of others goes nowhere: HTTP clients log credentials and the headers of requests there.
    """
    root = logging.getLogger()
    root.setLevel(logging.INFO if verbose else logging.WARNING)
    for name in OWN:
        logging.getLogger(name).setLevel(logging.DEBUG)
    console: logging.Handler = _console_handler()
    console.setLevel(logging.DEBUG if verbose else logging.INFO)
    for condition in (Filter(), _OthersFilter(root.level), lambda r: verbose or _is_loud(r)):
        console.addFilter(condition)
    for handler in root.handlers:
        if isinstance(handler, _PrivateRotatingFile):
            handler.close()
    root.handlers[:] = [console]
    logging.captureWarnings(True)
    warnings.simplefilter("default", UserWarning)
    try:
        file = _PrivateRotatingFile(
            home_folder("logs") / "log.log", maxBytes=2_000_000, backupCount=5, encoding="utf-8"
        )
    except OSError as error:
        logging.getLogger(__name__).warning("no log file: %s", error)
        return
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    for condition in (Filter(), _OthersFilter(root.level)):
        file.addFilter(condition)
    root.addHandler(file)


class _PrivateRotatingFile(logging.handlers.RotatingFileHandler):
    """A log that only its owner reads, whatever the umask, as those that it is renamed to."""

    def _open(self) -> io.TextIOWrapper:
        file = open(self.baseFilename, self.mode, encoding=self.encoding, opener=private_opener)
        assert isinstance(file, io.TextIOWrapper)
        return file


class _OthersFilter(logging.Filter):
    """Keeps a library quiet that has set its own logger to DEBUG."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self.level or _is_own(record)


def _is_own(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in OWN


def _is_loud(record: logging.LogRecord) -> bool:
    """Whether the console shows a record; flambe reports what matters of Ray's."""
    is_ray = record.name.partition(".")[0] == "ray"
    return _is_own(record) or record.levelno >= (logging.CRITICAL if is_ray else logging.WARNING)


def _console_handler() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain())
    return handler


class _Plain(logging.Formatter):
    """Messages as they are; from WARNING on the level stands in front."""

    def format(self, record: logging.LogRecord) -> str:
        text = plain(super().format(record))
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"

"""The logs of the ``flambe`` command itself: the console, and rotating files."""

from __future__ import annotations

import logging
import logging.handlers
import os
import warnings
from pathlib import Path

from flambe.logging.redact import Filter


def home() -> Path:
    """Return flambe's own folder: ``~/.flambe``, or ``$FLAMBE_HOME``."""
    return Path(os.environ.get("FLAMBE_HOME") or Path.home() / ".flambe")


def setup(*, verbose: bool = False) -> None:
    """Log INFO and up to the console (all, if verbose), and everything to rotating files."""
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    console: logging.Handler = _console_handler()
    console.setLevel(logging.DEBUG if verbose else logging.INFO)
    console.addFilter(Filter())
    # Other people's libraries speak on the console when it matters.
    console.addFilter(
        lambda record: (
            verbose
            or record.name.partition(".")[0] in ("flambe", "__main__")
            or record.levelno >= _loud(record.name)
        )
    )
    root.handlers[:] = [console]
    logging.captureWarnings(True)
    warnings.simplefilter("default", UserWarning)
    folder = home() / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.handlers.RotatingFileHandler(
            folder / "log.log", maxBytes=2_000_000, backupCount=5, encoding="utf-8", delay=True
        )
    except OSError as error:
        logging.getLogger(__name__).warning("no log file: %s", error)
        return
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    file.addFilter(Filter())
    root.addHandler(file)


def _loud(name: str) -> int:
    """Return the level from which a library is heard; what Ray has to tell, flambe tells."""
    return logging.CRITICAL if name.partition(".")[0] == "ray" else logging.WARNING


def _console_handler() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain())
    return handler


class _Plain(logging.Formatter):
    """Messages as they are; from WARNING on the level stands in front."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"

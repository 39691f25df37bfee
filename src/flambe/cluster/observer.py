"""Who is told what happens to a cluster."""

from __future__ import annotations

import logging
from typing import Protocol

_log = logging.getLogger(__name__)


class ClusterObserver(Protocol):
    """Shows what happens, and changes nothing. Called from several threads."""

    def note(self, text: str) -> None:
        """Something that people want to know."""

    def host_line(self, host: str, text: str) -> None:
        """A line that a command on a host said."""


class LogClusterObserver:
    """Tells it in the log."""

    def note(self, text: str) -> None:
        """Log it."""
        _log.info("%s", text)

    def host_line(self, host: str, text: str) -> None:
        """Log it."""
        _log.info("%s | %s", host, text)

"""Observers of a cluster: they show what happens to it."""

from __future__ import annotations

import logging
from typing import Protocol

_log = logging.getLogger(__name__)


class ClusterObserver(Protocol):
    """Shows what happens, and changes nothing. Called from several threads."""

    def note(self, text: str) -> None:
        """Show a note for the user."""

    def host_line(self, host: str, text: str) -> None:
        """Show a line of output of a command on a host."""


class LogClusterObserver:
    """Writes to the log."""

    def note(self, text: str) -> None:
        """Log it."""
        _log.info("%s", text)

    def host_line(self, host: str, text: str) -> None:
        """Log it."""
        _log.info("%s | %s", host, text)

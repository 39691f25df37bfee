"""The debugger of ``--debug``."""

from __future__ import annotations

import bdb
import pdb
from types import FrameType
from typing import TYPE_CHECKING

from flambe.compile.component_errors import UserInterrupt

if TYPE_CHECKING:
    from _typeshed import TraceFunction


class Debugger(pdb.Pdb):
    """Python's debugger; quitting it interrupts the run.

    ``runcall(component.run)`` stops at the first line of the component's own ``run``.
    """

    def trace_dispatch(self, frame: FrameType, event: str, arg: object) -> TraceFunction:
        """See :meth:`bdb.Bdb.trace_dispatch`."""
        try:
            return super().trace_dispatch(frame, event, arg)
        except bdb.BdbQuit:
            raise UserInterrupt from None

"""The debugger of ``--debug``."""

from __future__ import annotations

import bdb
import pdb
from types import FrameType
from typing import Any

from flambe.compile.component_errors import UserInterrupt


class Debugger(pdb.Pdb):
    """Python's debugger; to quit it is to interrupt the run, wherever it stands.

    ``runcall(component.run)`` stops at the first line of the component's own ``run``.
    """

    def trace_dispatch(self, frame: FrameType, event: str, arg: Any) -> Any:
        """See :meth:`bdb.Bdb.trace_dispatch`."""
        try:
            return super().trace_dispatch(frame, event, arg)
        except bdb.BdbQuit:
            raise UserInterrupt from None

"""Shows a run in a notebook: a table that changes in place."""

from __future__ import annotations

import contextvars
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping

from flambe.experiment.interactive.run_html import Output, live_html
from flambe.experiment.observer import variant_label
from flambe.logging import redact
from flambe.logging.plain import plain
from flambe.progress import RunFolder, RunRecord, RunState, VariantState

REFRESH_SECONDS = 0.5
LINES, NOTES = 12, 4  # of output that the table shows; the logs have all of it

#: Shows HTML, and returns what replaces it.
Show = Callable[[str], Callable[[str], None]]


class NotebookObserver:
    """Shows a run in the output of a cell; an :class:`~flambe.experiment.observer.Observer`.

    Parameters
    ----------
    show
        Shows HTML; by default in the cell that is executed.
    """

    def __init__(self, show: Show | None = None) -> None:
        self._show = show or show_in_cell
        self._replace: Callable[[str], None] | None = None
        self._record: RunRecord | None = None
        self._notes: deque[str] = deque(maxlen=NOTES)
        self._lines: deque[str] = deque(maxlen=LINES)
        self._working: dict[str, str] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        """Show the table, and start to refresh it."""
        self._record = RunRecord(folder, run, variants)
        self._replace = self._show(self._html())
        # The kernel finds the cell that output belongs to in the context of a thread.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=[self._refresh], name="flambe-notebook", daemon=True
        )
        self._thread.start()

    def _refresh(self) -> None:
        while not self._over.wait(REFRESH_SECONDS):
            self._draw(self._html())

    def _draw(self, text: str) -> None:
        if self._replace is not None:
            self._replace(text)

    def _html(self) -> str:
        assert self._record is not None
        with self._lock:
            working = [text for _, text in list(self._working.items())[-LINES:]]
            output = Output(list(self._notes), [*self._lines, *working][-LINES:])
        return live_html(self._record, output)

    def changed(self) -> None:
        """Do nothing: the table is refreshed all the time."""

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        """Show a line of a component below the table, until newer ones replace it."""
        lines = plain(redact.hide(text)).split("\n")[-LINES:]
        with self._lock:
            if variant is not None:
                self._working.pop(variant.id, None)
            self._lines.extend(_of(variant, line) for line in lines)

    def working(self, variant: VariantState | None, text: str) -> None:
        """Show the unfinished line of a component, such as a progress bar."""
        if variant is not None:
            with self._lock:
                self._working[variant.id] = _of(variant, plain(redact.hide(text)))

    def note(self, text: str) -> None:
        """Show a message about the run."""
        with self._lock:
            self._notes.append(plain(redact.hide(text)))

    def ended(self) -> None:
        """Show how the run ended; its handle has the results, and so the output is left out."""
        self.close()
        if self._record is not None:
            self._draw(live_html(self._record, Output(list(self._notes))))

    def close(self) -> None:
        """Stop refreshing."""
        self._over.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(2 * REFRESH_SECONDS)


def _of(variant: VariantState | None, text: str) -> str:
    return f"{variant_label(variant)} | {text}" if variant is not None else text


def show_in_cell(text: str) -> Callable[[str], None]:
    """Show HTML in the cell that is executed; return what replaces it."""
    from IPython.display import HTML, display, update_display

    identity = uuid.uuid4().hex
    display(HTML(text), display_id=identity)

    def replace(new: str) -> None:
        update_display(HTML(new), display_id=identity)

    return replace


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None

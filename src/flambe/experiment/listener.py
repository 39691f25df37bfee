"""What an executor tells of its variants, noted in the journal of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flambe.errors import ComponentError
from flambe.experiment.variants.expansion import Variant
from flambe.logging import redact
from flambe.progress import Status, better, is_number, steady_time

if TYPE_CHECKING:
    from flambe.experiment.run import Run


class RunListener:
    """Notes in the journal what executors report: their ``VariantListener``.

    Parameters
    ----------
    run
        The run.
    searcher
        The tag of the searcher that suggests the variants, if one does.
    """

    def __init__(self, run: Run, searcher: str = "") -> None:
        self.run = run
        self.journal = run.journal
        #: Who is still to be named when a variant ends without a figure.
        self.searcher = searcher

    def _known(self, variant: Variant) -> None:
        self.run.interruption.check()
        if variant.id not in self.journal.variants:
            self.journal.add(variant)
            self.run.variants[variant.stage].append(variant)

    def on_start(self, variant: Variant, host: str) -> None:
        """A variant starts, or starts again."""
        self._known(variant)
        entry = self.journal.variants[variant.id]
        self.journal.change(
            variant.id,
            status=Status.RUNNING,
            host=host or entry.host,
            started=entry.started or steady_time(),
            attempts=entry.attempts + 1,
        )

    def on_step(self, variant: Variant, step: int, metric: float | None, host: str) -> None:
        """A step is done."""
        self.run.interruption.check()
        best = better(self.journal.variants[variant.id].best, metric)
        self.journal.change(variant.id, step=step, metric=metric, best=best, host=host)

    def on_end(self, variant: Variant, *, stopped: bool) -> None:
        """It is at its end, or a scheduler stopped it."""
        status = Status.STOPPED if stopped else Status.FINISHED
        self.journal.change(variant.id, status=status, ended=steady_time(), error="", traceback="")
        entry = self.journal.variants[variant.id]
        if self.searcher and not is_number(entry.metric):
            had = "without a figure" if entry.metric is None else "with the figure NaN"
            self.run.observer.note(
                f"{entry.stage}/{entry.name} ended {had}: !{self.searcher} is told that the point "
                "failed; so it is of others, which are not named"
            )
            self.searcher = ""

    def on_failure(
        self, variant: Variant, error: ComponentError | None, text: str, final: bool
    ) -> None:
        """It raised; unless final it is tried again."""
        self._known(variant)
        self.journal.change(
            variant.id,
            status=Status.FAILED if final else Status.WAITING,
            ended=steady_time() if final else None,
            error=redact.hide(text),
            traceback=redact.hide(error.traceback) if error else "",
        )
        if not final:
            entry = self.journal.variants[variant.id]
            name = f"{entry.stage}/{entry.name}"
            reason = next(iter(redact.hide(text).splitlines()), "")
            self.run.observer.note(f"{name} failed and is tried again: {reason}")

    def on_lines(self, lines: Sequence[tuple[str, str, str]]) -> None:
        """Lines that components printed and logged."""
        self.journal.lines(lines)

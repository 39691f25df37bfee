"""Records in the journal what executors report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from flambe.errors import ComponentError
from flambe.experiment.journal import Journal
from flambe.experiment.variants.expansion import Variant
from flambe.logging import redact
from flambe.progress import Status, better, is_number, steady_time


class RunListener:
    """Records in the journal what happens to variants: the ``VariantListener`` of executors.

    Parameters
    ----------
    journal
        The journal of the run.
    notify
        Called with each message for the user.
    check
        Raises if the run was interrupted.
    on_new
        Called with each variant that a search suggests.
    on_done
        Called with each variant that has ended, and whether others may build upon it.
    searcher
        The tag of the searcher that suggests the variants, if one does.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        notify: Callable[[str], None],
        check: Callable[[], None],
        on_new: Callable[[Variant], None],
        on_done: Callable[[Variant, bool], None] = lambda variant, succeeded: None,
        searcher: str = "",
    ) -> None:
        self.journal = journal
        self.notify = notify
        self.check = check
        self.on_new = on_new
        self.on_done = on_done
        #: The searcher to name when a variant ends without a figure: once.
        self.searcher = searcher

    def _ensure_recorded(self, variant: Variant) -> None:
        self.check()
        if variant.id not in self.journal.variants:
            self.journal.add(variant)
            self.on_new(variant)

    def on_start(self, variant: Variant, host: str) -> None:
        """A variant starts, or starts again."""
        self._ensure_recorded(variant)
        entry = self.journal.variants[variant.id]
        self.journal.change(
            variant.id,
            status=Status.RUNNING,
            host=host or entry.host,
            started=entry.started or steady_time(),
            attempts=entry.attempts + 1,
        )

    def on_step(
        self,
        variant: Variant,
        step: int,
        metric: float | None,
        host: str,
        seconds: float | None = None,
    ) -> None:
        """A step is done."""
        self.check()
        best = better(self.journal.variants[variant.id].best, metric)
        seconds = round(seconds, 3) if seconds is not None else None
        self.journal.change(
            variant.id, step=step, metric=metric, best=best, host=host, seconds=seconds
        )

    def on_copy(
        self, variant: Variant, source: str, step: int, values: Mapping[str, object]
    ) -> None:
        """A member of a population takes the state of another."""
        history = self.journal.variants[variant.id].history
        entry = {"step": step, "source": source, "values": dict(values)}
        self.journal.change(variant.id, history=[*history, entry])

    def on_end(self, variant: Variant, *, stopped: bool, reason: str = "") -> None:
        """It is at its end, or a scheduler stopped it, or a limit did."""
        status = Status.STOPPED if stopped else Status.FINISHED
        self.journal.change(
            variant.id,
            status=status,
            ended=steady_time(),
            error="",
            traceback="",
            stopped_by=reason,
        )
        entry = self.journal.variants[variant.id]
        if self.searcher and not is_number(entry.metric):
            figure = "without a figure" if entry.metric is None else "with the figure NaN"
            self.notify(
                f"{entry.stage}/{entry.name} ended {figure}: !{self.searcher} counts the point as "
                "failed; further such variants are not reported"
            )
            self.searcher = ""
        self.on_done(variant, True)

    def on_skip(self, variant: Variant, reason: str) -> None:
        """It is not run, because its stage is stopped."""
        self._ensure_recorded(variant)
        self.journal.change(variant.id, status=Status.MASKED, reason=reason)

    def on_failure(
        self, variant: Variant, error: ComponentError | None, text: str, final: bool
    ) -> None:
        """It raised; unless final it is tried again."""
        self._ensure_recorded(variant)
        self.journal.change(
            variant.id,
            status=Status.FAILED if final else Status.WAITING,
            ended=steady_time() if final else None,
            error=redact.hide(text),
            traceback=redact.hide(error.traceback) if error else "",
        )
        if final:
            self.on_done(variant, False)
        else:
            entry = self.journal.variants[variant.id]
            reason = next(iter(redact.hide(text).splitlines()), "")
            self.notify(f"{entry.stage}/{entry.name} failed and is tried again: {reason}")

    def on_stored(self, variant: Variant, size: int) -> None:
        """The checkpoints of a variant that ended take so many bytes."""
        self.journal.change(variant.id, stored_bytes=size)

    def on_lines(self, lines: Sequence[tuple[str, str, str]]) -> None:
        """Lines that components printed and logged."""
        self.journal.lines(lines)

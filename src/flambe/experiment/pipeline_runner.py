"""Runs the stages of an experiment as a graph: side by side, each as early as it can start.

docs/decisions/0015-stages-side-by-side.md. Shown by ``tests/experiment/test_pipeline.py``.
"""

from __future__ import annotations

import contextlib
import threading
import time

from flambe.compile.component_errors import UserInterrupt
from flambe.errors import RunError
from flambe.experiment.stage_runner import StageRunner, StageWork, Workers
from flambe.experiment.variants.expansion import Variant
from flambe.experiment.variants.failed_variants import failure_report
from flambe.progress import StageState, Status, VariantState

WAIT = 0.2  # seconds between two checks whether the run was interrupted
STOP_SECONDS = 15.0  # that stages may take to stop, all together


class PipelineRunner:
    """Runs all stages of a run.

    A stage is prepared as soon as its variants are known, and starts as soon as one of them can.
    Each runs in a thread of its own, unless the executor runs one stage at a time.

    Parameters
    ----------
    runner
        Runs the stages.
    """

    def __init__(self, runner: StageRunner) -> None:
        self.runner = runner
        self.journal = runner.journal
        self.graph = runner.graph
        self.changed = runner.admission.changed
        self.works: dict[str, StageWork] = {}
        #: Those whose variants have not been released yet.
        self._prepared: list[StageWork] = []
        self._concluded: set[str] = set()
        self._threads: dict[str, threading.Thread] = {}
        #: The stages that were run to their end.
        self._executed: set[str] = set()
        #: The ids of the variants that have left the graph for a queue.
        self._released: set[str] = set()
        #: What ended a thread.
        self._errors: list[BaseException] = []
        #: The stages that end the run, for a variant failed or none can be built upon; and the
        #: error, where it is not that a variant failed.
        self._failed: dict[str, RunError | None] = {}
        self._stopping = False

    def run(self) -> None:
        """Run all stages.

        Raises
        ------
        RunError
            If a variant failed, and the run may not continue without it; or if a stage cannot be
            built upon.
        """
        try:
            while self._advance():
                with self.changed:
                    self.changed.wait(WAIT)
            self._raise_errors()
        except BaseException:
            self._stop_threads()
            raise
        if self._failed:
            self._fail()

    # -- the main thread ----------------------------------------------------------------------

    def _advance(self) -> bool:
        """Do all that can be done now; return whether there is more to wait for."""
        while not self._failed:
            self._raise_errors()
            # All that are known first: what waits for a variant decides how urgent it is.
            stages = self.journal.run.stages
            if any(map(self._prepare, stages)):
                continue
            self._release_prepared()
            if not any(map(self._progress, stages)):
                break
        self._raise_errors()
        if self._failed:
            return any(thread.is_alive() for thread in self._threads.values())
        return len(self._concluded) < len(self.journal.run.stages)

    def _raise_errors(self) -> None:
        self.runner.check()
        if self._errors:
            raise self._errors[0]

    def _progress(self, stage: StageState) -> bool:
        """Start or conclude a stage, if that is possible; return whether it was."""
        work = self.works.get(stage.name)
        if work is None or stage.name in self._concluded:
            return False
        return self._launch(work) or self._conclude(work)

    def _prepare(self, stage: StageState) -> bool:
        """Expand a stage, once what decides on its variants has ended."""
        stages = self.runner.stages
        if stage.name in self.works:
            return False
        if not all(name in self.works for name in stages.ancestors[stage.name]):
            return False
        if not self._concluded.issuperset(stages.ended_before(stage.name)):
            return False
        with self.changed:
            work = self.works[stage.name] = self.runner.prepare(stage)
            for variant in work.pending:
                self.graph.add(variant)
            self._prepared.append(work)
        return True

    def _release_prepared(self) -> None:
        """Let the variants start that have waited for nothing but the urgency of others."""
        with self.changed:
            pending = [variant for work in self._prepared for variant in work.pending]
            self._prepared.clear()
            self._release([variant for variant in pending if self.graph.is_ready(variant)])

    def _launch(self, work: StageWork) -> bool:
        """Start to run a stage, if one of its variants may start."""
        if work.name in self._threads or work.name in self._executed:
            return False
        with self.changed:
            if not len(work.queue) and not work.bases:
                return False
        workers = self.runner.start_workers()
        if workers.executor.parallel:
            target, name = self._run_thread, f"flambe-{work.name}"
            thread = threading.Thread(target=target, args=(work, workers), name=name, daemon=True)
            self._threads[work.name] = thread
            thread.start()
        elif self.graph.waiting_in[work.name]:
            return False
        else:
            self._execute(work, workers)
        return True

    def _conclude(self, work: StageWork) -> bool:
        """Conclude a stage, if all its variants have ended."""
        with self.changed:
            is_running = work.name in self._threads and work.name not in self._executed
            if is_running or self.graph.waiting_in[work.name]:
                return False
            if work.name not in self._executed and (len(work.queue) or work.bases):
                return False
        if self._failed:  # one of its own, perhaps: it ended while this was decided
            return False
        try:
            with self.changed:
                self.runner.conclude(work)
        except RunError as error:
            self._end_run(work.name, error)
        work.queue.end()
        self._concluded.add(work.name)
        return True

    def _end_run(self, stage: str, error: RunError | None) -> None:
        """Let the run end: what runs is finished, and only this stage starts more variants."""
        with self.changed:
            self._failed.setdefault(stage, error)
            self.works[stage].queue.close()
            self.runner.admission.stop_others(self._failed)

    def _fail(self) -> None:
        """Record how far the stages are, and report why the run ends.

        Raises
        ------
        RunError
            Always.
        """
        reports = [str(error) for error in self._failed.values() if error is not None]
        reports += [self._report(name) for name, error in self._failed.items() if error is None]
        reason = f"the run ended: {reports[0].splitlines()[0]}"
        for work in self.works.values():
            entries = self.journal.of(work.name)
            waiting = [entry for entry in entries if entry.status is Status.WAITING]
            for entry in waiting:
                self.journal.change(entry.id, reason=reason)
            if work.name in self._failed:
                self.journal.stage(work.state, Status.FAILED)
            elif work.name in self._executed and not waiting and work.name not in self._concluded:
                with contextlib.suppress(RunError):  # the first error is reported
                    self.runner.conclude(work)
            elif work.name in self._executed and work.name not in self._concluded:
                self.journal.stage(work.state, Status.INTERRUPTED)
        raise RunError("\n".join(reports))

    def _report(self, stage: str) -> str:
        entries = self.journal.of(stage)
        failed: list[VariantState] = [e for e in entries if e.status is Status.FAILED]
        summary = f"{len(failed)} of {len(entries)} variants of stage {stage!r} failed"
        return failure_report(self.runner.storage.folder, failed, summary)

    def _stop_threads(self) -> None:
        """Stop all stages; what does not end in time is left, and records nothing any more."""
        self._stopping = True
        with self.changed:
            self.runner.admission.stop_others(())
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    # -- the threads of stages ----------------------------------------------------------------

    def _run_thread(self, work: StageWork, workers: Workers) -> None:
        try:
            self._execute(work, workers)
        except BaseException as error:
            self._errors.append(error)
        finally:
            with self.changed:
                self.changed.notify_all()

    def _execute(self, work: StageWork, workers: Workers) -> None:
        self.runner.execute(work, workers, self._check, self._on_end)
        with self.changed:
            self._executed.add(work.name)

    def _check(self) -> None:
        """Raise if the run was interrupted, or ends for another reason."""
        if self._stopping:
            raise UserInterrupt
        self.runner.check()

    def _on_end(self, variant: Variant, succeeded: bool) -> None:
        """Let the variants start that waited for this one; or record that they never will."""
        with self.changed:
            if succeeded:
                self._release(self.graph.finish(variant.id))
            elif self.runner.spec.stop_on_failure:
                self._end_run(variant.stage, None)
            else:
                for lost in self.graph.exclude(variant.id):
                    self.journal.mask(lost)
                self._close_queues()
            self.changed.notify_all()

    def _release(self, variants: list[Variant]) -> None:
        """Let variants start that wait for nothing any more."""
        pending = [variant for variant in variants if variant.id not in self._released]
        while pending and not self._failed:
            variant = pending.pop(0)
            self._released.add(variant.id)
            work = self.works[variant.stage]
            if variant.runs or work.state.runs:
                work.queue.put(variant, self.runner.urgency(variant))
            else:  # built where it is used
                self.journal.change(variant.id, status=Status.FINISHED)
                pending += self.graph.finish(variant.id)
        self._close_queues()

    def _close_queues(self) -> None:
        for name, work in self.works.items():
            if not self.graph.waiting_in[name]:
                work.queue.close()

"""Where Tune gets its trials from: the queue of a stage, or a searcher that the queue admits."""

from __future__ import annotations

from collections.abc import Mapping

from ray.tune import Experiment
from ray.tune.experiment import Trial
from ray.tune.search import SearchAlgorithm, Searcher

from flambe.experiment.executors.admission import StageQueue

WAIT = 0.1  # seconds that a stage without trials waits before it looks again


class QueuedSearch(SearchAlgorithm):  # type: ignore[misc]
    """Makes a trial of each variant that comes out of a queue.

    Parameters
    ----------
    queue
        The queue of the stage.
    """

    def __init__(self, queue: StageQueue) -> None:
        self.queue = queue
        self._spec: Mapping[str, object] = {}
        self._count = 0
        #: The trials that have not ended.
        self._live: set[Trial] = set()

    def add_configurations(self, experiments: list[Experiment]) -> None:
        """Take the settings that the trials have in common."""
        (experiment,) = experiments
        self._spec = experiment.spec

    def is_finished(self) -> bool:
        """Whether no more trials will come."""
        return bool(self.queue.over)

    def set_finished(self) -> None:
        """Give out no more trials."""
        self.queue.stopped = True

    def next_trial(self) -> Trial | None:
        """Return a trial of the next variant that may start, if there is one."""
        trial = self._next_trial()
        if trial is not None:
            self._live.add(trial)
        elif not self._live and not self.is_finished():
            self.queue.wait(WAIT)
        return trial

    def _next_trial(self) -> Trial | None:
        variant = self.queue.take()
        if variant is None:
            return None
        config = self._spec["config"]
        assert isinstance(config, dict)
        self._count += 1
        return Trial(
            self._spec["run"],
            config={**config, "variant": variant.id},
            # A variant whose host was lost is a trial again.
            trial_id=f"{variant.id}_{self._count}",
            experiment_tag=str(self._count),
            **{name: self._spec[name] for name in _COMMON},
        )

    def report(self, idle: int) -> None:
        """Report to the queue how many slots the trials have, and the processes without one."""
        self._live = {trial for trial in self._live if not trial.is_finished()}
        holding = {Trial.RUNNING, Trial.PENDING} if self.queue.metered else {Trial.RUNNING}
        in_use = sum(trial.status in holding for trial in self._live)
        self.queue.report(in_use=in_use, idle=idle, eager=self._is_eager())

    def _is_eager(self) -> bool:
        return False


# What all trials of a stage take from the settings of Tune, by the names that both have.
_COMMON = (
    "storage",
    "checkpoint_config",
    "max_failures",
    "trial_name_creator",
    "trial_dirname_creator",
)


class AdmittedSearch(QueuedSearch):
    """Asks a search algorithm for trials, whenever the queue of the stage admits one.

    Parameters
    ----------
    queue
        The queue of the stage.
    algorithm
        The search algorithm.
    """

    def __init__(self, queue: StageQueue, algorithm: SearchAlgorithm) -> None:
        super().__init__(queue)
        self.algorithm = algorithm
        #: Whether the algorithm had a trial when it was asked last.
        self._answered = True

    @property
    def searcher(self) -> Searcher | None:
        """The searcher, for schedulers that work with one, such as that of BOHB."""
        return getattr(self.algorithm, "searcher", None)

    @property
    def metric(self) -> str | None:
        """What the algorithm ranks by."""
        metric: str | None = self.algorithm.metric
        return metric

    @property
    def total_samples(self) -> int:
        """How many trials there will be."""
        return int(self.algorithm.total_samples)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, object], **spec: object
    ) -> bool:
        """Set what the algorithm ranks by, and where it searches."""
        return bool(self.algorithm.set_search_properties(metric, mode, config, **spec))

    def add_configurations(self, experiments: list[Experiment]) -> None:
        """Pass on the settings of the trials."""
        self.algorithm.add_configurations(experiments)

    def is_finished(self) -> bool:
        """Whether no more trials will come."""
        return self.queue.stopped or bool(self.algorithm.is_finished())

    def set_finished(self) -> None:
        """Give out no more trials."""
        self.algorithm.set_finished()

    def _next_trial(self) -> Trial | None:
        if not self.queue.admits():
            return None
        trial: Trial | None = self.algorithm.next_trial()
        self._answered = trial is not None
        if trial is not None:
            self.queue.report(in_use=self.queue.in_use + 1, idle=self.queue.idle)
        return trial

    def _is_eager(self) -> bool:
        return self._answered and not self.is_finished()

    def on_trial_result(self, trial_id: str, result: Mapping[str, object]) -> None:
        """Pass on a result."""
        self.algorithm.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, object] | None = None, error: bool = False
    ) -> None:
        """Pass on that a trial has ended."""
        self._answered = True
        self.algorithm.on_trial_complete(trial_id, result=result, error=error)

"""Population based training: members take the state of better ones, with other values.

To Tune, a member that copies another becomes it: the whole configuration of its trial is replaced.
To flambe it stays the variant that it is; what it copied, when, and its values since then are its
history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.pbt import PopulationBasedTraining

from flambe.experiment.executors.tune.algorithms.ranking import RankedScheduler
from flambe.experiment.executors.tune.algorithms.resumed_scheduler import as_reported
from flambe.experiment.executors.tune.trial import EXPLORED
from flambe.experiment.search.history import EarlierTrial
from flambe.experiment.search.population import bounded
from flambe.experiment.search.spaces import as_plain
from flambe.progress import is_number


@dataclass(frozen=True)
class Copy:
    """What a member of a population took from another.

    Attributes
    ----------
    source
        The id of the variant whose state it took.
    step
        How many steps that state had done.
    values
        The values with which it continues: path as text → value.
    checkpoint
        Where that state is.
    """

    source: str
    step: int
    values: Mapping[str, object]
    checkpoint: str


class PopulationScheduler(RankedScheduler):
    """Population based training, in which members stay the variants that they are.

    Parameters
    ----------
    scheduler
        The scheduler of Tune.
    spaces
        The search spaces of the stage: path as text → space.
    on_copy
        Called when a member takes the state of another; returns the entries that its configuration
        gets beside its values.
    earlier
        The members that an earlier run left.
    """

    def __init__(
        self,
        scheduler: PopulationBasedTraining,
        spaces: Mapping[str, object],
        on_copy: Callable[[Trial, Copy], None],
        earlier: Sequence[EarlierTrial] = (),
    ) -> None:
        super().__init__(scheduler)
        # It would write files of its own, which nothing reads: the history is in the journal.
        scheduler._log_config = False
        self._spaces = spaces
        self._on_copy = on_copy
        self._earlier = {trial.variant_id: trial for trial in earlier}
        #: The id of a trial → the id of its variant.
        self._variant_ids: dict[str, str] = {}

    def on_trial_add(self, controller: TuneController, trial: Trial) -> None:
        """Pass on a new member; one of an earlier run has the figures that it had."""
        self._variant_ids[trial.trial_id] = variant_id = trial.config["variant"]
        super().on_trial_add(controller, trial)
        earlier = self._earlier.pop(variant_id, None)
        if earlier is not None and earlier.results:
            self._restore(trial, earlier)

    def _restore(self, trial: Trial, earlier: EarlierTrial) -> None:
        """Restore what the scheduler knew of a member when it was last asked about it.

        It is asked about each member every so often: what it knew is what the member reported then.
        """
        scheduler = self.scheduler
        interval = scheduler._perturbation_interval
        reports = [as_reported(result) for result in earlier.results]
        times = [float(str(report.get(scheduler._time_attr, 0.0))) for report in reports]
        asked = max(time - time % interval for time in times)
        state = scheduler._trial_state[trial]
        state.last_train_time = state.last_perturbation_time = asked
        known = [report for report, time in zip(reports, times, strict=True) if time <= asked]
        if not known or asked < scheduler._burn_in_period:
            return
        state.last_result = known[-1]
        figure = known[-1].get(scheduler.metric)
        if isinstance(figure, float | int) and is_number(figure):
            state.last_score = scheduler._metric_op * figure
        if scheduler._synch:
            scheduler._next_perturbation_sync = max(
                scheduler._next_perturbation_sync, asked + interval
            )

    def on_trial_result(
        self, controller: TuneController, trial: Trial, result: dict[str, object]
    ) -> str:
        """Return whether a member continues after a result; it, or others, may copy a member."""
        decision = super().on_trial_result(controller, trial, result)
        for member in controller.get_trials():
            own = self._variant_ids.get(member.trial_id)
            if own is not None and member.config["variant"] != own:
                self._keep_identity(member, own)
        return decision

    def _keep_identity(self, member: Trial, own: str) -> None:
        """Let a member whose configuration was replaced stay its variant, with the new values."""
        source = str(member.config["variant"])
        values = {
            path: as_plain(bounded(space, member.config[path]))
            for path, space in self._spaces.items()
            if path in member.config
        }
        copied = member.run_metadata.checkpoint_manager._latest_checkpoint_result
        member.set_config({**member.config, **values, "variant": own, EXPLORED: values})
        step = int((copied.metrics or {}).get("steps", 0))
        self._on_copy(member, Copy(source, step, values, copied.checkpoint.path))


def is_population(scheduler: object) -> bool:
    """Return whether members of a scheduler's population copy one another."""
    return isinstance(scheduler, TrialScheduler) and isinstance(scheduler, PopulationBasedTraining)

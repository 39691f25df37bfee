"""One stage as one search of Tune."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ray import tune
from ray.tune import CheckpointConfig, Experiment
from ray.tune.impl.placeholder import create_resolvers_map, inject_placeholders
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher, SearchGenerator
from ray.tune.utils.log import Verbosity, set_verbosity

from flambe._disk import retry_when_full
from flambe.errors import RunError
from flambe.experiment.executors.admission import StageQueue
from flambe.experiment.executors.base import StageOptions
from flambe.experiment.executors.tune.algorithms.stage_engines import StageEngines
from flambe.experiment.executors.tune.concurrent.controller import StageController
from flambe.experiment.executors.tune.concurrent.queued_search import AdmittedSearch, QueuedSearch
from flambe.experiment.executors.tune.stage_run import StageCallback, StageRun
from flambe.experiment.search.engines import METRIC, MODE

_log = logging.getLogger(__name__)
TRAINABLE = "flambe_variant"
# How many trials may wait for their processes: as many as the queue of the stage admits.
PENDING = 200
# ASHAScheduler is another name of the second.
_NEVER_PAUSING = (FIFOScheduler, AsyncHyperBandScheduler, type(None))


class StageTuner:
    """Runs the variants of a stage by Tune, in the thread that calls it.

    ``Tuner.fit`` would do the same, and more that flambe has no use for: it writes Tune's own
    state, and reads the results of all trials at the end.

    Parameters
    ----------
    stage
        What happens to the trials.
    variants
        The variants that may start; with a search, those that the searcher starts from.
    options
        How the stage is run.
    engines
        Its searcher and its scheduler.
    collector
        The name of the collector.
    check
        Raises if the stage is to stop.
    """

    def __init__(
        self,
        stage: StageRun,
        variants: StageQueue,
        options: StageOptions,
        engines: StageEngines,
        collector: str,
        check: Callable[[], None],
    ) -> None:
        self.stage = stage
        self.variants = variants
        self.options = options
        self.engines = engines
        self.collector = collector
        self.check = check

    def run(self) -> None:
        """Run until the queue is over, and all trials have ended."""
        scheduler = self.engines.scheduler or FIFOScheduler()
        # One that pauses trials compares them to others that wait, and must have them all. By type:
        # in Tune, each scheduler is a FIFOScheduler.
        self.variants.metered = type(self.options.scheduler) in _NEVER_PAUSING
        resolvers = create_resolvers_map()
        config = inject_placeholders(self._param_space(), resolvers)
        # Tune tries here whether the disk can be written to.
        experiment = retry_when_full(
            lambda: self._experiment(config), self.stage.task.storage.root, _log.warning
        )
        search = self._search()
        self._set_properties(search, scheduler, config, experiment)
        controller = StageController(
            search,
            self.check,
            # Beside a scheduler that pauses trials, as many as the searcher may propose at a time.
            PENDING if self.variants.metered or self.engines.searcher is None else None,
            placeholder_resolvers=resolvers,
            scheduler=scheduler,
            callbacks=[StageCallback(self.stage)],
            metric=METRIC,
            trial_checkpoint_config=experiment.checkpoint_config,
            reuse_actors=self.options.reuse_actors,
            storage=experiment.storage,
        )
        search.add_configurations([experiment])
        controller.setup_experiments([experiment], search.total_samples)
        try:
            while not controller.is_finished():
                controller.step()
        except Exception:
            controller.cleanup()
            raise
        controller.cleanup()

    def _search(self) -> QueuedSearch:
        algorithm = self.engines.searcher
        if algorithm is None:
            return QueuedSearch(self.variants)
        if isinstance(algorithm, Searcher):
            algorithm = SearchGenerator(algorithm)
        return AdmittedSearch(self.variants, algorithm)

    def _set_properties(
        self,
        search: QueuedSearch,
        scheduler: TrialScheduler,
        config: dict[str, object],
        experiment: Experiment,
    ) -> None:
        """Set what the searcher and the scheduler rank by, and where the searcher searches.

        Raises
        ------
        RunError
            If they have settings of their own that contradict.
        """
        spec = experiment.public_spec
        if not search.set_search_properties(METRIC, MODE, config, **spec):
            raise RunError(f"search: the searcher of stage {self.stage.task.stage!r} has a space")
        if not scheduler.set_search_properties(METRIC, MODE, **spec):
            raise RunError(
                f"schedulers: that of stage {self.stage.task.stage!r} has a metric or a mode; "
                "flambe's are set by metric() of the component"
            )

    def _experiment(self, config: dict[str, object]) -> Experiment:
        task = self.stage.task
        set_verbosity(Verbosity.V0_MINIMAL)
        return Experiment(
            task.stage,
            TRAINABLE,
            config=config,
            num_samples=self.engines.num_samples,
            storage_path=task.storage.base,
            storage_filesystem=task.storage.for_tune(),
            checkpoint_config=CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=True),
            trial_name_creator=self.stage.trial_name,
            trial_dirname_creator=self.stage.trial_folder,
            max_failures=self.options.max_failures,
        )

    def _param_space(self) -> dict[str, object]:
        """Return the search space of Tune; its samples are a ``TrialConfig``."""
        space: dict[str, object] = {
            "stage": self.stage.task.stage,
            "collector": self.collector,
            "devices": dict(self.options.devices),
        }
        if self.options.search is None:
            return space  # the queue adds the variants
        ids = [variant.id for variant in self.variants.drain()]
        # The options of the base variants are one more dimension of the search.
        variant = tune.choice(ids) if len(ids) > 1 else ids[0]
        return {**space, "variant": variant, "values": dict(self.options.search.space)}

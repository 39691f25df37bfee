"""Stages as Ray Tune searches, the driver's side: trials, retries and schedulers are Tune's."""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import ray
from ray import tune
from ray.exceptions import GetTimeoutError
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flambe import _disk
from flambe._retry import retry
from flambe.errors import RunError
from flambe.experiment.executors.base import StageOptions, VariantListener
from flambe.experiment.executors.stage_task import StageTask
from flambe.experiment.executors.tune.algorithms.stage_engines import (
    StageEngines,
    count_slots,
    stage_engines,
)
from flambe.experiment.executors.tune.channel import LINE_PERIOD
from flambe.experiment.executors.tune.collector import Collector, CollectorStatus
from flambe.experiment.executors.tune.collector_client import CollectorClient
from flambe.experiment.executors.tune.diagnosis import FailureDiagnosis
from flambe.experiment.executors.tune.import_path import job_config
from flambe.experiment.executors.tune.local_ray import LocalRay
from flambe.experiment.executors.tune.ray_nodes import RayNodeMonitor
from flambe.experiment.executors.tune.ray_process import (
    driver_settings,
    keep_sigterm,
    quiet_ray,
    raylet_in_log,
)
from flambe.experiment.executors.tune.stage_run import StageCallback, StageRun, settle_resumed
from flambe.experiment.executors.tune.trainable import VariantTrainable
from flambe.experiment.executors.tune.trial import NAMESPACE
from flambe.experiment.executors.tune.trial_history import TrialHistory
from flambe.experiment.executors.tune.worker_replacement import replace_refusing_actors
from flambe.experiment.search.engines import METRIC, MODE
from flambe.experiment.variants.expansion import Variant
from flambe.logging import redact
from flambe.progress import host_name

_log = logging.getLogger(__name__)

TRAINABLE = "flambe_variant"
START_ATTEMPTS = 3
STOP_SECONDS = 30.0  # that the thread of live output may take to end

# Tune's own loggers and its table are not used: flambe records and shows results.
TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


class TuneExecutor:
    """Runs the variants of a stage as the trials of a Ray Tune search.

    Parameters
    ----------
    root
        The folder of the run, on this host.
    nodes
        The Ray nodes of a cluster; without them, Ray is started on this machine.
    halt
        Ends the run, for a reason.
    """

    def __init__(
        self,
        root: Path,
        nodes: RayNodeMonitor | None = None,
        halt: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.root = root
        self.nodes = nodes
        self.halt = halt
        self.name = f"flambe-{uuid.uuid4().hex[:12]}"
        self.local = LocalRay()
        self._history = TrialHistory()
        #: Stage → the task that the collector has, and which process of it has them.
        self._tasks: dict[str, StageTask] = {}
        self._collector_process = ""
        self._collector: CollectorClient | None = None
        self._started_ray = False
        self._settings = contextlib.ExitStack()

    def start(self) -> None:
        """Start Ray, or connect to it, and the collector."""
        if self.nodes is not None:
            self.nodes.hold_leases()
        self._settings.enter_context(driver_settings(TUNE_ENVIRONMENT))
        if not ray.is_initialized():
            with quiet_ray(), keep_sigterm():
                self._start_ray()
            self._settings.enter_context(raylet_in_log())
            self._started_ray = True
        if self.nodes is not None:
            self.nodes.head.start()
            self.nodes.await_all()
        self._collector = CollectorClient(self._start_collector())
        self._diagnosis = FailureDiagnosis(self._collector)
        tune.register_trainable(TRAINABLE, VariantTrainable, warn=False)

    def _start_ray(self) -> None:
        """Start Ray, or connect to it.

        On a busy machine, Ray may miss its own deadline of 30 s, and a head that was just started
        may not listen yet: both are retried.
        """

        def is_late(error: BaseException) -> bool:
            self.local.close()
            # Ray raises a bare Exception here
            return "timed out" in str(error) or "Failed to connect" in str(error)

        try:
            retry(self._init_ray, attempts=START_ATTEMPTS, on=is_late, pause=0.0)
        except RunError:
            raise
        except Exception as error:
            raise RunError(f"Ray does not start: {error}") from error

    def _init_ray(self) -> None:
        common: dict[str, object] = {
            "namespace": NAMESPACE,
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "configure_logging": False,
            "job_config": job_config(),
        }
        if self.nodes is not None:
            ray.init(address=self.nodes.address, **common)
        else:
            runtime_env = {"env_vars": dict(TUNE_ENVIRONMENT)}
            self.local.start(include_dashboard=False, runtime_env=runtime_env, **common)

    def _start_collector(self) -> ray.actor.ActorHandle:
        """Start the collector on this host, where the folder is that it writes to.

        Ray restarts it whenever its process is killed, and stops it with this driver.
        """
        on_host = NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        actor = ray.remote(Collector).options(
            name=self.name,
            namespace=NAMESPACE,
            num_cpus=0,
            max_concurrency=1,
            max_restarts=-1,
            scheduling_strategy=on_host,
        )
        return actor.remote(str(self.root), sorted(redact.values()), self.name)

    def capacity(self) -> dict[str, float]:
        """Return what the largest host offers."""
        largest = {"cpu": 0.0, "gpu": 0.0}
        for node in ray.nodes():
            for resource, amount in node["Resources"].items() if node["Alive"] else ():
                name = resource.lower() if resource in ("CPU", "GPU") else resource
                largest[name] = max(amount, largest.get(name, 0.0))
        return largest

    def run_stage(
        self,
        task: StageTask,
        variants: Sequence[Variant],
        options: StageOptions,
        listener: VariantListener,
    ) -> None:
        """Run the variants; see :class:`~flambe.experiment.executors.base.Executor`.

        Raises
        ------
        RunError
            If no factory was left.
        """
        watched = self.nodes.watched() if self.nodes is not None else contextlib.nullcontext()
        with watched, self._live_lines(listener):
            lost = self._run(task, variants, options, listener)
            while lost:
                # Their hosts went while they had no failure left, which was not their failure.
                checkpoints = task.storage.checkpoints()
                task.restore.update(settle_resumed(checkpoints, lost, task.retention))
                lost = self._run(task, lost, options.without_search(), listener)
        task.storage.checkpoints().remove_tune_files(task.stage)

    def _run(
        self,
        task: StageTask,
        variants: Sequence[Variant],
        options: StageOptions,
        listener: VariantListener,
    ) -> list[Variant]:
        """Run variants by one Tuner; return those that were lost with their hosts."""
        self._tasks[task.stage] = task
        self._running_collector.set_task(task)
        stage = StageRun(
            task,
            listener,
            options.search.suggested_ids if options.search is not None else (),
            self._history,
            self._diagnosis,
            self.halt,
            self.nodes,
        )
        engines = stage_engines(
            options,
            lambda: count_slots(options.devices, ray.nodes()),
            lambda trial: stage.variant(trial).id,
            stage.copy,
            stage.limit,
        )
        stage.population = engines.population
        for identity in engines.stopped:
            stage.stop_recorded(task.variants[task.stage][identity])
        variants = [variant for variant in variants if variant.id not in engines.stopped]
        try:
            if variants:
                self._tuner(stage, variants, options, engines).fit()
        except KeyboardInterrupt:
            if self.nodes is not None and self.nodes.gave_up:
                raise RunError(
                    f"{self.nodes.gave_up}\n  finished variants are kept; to continue, run the "
                    "same command with --resume"
                ) from None
            raise
        self._history.release_all()
        self._history.upkeep.wait_settled()
        return stage.lost

    def _tuner(
        self,
        stage: StageRun,
        variants: Sequence[Variant],
        options: StageOptions,
        engines: StageEngines,
    ) -> Tuner:
        task = stage.task
        return Tuner(
            TRAINABLE,
            param_space=self._param_space(task, variants, options),
            tune_config=TuneConfig(
                metric=METRIC,
                mode=MODE,
                scheduler=engines.scheduler,
                search_alg=engines.searcher,
                num_samples=engines.num_samples,
                reuse_actors=options.reuse_actors and replace_refusing_actors(),
                trial_name_creator=stage.trial_name,
                trial_dirname_creator=stage.trial_folder,
            ),
            run_config=RunConfig(
                name=task.stage,
                storage_path=task.storage.base,
                storage_filesystem=task.storage.for_tune(),
                failure_config=FailureConfig(max_failures=options.max_failures),
                checkpoint_config=CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=True),
                callbacks=[StageCallback(stage)],
                verbose=0,
            ),
        )

    def _param_space(
        self, task: StageTask, variants: Sequence[Variant], options: StageOptions
    ) -> dict[str, object]:
        """Return the search space of Tune; its samples are a ``TrialConfig``."""
        ids = [variant.id for variant in variants]
        space: dict[str, object] = {
            "stage": task.stage,
            "collector": self.name,
            "devices": dict(options.devices),
        }
        if options.search is None:
            return {**space, "variant": tune.grid_search(ids)}
        # The options of the base variants are one more dimension of the search.
        variant = tune.choice(ids) if len(ids) > 1 else ids[0]
        return {**space, "variant": variant, "values": dict(options.search.space)}

    # -- live output --------------------------------------------------------------------------

    @property
    def _running_collector(self) -> CollectorClient:
        assert self._collector is not None, "start() comes first"
        return self._collector

    @contextlib.contextmanager
    def _live_lines(self, listener: VariantListener) -> Iterator[None]:
        """Pass the output of components to the listener while a stage runs."""
        over = threading.Event()

        def pass_lines() -> None:
            last = False
            while not last:
                last = over.wait(LINE_PERIOD)
                try:
                    status = self._running_collector.poll()
                    self._check_collector(status)
                except GetTimeoutError:
                    continue
                except Exception:  # Ray is shutting down
                    return
                try:
                    listener.on_lines(status.lines)
                except OSError as error:
                    self.halt(_disk.reason(error, self.root, host_name()))

        thread = threading.Thread(target=pass_lines, name="flambe-lines", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            if not self._head_is_gone:
                thread.join(STOP_SECONDS)

    def _check_collector(self, status: CollectorStatus) -> None:
        """Give a restarted collector its tasks; halt where its disk is full for too long."""
        if self._collector_process not in ("", status.process):
            _log.warning("the process that collects the output of the run was killed: restarted")
            for task in self._tasks.values():
                self._running_collector.resend_task(task)
        self._collector_process = status.process
        if status.refusal and status.refused_for > _disk.deadline():
            self.halt(status.refusal)

    @property
    def _head_is_gone(self) -> bool:
        """Whether the head of Ray is gone: no call to Ray returns then."""
        return self.nodes is not None and self.nodes.head.gone

    def close(self) -> None:
        """Close the files, and stop Ray if it was started here."""
        if self._collector is not None and not self._head_is_gone:
            with contextlib.suppress(Exception):
                self._collector.close()
        self._history.upkeep.close()
        if self.nodes is not None:
            self.nodes.release_leases()
            self.nodes.head.close()
        if self._started_ray and not self._head_is_gone:
            with quiet_ray():
                self.local.close()
        self._settings.close()

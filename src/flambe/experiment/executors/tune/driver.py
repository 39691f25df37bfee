"""Stages as Ray Tune searches, the driver's side: trials, retries and schedulers are Tune's."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable
from pathlib import Path

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flambe import _disk
from flambe._retry import retry
from flambe.errors import RunError
from flambe.experiment.executors.admission import StageQueue
from flambe.experiment.executors.base import StageOptions, VariantListener
from flambe.experiment.executors.stage_task import StageTask
from flambe.experiment.executors.tune.algorithms.stage_engines import stage_engines
from flambe.experiment.executors.tune.collector import Collector, CollectorStatus
from flambe.experiment.executors.tune.collector_client import CollectorClient
from flambe.experiment.executors.tune.concurrent.live_output import LiveOutput
from flambe.experiment.executors.tune.concurrent.slots import Slots, max_concurrent
from flambe.experiment.executors.tune.concurrent.stage_tuner import TRAINABLE, StageTuner
from flambe.experiment.executors.tune.diagnosis import FailureDiagnosis
from flambe.experiment.executors.tune.import_path import job_config
from flambe.experiment.executors.tune.leftovers import remove_leftovers
from flambe.experiment.executors.tune.local_ray import LocalRay
from flambe.experiment.executors.tune.ray_nodes import RayNodeMonitor
from flambe.experiment.executors.tune.ray_process import (
    driver_settings,
    keep_sigterm,
    quiet_ray,
    raylet_in_log,
)
from flambe.experiment.executors.tune.stage_run import (
    LOCAL_RAY_ENDED,
    StageRun,
    settle_resumed,
)
from flambe.experiment.executors.tune.trainable import VariantTrainable
from flambe.experiment.executors.tune.trial import NAMESPACE
from flambe.experiment.executors.tune.trial_history import TrialHistory
from flambe.experiment.variants.expansion import Variant
from flambe.logging import redact
from flambe.progress import host_name

_log = logging.getLogger(__name__)

START_ATTEMPTS = 3

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

    parallel = True

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
        #: Stage → what is remembered of its trials.
        self._histories: dict[str, TrialHistory] = {}
        #: Stage → the task that the collector has, and which process of it has them.
        self._tasks: dict[str, StageTask] = {}
        self._collector_process = ""
        self._slots = Slots()
        self._output = LiveOutput(
            self._poll,
            self._check_collector,
            lambda error: self.halt(_disk.reason(error, self.root, host_name())),
            lambda: not self._head_is_gone,
        )
        self._collector: CollectorClient | None = None
        self._started_ray = self._local_ended = False
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
        variants: StageQueue,
        options: StageOptions,
        listener: VariantListener,
    ) -> None:
        """Run the variants; see :class:`~flambe.experiment.executors.base.Executor`.

        Raises
        ------
        RunError
            If a checkpoint cannot be moved to where it belongs.
        """
        self._slots.share(variants, options.devices)
        watched = self.nodes.watched() if self.nodes is not None else contextlib.nullcontext()
        with watched, self._output.passed_to(listener):
            lost = self._run(task, variants, options, listener)
            while lost:
                # Their hosts went while they had no failure left, which was not their failure.
                checkpoints = task.storage.checkpoints()
                task.restore.update(settle_resumed(checkpoints, lost, task.retention))
                variants = variants.again(lost)
                lost = self._run(task, variants, options.without_search(), listener)
                variants.end()
        remove_leftovers(task.storage.checkpoints(), task.stage)

    def _run(
        self,
        task: StageTask,
        variants: StageQueue,
        options: StageOptions,
        listener: VariantListener,
    ) -> list[Variant]:
        """Run variants by one search of Tune; return those that were lost with their hosts."""
        self._tasks[task.stage] = task
        self._running_collector.set_task(task)
        history = self._histories.setdefault(task.stage, TrialHistory())
        stage = StageRun(
            task,
            listener,
            options.search.suggested_ids if options.search is not None else (),
            history,
            self._diagnosis,
            self.halt,
            self.nodes,
        )
        engines = stage_engines(
            options,
            lambda: max_concurrent(options.devices),
            lambda trial: stage.variant(trial).id,
            stage.copy,
            stage.limit,
        )
        stage.population = engines.population
        for identity in engines.stopped:
            stage.stop_recorded(task.variants[task.stage][identity])
        variants.discard(engines.stopped)
        if len(variants) or not variants.over:
            StageTuner(stage, variants, options, engines, self.name, listener.check).run()
        if options.limits.reason:
            for variant in variants.drain():
                listener.on_skip(variant, options.limits.reason)
        history.release_all()
        history.upkeep.wait_settled()
        return stage.lost

    # -- live output --------------------------------------------------------------------------

    @property
    def _running_collector(self) -> CollectorClient:
        assert self._collector is not None, "start() comes first"
        return self._collector

    def _poll(self) -> CollectorStatus:
        try:
            return self._running_collector.poll()
        except RunError:
            # What runs may continue for a while, but nothing new would ever start.
            if self.nodes is None and not any(node["Alive"] for node in ray.nodes()):
                self._local_ended = True
                self.halt(LOCAL_RAY_ENDED)
            raise

    def _check_collector(self, status: CollectorStatus) -> None:
        """Give a restarted collector its tasks; halt where its disk is full for too long."""
        if self._collector_process not in ("", status.process):
            _log.warning("the process that collects the output of the run was killed: restarted")
            for task in list(self._tasks.values()):
                self._running_collector.resend_task(task)
        self._collector_process = status.process
        self._slots.refresh()
        if status.refusal and status.refused_for > _disk.deadline():
            self.halt(status.refusal)

    @property
    def _head_is_gone(self) -> bool:
        """Whether the head of Ray is gone: no call to Ray returns then."""
        return self._local_ended if self.nodes is None else self.nodes.head.gone

    def close(self) -> None:
        """Close the files, and stop Ray if it was started here."""
        if self._collector is not None and not self._head_is_gone:
            with contextlib.suppress(Exception):
                self._collector.close()
        for history in self._histories.values():
            history.upkeep.close()
        if self.nodes is not None:
            self.nodes.release_leases()
            self.nodes.head.close()
        if self._started_ray and (self.nodes is None or not self._head_is_gone):
            with quiet_ray():
                self.local.close()
        self._settings.close()

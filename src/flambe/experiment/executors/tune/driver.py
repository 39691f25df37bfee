"""Stages as Ray Tune searches, the driver's side: trials, retries and schedulers are Tune's."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import GetTimeoutError
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flambe import _disk
from flambe.errors import RunError
from flambe.experiment.executors.base import StageOptions, VariantListener
from flambe.experiment.executors.stage_task import StageTask
from flambe.experiment.executors.tune.channel import LINE_PERIOD
from flambe.experiment.executors.tune.collector import Collector, Look
from flambe.experiment.executors.tune.collector_calls import answer
from flambe.experiment.executors.tune.import_path import job_config
from flambe.experiment.executors.tune.local_ray import LocalRay
from flambe.experiment.executors.tune.ranking import ranked_scheduler, ranked_searcher
from flambe.experiment.executors.tune.ray_nodes import Nodes
from flambe.experiment.executors.tune.ray_process import log_raylet, quiet_ray, sigterm_is_ours
from flambe.experiment.executors.tune.resumed_searcher import Informed
from flambe.experiment.executors.tune.stage_run import (
    StageCallback,
    StageRun,
    live,
    resumed,
    trial_folder,
    trial_name,
)
from flambe.experiment.executors.tune.trainable import NAMESPACE, VariantTrainable, quiet_loggers
from flambe.experiment.executors.tune.worker_replacement import replace_refusing_actors
from flambe.experiment.search.engines import METRIC, MODE
from flambe.experiment.search.stage_search import SearcherOptions
from flambe.experiment.storage.checkpoints import Upkeep
from flambe.experiment.variants.expansion import Variant
from flambe.logging import redact
from flambe.progress import host_name

_log = logging.getLogger(__name__)

TRAINABLE = "flambe_variant"
START_ATTEMPTS = 3
ANSWER_SECONDS = 30  # of the collector

# Tune's own loggers and its table are not used: flambe records and shows.
_TUNE_ENVIRONMENT = {
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
        Ends the run for a reason.
    """

    def __init__(
        self,
        root: Path,
        nodes: Nodes | None = None,
        halt: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.root = root
        self.nodes = nodes
        self.halt = halt
        self.name = f"flambe-{uuid.uuid4().hex[:12]}"
        self.collector: Any = None
        #: The checkpoints of trials that are kept while they run, the oldest first.
        self.checkpoints: dict[str, list[str]] = {}
        self.upkeep = Upkeep()
        #: Id → the step at which the host of a variant was lost last, and how often it was.
        self.losses: dict[str, tuple[int, int]] = {}
        #: Id → how many attempts were made at a variant.
        self.attempts: dict[str, int] = {}
        #: Stage → the task that the collector has, and which process of it has them.
        self.tasks: dict[str, StageTask] = {}
        self._collecting = ""
        self.local = LocalRay()
        self._started_ray = False

    def start(self) -> None:
        """Start Ray, or connect to it, and the collector."""
        if self.nodes is not None:
            self.nodes.hold()
        os.environ.update(_TUNE_ENVIRONMENT)
        quiet_loggers()
        if not ray.is_initialized():
            with quiet_ray(), sigterm_is_ours():
                self._start_ray()
            log_raylet()
            self._started_ray = True
        if self.nodes is not None:
            self.nodes.head.start()
            self.nodes.await_all()
        # A named actor that ends with this driver, and is started again until then. It is where the
        # driver is, and so is the folder that it writes.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.collector = (
            ray.remote(Collector)
            .options(
                name=self.name,
                namespace=NAMESPACE,
                num_cpus=0,
                max_concurrency=1,
                max_restarts=-1,
                scheduling_strategy=here,
            )
            .remote(str(self.root), sorted(redact.values()), self.name)
        )
        tune.register_trainable(TRAINABLE, VariantTrainable, warn=False)

    def _start_ray(self) -> None:
        """Start Ray; on a busy machine it may miss its own deadline of 30 s, and is tried again."""
        for attempt in range(START_ATTEMPTS):
            try:
                common = {
                    "namespace": NAMESPACE,
                    "log_to_driver": False,
                    "logging_level": logging.ERROR,
                    "configure_logging": False,
                    "job_config": job_config(),
                }
                if self.nodes is not None:
                    ray.init(address=self.nodes.address, **common)
                else:
                    variables = dict(_TUNE_ENVIRONMENT)
                    self.local.start(
                        include_dashboard=False, runtime_env={"env_vars": variables}, **common
                    )
                return
            except RunError:
                raise
            except Exception as error:  # Ray raises a bare Exception here
                self.local.close()
                # A head that was started just now, on a busy host, may not listen yet.
                slow = "timed out" in str(error) or "Failed to connect" in str(error)
                if not slow or attempt + 1 == START_ATTEMPTS:
                    raise RunError(f"Ray does not start: {error}") from error

    def capacity(self) -> dict[str, float]:
        """Return what the largest host offers."""
        most = {"cpu": 0.0, "gpu": 0.0}
        for node in ray.nodes():
            for name, amount in node["Resources"].items() if node["Alive"] else ():
                known = name.lower() if name in ("CPU", "GPU") else name
                most[known] = max(amount, most.get(known, 0.0))
        return most

    def run_stage(
        self,
        task: StageTask,
        variants: Sequence[Variant],
        options: StageOptions,
        to: VariantListener,
    ) -> None:
        """Run the variants; see :class:`~flambe.experiment.executors.base.Executor`.

        Raises
        ------
        RunError
            If no factory was left.
        """
        watched = self.nodes.watched() if self.nodes is not None else contextlib.nullcontext()
        with watched, self._live_lines(to):
            lost = self._run(task, variants, options, to)
            while lost:
                # Their hosts went while they had no failure left: that was none of theirs.
                task.restore.update(resumed(task.storage.checkpoints(), lost))
                lost = self._run(task, lost, options.without_search(), to)
        task.storage.checkpoints().remove_tune_files(task.stage)

    def _run(
        self,
        task: StageTask,
        variants: Sequence[Variant],
        options: StageOptions,
        to: VariantListener,
    ) -> list[Variant]:
        """Run variants by one Tuner; return those that were lost with their hosts."""
        search = options.search
        self.tasks[task.stage] = task
        answer(lambda: self.collector.set_task.remote(task))
        stage = StageRun(self, task, to, search.suggested_ids if search else ())
        key = f"{self.name}/{task.stage}"
        live[key] = stage
        try:
            self._tuner(task, variants, options, key).fit()
        except KeyboardInterrupt:
            if self.nodes is not None and self.nodes.gave_up:
                raise RunError(
                    f"{self.nodes.gave_up}\n  what is done is kept; to continue, run the same "
                    "command with --resume"
                ) from None
            raise
        finally:
            del live[key]
        self.upkeep.settled()
        return stage.lost

    def _tuner(
        self,
        task: StageTask,
        variants: Sequence[Variant],
        options: StageOptions,
        key: str,
    ) -> Any:
        ids = [variant.id for variant in variants]
        space = {"stage": task.stage, "collector": self.name, "devices": dict(options.devices)}
        search = options.search
        if search is None:
            space["variant"] = tune.grid_search(ids)
        else:
            # The options of the base variants are one more dimension of the search.
            space["variant"] = tune.choice(ids) if len(ids) > 1 else ids[0]
            space["values"] = dict(search.space)
        return Tuner(
            TRAINABLE,
            param_space=space,
            tune_config=TuneConfig(
                metric=METRIC,
                mode=MODE,
                scheduler=ranked_scheduler(options.scheduler),
                search_alg=_searcher(search) if search else None,
                num_samples=search.num_samples if search else 1,
                max_concurrent_trials=_max_concurrent(search) if search else None,
                reuse_actors=options.reuse_actors and replace_refusing_actors(),
                trial_name_creator=partial(trial_name, key),
                trial_dirname_creator=partial(trial_folder, key),
            ),
            run_config=RunConfig(
                name=task.stage,
                storage_path=task.storage.base,
                storage_filesystem=task.storage.for_tune(),
                failure_config=FailureConfig(max_failures=options.max_failures),
                checkpoint_config=CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=True),
                callbacks=[StageCallback(key)],
                verbose=0,
            ),
        )

    @contextlib.contextmanager
    def _live_lines(self, to: VariantListener) -> Iterator[None]:
        """Give what components say to the listener while a stage runs."""
        over = threading.Event()

        def show() -> None:
            last = False
            while not last:
                last = over.wait(LINE_PERIOD)
                try:
                    look: Look = answer(self.collector.look.remote, ANSWER_SECONDS)
                    self._recollect(look)
                except GetTimeoutError:
                    continue
                except Exception:  # Ray is going down
                    return
                try:
                    to.on_lines(look.lines)
                except OSError as error:
                    self.halt(_disk.reason(error, self.root, host_name()))

        thread = threading.Thread(target=show, name="flambe-lines", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            if not self.head_is_gone:
                thread.join(30)

    def next_attempt(self, variant: Variant) -> int:
        """Return the number of the next attempt at a variant."""
        self.attempts[variant.id] = number = self.attempts.get(variant.id, 0) + 1
        return number

    def _recollect(self, look: Look) -> None:
        """Give a collector that was started again what the one before it had.

        The run ends where its disk has taken nothing for too long.
        """
        if self._collecting not in ("", look.process):
            _log.warning("what collects the output of the run was killed, and is started again")
            for task in self.tasks.values():
                self.collector.set_task.remote(task)
        self._collecting = look.process
        if look.refusal and look.refused_for > _disk.deadline():
            self.halt(look.refusal)

    @property
    def head_is_gone(self) -> bool:
        """Whether no call to Ray comes back."""
        return self.nodes is not None and self.nodes.head.gone

    def close(self) -> None:
        """Close the files, and stop the Ray that was started here."""
        if self.collector is not None and not self.head_is_gone:
            with contextlib.suppress(Exception):
                ray.get(self.collector.close.remote(), timeout=10)
        self.upkeep.close()
        if self.nodes is not None:
            self.nodes.release()
            self.nodes.head.close()
        if self._started_ray and not self.head_is_gone:
            with quiet_ray():
                self.local.close()


def _searcher(options: SearcherOptions) -> Any:
    # What draws at random takes no advice: it is asked for as many as are missing.
    searcher = ranked_searcher(options.searcher)
    return Informed(searcher, options) if _advised(options) else searcher


def _max_concurrent(options: SearcherOptions) -> int | None:
    return None if _advised(options) else options.max_concurrent


def _advised(options: SearcherOptions) -> bool:
    return bool(options.evaluated) and isinstance(options.searcher, Searcher)

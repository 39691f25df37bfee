"""Stages as Ray Tune searches: trials, actors, retries and schedulers are Tune's."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.execution.placement_groups import PlacementGroupFactory

from flambe.errors import ComponentError, RunError
from flambe.experiment.executor import Listener, StageOptions, variant_title
from flambe.experiment.task import StageTask, VariantTask, settle_checkpoint
from flambe.experiment.variants import Variant
from flambe.logging import capture, redact
from flambe.logging.events import Record
from flambe.logging.recorder import Recorder
from flambe.progress import RunFolder

TRAINABLE = "flambe_variant"
NAMESPACE = "flambe"
METRIC = "metric"
AT_END = "at_end"
START_ATTEMPTS = 3
# How often what components said is sent and shown, in seconds.
LINE_PERIOD = 0.2
# Records that wait in a worker before it is slowed down, and that are sent at once.
MOST_WAITING = 50_000
BATCH = 2_000

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


class Collector:
    """The actor that holds the recorder, beside the driver; every host sends to it."""

    def __init__(self, root: str, secrets: Sequence[str]) -> None:
        for value in secrets:
            redact.add(value)
        self.recorder = Recorder(root)
        self.tasks: dict[str, StageTask] = {}

    def set_task(self, task: StageTask) -> None:
        """Keep the task of a stage for the workers to ask for."""
        self.tasks[task.stage] = task

    def task(self, stage: str) -> StageTask:
        """Return the task of a stage."""
        return self.tasks[stage]

    def open(self, source: str, folder: str, name: str) -> None:
        """See :meth:`Recorder.open`."""
        self.recorder.open(source, folder, name)

    def write(self, records: list[Record]) -> None:
        """See :meth:`Recorder.write`."""
        self.recorder.write(records)

    def take_lines(self) -> list[tuple[str, str, str]]:
        """See :meth:`Recorder.take_lines`."""
        return self.recorder.take_lines()

    def close(self) -> None:
        """See :meth:`Recorder.close`."""
        self.recorder.close()


class _CollectorChannel:
    """Sends records to the collector in the background, in batches and in order."""

    def __init__(self, collector: Any) -> None:
        self.collector = collector
        self.waiting: collections.deque[Record] = collections.deque()
        self.sent = self.taken = 0
        self.hurry = False
        self.changed = threading.Condition()
        threading.Thread(target=self._run, name="flambe-channel", daemon=True).start()

    def send(self, record: Record) -> None:
        """Take a record; waits when the collector is far behind."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.waiting) < MOST_WAITING, timeout=60)
            self.waiting.append(record)
            self.taken += 1
            if len(self.waiting) == 1:
                self.changed.notify_all()

    def flush(self) -> None:
        """Return when all that was sent has arrived, or after ten seconds."""
        with self.changed:
            last, self.hurry = self.taken, True
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.sent >= last, timeout=10)

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: bool(self.waiting))
                # A moment's patience makes few batches of many lines.
                self.changed.wait_for(lambda: self.hurry, timeout=LINE_PERIOD / 2)
                batch = [self.waiting.popleft() for _ in range(min(len(self.waiting), BATCH))]
            try:
                ray.get(self.collector.write.remote(batch))
            except Exception:  # the run is being shut down, or the collector is lost
                logging.getLogger(__name__).debug("could not send %d records", len(batch))
            with self.changed:
                self.sent += len(batch)
                self.hurry = self.hurry and bool(self.waiting)
                self.changed.notify_all()


class VariantTrainable(tune.Trainable):  # type: ignore[misc]
    """A trial: one variant after another in one process."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin with the variant of a configuration."""
        _quiet_loggers()
        self.stage_task: StageTask | None = None
        self.running: VariantTask | None = None
        self.collector = ray.get_actor(config["collector"], namespace=NAMESPACE)
        self.channel = _CollectorChannel(self.collector)
        self.source = ""
        self.printed = capture.Printed(self._take)
        self.printed.start()
        self._logged = contextlib.ExitStack()
        self._logged.enter_context(capture.logged(self._take))
        self._begin(config)

    def _take(self, level: str, text: str) -> None:
        self.channel.send(Record(self.source, "line", level, text, None, time.time()))

    def _begin(self, config: dict[str, Any]) -> None:
        if self.stage_task is None or self.stage_task.stage != config["stage"]:
            self.stage_task = ray.get(self.collector.task.remote(config["stage"]))
        self.config = config
        self.running = None
        variant = self._variant(config)
        self.source = variant.id
        folder = f"{variant.stage}/{variant.name}"
        self.collector.open.remote(variant.id, folder, variant_title(variant))

    def _variant(self, config: dict[str, Any]) -> Variant:
        assert self.stage_task is not None
        return self.stage_task.of(config["variant"], config.get("values") or {})

    def _run_variant(self) -> VariantTask:
        """Return what runs the variant; it is built in the first step."""
        if self.running is None:
            assert self.stage_task is not None
            self.running = VariantTask(self.stage_task, self.source, self.channel)
            self._iteration = self.running.step_count
        return self.running

    def step(self) -> dict[str, Any]:
        """Do one step of the variant."""
        try:
            running = self._run_variant()
            more = running.step()
        except Exception as error:
            self._take("ERROR", str(error))
            self.channel.flush()
            raise
        if not more:
            self._end()
        # Tune sets its own "done" too when a scheduler stops a trial.
        result: dict[str, Any] = {
            "steps": running.step_count,
            AT_END: not more,
            tune.result.DONE: not more,
        }
        if running.metric is not None:
            result[METRIC] = running.metric
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write a checkpoint of the variant."""
        self._run_variant().save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a checkpoint: after a failure, or when another variant is exploited."""
        self._run_variant().restore(Path(checkpoint))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go on with another variant in this process."""
        if self.running is not None and not self.running.done:
            self._end()  # a scheduler stopped it
        self._begin(new_config)
        return True

    def _end(self) -> None:
        """See that all that the variant said has arrived."""
        # The descriptors are taken anew, so that what was printed is known to have been sent.
        self.printed.stop()
        self.printed.start()
        self.channel.send(Record(self.source, "end", "", None, None, time.time()))
        self.channel.flush()

    def cleanup(self) -> None:
        """Give the process back."""
        self.printed.stop()
        self._logged.close()
        self.channel.flush()

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Return what a variant occupies."""
        devices = dict(config["devices"])
        bundle = {"CPU": devices.pop("cpu", 1.0), "GPU": devices.pop("gpu", 0.0), **devices}
        return PlacementGroupFactory([{k: v for k, v in bundle.items() if v}])


class _Callback(tune.Callback):  # type: ignore[misc]
    """Tells the listener what Tune does with the trials.

    Tune pickles its callbacks, though flambe never reads them: they know their stage by its key.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    @property
    def stage(self) -> _StageRun:
        return _live[self.key]

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.stage.to.started(self.stage.variant(trial), trial.node_ip or "")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        step, metric = result.get("steps"), result.get(METRIC)
        if step is not None:
            host = str(result.get("hostname", ""))
            self.stage.to.stepped(self.stage.variant(trial), step, metric, host)

    def on_checkpoint(
        self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        self.stage.prune(trial, Path(checkpoint.path))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.stage.end(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.stage.fail(trial, final=False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.stage.fail(trial, final=True)


def _trial_name(key: str, trial: Any) -> str:
    return _live[key].variant(trial).id


def _trial_folder(key: str, trial: Any) -> str:
    return _live[key].variant(trial).name


#: The stages that run now in this process.
_live: dict[str, _StageRun] = {}


class _StageRun:
    """One stage as Tune runs it: trials and the variants that they run."""

    def __init__(self, executor: TuneExecutor, task: StageTask, to: Listener) -> None:
        self.executor = executor
        self.task = task
        self.to = to

    def variant(self, trial: Any) -> Variant:
        return self.task.of(trial.config["variant"], trial.config.get("values") or {})

    def folder(self, variant: Variant) -> Path:
        return RunFolder(self.executor.root).variant(variant.stage, variant.name)

    def prune(self, trial: Any, latest: Path) -> None:
        """Keep the two latest checkpoints: Tune, told to do so, would save its state each time."""
        kept = self.executor.checkpoints.setdefault(trial.trial_id, [])
        kept.append(latest)
        while len(kept) > 2:
            shutil.rmtree(kept.pop(0), ignore_errors=True)

    def end(self, trial: Any) -> None:
        variant = self.variant(trial)
        stopped = not (trial.last_result or {}).get(AT_END, False)
        settle_checkpoint(self.folder(variant), "checkpoint")
        self.to.finished(variant, stopped=stopped)

    def fail(self, trial: Any, *, final: bool) -> None:
        variant = self.variant(trial)
        error, text = _cause(trial)
        self.to.failed(variant, error, text, final)


def _cause(trial: Any) -> tuple[ComponentError | None, str]:
    """Return what a trial failed of, without the layers of Ray around it."""
    error: BaseException | None = None
    with contextlib.suppress(Exception):
        # Tune has just written it beside itself; it moves it to the storage later.
        written = Path(trial.pickled_error_file or "")
        if written.is_file():
            error = ray.cloudpickle.loads(written.read_bytes())
        else:
            error = trial.get_pickled_error() or trial.get_error()
    seen = 0
    while error is not None and seen < 10:
        # An error of a task is an instance of its cause's class as well: the cause comes first.
        inner = getattr(error, "cause", None)
        if inner is None and isinstance(error, ComponentError):
            return error, str(error)
        inner = inner or error.__cause__
        if inner is None:
            break
        error, seen = inner, seen + 1
    if error is None:
        return None, "the trial failed; its log says more"
    text = str(error).strip()
    return None, f"{type(error).__name__}: {text}" if text else type(error).__name__


class TuneExecutor:
    """Runs the variants of a stage as the trials of a Ray Tune search.

    Parameters
    ----------
    root
        The folder of the run, on this host.
    address
        The Ray cluster; None starts Ray on this machine.
    """

    def __init__(self, root: Path, address: str | None = None) -> None:
        self.root = root
        self.address = address
        self.name = f"flambe-{uuid.uuid4().hex[:12]}"
        self.collector: Any = None
        self.checkpoints: dict[str, list[Path]] = {}
        self._started_ray = False

    def start(self) -> None:
        """Start Ray, or connect to it, and the collector."""
        os.environ.update(_TUNE_ENVIRONMENT)
        _quiet_loggers()
        if not ray.is_initialized():
            with _quiet_ray(), _sigterm_is_ours():
                self._start_ray()
            self._started_ray = True
        # A named, detached-free actor: it ends with this driver, and so does the run.
        self.collector = (
            ray.remote(Collector)
            .options(name=self.name, namespace=NAMESPACE, num_cpus=0, max_concurrency=1)
            .remote(str(self.root), sorted(redact.values()))
        )
        tune.register_trainable(TRAINABLE, VariantTrainable, warn=False)

    def _start_ray(self) -> None:
        """Start Ray; on a busy machine it may miss its own deadline of 30 s, and is tried again."""
        for attempt in range(START_ATTEMPTS):
            try:
                ray.init(
                    address=self.address,
                    namespace=NAMESPACE,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=False,
                    runtime_env={"env_vars": dict(_TUNE_ENVIRONMENT)},
                )
                return
            except Exception as error:  # Ray raises a bare Exception here
                ray.shutdown()
                if "timed out" not in str(error) or attempt + 1 == START_ATTEMPTS:
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
        self, task: StageTask, variants: Sequence[Variant], options: StageOptions, to: Listener
    ) -> None:
        """Run the variants; see :class:`~flambe.experiment.executor.Executor`."""
        ray.get(self.collector.set_task.remote(task))
        stage = _StageRun(self, task, to)
        key = f"{self.name}/{task.stage}"
        _live[key] = stage
        try:
            tuner = self._tuner(task, variants, options, key)
            with self._live_lines(to):
                tuner.fit()
        finally:
            del _live[key]
        _remove_tune_files(self.root / task.stage)

    def _tuner(
        self,
        task: StageTask,
        variants: Sequence[Variant],
        options: StageOptions,
        key: str,
    ) -> Any:
        ids = [variant.id for variant in variants]
        space = {"stage": task.stage, "collector": self.name, "devices": options.devices}
        if options.search is None:
            space["variant"] = tune.grid_search(ids)
        else:
            # The options of the base variants are one more dimension of the search.
            space["variant"] = tune.choice(ids) if len(ids) > 1 else ids[0]
            space["values"] = options.space
        return Tuner(
            TRAINABLE,
            param_space=space,
            tune_config=TuneConfig(
                **_ranking(options),
                scheduler=options.scheduler,
                search_alg=options.search,
                num_samples=1 if options.search is None else options.num_samples,
                max_concurrent_trials=options.max_concurrent,
                reuse_actors=options.reuse_actors,
                trial_name_creator=partial(_trial_name, key),
                trial_dirname_creator=partial(_trial_folder, key),
            ),
            run_config=RunConfig(
                name=task.stage,
                storage_path=str(self.root),
                failure_config=FailureConfig(max_failures=options.max_failures),
                checkpoint_config=CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=True),
                callbacks=[_Callback(key)],
                verbose=0,
            ),
        )

    @contextlib.contextmanager
    def _live_lines(self, to: Listener) -> Iterator[None]:
        """Give what components say to the listener while a stage runs."""
        over = threading.Event()

        def show() -> None:
            last = False
            while not last:
                last = over.wait(LINE_PERIOD)
                try:
                    lines = ray.get(self.collector.take_lines.remote(), timeout=30)
                except Exception:  # Ray is going down
                    return
                if lines:
                    to.lines(lines)

        thread = threading.Thread(target=show, name="flambe-lines", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(30)

    def close(self) -> None:
        """Close the files, and stop the Ray that was started here."""
        if self.collector is not None:
            with contextlib.suppress(Exception):
                ray.get(self.collector.close.remote(), timeout=10)
        if self._started_ray:
            with _quiet_ray():
                ray.shutdown()


def _ranking(options: StageOptions) -> Mapping[str, str]:
    """Return what to rank by, unless the scheduler or searcher has it of its own."""
    for engine in (options.scheduler, options.search):
        if getattr(engine, "metric", None) or getattr(engine, "_metric", None):
            return {}
    return {"metric": METRIC, "mode": "max"}


def _remove_tune_files(folder: Path) -> None:
    """Remove what Tune leaves beside the variants; flambe resumes from its own checkpoints."""
    for pattern in (
        "*.pkl",
        "experiment_state-*.json",
        "searcher-state-*",
        ".validate_storage*",
        "basic-variant-state-*",
        "search_gen_state-*",
    ):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)


def _quiet_loggers() -> None:
    """Keep what Ray tells of its own doings out of the logs of components."""
    for name in ("ray", "ray.train", "ray.tune", "ray._private"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def _sigterm_is_ours() -> Iterator[None]:
    """Give SIGTERM its handler back: Ray's own ends the process at once, with a core's stack."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _quiet_ray() -> Iterator[None]:
    """Keep Ray's greeting and its farewell from the terminal."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)

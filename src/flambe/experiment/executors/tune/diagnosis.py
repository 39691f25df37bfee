"""What a trial failed of, as the driver of a run finds it: its report, or how its process ended."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flambe.experiment.executors import last_words
from flambe.experiment.executors.failures import Failure, unreported_failure
from flambe.experiment.executors.last_words import LastWords
from flambe.experiment.executors.stage_task import variant_title
from flambe.experiment.executors.tune.collector import Origin
from flambe.experiment.executors.tune.collector_calls import answer
from flambe.experiment.variants.expansion import Variant

_log = logging.getLogger(__name__)
ANSWER_SECONDS = 30  # of the collector
# Of the host of a trial: the run stands still meanwhile, and other hosts have results.
HOST_SECONDS = 10
#: Nodes that did not answer: nothing else of theirs is waited for.
_silent: set[str] = set()


def failure_of(collector: Any, variant: Variant, trial: Any) -> Failure:
    """Return what a variant failed of: what its worker reported, or how its process ended.

    Parameters
    ----------
    collector
        The collector of the run.
    variant, trial
        What failed, and as what of Tune.
    """
    with contextlib.suppress(Exception):  # the collector's process is gone too
        reported: Failure | None = answer(
            lambda: collector.take_failure.remote(variant.id), ANSWER_SECONDS
        )
        if reported is not None:
            return reported
    failure = unreported_failure(trial.error_file)
    if not failure.host_lost:
        failure = _death(collector, variant, failure.text)
        with contextlib.suppress(Exception):  # the collector is lost: so is the run
            origin = Origin(f"{variant.stage}/{variant.name}", variant_title(variant))
            answer(lambda: collector.note.remote(variant.id, origin, failure.text), ANSWER_SECONDS)
    return failure


def _death(collector: Any, variant: Variant, ray_text: str) -> Failure:
    """Return how a process ended without a word; what it printed last is logged."""
    _log.debug("%s: %s", variant.name, ray_text)
    words, last = LastWords(), []
    with contextlib.suppress(Exception):  # the host is lost meanwhile
        words = _last_words(collector, variant.id)
    with contextlib.suppress(Exception):
        last = answer(
            lambda: collector.last_lines.remote(variant.id, words.printed), ANSWER_SECONDS
        )
    return last_words.failure_of(variant, words, ray_text, last)


def _last_words(collector: Any, variant_id: str) -> LastWords:
    will = answer(lambda: collector.will.remote(variant_id), ANSWER_SECONDS)
    if will is None:
        return LastWords()
    node, folder = will
    if node == ray.get_runtime_context().get_node_id():
        return last_words.read(folder)
    if node in _silent:
        return LastWords()
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    read = ray.remote(last_words.read).options(num_cpus=0, scheduling_strategy=there)
    asked = read.remote(folder)
    try:
        words: LastWords = ray.get(asked, timeout=HOST_SECONDS)
    except GetTimeoutError:
        _silent.add(node)
        ray.cancel(asked, force=True)
        raise
    return words

"""Why a trial failed, as the driver finds out: its report, or how its process ended."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flambe._retry import poll
from flambe.experiment.executors import crash_record
from flambe.experiment.executors.crash_record import CrashRecord
from flambe.experiment.executors.failures import Failure, unreported_failure
from flambe.experiment.executors.stage_task import variant_title
from flambe.experiment.executors.tune.collector import Origin
from flambe.experiment.executors.tune.collector_client import CollectorClient
from flambe.experiment.variants.expansion import Variant

_log = logging.getLogger(__name__)
# How long the host of a trial may take to answer: the run waits, and other hosts have results.
HOST_SECONDS = 10


class _HostLostError(Exception):
    """The host of a trial has left Ray, or does not answer."""


class FailureDiagnosis:
    """Finds out why trials failed.

    Parameters
    ----------
    collector
        The collector of the run.
    """

    def __init__(self, collector: CollectorClient) -> None:
        self._collector = collector
        #: Nodes that did not answer: the driver does not wait for them again.
        self._unresponsive: set[str] = set()

    def failure_of(self, variant: Variant, error_file: str | None) -> Failure:
        """Return why a variant failed: what its worker reported, or how its process ended.

        Parameters
        ----------
        variant
            The variant.
        error_file
            What Tune wrote about the failure, if it did.
        """
        with contextlib.suppress(Exception):  # the process of the collector is gone too
            reported = self._collector.take_failure(variant.id)
            if reported is not None:
                return reported
        failure = unreported_failure(error_file)
        if failure.host_lost:
            return failure
        try:
            failure = self._crash(variant, failure.text)
        except _HostLostError:
            return replace(failure, host_lost=True)
        with contextlib.suppress(Exception):  # without the collector, the run ends
            origin = Origin(f"{variant.stage}/{variant.name}", variant_title(variant))
            self._collector.log_error(variant.id, origin, failure.text)
        return failure

    def _crash(self, variant: Variant, ray_text: str) -> Failure:
        """Return how a process ended without a report; what it printed last is logged.

        Raises
        ------
        _HostLostError
            If its host ended, too. A host that goes down may end its processes one after another:
            then Ray reports the end of this one, as if it were the only one.
        """
        _log.debug("%s: %s", variant.name, ray_text)
        record, last_lines = CrashRecord(), list[str]()
        try:
            location = self._collector.take_crash_folder(variant.id)
            record = self._read_record(*location) if location is not None else record
        except _HostLostError:
            raise
        except Exception as error:  # the collector is gone too
            _log.debug("%s: %s", variant.name, error)
        with contextlib.suppress(Exception):
            last_lines = self._collector.last_lines(variant.id, record.printed)
        return crash_record.crash_failure(variant, record, ray_text, last_lines)

    def _read_record(self, node: str, folder: str) -> CrashRecord:
        """Read what the process of a variant left, on its own host."""
        if node == ray.get_runtime_context().get_node_id():
            return crash_record.read_record(folder)
        if node in self._unresponsive:
            raise _HostLostError(node)
        on_node = NodeAffinitySchedulingStrategy(node, soft=False)
        read = ray.remote(crash_record.read_record)
        reading = read.options(num_cpus=0, scheduling_strategy=on_node).remote(folder)
        try:
            record: CrashRecord = ray.get(reading, timeout=HOST_SECONDS)
            return record
        except GetTimeoutError:  # Ray takes longer to notice that a host is gone
            self._unresponsive.add(node)
            ray.cancel(reading, force=True)
            raise _HostLostError(node) from None
        except RayError as error:
            _log.debug("%s does not answer: %s", node, error)
            if poll(lambda: not _is_alive(node), seconds=HOST_SECONDS):
                raise _HostLostError(node) from None
        return CrashRecord()


def _is_alive(node: str) -> bool:
    return any(each["NodeID"] == node and each["Alive"] for each in ray.nodes())

"""EC2 instances: listed, launched, waited for, tagged, started, stopped and terminated."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from flambe._retry import poll, retry
from flambe.cluster.providers.aws.api.aws_errors import (
    code_of,
    explain,
    is_lost,
    is_unreadable,
    status_of,
    translate_errors,
)
from flambe.cluster.providers.aws.api.aws_session import AwsSession, log_retry
from flambe.cluster.providers.aws.api.aws_tags import HOST_KEY, LAUNCH_TOKEN, PURPOSE
from flambe.cluster.providers.aws.api.instance import ENDED, LIVE, Instance
from flambe.errors import RunError, counted

GENERATIONS = 50  # launches of the same hosts within the lifetime of a client token, about a day
TAG_ATTEMPTS, TAG_PAUSE = 10, 1.0  # for an instance that AWS does not know yet
TERMINATE_ATTEMPTS = 10
POLL, LONGEST_POLL = 1.0, 8.0  # seconds
PROGRESS_INTERVAL = 15.0  # seconds between two lines about what is waited for
LONGEST_PAUSE = 20.0  # seconds before a launch is asked for again
# https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html
THROTTLED = ("RequestLimitExceeded", "Throttling", "ThrottlingException", "Unavailable")
# The errors of a zone that does not have the requested capacity at the moment.
NO_CAPACITY = (
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientFreeAddressesInSubnet",
    "Unsupported",
    "SpotMaxPriceTooLow",
    "MaxSpotInstanceCountExceeded",
)


class Instances:
    """The instances of flambe in one region.

    Parameters
    ----------
    session
        The region and its user.
    """

    def __init__(self, session: AwsSession) -> None:
        self.session = session

    def list_live(self, tags: Mapping[str, str]) -> list[Instance]:
        """Return flambe's instances that have these tags and are not terminated, oldest first."""
        expected = {"Purpose": PURPOSE, **tags}
        filters = {f"tag:{name}": [escape_filter(value)] for name, value in expected.items()}
        instances = self._describe({"instance-state-name": LIVE, **filters})
        # Compared again, whatever the filters match: an instance of others is never ours.
        ours = [each for each in instances if expected.items() <= each.tags.items()]
        return sorted(ours, key=lambda instance: (str(instance.launched), instance.id))

    def describe(self, ids: Sequence[str]) -> list[Instance]:
        """Return instances by id; those that AWS does not know yet are left out."""
        return self._describe({"instance-id": ids})

    def _describe(self, filters: Mapping[str, Sequence[str]]) -> list[Instance]:
        query = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
        with translate_errors("find instances"):
            pages = self.session.ec2.get_paginator("describe_instances").paginate(Filters=query)
            return [
                Instance.parse(answer)
                for page in pages
                for reservation in page["Reservations"]
                for answer in reservation["Instances"]
            ]

    def launch(
        self,
        request: Mapping[str, object],
        token: str,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> tuple[list[str], bool]:
        """Launch instances, all of them or none.

        A launch with the same token happens once, whichever client asks for it. When all of its
        instances are gone, the token is spent, and its successor is used, which is the same for
        every client. No further attempt is made once ``is_cancelled`` returns true.

        Returns
        -------
        tuple
            Their ids, and whether this call launched them; otherwise another client just did.
        """
        for generation in range(GENERATIONS):
            client_token = f"{token}-{generation}"
            try:
                launched = self._run_instances(
                    {**request, "ClientToken": client_token}, is_cancelled
                )
            except Exception as error:
                code = code_of(error)
                if code == "IdempotentParameterMismatch":
                    # Another client asked for the same launch, with a host key of its own.
                    if existing := self.list_live({LAUNCH_TOKEN: token}):
                        return [instance.id for instance in existing], False
                elif code != "IdempotentInstanceTerminated":
                    raise
                continue
            if live := [instance.id for instance in launched if instance.state in LIVE]:
                return live, True
        raise RunError("AWS: the cluster was created and removed too often today")

    def _run_instances(
        self, request: Mapping[str, object], is_cancelled: Callable[[], bool]
    ) -> list[Instance]:
        """Ask for a launch, and again where that may help; boto3 would also wait for capacity."""
        client = self.session.client("ec2", attempts=1)
        attempts = itertools.count(1)

        def is_retryable(error: BaseException) -> bool:
            failed = status_of(error) >= 500 or code_of(error) in THROTTLED
            may_work = failed or is_lost(error)
            return may_work and code_of(error) not in NO_CAPACITY and not is_cancelled()

        def run_instances() -> list[Instance]:
            answer = client.run_instances(**request)
            return [Instance.parse(instance) for instance in answer["Instances"]]

        return retry(
            run_instances,
            attempts=self.session.attempts,
            on=is_retryable,
            pause=1.0,
            longest=LONGEST_PAUSE,
            jitter=True,
            before_retry=lambda error: log_retry(next(attempts), error),
        )

    def find_launched(self, host_keys: Collection[str], seconds: float) -> list[str]:
        """Return the instances that were launched with host keys, if the answers were lost.

        AWS may list instances some time after it creates them: they are looked for that long.
        """
        instances: list[Instance] = []

        def find_all() -> bool:
            instances[:] = [each for key in host_keys for each in self.list_live({HOST_KEY: key})]
            return {instance.tags[HOST_KEY] for instance in instances} == set(host_keys)

        poll(find_all, seconds=seconds, pause=POLL)
        return [instance.id for instance in instances]

    def await_stopped(self, ids: Sequence[str], seconds: float) -> None:
        """Wait until instances are stopped: they cannot be started before."""

        def are_stopped() -> bool:
            return all(instance.state != "stopping" for instance in self.describe(ids))

        if not poll(are_stopped, seconds=seconds, pause=POLL):
            raise RunError(f"AWS: {', '.join(ids)} did not stop within {seconds:.0f} s")

    def await_running(
        self,
        ids: Sequence[str],
        seconds: float,
        started: Collection[str] = (),
        notify: Callable[[str], None] = lambda text: None,
    ) -> list[Instance]:
        """Wait until instances run, and return them.

        Those that were just ``started`` may be reported as stopped for a while. ``notify`` gets a
        line now and then about how many of them run.

        Raises
        ------
        RunError
            If one ends while it starts, or does not run in time: it is named, with the reason.
        """
        begin, pause = time.monotonic(), POLL
        last_line = begin
        notify(f"AWS: waiting for {counted(len(ids), 'instance')} to run")
        while True:
            instances = self.describe(ids)
            for instance in instances:
                stopped = instance.is_off and instance.id not in started
                if stopped or instance.state in ENDED:
                    why = instance.state_reason or instance.state
                    raise RunError(f"AWS: {instance.id} ended while it was starting: {why}")
            running = [instance for instance in instances if instance.is_running]
            if len(running) == len(ids):
                return running
            now = time.monotonic()
            if now - last_line >= PROGRESS_INTERVAL:
                notify(f"AWS: {len(running)} of {len(ids)} run, after {now - begin:.0f} s")
                last_line = now
            if now - begin > seconds:
                late = sorted(set(ids) - {instance.id for instance in running})
                raise RunError(f"AWS: {', '.join(late)} did not run within {seconds:.0f} s")
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_POLL)

    def tag(self, instance_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of an instance; one that AWS does not know yet is waited for."""
        pairs = [{"Key": name, "Value": value} for name, value in tags.items()]
        try:
            retry(
                lambda: self.session.ec2.create_tags(Resources=[instance_id], Tags=pairs),
                attempts=TAG_ATTEMPTS,
                on=_is_unknown,
                pause=TAG_PAUSE,
                longest=TAG_PAUSE,
            )
        except Exception as error:
            raise explain("tag instances", error) from error

    def start(self, ids: Sequence[str]) -> None:
        """Start instances that were stopped."""
        if ids:
            with translate_errors("start instances"):
                _ = self.session.ec2.start_instances(InstanceIds=list(ids))["StartingInstances"]

    def stop(self, ids: Sequence[str]) -> None:
        """Stop instances.

        Raises
        ------
        RunError
            If they cannot be stopped: it names them, and the command that does it.
        """
        if ids:
            try:
                _ = self.session.ec2.stop_instances(InstanceIds=list(ids))["StoppingInstances"]
            except Exception as error:
                raise self._still_running("stop", ids, error) from error

    def terminate(self, ids: Sequence[str]) -> None:
        """Terminate instances; for those that AWS does not know yet, several attempts are made.

        Raises
        ------
        RunError
            If they cannot be terminated: it names them, and the command that does it.
        """
        if not ids:
            return
        ec2 = self.session.ec2
        try:
            retry(
                lambda: ec2.terminate_instances(InstanceIds=list(ids))["TerminatingInstances"],
                attempts=TERMINATE_ATTEMPTS,
                on=lambda error: _is_unknown(error) or is_unreadable(error),
                pause=POLL,
                longest=POLL,
            )
        except Exception as error:
            raise self._still_running("terminate", ids, error) from error

    def _still_running(self, verb: str, ids: Sequence[str], error: Exception) -> RunError:
        failure = explain(f"{verb} {', '.join(ids)}", error)
        command = self.session.cli_command(verb, ids)
        return RunError(
            f"{failure}\n  they are still running, and billed; to {verb} them:\n  {command}"
        )


def _is_unknown(error: BaseException) -> bool:
    """Whether AWS does not know an instance, as may be the case just after its launch."""
    return code_of(error) == "InvalidInstanceID.NotFound"


def escape_filter(value: str) -> str:
    r"""Escape a value for a filter of EC2, which reads ``*`` and ``?`` as patterns otherwise.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
    """
    return re.sub(r"([*?\\])", r"\\\1", value)

"""What is asked of Amazon EC2 for one cluster: few calls, told as people want it when they fail.

boto3 tries calls again that were throttled, or whose answers were lost; the tokens of launches let
the same launch be asked for twice and happen once.
"""

from __future__ import annotations

import itertools
import logging
import random
import shlex
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from flambe.cluster.providers.aws.aws_errors import (
    code_of,
    explained,
    is_lost,
    is_unreadable,
    misconfigured,
    missing_boto3,
    reason,
    status_of,
    translated,
)
from flambe.cluster.providers.aws.instance import (
    HOST_KEY,
    LAUNCH,
    LIVE,
    OFF,
    PURPOSE,
    literal,
    state,
    tags_of,
)
from flambe.errors import ConfigError, Problem, RunError, counted
from flambe.logging.credentials import mask_aws

ATTEMPTS = 8  # of a call that is throttled, or whose answer is lost
TERMINATIONS = 10  # tries to terminate instances that AWS does not know yet
NOTED_ATTEMPT = 3  # which is said when it fails: a few seconds have passed
CONNECT_TIMEOUT, READ_TIMEOUT = 10.0, 60.0  # seconds
POLL, MOST_POLL = 1.0, 8.0
NOTES = 15.0  # seconds between two notes of what is waited for
MOST_PAUSE = 20.0  # seconds
# https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html
THROTTLED = ("RequestLimitExceeded", "Throttling", "ThrottlingException", "Unavailable")
# What says that a zone has not got what is asked for just now.
NO_CAPACITY = (
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientFreeAddressesInSubnet",
    "Unsupported",
    "SpotMaxPriceTooLow",
    "MaxSpotInstanceCountExceeded",
)


_log = logging.getLogger(__name__)


class Ec2:
    """EC2 in one region, as one user.

    Parameters
    ----------
    region
        The region; by default as boto3 finds it.
    profile
        A profile of the AWS configuration.
    """

    def __init__(self, region: str | None = None, profile: str | None = None) -> None:
        self._wanted = region
        self._profile = profile
        self._making = threading.Lock()
        self._types: dict[str, dict[str, Any]] = {}

    @cached_property
    def session(self) -> Any:
        """The boto3 session.

        Raises
        ------
        ConfigError
            If boto3 is not installed, there is no such profile, or no region.
        """
        try:
            import boto3
        except ImportError:
            raise missing_boto3() from None
        try:
            session = boto3.Session(region_name=self._wanted, profile_name=self._profile)
        except Exception as error:
            raise misconfigured(error) from None
        if not session.region_name:
            hint = "set region_name in the file of the cluster, or AWS_DEFAULT_REGION"
            raise ConfigError(Problem("AWS: no region is given", hint=hint))
        mask_aws(session)
        return session

    @property
    def region(self) -> str:
        """The region."""
        return str(self.session.region_name)

    def client(self, service: str, *, attempts: int | None = None) -> Any:
        """Return a client of a service, which tries again what may be tried again.

        Raises
        ------
        ConfigError
            If boto3 is not installed, or its configuration is wrong.
        """
        session = self.session
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts or ATTEMPTS},
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
        )
        with self._making:  # sessions are not for several threads
            try:
                client = session.client(service, config=config)
            except Exception as error:
                raise misconfigured(error) from error
        client.meta.events.register("needs-retry", _note_retry)
        return client

    @cached_property
    def ec2(self) -> Any:
        """The client of EC2."""
        return self.client("ec2")

    @cached_property
    def cloudwatch(self) -> Any:
        """The client of CloudWatch."""
        return self.client("cloudwatch")

    # -- instances ----------------------------------------------------------------------------

    def instances(self, tags: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the instances of flambe that are there and have tags, the oldest first."""
        wanted = {"Purpose": PURPOSE, **tags}
        filters = {f"tag:{name}": [literal(value)] for name, value in wanted.items()}
        # Whatever the filters match, an instance of others is none of this cluster.
        found = [
            one
            for one in self._described({"instance-state-name": LIVE, **filters})
            if wanted.items() <= tags_of(one).items()
        ]
        return sorted(found, key=lambda one: (str(one["LaunchTime"]), one["InstanceId"]))

    def _described(self, filters: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        given = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
        with translated("find instances"):
            pages = self.ec2.get_paginator("describe_instances").paginate(Filters=given)
            return [one for page in pages for r in page["Reservations"] for one in r["Instances"]]

    def type(self, kind: str) -> dict[str, Any]:
        """Return what AWS tells of a type of instance; it is asked once.

        Raises
        ------
        RunError
            If there is no such type in the region.
        """
        if kind not in self._types:
            with translated(f"find the type {kind}"):
                found = self.ec2.describe_instance_types(InstanceTypes=[kind])["InstanceTypes"]
            self._types[kind] = dict(found[0])
        return self._types[kind]

    def launch(
        self, request: Mapping[str, Any], token: str, is_over: Callable[[], bool] = lambda: False
    ) -> tuple[list[str], bool]:
        """Launch instances, all of them or none.

        A launch of the same token happens once, whoever asks for it. When all that came of it is
        gone, the token is spent, and its successor is used: the same one for everybody. It is not
        asked for again when it ``is_over``.

        Returns
        -------
        tuple
            Their ids, and whether this call launched them; else somebody else did, just before.
        """
        for number in range(50):
            mine = f"{token}-{number}"
            try:
                reply = self._run_instances(is_over, **request, ClientToken=mine)
            except Exception as error:
                code = code_of(error)
                if code == "IdempotentParameterMismatch":
                    # The same launch has another host key from elsewhere.
                    if there := self.instances({LAUNCH: token}):
                        return [one["InstanceId"] for one in there], False
                elif code != "IdempotentInstanceTerminated":
                    raise
                continue
            if live := [one for one in reply["Instances"] if one["State"]["Name"] in LIVE]:
                return [one["InstanceId"] for one in live], True
        raise RunError("AWS: the cluster was made and removed too often today")

    def _run_instances(self, is_over: Callable[[], bool], **request: Any) -> dict[str, Any]:
        """Ask for a launch, again where that may help; boto3 would wait for capacity too."""
        client = self.client("ec2", attempts=1)
        for attempt in itertools.count(1):
            try:
                reply: dict[str, Any] = client.run_instances(**request)
                return {"Instances": reply["Instances"]}
            except Exception as error:
                failed = status_of(error) >= 500 or code_of(error) in THROTTLED
                is_final = code_of(error) in NO_CAPACITY or not (failed or is_lost(error))
                if attempt == ATTEMPTS or is_final or is_over():
                    raise
                _note_retry(attempt, error)
                time.sleep(random.uniform(0, min(2.0**attempt, MOST_PAUSE)))
        raise AssertionError

    def launched_with(self, host_keys: Collection[str], seconds: float) -> list[str]:
        """Return the instances that were given host keys, of launches whose answers were lost.

        They are looked for that long: AWS may show instances later than it makes them.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = [one for key in host_keys for one in self.instances({HOST_KEY: key})]
            if {tags_of(one)[HOST_KEY] for one in found} == set(host_keys):
                break
            if time.monotonic() > deadline:
                break
            time.sleep(POLL)
        return [one["InstanceId"] for one in found]

    def describe(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return instances by id; those that AWS does not know yet are left out."""
        return self._described({"instance-id": ids})

    def await_stopped(self, ids: Sequence[str], seconds: float) -> None:
        """Wait until instances are stopped: before that they cannot be started."""
        deadline = time.monotonic() + seconds
        while any(state(one) == "stopping" for one in self.describe(ids)):
            if time.monotonic() > deadline:
                raise RunError(f"AWS: {', '.join(ids)}: not stopped within {seconds:.0f} s")
            time.sleep(POLL)

    def await_running(
        self,
        ids: Sequence[str],
        seconds: float,
        started: Collection[str] = (),
        note: Callable[[str], None] = lambda text: None,
    ) -> list[dict[str, Any]]:
        """Wait until instances run; return them.

        Those that were ``started`` just now may look stopped for a while. ``note`` is told again
        and again how many run.

        Raises
        ------
        RunError
            If one ends while it is started, or the time is over: it is named, with the reason.
        """
        begun, pause = time.monotonic(), POLL
        noted = begun
        note(f"AWS: waiting for {counted(len(ids), 'instance')} to run")
        while True:
            found = {one["InstanceId"]: one for one in self.describe(ids)}
            for one in found.values():
                off = state(one) in OFF and one["InstanceId"] not in started
                if off or state(one) in ("shutting-down", "terminated"):
                    why = one.get("StateReason", {}).get("Message", one["State"]["Name"])
                    raise RunError(f"AWS: {one['InstanceId']} ended while it was started: {why}")
            running = [one for one in found.values() if one["State"]["Name"] == "running"]
            if len(running) == len(ids):
                return running
            now = time.monotonic()
            if now - noted >= NOTES:
                note(f"AWS: {len(running)} of {len(ids)} run, after {now - begun:.0f} s")
                noted = now
            if now - begun > seconds:
                late = sorted(set(ids) - {one["InstanceId"] for one in running})
                raise RunError(f"AWS: {', '.join(late)} did not run within {seconds:.0f} s")
            time.sleep(pause)
            pause = min(pause * 1.5, MOST_POLL)

    def tag(self, identity: str, tags: Mapping[str, str]) -> None:
        """Set tags of an instance; one that AWS does not know yet is waited for."""
        given = [{"Key": name, "Value": value} for name, value in tags.items()]
        for attempt in range(10):
            try:
                self.ec2.create_tags(Resources=[identity], Tags=given)
                return
            except Exception as error:
                if code_of(error) != "InvalidInstanceID.NotFound" or attempt == 9:
                    raise explained("tag instances", error) from error
                time.sleep(1.0)

    def start(self, ids: Sequence[str]) -> None:
        """Start instances that were stopped."""
        if ids:
            with translated("start instances"):
                _ = self.ec2.start_instances(InstanceIds=list(ids))["StartingInstances"]

    def stop(self, ids: Sequence[str]) -> None:
        """Stop instances.

        Raises
        ------
        RunError
            If they cannot be: it names them, and the command that does it.
        """
        if ids:
            try:
                _ = self.ec2.stop_instances(InstanceIds=list(ids))["StoppingInstances"]
            except Exception as error:
                raise self._still_running("stop", ids, error) from error

    def terminate(self, ids: Sequence[str]) -> None:
        """Terminate instances; those that AWS does not know yet are tried again.

        Raises
        ------
        RunError
            If they cannot be: it names them, and the command that does it.
        """
        for attempt in itertools.count(1):
            try:
                if ids:
                    _ = self.ec2.terminate_instances(InstanceIds=list(ids))["TerminatingInstances"]
                return
            except Exception as error:
                is_unknown = code_of(error) == "InvalidInstanceID.NotFound"
                if not (is_unknown or is_unreadable(error)) or attempt == TERMINATIONS:
                    raise self._still_running("terminate", ids, error) from error
                time.sleep(POLL)

    def _still_running(self, verb: str, ids: Sequence[str], error: Exception) -> RunError:
        failed = explained(f"{verb} {', '.join(ids)}", error)
        command = self.command(verb, ids)
        return RunError(f"{failed}\n  they go on, and are billed:\n  {command}")

    def command(self, verb: str, ids: Sequence[str]) -> str:
        """Return the command of AWS that does something to instances."""
        profile = f" --profile {shlex.quote(self._profile)}" if self._profile else ""
        return (
            f"aws ec2 {verb}-instances --region {self.region}{profile} "
            f"--instance-ids {' '.join(ids)}"
        )


def _note_retry(attempts: int, caught_exception: Exception | None = None, **_: Any) -> None:
    """Say once that a call is tried again: in seconds that pass, people want to know why."""
    if caught_exception is not None and attempts == NOTED_ATTEMPT:
        _log.info("AWS: %s; trying again", reason(caught_exception))

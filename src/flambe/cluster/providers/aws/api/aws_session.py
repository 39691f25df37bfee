"""A boto3 session: one user's access to one region, and clients that retry.

boto3 retries calls that were throttled, or whose answers were lost. The client tokens of launches
make it safe to ask for the same launch twice.
"""

from __future__ import annotations

import logging
import shlex
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from flambe.cluster.providers.aws.api.aws_errors import (
    configuration_error,
    missing_boto3_error,
    reason,
)
from flambe.errors import ConfigError, Problem
from flambe.logging.credentials import mask_aws

LOGGED_ATTEMPT = 3  # the failed attempt that is logged: a few seconds have passed by then

_log = logging.getLogger(__name__)


class AwsSession:
    """AWS in one region, as one user.

    Parameters
    ----------
    region
        The region; by default the one that boto3 finds.
    profile
        A profile of the AWS configuration.
    """

    #: Attempts of a call that is throttled, or whose answer is lost.
    attempts = 8
    #: Seconds.
    connect_timeout = 10.0
    read_timeout = 60.0

    def __init__(self, region: str | None = None, profile: str | None = None) -> None:
        self._requested_region = region
        self.profile = profile
        self._lock = threading.Lock()

    @cached_property
    def boto(self) -> Any:
        """The boto3 session.

        Raises
        ------
        ConfigError
            If boto3 is not installed, the profile does not exist, or no region is configured.
        """
        try:
            import boto3
        except ImportError:
            raise missing_boto3_error() from None
        try:
            session = boto3.Session(region_name=self._requested_region, profile_name=self.profile)
        except Exception as error:
            raise configuration_error(error) from None
        if not session.region_name:
            hint = "set region_name in the cluster file, or AWS_DEFAULT_REGION"
            raise ConfigError(Problem("AWS: no region is configured", hint=hint))
        mask_aws(session)
        return session

    @property
    def region(self) -> str:
        """The region."""
        return str(self.boto.region_name)

    def client(self, service: str, *, attempts: int | None = None) -> Any:
        """Return a boto3 client of a service, which retries the calls that are safe to retry.

        Raises
        ------
        ConfigError
            If boto3 is not installed, or its configuration is wrong.
        """
        session = self.boto
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts or self.attempts},
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
        )
        with self._lock:  # boto3 sessions are not thread-safe
            try:
                client = session.client(service, config=config)
            except Exception as error:
                raise configuration_error(error) from error
        client.meta.events.register("needs-retry", _log_boto_retry)
        return client

    @cached_property
    def ec2(self) -> Any:
        """The client of EC2."""
        return self.client("ec2")

    @cached_property
    def cloudwatch(self) -> Any:
        """The client of CloudWatch."""
        return self.client("cloudwatch")

    def cli_command(self, verb: str, ids: Sequence[str]) -> str:
        """Return the command of the AWS CLI that does something to instances."""
        profile = f" --profile {shlex.quote(self.profile)}" if self.profile else ""
        return (
            f"aws ec2 {verb}-instances --region {self.region}{profile} "
            f"--instance-ids {' '.join(ids)}"
        )


def log_retry(attempt: int, error: BaseException | None) -> None:
    """Log once, after a few attempts, why a call is being retried."""
    if error is not None and attempt == LOGGED_ATTEMPT:
        _log.info("AWS: %s; trying again", reason(error))


def _log_boto_retry(
    attempts: int, caught_exception: Exception | None = None, **_: object
) -> None:  # botocore passes more keywords to its event handlers
    log_retry(attempts, caught_exception)

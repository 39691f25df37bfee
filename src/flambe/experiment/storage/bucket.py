"""Buckets: where the artifacts of a run are if ``storage`` of the experiment names one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

from flambe.logging import redact

ATTEMPTS = 10
CONNECT_SECONDS, SILENCE_SECONDS = 15, 60


class Files(ArrowFSWrapper):  # type: ignore[misc]
    """The files of a bucket as fsspec has them; it has no folders, and none are written down."""

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """There is nothing to do."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """There is nothing to do."""


def connected(base: str, variables: Mapping[str, str]) -> S3FileSystem:
    """Return the files of a bucket.

    Parameters
    ----------
    base
        The bucket, and what follows it.
    variables
        Environment variables that are not set in this process: the usual ones of AWS. Without any,
        credentials are found as by all its tools: in files, or by the role of the host.

    Raises
    ------
    OSError
        If there is no such bucket, or it cannot be reached.
    """
    known = {**os.environ, **variables}
    options = {
        keyword: known[name]
        for keyword, name in (
            ("access_key", "AWS_ACCESS_KEY_ID"),
            ("secret_key", "AWS_SECRET_ACCESS_KEY"),
            ("session_token", "AWS_SESSION_TOKEN"),
        )
        if known.get(name)
    }
    for keyword in ("secret_key", "session_token"):
        redact.add(options.get(keyword, ""))
    endpoint = known.get("AWS_ENDPOINT_URL_S3") or known.get("AWS_ENDPOINT_URL")
    region = known.get("AWS_REGION") or known.get("AWS_DEFAULT_REGION")
    if endpoint:  # a server of one's own, which knows nothing of regions
        place = urlsplit(endpoint)
        options.update(scheme=place.scheme, endpoint_override=place.netloc + place.path)
    else:
        region = resolve_s3_region(base.partition("/")[0])
    return S3FileSystem(
        region=region,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        connect_timeout=CONNECT_SECONDS,
        request_timeout=SILENCE_SECONDS,
        allow_delayed_open=True,  # a small file is sent by one request
        # Copies take all threads of Arrow; what they wrote in the background would wait for one.
        background_writes=False,
        **options,
    )

"""Buckets: where the artifacts of a run are if ``storage`` of the experiment names one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import S3FileSystem

from flambe.compile.state.s3 import connect


class Files(ArrowFSWrapper):  # type: ignore[misc]
    """The files of a bucket as fsspec has them; it has no folders, and none are written down."""

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """There is nothing to do."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """There is nothing to do."""


def connected(base: str, variables: Mapping[str, str]) -> S3FileSystem:
    """Return the files of a bucket; see :func:`flambe.compile.state.s3.connect`.

    Parameters
    ----------
    base
        The bucket, and what follows it.
    variables
        Environment variables that are not set in this process.

    Raises
    ------
    OSError
        If there is no such bucket, or it cannot be reached.
    """
    # Copies take all threads of Arrow; what they wrote in the background would wait for one.
    return connect(base.partition("/")[0], variables, background_writes=False)

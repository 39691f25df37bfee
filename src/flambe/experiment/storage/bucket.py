"""Buckets: where the artifacts of a run are if ``storage`` of the experiment names one."""

from __future__ import annotations

from collections.abc import Mapping

from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import S3FileSystem

from flambe.compile.state.s3 import connect


class BucketFiles(ArrowFSWrapper):  # type: ignore[misc]
    """The files of a bucket for fsspec; a bucket has no folders, and none are made."""

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: object) -> None:
        """Do nothing."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing."""


def connect_bucket(base: str, variables: Mapping[str, str]) -> S3FileSystem:
    """Return the files of a bucket; see :func:`flambe.compile.state.s3.connect`.

    Parameters
    ----------
    base
        The bucket and the path in it.
    variables
        Environment variables that are not set in this process.

    Raises
    ------
    OSError
        If the bucket does not exist, or cannot be reached.
    """
    # Copies take all threads of Arrow; what they wrote in the background would wait for one.
    return connect(base.partition("/")[0], variables, background_writes=False)

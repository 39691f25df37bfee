"""Files on S3, for saving, loading and resources; boto3 is loaded at first use."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from flambe.errors import ResourceError


def _client() -> Any:
    try:
        import boto3
    except ImportError:
        raise ResourceError("s3:// needs boto3: pip install 'flambe[aws]'") from None
    return boto3.client("s3")


def _split(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key.rstrip("/")


def upload(path: Path, url: str) -> None:
    """Upload a file, or all files of a folder, to a URL."""
    client = _client()
    bucket, key = _split(url)
    with _explained(url):
        if path.is_file():
            client.upload_file(str(path), bucket, key)
            return
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            client.upload_file(str(file), bucket, f"{key}/{file.relative_to(path).as_posix()}")


def download(url: str, folder: Path) -> Path:
    """Download an object, or everything below a prefix, into a folder; return where it is.

    Raises
    ------
    ResourceError
        If nothing is there, or it cannot be reached.
    """
    client = _client()
    bucket, key = _split(url)
    target = folder / PurePosixPath(key or bucket).name
    with _explained(url):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        found = [o["Key"] for page in pages for o in page.get("Contents", ())]
        if key in found:
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, key, str(target))
            return target
        below = [k for k in found if not key or k.startswith(f"{key}/")]
        if not below:
            raise ResourceError(f"nothing at {url}")
        for name in below:
            relative = name[len(key) :].lstrip("/")
            file = Path(os.path.normpath(target / relative))
            if not relative or relative.endswith("/") or not file.is_relative_to(target):
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, name, str(file))
    return target


class _explained:  # noqa: N801 (used as a statement)
    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, BotoCoreError | ClientError):
            raise ResourceError(f"cannot reach {self.url}: {error}") from None

"""Files on S3, for saving, loading and resources; boto3 is loaded at first use."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from flambe.errors import ResourceError, how_to_install
from flambe.logging.credentials import mask_aws


def _client() -> Any:
    try:
        import boto3
    except ImportError:
        raise ResourceError(f"s3:// needs boto3: {how_to_install('aws')}") from None
    session = boto3.Session()
    mask_aws(session)
    return session.client("s3")


def _split(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key.rstrip("/")


def upload(path: Path, url: str) -> None:
    """Upload a file, or all files of a folder, to a URL; nothing else is left there."""
    client = _client()
    bucket, key = _split(url)
    with _explained(url):
        if path.is_file():
            files = {key: path}
        else:
            below = sorted(p for p in path.rglob("*") if p.is_file())
            files = {f"{key}/{file.relative_to(path).as_posix()}": file for file in below}
        old = set(_objects(client, bucket, key) if key else ()) - set(files)
        for name, file in files.items():
            client.upload_file(str(file), bucket, name)
        for name in sorted(old):
            client.delete_object(Bucket=bucket, Key=name)


def exists(url: str) -> bool:
    """Whether there is an object, or anything below it."""
    client = _client()
    bucket, key = _split(url)
    with _explained(url):
        found = _objects(client, bucket, key)
    return bool(found)


def _objects(client: Any, bucket: str, key: str) -> list[str]:
    """Return the names of an object and of all below it."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
    found = [o["Key"] for page in pages for o in page.get("Contents", ())]
    return [name for name in found if name == key or not key or name.startswith(f"{key}/")]


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
    if ".." in (target.name, *key.split("/")):
        raise ResourceError(f"{url} does not name a file or a folder")
    with _explained(url):
        found = _objects(client, bucket, key)
        if key in found:
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, key, str(target))
            return target
        if not found:
            raise ResourceError(f"nothing at {url}")
        for name in found:
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

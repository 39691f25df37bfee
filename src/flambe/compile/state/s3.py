"""Files on S3, for saving, loading and resources; pyarrow is loaded at first use."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flambe.errors import ResourceError
from flambe.logging.credentials import mask_aws_variables

if TYPE_CHECKING:  # its import takes a tenth of a second
    from pyarrow.fs import S3FileSystem

ATTEMPTS = 10
CONNECT_SECONDS, SILENCE_SECONDS = 15, 60
_CHUNK = 8 << 20  # bytes that are copied at once
_OPTIONS = {
    "access_key": "AWS_ACCESS_KEY_ID",
    "secret_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
}


def connect(
    bucket: str,
    variables: Mapping[str, str] | None = None,
    *,
    background_writes: bool = True,
    attempts: int = ATTEMPTS,
) -> S3FileSystem:
    """Return the files of a bucket.

    Parameters
    ----------
    bucket
        Its name.
    variables
        Environment variables that are not set in this process: the usual ones of AWS. Without any,
        credentials are found as by all its tools: in files, or by the role of the host.
    background_writes
        Whether parts of a file are sent by threads of Arrow while the next are written.
    attempts
        How often a call is tried.

    Raises
    ------
    OSError
        If there is no such bucket, or it cannot be reached.
    """
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    environment = {**os.environ, **(variables or {})}
    mask_aws_variables(environment)
    options = {key: environment[name] for key, name in _OPTIONS.items() if environment.get(name)}
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if endpoint:  # a server of one's own, which knows nothing of regions
        url = urlsplit(endpoint)
        options.update(scheme=url.scheme, endpoint_override=url.netloc + url.path)
    else:
        region = resolve_s3_region(bucket)
    return S3FileSystem(
        region=region,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=attempts),
        connect_timeout=CONNECT_SECONDS,
        request_timeout=SILENCE_SECONDS,
        allow_delayed_open=True,  # a small file is sent by one request
        background_writes=background_writes,
        **options,
    )


def _split(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key.rstrip("/")


@contextlib.contextmanager
def _bucket(url: str) -> Iterator[S3FileSystem]:
    """Connect to the bucket of a URL; what fails names the URL."""
    bucket, _ = _split(url)
    try:
        files = connect(bucket)
        if not _exists(files, bucket):
            raise FileNotFoundError(f"there is no bucket {bucket!r}")
        yield files
    except (OSError, ValueError) as error:  # settings of AWS may be wrong, too
        raise ResourceError(f"cannot reach {url}: {error}") from None


def _exists(files: S3FileSystem, path: str) -> bool:
    from pyarrow.fs import FileType

    return bool(files.get_file_info(path).type != FileType.NotFound)


def upload(path: Path, url: str) -> None:
    """Upload a file, or all files of a folder, to a URL; no other object is left below it."""
    bucket, key = _split(url)
    target = f"{bucket}/{key}".rstrip("/")
    if path.is_file():
        sources = {target: path}
    else:
        below = sorted(p for p in path.rglob("*") if p.is_file())
        sources = {f"{target}/{file.relative_to(path).as_posix()}": file for file in below}
    with _bucket(url) as files:
        earlier = set(_objects(files, target) if key else ()) - set(sources)
        for name, file in sources.items():
            with open(file, "rb") as source, files.open_output_stream(name) as stream:
                shutil.copyfileobj(source, stream, _CHUNK)
        for name in sorted(earlier):
            files.delete_file(name)


def exists(url: str) -> bool:
    """Whether there is an object, or anything below it."""
    bucket, key = _split(url)
    with _bucket(url) as files:
        return bool(_objects(files, f"{bucket}/{key}".rstrip("/")))


def _objects(files: S3FileSystem, path: str) -> list[str]:
    """Return the paths of an object and of all below it, the bucket first."""
    from pyarrow.fs import FileSelector, FileType

    below = files.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    entries = [files.get_file_info(path), *below]
    return [entry.path for entry in entries if entry.type == FileType.File]


def download(url: str, folder: Path) -> Path:
    """Download an object, or everything below a prefix, into a folder; return where it is.

    Raises
    ------
    ResourceError
        If nothing is there, or it cannot be reached.
    """
    bucket, key = _split(url)
    target = folder / PurePosixPath(key or bucket).name
    if ".." in (target.name, *key.split("/")):
        raise ResourceError(f"{url} does not name a file or a folder")
    path = f"{bucket}/{key}".rstrip("/")
    with _bucket(url) as files:
        objects = _objects(files, path)
        if path in objects:
            _fetch(files, path, target)
            return target
        if not objects:
            raise ResourceError(f"nothing at {url}")
        for name in objects:
            relative = name[len(path) :].lstrip("/")
            file = Path(os.path.normpath(target / relative))
            if not relative or not file.is_relative_to(target):
                continue
            # Some tools write an object for a folder, its name and a slash: Arrow lists it without.
            with contextlib.suppress(FileNotFoundError):
                _fetch(files, name, file)
    return target


def _fetch(files: S3FileSystem, name: str, target: Path) -> None:
    with files.open_input_stream(name) as source:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)

"""Resources: files and folders that an experiment uses, local ones, from S3 or from the web."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from flambe._files import replacing
from flambe._grammar import NAME_HINT, wrong_name
from flambe._retry import retry
from flambe.errors import ConfigError, Problem, ResourceError

if TYPE_CHECKING:
    import ssl

    import httpx

CHUNK = 1 << 20
TIMEOUT = 60.0  # seconds to connect, and to wait for more
ATTEMPTS = 3
BUSY = (429, 500, 502, 503, 504)  # the statuses of a server that may soon answer


def fetch(name: str, location: str, base: Path, folder: Path) -> str:
    """Return the local path of a resource, fetched into a folder if it is remote.

    Parameters
    ----------
    name
        Its name.
    location
        A local path, an ``s3://`` or an ``http(s)://`` URL.
    base
        What a relative path is relative to.
    folder
        Where remote resources are written; those that it has already are not fetched again.

    Raises
    ------
    ConfigError
        If the local path does not exist, or the name leads out of the folder.
    ResourceError
        If it cannot be fetched.
    """
    if reason := wrong_name(name):
        raise ConfigError(Problem(f"resources: {reason}", hint=NAME_HINT))
    scheme = urlparse(location).scheme
    if scheme in ("http", "https", "s3"):
        return str(_fetch_remote(name, location, folder / name))
    path = Path(os.path.expanduser(location))
    path = path if path.is_absolute() else base / path
    if not path.exists():
        raise ConfigError(
            Problem(
                f"resource {name!r}: there is no {path}",
                hint="relative paths start at the folder of the configuration",
            )
        )
    return str(path.resolve())


def _fetch_remote(name: str, url: str, folder: Path) -> Path:
    source = folder / ".source"
    last = PurePosixPath(urlparse(url).path).name
    target = folder / (name if last.startswith(".") else last or name)  # not ".." or .source
    # It is written last, so that a fetch that was cut off is repeated.
    if source.exists() and source.read_text(encoding="utf-8") == url and target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    if url.startswith("s3://"):
        from flambe.compile.state import s3

        target = s3.download(url, folder)
    else:
        _download(name, url, target)
    source.write_text(url, encoding="utf-8")
    return target


def _download(name: str, url: str, target: Path) -> None:
    """Download a URL; again if the answer is cut off, or the server is busy.

    Raises
    ------
    ResourceError
        If it cannot be downloaded.
    """
    import httpx

    def attempt() -> None:
        with (
            _client() as client,
            client.stream("GET", url) as response,
            replacing(target) as part,
        ):
            response.raise_for_status()
            with open(part, "wb") as stream:
                for chunk in response.iter_bytes(CHUNK):
                    stream.write(chunk)

    def is_temporary(error: BaseException) -> bool:
        if isinstance(error, httpx.HTTPStatusError):
            return error.response.status_code in BUSY
        if isinstance(error, httpx.UnsupportedProtocol):
            return False
        return isinstance(error, (httpx.TransportError, OSError))

    try:
        retry(attempt, attempts=ATTEMPTS, on=is_temporary)
    except httpx.HTTPStatusError as error:
        answer = f"{error.response.status_code} {error.response.reason_phrase}"
        raise ResourceError(f"resource {name!r}: {answer} for {url}") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise ResourceError(f"resource {name!r}: cannot fetch {url}: {error}") from None


def _client() -> httpx.Client:
    """Return a client that honours the proxies and certificates of the environment.

    Raises
    ------
    httpx.UnsupportedProtocol
        If a proxy of the environment cannot be used.
    """
    import httpx

    verify = _certificates()
    try:
        return httpx.Client(auth=_netrc(), follow_redirects=True, timeout=TIMEOUT, verify=verify)
    except (ValueError, ImportError) as error:  # another scheme; SOCKS, which needs a package
        raise httpx.UnsupportedProtocol(str(error)) from None


def _netrc() -> httpx.Auth | None:
    """Return the passwords of the user's ``.netrc``, if it exists and can be read."""
    import netrc

    import httpx

    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return httpx.NetRCAuth(os.environ.get("NETRC"))
    return None


def _certificates() -> ssl.SSLContext | bool:
    """Return the certificates that the environment names as curl and pip read it, or httpx's own.

    httpx itself reads ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``.
    """
    import ssl

    path = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if not path:
        return True
    is_folder = os.path.isdir(path)
    return ssl.create_default_context(
        cafile=None if is_folder else path, capath=path if is_folder else None
    )


if __name__ == "__main__":
    # On the orchestrator of a cluster, with a name, a URL and a folder: prints the path.
    sys.stdout.write(fetch(sys.argv[1], sys.argv[2], Path(), Path(sys.argv[3])) + "\n")

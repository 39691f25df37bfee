"""Resources: files and folders that an experiment uses, from here, from S3 or from the web."""

from __future__ import annotations

import os
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from flambe._grammar import NAME_HINT, wrong_name
from flambe.errors import ConfigError, Problem, ResourceError

CHUNK = 1 << 20
TIMEOUT = (10, 60)  # seconds to connect, and to wait for more
ATTEMPTS = 3


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
        Where remote ones are put; what is there already is not fetched again.

    Raises
    ------
    ConfigError
        If there is no such local path, or the name leads out of the folder.
    ResourceError
        If it cannot be fetched.
    """
    if what := wrong_name(name):
        raise ConfigError(Problem(f"resources: {what}", hint=NAME_HINT))
    scheme = urlparse(location).scheme
    if scheme in ("http", "https", "s3"):
        return str(_remote(name, location, folder / name))
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


def _remote(name: str, url: str, folder: Path) -> Path:
    mark = folder / ".source"
    last = PurePosixPath(urlparse(url).path).name
    target = folder / (name if last.startswith(".") else last or name)  # not ".." and not the mark
    # The mark is written last: what was cut off is fetched again.
    if mark.exists() and mark.read_text(encoding="utf-8") == url and target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    if url.startswith("s3://"):
        from flambe.compile.state import s3

        target = s3.download(url, folder)
    else:
        _download(name, url, target)
    mark.write_text(url, encoding="utf-8")
    return target


def _download(name: str, url: str, target: Path) -> None:
    import requests

    beside = target.with_name(f".{target.name}.part")
    for attempt in range(ATTEMPTS):
        try:
            with requests.get(url, stream=True, timeout=TIMEOUT) as response:
                if response.status_code in (429, 500, 502, 503, 504) and attempt + 1 < ATTEMPTS:
                    continue
                response.raise_for_status()
                expected = response.headers.get("Content-Length")
                with open(beside, "wb") as stream:
                    for chunk in response.iter_content(CHUNK):
                        stream.write(chunk)
            size = beside.stat().st_size
            encoded = "Content-Encoding" in response.headers
            if expected is not None and not encoded and size != int(expected):
                raise requests.ConnectionError(f"{size} of {expected} bytes arrived")
            os.replace(beside, target)
            return
        except requests.HTTPError as error:
            raise ResourceError(f"resource {name!r}: {error}") from None
        except (requests.RequestException, OSError) as error:
            if attempt + 1 == ATTEMPTS:
                raise ResourceError(f"resource {name!r}: cannot fetch {url}: {error}") from None


if __name__ == "__main__":
    # On the orchestrator of a cluster: name, URL and folder; where it is now is printed.
    sys.stdout.write(fetch(sys.argv[1], sys.argv[2], Path(), Path(sys.argv[3])) + "\n")

"""RECORD files: which files of a distribution count, and the one hash over all of them.

The client computes it from a wheel, the agent from what was installed of that wheel. See
https://packaging.python.org/en/latest/specifications/recording-installed-packages/
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
from collections.abc import Iterable, Iterator

# What installers add to the ``.dist-info`` folder of a distribution.
INSTALLER_FILES = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


def encode_sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes as a RECORD has it, without ``sha256=``."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def read_rows(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the files that are the same wherever a distribution is installed, sorted by path.

    Parameters
    ----------
    lines
        The lines of a RECORD.

    Yields
    ------
    tuple of str
        The path of a file and its hash without ``sha256=``, which may be empty.
    """
    for row in sorted(row for row in csv.reader(lines) if row):
        path, recorded = row[0], row[1] if len(row) > 1 else ""
        if not varies(path):
            yield path, recorded[len("sha256=") :] if recorded.startswith("sha256=") else recorded


def varies(path: str) -> bool:
    """Whether a file differs from host to host: scripts, bytecode, what installers add."""
    if path.startswith("..") or os.path.isabs(path) or path.endswith(".pyc"):
        return True
    # The data folder of a wheel is spread over the environment when it is installed.
    if path.partition("/")[0].endswith(".data"):
        return True
    return ".dist-info/" in path and os.path.basename(path) in INSTALLER_FILES


def hash_files(files: Iterable[tuple[str, str]]) -> str:
    """Return the hash of a distribution: of the paths of its files, and the hash of each."""
    digest = hashlib.sha256()
    for path, encoded in files:
        digest.update(f"{path},{encoded}\n".encode())
    return digest.hexdigest()

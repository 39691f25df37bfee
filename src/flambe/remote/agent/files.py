"""Small files: written beside and moved into place, read with a default."""

from __future__ import annotations

import json
import os
from typing import Any


def write_json(path: str, value: Any) -> None:
    """Write a JSON file that only its owner reads."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    beside = f"{path}.{os.getpid()}.part"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(beside, path)


def read_json(path: str) -> Any:
    """Return what a JSON file holds, or None."""
    try:
        with open(path) as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def read_text(path: str) -> str:
    """Return a text file, or nothing."""
    try:
        with open(path, errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def boot_id() -> str:
    """Return what changes when the host is started again."""
    return read_text("/proc/sys/kernel/random/boot_id").strip()

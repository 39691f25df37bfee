"""The cluster's own key pair on this host, and what it takes to reach the other hosts with it."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
from typing import Any

from flambe.remote.agent.files import beside, read_text


def _ssh(*names: str) -> str:
    return os.path.join(os.path.expanduser("~"), ".ssh", *names)


def _paths(cluster: str) -> dict[str, str]:
    base = _ssh("flambe-" + cluster)
    return {
        "private": base,
        "public": base + ".pub",
        "config": base + ".config",
        "known_hosts": base + ".known_hosts",
    }


def read(cluster: str) -> dict[str, Any]:
    """Return hashes of what is there: of the pair, and of what tells of the other hosts."""
    texts = {kind: read_text(path) for kind, path in _paths(cluster).items()}
    lines = read_text(_ssh("authorized_keys")).splitlines()
    included = "Include " + _paths(cluster)["config"] in read_text(_ssh("config")).splitlines()
    return {
        "pair": _digest(texts["private"], texts["public"]) if texts["private"] else "",
        "authorized": texts["public"].strip() in lines and bool(texts["public"]),
        "peers": _digest(texts["config"], texts["known_hosts"]) if included else "",
        "host_keys": [read_text(path).strip() for path in sorted(glob.glob("/etc/ssh/*_key.pub"))],
    }


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def install(cluster: str, **texts: str) -> Any:
    """Write what is given: ``private`` and ``public``, ``config`` and ``known_hosts``."""
    os.makedirs(_ssh(), mode=0o700, exist_ok=True)
    paths = _paths(cluster)
    for kind, text in texts.items():
        _write(paths[kind], text)
    if "public" in texts:
        lines = read_text(_ssh("authorized_keys")).splitlines()
        kept = [line for line in lines if not _is_ours(line, cluster)]
        _write(_ssh("authorized_keys"), "\n".join([*kept, texts["public"].strip()]) + "\n")
    if "config" in texts:
        # An Include counts for all hosts only where it stands above the first Host.
        _edit_config(cluster, ["Include " + paths["config"]])
    return {}


def remove(cluster: str) -> Any:
    """Remove the pair, and every line that was added for it."""
    for path in _paths(cluster).values():
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    known = read_text(_ssh("authorized_keys"))
    lines = [line for line in known.splitlines() if not _is_ours(line, cluster)]
    if lines != known.splitlines():
        _write(_ssh("authorized_keys"), "".join(line + "\n" for line in lines))
    _edit_config(cluster, [])
    return {}


def _is_ours(line: str, cluster: str) -> bool:
    return line.rstrip().endswith(" flambe:" + cluster)


def _edit_config(cluster: str, first: list[str]) -> None:
    known = read_text(_ssh("config"))
    ours = "Include " + _paths(cluster)["config"]
    lines = first + [line for line in known.splitlines() if line != ours]
    text = "".join(line + "\n" for line in lines)
    if text != known:
        _write(_ssh("config"), text)


def _write(path: str, text: str) -> None:
    part = beside(path)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    os.replace(part, path)

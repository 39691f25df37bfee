"""The cluster's own key pair on this host, and the files that let it reach the other hosts."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os

from flambe.remote.agent.files import read_text, write_text
from flambe.remote.agent.protocol import ClusterKeys, ForgetKeysRequest, KeysRequest


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


def read(cluster: str) -> ClusterKeys:
    """Return hashes of the pair, and of what it takes to reach the other hosts."""
    texts = {kind: read_text(path) for kind, path in _paths(cluster).items()}
    lines = read_text(_ssh("authorized_keys")).splitlines()
    included = "Include " + _paths(cluster)["config"] in read_text(_ssh("config")).splitlines()
    host_keys = [read_text(path).strip() for path in sorted(glob.glob("/etc/ssh/*_key.pub"))]
    return ClusterKeys(
        pair=_digest(texts["private"], texts["public"]) if texts["private"] else "",
        authorized=texts["public"].strip() in lines and bool(texts["public"]),
        peers=_digest(texts["config"], texts["known_hosts"]) if included else "",
        host_keys=host_keys,
    )


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def install(request: KeysRequest) -> None:
    """Write the files that a request names, and the lines in the user's that lead to them."""
    os.makedirs(_ssh(), mode=0o700, exist_ok=True)
    cluster, paths = request.cluster, _paths(request.cluster)
    for kind, path in paths.items():
        text = getattr(request, kind)
        if text is not None:
            write_text(path, text)
    if request.public is not None:
        lines = read_text(_ssh("authorized_keys")).splitlines()
        kept = [line for line in lines if not _is_ours(line, cluster)]
        write_text(_ssh("authorized_keys"), "\n".join([*kept, request.public.strip()]) + "\n")
    if request.config is not None:
        # An Include counts for all hosts only where it stands above the first Host.
        _edit_config(cluster, ["Include " + paths["config"]])


def remove(request: ForgetKeysRequest) -> None:
    """Remove the pair, and every line that was added for it."""
    cluster = request.cluster
    for path in _paths(cluster).values():
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    before = read_text(_ssh("authorized_keys")).splitlines()
    lines = [line for line in before if not _is_ours(line, cluster)]
    if lines != before:
        write_text(_ssh("authorized_keys"), "".join(line + "\n" for line in lines))
    _edit_config(cluster, [])


def _is_ours(line: str, cluster: str) -> bool:
    return line.rstrip().endswith(" flambe:" + cluster)


def _edit_config(cluster: str, first: list[str]) -> None:
    before = read_text(_ssh("config"))
    ours = "Include " + _paths(cluster)["config"]
    lines = first + [line for line in before.splitlines() if line != ours]
    text = "".join(line + "\n" for line in lines)
    if text != before:
        write_text(_ssh("config"), text)

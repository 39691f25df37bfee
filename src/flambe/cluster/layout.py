"""Every path of a cluster on its hosts: relative to the home of the user, or absolute."""

from __future__ import annotations

import re
import shlex

# No part starts with a dash, which programs would take for an option.
_PATH = re.compile(r"/?[A-Za-z0-9_.][A-Za-z0-9_.-]*(/[A-Za-z0-9_.][A-Za-z0-9_.-]*)*\Z")


def of(remote_dir: str, name: str) -> str:
    """Return the folder of a cluster on its hosts."""
    return f"{remote_dir}/clusters/{name}"


def environment(remote_dir: str, name: str) -> str:
    """Return the folder of an environment on a host."""
    return f"{remote_dir}/envs/{name}"


def python(remote_dir: str, environment_name: str) -> str:
    """Return the interpreter of an environment on a host."""
    return f"{environment(remote_dir, environment_name)}/bin/python"


def key_path(home: str, cluster: str) -> str:
    """Return the private key of a cluster on a host; related files have its name and a suffix."""
    return f"{home}/.ssh/flambe-{cluster}"


def ssh_alias(cluster: str, host: str) -> str:
    """Return the name by which ssh on a host knows another one: two may share an address."""
    return f"{host}.{cluster}"


def external_results(folder: str) -> str:
    """Return the file that lists folders of results outside the folder of a cluster."""
    return f"{folder}/results.txt"


def in_shell(path: str) -> str:
    """Return a path as a shell script names it, whatever its working directory is."""
    return shlex.quote(path) if path.startswith("/") else f'"$HOME"/{shlex.quote(path)}'


def wrong(path: str, *, absolute: bool) -> str:
    """Return what is wrong with ``remote_dir``; empty if nothing is.

    Parameters
    ----------
    path
        The value in the file.
    absolute
        Whether it may be an absolute path.
    """
    if not _PATH.match(path) or {".", ".."} & set(path.split("/")):
        return "remote_dir is a path of letters, digits, '-', '_' and '.', without '..'"
    if path.startswith("/") and not absolute:
        return "remote_dir is a path below the home of the user: these hosts share one machine"
    return ""

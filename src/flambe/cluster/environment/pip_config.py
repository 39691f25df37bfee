"""pip on hosts: one for those that have none, and its settings, which uv does not read itself."""

from __future__ import annotations

import ensurepip
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.layout import in_shell
from flambe.logging.console import home_folder
from flambe.packaging.wheel import repack


def give_pip(member: ClusterHost, root: str) -> None:
    """See that a host has a ``pip``; it runs from a wheel, and installs nothing of its own.

    Setup commands may call it, and the environment honours its settings.
    """
    if member.facts["pip"]:
        return
    wheel = pip_wheel()
    place = f"{root}/bin/{wheel.name}"
    member.send(wheel, place)
    script = f'#!/bin/sh\nexec python3 {in_shell(place)}/pip "$@"\n'
    member.put(script, f"{root}/bin/pip", mode=0o700)


def pip_wheel() -> Path:
    """Return a wheel of pip of this machine."""
    try:
        bundled = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
        return bundled[-1]
    except IndexError:  # Debian's Python has it elsewhere
        return repack(metadata.distribution("pip"), home_folder("wheels")).path


def config(host: ClusterHost) -> dict[str, str]:
    """Return pip's settings on a host, as ``pip config list`` tells them."""
    script = f'export PATH="$PATH":{in_shell(host.agent.root)}/bin\npip config list'
    done = host.run(["bash", "-lc", script], check=False, repeat=True, deadline=60)
    return read(done.stdout)


def read(said: str) -> dict[str, str]:
    """Return the settings that ``pip config list`` told: name → value, without their sections."""
    found = {}
    for line in said.splitlines():
        name, _, value = line.partition("=")
        found[name.rpartition(".")[2].strip().replace("_", "-")] = value.strip().strip("'\"")
    return found


def options(settings: Mapping[str, str]) -> list[str]:
    """Return uv's options for the settings of pip: uv reads none of them itself."""
    words: list[str] = []
    if settings.get("no-index", "").lower() in ("true", "1", "yes"):
        words.append("--no-index")
    if "index-url" in settings:
        words += ["--default-index", settings["index-url"]]
    extra = settings.get("extra-index-url", "").replace("\\n", " ").split()
    for url in extra:
        words += ["--index", url]
    if extra:  # as pip does, the best of all is taken
        words += ["--index-strategy", "unsafe-best-match"]
    for link in settings.get("find-links", "").replace("\\n", " ").split():
        words += ["--find-links", link]
    for trusted in settings.get("trusted-host", "").replace("\\n", " ").split():
        words += ["--allow-insecure-host", trusted]
    return words

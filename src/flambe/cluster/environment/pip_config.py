"""pip on hosts: one for hosts without it, and its settings, which uv does not read itself."""

from __future__ import annotations

import ensurepip
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.layout import in_shell
from flambe.logging.console import home_folder
from flambe.packaging.wheel import repack


def provide_pip(host: ClusterHost, root: str) -> None:
    """Provide a ``pip`` on a host that has none; it runs from a wheel, and installs nothing itself.

    Setup commands may call it, and the environment honours its settings.
    """
    if host.facts.pip:
        return
    wheel = pip_wheel()
    path = f"{root}/bin/{wheel.name}"
    host.send(wheel, path)
    script = f'#!/bin/sh\nexec python3 {in_shell(path)}/pip "$@"\n'
    host.put(script, f"{root}/bin/pip", mode=0o700)


def pip_wheel() -> Path:
    """Return a wheel of pip of this machine."""
    try:
        bundled = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
        return bundled[-1]
    except IndexError:  # Debian's Python keeps it elsewhere
        return repack(metadata.distribution("pip"), home_folder("wheels")).path


def read_settings(host: ClusterHost) -> dict[str, str]:
    """Return pip's settings on a host, as ``pip config list`` prints them."""
    script = f'export PATH="$PATH":{in_shell(host.agent.root)}/bin\npip config list'
    done = host.run(["bash", "-lc", script], check=False, repeat=True, deadline=60)
    return parse(done.stdout)


def parse(output: str) -> dict[str, str]:
    """Return the settings that ``pip config list`` printed: name → value, without sections."""
    settings = {}
    for line in output.splitlines():
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2].strip().replace("_", "-")] = value.strip().strip("'\"")
    return settings


def uv_options(settings: Mapping[str, str]) -> list[str]:
    """Return uv's options for the settings of pip: uv reads none of them itself."""
    options: list[str] = []
    if settings.get("no-index", "").lower() in ("true", "1", "yes"):
        options.append("--no-index")
    if "index-url" in settings:
        options += ["--default-index", settings["index-url"]]
    extra = settings.get("extra-index-url", "").replace("\\n", " ").split()
    for url in extra:
        options += ["--index", url]
    if extra:  # as pip does: the best version of all indexes
        options += ["--index-strategy", "unsafe-best-match"]
    for link in settings.get("find-links", "").replace("\\n", " ").split():
        options += ["--find-links", link]
    for trusted in settings.get("trusted-host", "").replace("\\n", " ").split():
        options += ["--allow-insecure-host", trusted]
    return options

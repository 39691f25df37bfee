"""The same code on every host: an environment, made once for each content, and checked."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name
from packaging.version import Version

from flambe.cluster import pip, proxy
from flambe.errors import ConfigError, Problem, RemoteError
from flambe.packaging import lock, wheel
from flambe.remote import each

if TYPE_CHECKING:
    from flambe.cluster.cluster import Cluster
    from flambe.cluster.member import Member

OLDEST_PYTHON = Version("3.10")
DEADLINE = 3600.0  # seconds to download and install everything


@dataclass(frozen=True)
class Environment:
    """What the hosts of a cluster are given.

    Attributes
    ----------
    wheels
        Our own code: flambe, and the extensions.
    closure
        What they need, in the versions that are installed here.
    python
        The version of the hosts' interpreter, to the patch.
    options
        ``environment`` of the cluster.
    """

    wheels: tuple[wheel.Wheel, ...]
    closure: lock.Closure
    python: str
    platform: str
    options: Mapping[str, Any]

    @classmethod
    def of(
        cls, cluster: Cluster, members: Sequence[Member], distributions: Sequence[str] = ()
    ) -> Environment:
        """Return the environment for a cluster.

        Parameters
        ----------
        cluster, members
            The cluster, and its hosts with their facts.
        distributions
            The extensions, by the names of their distributions.
        """
        extras = ",".join(sorted(cluster.environment.get("extras") or ()))
        roots = [f"flambe[{extras}]" if extras else "flambe", *distributions]
        names = ["flambe", *distributions]
        return cls(
            tuple(wheel.wheel_of(name) for name in names),
            lock.closure(roots),
            one_python(members),
            members[0].facts["platform"],
            dict(cluster.environment),
        )

    @property
    def name(self) -> str:
        """The name of its folder: a hash of all that decides what is in it."""
        value = [
            [(w.name, w.content) for w in self.wheels],
            sorted(self.closure.versions.items()),
            self.closure.wanted,
            self.python,
            self.platform,
        ]
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]

    def differences(self, found: Mapping[str, Any] | None) -> list[str]:
        """Return how what a host has differs from this, as recomputed from its files."""
        if found is None:
            return ["it is not there"]
        told = []
        for one in self.wheels:
            installed = found["ours"].get(one.name)
            if installed is None:
                told.append(f"{one.name} is not installed")
            elif installed["wrong"]:
                told.append(f"{one.name}: {installed['wrong'][0]} was altered")
            elif installed["hash"] != one.content:
                told.append(f"{one.name} is not the code that is here")
        for name, version in self.closure.versions.items():
            there = found["distributions"].get(canonicalize_name(name), version)
            if there.partition("+")[0] != version:
                told.append(f"{name} is {there}, and {version} here")
        return told


def one_python(members: Sequence[Member]) -> str:
    """Return the version of Python that all hosts have.

    Raises
    ------
    ConfigError
        If they differ, or it is too old: Ray refuses nodes of different patches.
    """
    versions: dict[str, list[str]] = {}
    for member in members:
        versions.setdefault(member.facts["python"], []).append(member.machine.name)
    if len(versions) > 1:
        told = "; ".join(f"{version} on {', '.join(names)}" for version, names in versions.items())
        raise ConfigError(
            Problem(
                f"the hosts have different versions of python3: {told}",
                hint="install the same one on all: Ray refuses to connect different ones",
            )
        )
    (version,) = versions
    if Version(version) < OLDEST_PYTHON:
        raise ConfigError(f"the hosts have Python {version}; flambe needs {OLDEST_PYTHON} or newer")
    return version


# -- making it ----------------------------------------------------------------------------------


def make(cluster: Cluster, wanted: Environment, members: Sequence[Member]) -> None:
    """Make the environment on the hosts that lack it; every package is downloaded once."""
    maker = Maker(cluster, wanted)
    if cluster.orchestrator in members:
        maker.on_orchestrator(cluster.orchestrator)
    # Where homes are shared, they have it now.
    others = [member for member in members if not member.is_orchestrator]
    each(lambda member: member.look(cluster.name, wanted.name), others)
    factories = [member for member in others if member.report["environment"] is None]
    if factories:
        cluster.observer.note(f"environment: giving it to {len(factories)} factories")
        each(maker.on_factory, factories)


class Maker:
    """Makes one environment on the hosts of a cluster."""

    def __init__(self, cluster: Cluster, wanted: Environment) -> None:
        self.cluster = cluster
        self.wanted = wanted
        self.root = cluster.remote_dir
        self.place = f"{self.root}/envs/{wanted.name}"
        self.parts = f"{self.root}/parts/{wanted.name}"
        self.certificates = ""
        self.proxy = ""
        self.index = self._index(cluster.orchestrator)

    def on_orchestrator(self, host: Member) -> None:
        """Send the parts, find the versions for this platform, download and install."""
        wanted = self.wanted
        self.cluster.observer.note(
            f"environment: {len(wanted.closure.versions)} packages for Python {wanted.python}"
        )
        self._send_uv(host)
        host.run(["rm", "-rf", self.parts], repeat=True)
        for one in self._shipped():
            host.send(one, f"{self.parts}/wheels/{one.name}")
        # A wheel that was altered on its way is not installed.
        sums = "".join(f"{w.sha256}  wheels/{w.path.name}\n" for w in wanted.wheels)
        pins = "".join(f"{name}=={version}\n" for name, version in wanted.closure.versions.items())
        host.put(sums, f"{self.parts}/sums")
        host.put("\n".join(wanted.closure.wanted) + "\n", f"{self.parts}/requirements.in")
        host.put(pins, f"{self.parts}/constraints.txt")
        index = self.index
        self._script(
            host,
            f"{self.proxy}"
            f"{self._uv()} venv --quiet --no-config --clear --python python3 {self.place}\n"
            f"{self._uv()} pip compile --quiet --no-config --system-certs --no-header --no-annotate"
            f" --generate-hashes --no-build --python {self.place}/bin/python {index}"
            f" --constraints {self.parts}/constraints.txt --output-file {self.parts}/lock.txt"
            f" {self.parts}/requirements.in\n" + self._install(index),
        )

    def on_factory(self, host: Member) -> None:
        """Install from what the orchestrator has downloaded."""
        folders = (f"parts/{self.wanted.name}", "bin", "cache")
        self.cluster.files.give([f"{self.root}/./{name}" for name in folders], self.root, host)
        self._script(
            host,
            f"{self._uv()} venv --quiet --no-config --clear --python python3 {self.place}\n"
            # What was downloaded is known by where it came from.
            + self._install(f"--offline {self.index}"),
        )

    def _give_proxy(self, host: Member, of_pip: str) -> None:
        """See that downloads on the orchestrator go through the proxy: the cluster's, or pip's."""
        if self.cluster.environment.get("proxy") or of_pip:
            url = "" if self.cluster.environment.get("proxy") else of_pip
            proxy.give(self.cluster, host, url)
            self.proxy = proxy.line(self.cluster, always=True)

    def _install(self, index: str) -> str:
        pip = f"{self._uv()} pip install --quiet --no-config --system-certs --no-build --no-deps"
        pip += f" --python {self.place}/bin/python"
        return (
            f"(cd {self.parts} && sha256sum --quiet --check sums)\n"
            f"{pip} --require-hashes {index} --requirements {self.parts}/lock.txt\n"
            f"{pip} --offline {' '.join(self._own())}\n"
        )

    def _own(self) -> list[str]:
        return [shlex.quote(f"{self.parts}/wheels/{w.path.name}") for w in self.wanted.wheels]

    def _uv(self) -> str:
        trusted = f"SSL_CERT_FILE={shlex.quote(self.certificates)} " if self.certificates else ""
        return f"{trusted}{self.root}/bin/uv --cache-dir {self.root}/cache/uv"

    def _script(self, host: Member, text: str) -> None:
        # It is made in its place, for scripts in it name their interpreter; what says that it is
        # whole comes last. Hosts may share a home: the first makes it, the others wait.
        made = {"ours": [w.name for w in self.wanted.wheels], "python": self.wanted.python}
        mark = f"{self.place}/flambe.json"
        script = (
            f"set -eu\nmkdir -p {self.root}/envs {self.root}/cache\n"
            f"exec 9> {self.root}/envs/.lock\nflock 9\n"
            f"if [ -e {mark} ]; then exit 0; fi\n"
            f"rm -rf {self.place}\n{text}"
            f"printf %s {shlex.quote(json.dumps(made))} > {mark}.part\nmv {mark}.part {mark}\n"
        )
        host.run(["sh", "-c", script], deadline=DEADLINE, shown="installing the environment")

    def _send_uv(self, host: Member) -> None:
        host.send(uv_for(host.facts["platform"]), f"{self.root}/bin/uv")

    def _shipped(self) -> list[Path]:
        """Return the wheels to upload: ours, and all others where hosts reach no index."""
        own = [w.path for w in self.wanted.wheels]
        if not self.wanted.options.get("offline"):
            return own
        from importlib import metadata

        from flambe.logging.console import home

        folder = home() / "wheels"
        names = self.wanted.closure.versions
        return own + [wheel.repacked(metadata.distribution(n), folder).path for n in names]

    def _index(self, host: Member) -> str:
        """Return the options that say where packages come from: ours, or pip's on the host."""
        options = self.wanted.options
        if options.get("offline"):
            return f"--no-index --find-links {self.parts}/wheels"
        pip.give_pip(host, self.root)
        config = pip.config(host)
        # What uv has no option for.
        self.certificates = config.get("cert", "")
        self._give_proxy(host, config.get("proxy", ""))
        words = pip.options(config)
        if options.get("index_url"):
            words += ["--default-index", str(options["index_url"])]
        links = options.get("find_links") or ()
        for link in [links] if isinstance(links, str) else links:
            words += ["--find-links", str(link)]
        return shlex.join(words)


def uv_for(platform: str) -> Path:
    """Return uv's program for a host.

    Raises
    ------
    RemoteError
        If it is another platform than this one's.
    """
    import platform as here

    from uv import find_uv_bin

    if platform != f"{sys.platform}-{here.machine()}":
        raise RemoteError("a host", f"it is {platform}, and only hosts like this machine are known")
    return Path(find_uv_bin()).resolve()  # it may be a link, which would be sent as one

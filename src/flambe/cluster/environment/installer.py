"""Making environments on hosts: every package is downloaded once, and given to the others."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.environment import host_python, pip_config, proxy, target
from flambe.cluster.environment.environment import Environment
from flambe.cluster.services.files import Files
from flambe.errors import counted
from flambe.remote import each

DEADLINE = 3600.0  # seconds to download and install everything


def install(cluster: ClusterContext, wanted: Environment, members: Sequence[ClusterHost]) -> None:
    """Make the environment on the hosts that lack it; every package is downloaded once."""
    if wanted.system:
        each(lambda member: member.refresh(cluster.name, wanted.name, system=True), members)
        host_python.refuse(wanted, members)
    maker = Maker(cluster, wanted)
    if cluster.orchestrator in members:
        maker.on_orchestrator(cluster.orchestrator)
    # Where homes are shared, they have it now.
    others = [member for member in members if not member.is_orchestrator]
    each(lambda member: member.refresh(cluster.name, wanted.name), others)
    factories = [member for member in others if member.report["environment"] is None]
    if factories:
        cluster.observer.note(
            f"environment: giving it to {counted(len(factories), 'factory', 'factories')}"
        )
        each(maker.on_factory, factories)


# Where an environment has its packages; and where those of a virtual environment are, for another.
_PURELIB = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
_PACKAGES = """
import sys, sysconfig
paths = sysconfig.get_paths()
if sys.prefix != sys.base_prefix:
    print("\\n".join(dict.fromkeys((paths["purelib"], paths["platlib"]))))
"""


class Maker:
    """Makes one environment on the hosts of a cluster."""

    def __init__(self, cluster: ClusterContext, wanted: Environment) -> None:
        self.cluster = cluster
        self.wanted = wanted
        self.root = cluster.remote_dir
        self.place = f"{self.root}/envs/{wanted.name}"
        self.parts = f"{self.root}/parts/{wanted.name}"
        self.certificates = ""
        self.proxy = ""
        # With the hosts' own packages there is nothing to find.
        self.index = "" if wanted.system else self._index(cluster.orchestrator)

    def on_orchestrator(self, host: ClusterHost) -> None:
        """Send the parts, find the versions for this platform, download and install."""
        wanted = self.wanted
        what = "what hosts have" if wanted.system else f"{len(wanted.closure.versions)} packages"
        self.cluster.observer.note(f"environment: {what} for Python {wanted.target.python}")
        self._send_uv(host)
        host.run(["rm", "-rf", self.parts], repeat=True)
        for one in self._shipped():
            host.send(one, f"{self.parts}/wheels/{one.name}")
        # A wheel that was altered on its way is not installed.
        sums = "".join(f"{w.sha256}  wheels/{w.path.name}\n" for w in wanted.wheels)
        host.put(sums, f"{self.parts}/sums")
        lines = [self.proxy, self._python(host), self._made(), self._resolved(host)]
        self._script(host, "".join([*lines, self._install()]))

    def on_factory(self, host: ClusterHost) -> None:
        """Install from what the orchestrator has downloaded."""
        folders = [f"parts/{self.wanted.name}", "bin"]
        folders += [] if self.wanted.system else ["cache"]
        if key := self.wanted.interpreter.key:
            folders.append(f"pythons/{key}")
        Files(self.cluster).give([f"{self.root}/./{name}" for name in folders], self.root, host)
        # What was downloaded is known by where it came from.
        self._script(host, self._made() + self._install("--offline"))

    def _python(self, host: ClusterHost) -> str:
        """See to the interpreter, where it is not the host's own; return the line that does so."""
        interpreter = self.wanted.interpreter
        if not interpreter.key:
            return ""
        self.cluster.observer.note(f"environment: Python {interpreter.version} ({interpreter.key})")
        if self.wanted.options.offline:
            host.send(interpreter.installed_here(), interpreter.folder(self.root), delete=True)
            return ""
        return f"{self._uv()} {shlex.join(interpreter.install(f'{self.root}/pythons'))}\n"

    def _system(self) -> str:
        """Return the line that shows an environment the packages of the hosts' own Python.

        Those of a virtual environment are not shown to another one by themselves.
        """
        purelib = f"$({self.place}/bin/python -c {shlex.quote(_PURELIB)})"
        code = shlex.quote(_PACKAGES)
        return f'"${{FLAMBE_PYTHON:-python3}}" -I -c {code} > "{purelib}/flambe_system.pth"\n'

    def _made(self) -> str:
        """Return the lines that make an empty environment, and check what was sent."""
        options = "--quiet --no-config --clear --no-python-downloads"
        options += " --system-site-packages" if self.wanted.system else ""
        python = self.wanted.interpreter.program(self.root)
        return (
            f"{self._uv()} venv {options} --python {python} {self.place}\n"
            f"(cd {self.parts} && sha256sum --quiet --check sums)\n"
            + (self._system() if self.wanted.system else "")
        )

    def _resolved(self, host: ClusterHost) -> str:
        """Return the lines that find the versions and hashes of all packages, if any are needed."""
        if self.wanted.system:
            return ""
        closure = self.wanted.closure
        pins = "".join(f"{name}=={version}\n" for name, version in closure.versions.items())
        host.put("\n".join(closure.requirements) + "\n", f"{self.parts}/requirements.in")
        host.put(pins, f"{self.parts}/constraints.txt")
        return (
            f"{self._uv()} pip compile --quiet --no-config --system-certs --no-header --no-annotate"
            f" --generate-hashes --no-build --python {self.place}/bin/python {self.index}"
            f" --constraints {self.parts}/constraints.txt --output-file {self.parts}/lock.txt"
            f" {self.parts}/requirements.in\n"
        )

    def _install(self, *options: str) -> str:
        """Return the lines that install what was found, and our own code."""
        run = f"{self._uv()} pip install --quiet --no-config --system-certs --no-build --no-deps"
        run += f" --python {self.place}/bin/python"
        words = " ".join([*options, self.index])
        locked = f"{run} --require-hashes {words} --requirements {self.parts}/lock.txt\n"
        # Files of the cache are linked: who edits ours on a host would edit the cache too, and have
        # the same again when the environment is made anew.
        own = f"{run} --no-cache --offline {' '.join(self._own())}\n"
        return own if self.wanted.system else locked + own

    def _give_proxy(self, host: ClusterHost, of_pip: str) -> None:
        """See that downloads on the orchestrator go through the proxy: the cluster's, or pip's."""
        if self.cluster.environment.proxy or of_pip:
            url = "" if self.cluster.environment.proxy else of_pip
            proxy.give(self.cluster, host, url)
            self.proxy = proxy.line(self.cluster, always=True)

    def _own(self) -> list[str]:
        return [shlex.quote(f"{self.parts}/wheels/{w.path.name}") for w in self.wanted.wheels]

    def _uv(self) -> str:
        trusted = f"SSL_CERT_FILE={shlex.quote(self.certificates)} " if self.certificates else ""
        return f"{trusted}{self.root}/bin/uv --cache-dir {self.root}/cache/uv"

    def _script(self, host: ClusterHost, text: str) -> None:
        # It is made in its place, for scripts in it name their interpreter; what says that it is
        # whole comes last. Hosts may share a home: the first makes it, the others wait.
        made = {"ours": [w.name for w in self.wanted.wheels], "python": self.wanted.target.python}
        mark = f"{self.place}/flambe.json"
        script = (
            f"set -eu\nmkdir -p {self.root}/envs {self.root}/cache\n"
            f"exec 9> {self.root}/envs/.lock\nflock 9\n"
            f"if [ -e {mark} ]; then exit 0; fi\n"
            f"rm -rf {self.place}\n{text}"
            f"printf %s {shlex.quote(json.dumps(made))} > {mark}.part\nmv {mark}.part {mark}\n"
        )
        with host.space(self.root):
            host.run(["sh", "-c", script], deadline=DEADLINE, shown="installing the environment")

    def _send_uv(self, host: ClusterHost) -> None:
        host.send(target.uv(self.wanted.target), f"{self.root}/bin/uv")

    def _shipped(self) -> list[Path]:
        """Return the wheels to upload: ours, and all others where hosts reach no index."""
        own = [w.path for w in self.wanted.wheels]
        if not self.wanted.options.offline:
            return own
        return own + target.wheels(self.wanted.closure, self.wanted.target)

    def _index(self, host: ClusterHost) -> str:
        """Return the options that say where packages come from: ours, or pip's on the host."""
        options = self.wanted.options
        if options.offline:
            return f"--no-index --find-links {self.parts}/wheels"
        pip_config.give_pip(host, self.root)
        config = pip_config.config(host)
        # What uv has no option for.
        self.certificates = config.get("cert", "")
        self._give_proxy(host, config.get("proxy", ""))
        words = pip_config.options(config)
        if options.index_url:
            words += ["--default-index", options.index_url]
        for link in options.find_links:
            words += ["--find-links", link]
        return shlex.join(words)

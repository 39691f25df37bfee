"""Installing environments on hosts: the orchestrator downloads each package once, for all hosts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from flambe.cluster import layout
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.environment import download, host_python, pip_config, proxy
from flambe.cluster.environment.environment import Environment
from flambe.cluster.services.files import Files
from flambe.errors import counted
from flambe.remote import each

DEADLINE = 3600.0  # seconds to download and install everything


def install(
    cluster: ClusterContext, environment: Environment, hosts: Sequence[ClusterHost]
) -> None:
    """Install the environment on the hosts that lack it."""
    name = environment.name
    if environment.system:
        each(lambda host: host.refresh(cluster.name, name, system=True), hosts)
        host_python.refuse_missing(environment, hosts)
    installer = EnvironmentInstaller(cluster, environment)
    if cluster.orchestrator in hosts:
        installer.install_on_orchestrator(cluster.orchestrator)
    # Where homes are shared, they have it now.
    others = [host for host in hosts if not host.is_orchestrator]
    each(lambda host: host.refresh(cluster.name, name), others)
    factories = [host for host in others if host.report.environment is None]
    if factories:
        count = counted(len(factories), "factory", "factories")
        cluster.observer.note(f"environment: installing it on {count}")
        each(installer.install_on_factory, factories)


# Prints the folder of the packages of an environment; and that of a virtual environment.
_PURELIB = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
_PACKAGES = """
import sys, sysconfig
paths = sysconfig.get_paths()
if sys.prefix != sys.base_prefix:
    print("\\n".join(dict.fromkeys((paths["purelib"], paths["platlib"]))))
"""


class EnvironmentInstaller:
    """Installs one environment on the hosts of a cluster.

    Parameters
    ----------
    cluster, environment
        The cluster and the environment.
    """

    def __init__(self, cluster: ClusterContext, environment: Environment) -> None:
        self.cluster = cluster
        self.environment = environment
        self.root = cluster.remote_dir
        self.folder = layout.environment(self.root, environment.name)
        self.parts = f"{self.root}/parts/{environment.name}"
        self.certificates = ""
        self.proxy = ""
        # With the hosts' own packages there is nothing to download.
        self.index = "" if environment.system else self._index(cluster.orchestrator)

    def install_on_orchestrator(self, host: ClusterHost) -> None:
        """Upload the parts, resolve the versions for this platform, download and install."""
        environment = self.environment
        count = len(environment.closure.versions)
        packages = "the packages of the hosts" if environment.system else f"{count} packages"
        python = environment.target.python
        self.cluster.observer.note(f"environment: {packages} for Python {python}")
        host.send(download.uv_program(environment.target), f"{self.root}/bin/uv")
        host.run(["rm", "-rf", self.parts], repeat=True)
        for path in self._uploads():
            host.send(path, f"{self.parts}/wheels/{path.name}")
        # A wheel that was altered on its way is not installed.
        sums = "".join(f"{w.sha256}  wheels/{w.path.name}\n" for w in environment.wheels)
        host.put(sums, f"{self.parts}/sums")
        steps = [self.proxy, self._install_python(host), self._create(), self._resolve(host)]
        self._run_script(host, "".join([*steps, self._install()]))

    def install_on_factory(self, host: ClusterHost) -> None:
        """Install from what the orchestrator has downloaded."""
        folders = [f"parts/{self.environment.name}", "bin"]
        folders += [] if self.environment.system else ["cache"]
        if key := self.environment.interpreter.key:
            folders.append(f"pythons/{key}")
        Files(self.cluster).give([f"{self.root}/./{name}" for name in folders], self.root, host)
        # uv's cache knows downloads by their URLs: the options of the index are the same here.
        self._run_script(host, self._create() + self._install("--offline"))

    # -- the lines of the script --------------------------------------------------------------

    def _install_python(self, host: ClusterHost) -> str:
        """Return the line that installs the interpreter; upload it where hosts reach no index."""
        interpreter = self.environment.interpreter
        if not interpreter.key:
            return ""
        self.cluster.observer.note(f"environment: Python {interpreter.version} ({interpreter.key})")
        if self.environment.options.offline:
            host.send(interpreter.installed_here(), interpreter.folder(self.root), delete=True)
            return ""
        return f"{self._uv()} {shlex.join(interpreter.install(f'{self.root}/pythons'))}\n"

    def _show_host_packages(self) -> str:
        """Return the line that makes the packages of the hosts' own Python importable.

        Where that is a virtual environment, ``--system-site-packages`` does not do it.
        """
        purelib = f"$({self.folder}/bin/python -c {shlex.quote(_PURELIB)})"
        code = shlex.quote(_PACKAGES)
        return f'"${{FLAMBE_PYTHON:-python3}}" -I -c {code} > "{purelib}/flambe_system.pth"\n'

    def _create(self) -> str:
        """Return the lines that create an empty environment, and check what was uploaded."""
        options = "--quiet --no-config --clear --no-python-downloads"
        options += " --system-site-packages" if self.environment.system else ""
        python = self.environment.interpreter.program(self.root)
        return (
            f"{self._uv()} venv {options} --python {python} {self.folder}\n"
            f"(cd {self.parts} && sha256sum --quiet --check sums)\n"
            + (self._show_host_packages() if self.environment.system else "")
        )

    def _resolve(self, host: ClusterHost) -> str:
        """Return the lines that lock the versions and hashes of all packages, if there are any."""
        if self.environment.system:
            return ""
        closure = self.environment.closure
        pins = "".join(f"{name}=={version}\n" for name, version in closure.versions.items())
        host.put("\n".join(closure.requirements) + "\n", f"{self.parts}/requirements.in")
        host.put(pins, f"{self.parts}/constraints.txt")
        return (
            f"{self._uv()} pip compile --quiet --no-config --system-certs --no-header --no-annotate"
            f" --generate-hashes --no-build --python {self.folder}/bin/python {self.index}"
            f" --constraints {self.parts}/constraints.txt --output-file {self.parts}/lock.txt"
            f" {self.parts}/requirements.in\n"
        )

    def _install(self, *options: str) -> str:
        """Return the lines that install the locked packages, and our own wheels."""
        run = f"{self._uv()} pip install --quiet --no-config --system-certs --no-build --no-deps"
        run += f" --python {self.folder}/bin/python"
        flags = " ".join([*options, self.index])
        locked = f"{run} --require-hashes {flags} --requirements {self.parts}/lock.txt\n"
        wheels = [f"{self.parts}/wheels/{w.path.name}" for w in self.environment.wheels]
        # uv links files from its cache: an edit of ours on a host would edit the cache too, and
        # would be back when the environment is installed again (tests/cli/test_failures.py).
        own = f"{run} --no-cache --offline {' '.join(map(shlex.quote, wheels))}\n"
        return own if self.environment.system else locked + own

    def _uv(self) -> str:
        trusted = f"SSL_CERT_FILE={shlex.quote(self.certificates)} " if self.certificates else ""
        return f"{trusted}{self.root}/bin/uv --cache-dir {self.root}/cache/uv"

    def _run_script(self, host: ClusterHost, lines: str) -> None:
        # The environment is created in place, because scripts in it name their interpreter; the
        # file that marks it as complete comes last. Hosts may share a home: the first one creates
        # it, the others wait.
        environment = self.environment
        content = {
            "ours": [wheel.name for wheel in environment.wheels],
            "python": environment.target.python,
        }
        mark = f"{self.folder}/flambe.json"
        script = (
            f"set -eu\nmkdir -p {self.root}/envs {self.root}/cache\n"
            f"exec 9> {self.root}/envs/.lock\nflock 9\n"
            f"if [ -e {mark} ]; then exit 0; fi\n"
            f"rm -rf {self.folder}\n{lines}"
            f"printf %s {shlex.quote(json.dumps(content))} > {mark}.part\nmv {mark}.part {mark}\n"
        )
        with host.space(self.root):
            host.run(["sh", "-c", script], deadline=DEADLINE, shown="installing the environment")

    # -- where packages come from -------------------------------------------------------------

    def _uploads(self) -> list[Path]:
        """Return the wheels to upload: ours, and all others where hosts reach no index."""
        own = [wheel.path for wheel in self.environment.wheels]
        if not self.environment.options.offline:
            return own
        return own + download.wheels(self.environment.closure, self.environment.target)

    def _index(self, host: ClusterHost) -> str:
        """Return uv's options for the index: that of the cluster file, or of pip on the host."""
        options = self.environment.options
        if options.offline:
            return f"--no-index --find-links {self.parts}/wheels"
        pip_config.provide_pip(host, self.root)
        settings = pip_config.read_settings(host)
        # uv has no options for these two.
        self.certificates = settings.get("cert", "")
        self._use_proxy(host, settings.get("proxy", ""))
        flags = pip_config.uv_options(settings)
        if options.index_url:
            flags += ["--default-index", options.index_url]
        for link in options.find_links:
            flags += ["--find-links", link]
        return shlex.join(flags)

    def _use_proxy(self, host: ClusterHost, of_pip: str) -> None:
        """Let downloads on the orchestrator use the proxy: that of the cluster, or of pip."""
        if self.cluster.environment.proxy or of_pip:
            url = "" if self.cluster.environment.proxy else of_pip
            proxy.give(self.cluster, host, url)
            self.proxy = proxy.line(self.cluster, always=True)

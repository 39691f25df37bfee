"""Containers on the hosts of a cluster, by the Docker that is on them."""

from __future__ import annotations

import contextlib
import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

from flambe._grammar import as_list, as_words
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.environment import proxy
from flambe.errors import CommandError, ConfigError, RemoteError
from flambe.remote import Result, each

# Seconds that a container that is waited for, a download and an installation may take.
DEADLINE = 3600.0
# Seconds to stop all of a host: each is given 10 to end by itself.
STOP = 120.0

MISSING, DENIED, DEAD = "missing", "denied", "dead"

_DENIED = re.compile("permission denied while trying to connect", re.IGNORECASE)
_DEAD = re.compile(
    "cannot connect to the docker daemon|failed to connect to the docker|error during connect|"
    "is the docker daemon running",
    re.IGNORECASE,
)
_NO_GPU = re.compile("could not select device driver.*gpu", re.DOTALL)
_NO_SUDO = re.compile(
    "sudo: .*(required|not found)|not in the sudoers|not allowed to (run|execute)"
)

_VERSION = ("version", "--format={{.Server.Version}}")
_ROW = '{{.ID}}\t{{.Names}}\t{{.Image}}\t{{.State}}\t{{.Status}}\t{{.Label "flambe.name"}}'
# A pipe: what sshd gives may be a socket, which cannot be opened by a name.
_CREATE = 'cat | docker create --env-file /dev/stdin "$@"'
_SUDO = '[ "$(id -u)" != 0 ] || exec "$@"; exec sudo -n'
# sudo drops what leads through a proxy.
_KEPT = "--preserve-env=http_proxy,https_proxy,no_proxy"


@dataclass(frozen=True)
class Container:
    """A container on a host, as it was when it was looked at.

    Attributes
    ----------
    host
        The host: ``orchestrator``, ``factory_1`` …
    id
        Docker's identifier.
    name
        Its name; Docker makes one up where none was given.
    image
        What it was made of.
    status
        ``running``, ``created``, ``exited (3)`` …; ``removed`` when it is no more.
    output
        What it printed, if it was waited for.
    """

    host: str
    id: str
    name: str
    image: str
    status: str
    output: str = ""


# A name of its own: in the class below, ``list`` is a method.
Containers: TypeAlias = list[Container]


class DockerError(RemoteError):
    """Docker cannot be used on a host."""


class Docker:
    """Starts, finds and stops containers. It touches only those that the cluster started.

    They bear labels by which they are found again: ``flambe.cluster``, the name of the cluster;
    ``flambe.home``, the home of the user there, which tells apart who shares a host; and
    ``flambe.name``.

    Parameters
    ----------
    cluster
        The cluster, ready.
    """

    def __init__(self, cluster: ClusterContext) -> None:
        self.cluster = cluster

    def _engine(self, host: ClusterHost) -> _Engine:
        return _Engine(host, self.cluster)

    # -- containers ---------------------------------------------------------------------------

    def run(
        self,
        image: str,
        command: Sequence[str] = (),
        *,
        hosts: Sequence[ClusterHost] | None = None,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        ports: Mapping[int | str, int | str] | None = None,
        volumes: Mapping[str, str] | None = None,
        gpus: bool = False,
        options: Sequence[str] = (),
        detach: bool = True,
        deadline: float = DEADLINE,
    ) -> Containers:
        """Start a container on each host; if that fails on one, on none.

        Parameters
        ----------
        image
            Downloaded where it is missing.
        command
            The program and its arguments; the image's own by default.
        hosts
            The orchestrator alone by default.
        name
            Its name, which no other container of the host may have.
        env
            Environment variables, each of one line. They may be secrets: no command line shows
            them, and no file holds them. Who may use Docker on the host can see them.
        ports
            Port of the host → port of the container. ``"127.0.0.1:8080"`` serves the host alone;
            a number serves everyone who reaches it.
        volumes
            Path of the host → path in the container. Relative ones start at the home of the user.
        gpus
            Whether it sees the GPUs of the host.
        options
            More options of ``docker create``, such as ``["--ipc=host"]``.
        detach
            Whether it is left running. If not, it is waited for, and removed.
        deadline
            Seconds after which a container that is waited for is killed.

        Returns
        -------
        list of Container
            Of each host; with their output if they were waited for.

        Raises
        ------
        CommandError
            If it cannot be started, or was waited for and ends with an exit code other than 0.
        RemoteError
            If Docker cannot be used there: what is missing, and what to do.
        """
        if image.startswith("-"):
            raise ConfigError(f"{image!r} is not an image: docker would take it for an option")
        command = as_list(command, "command takes the program and its arguments", as_words(command))
        options = as_list(options, "options takes a list of options")
        words = [*_flags(name, ports or {}, gpus), *options]
        lines = _env_file(env or {})
        made: dict[_Engine, Container] = {}

        def on(host: ClusterHost) -> Container:
            engine = self._engine(host)
            engine.need(image)
            options = [*words, *engine.mounts(volumes or {})]
            made[engine] = engine.create(options, image, command, lines)
            if detach:
                return engine.start(made[engine])
            return engine.wait(made[engine], command, deadline)

        try:
            return each(
                on, [self.cluster.orchestrator] if hosts is None else self.cluster.selected(hosts)
            )
        except BaseException:
            # Not in on(): once they are interrupted, its threads can do nothing on a host.
            each(lambda engine: engine.discard(made[engine]), list(made))
            raise

    def list(
        self, hosts: Sequence[ClusterHost] | None = None, *, name: str | None = None
    ) -> Containers:
        """Return the containers that the cluster started, those that ended included.

        Parameters
        ----------
        hosts
            All by default, where Docker can be used; on hosts that are named, it must be.
        name
            Only those of this name.
        """

        def on(host: ClusterHost) -> Containers:
            try:
                return self._engine(host).ours(name)
            except DockerError:
                if hosts is None:
                    return []
                raise

        return [
            container for found in each(on, self.cluster.selected(hosts)) for container in found
        ]

    def stop(
        self,
        containers: Iterable[Container] | None = None,
        *,
        name: str | None = None,
        hosts: Sequence[ClusterHost] | None = None,
    ) -> Containers:
        """Stop and remove containers of the cluster: these, or those of a name, or all.

        Raises
        ------
        RemoteError
            If one of these is not the cluster's; nothing is stopped then.
        """
        if containers is None:
            chosen = self.list(hosts, name=name)
        else:
            given = self._by_host(containers)
            owned = each(lambda host: self._engine(host).owned(given[host]), list(given))
            chosen = [container for some in owned for container in some]
        doomed = self._by_host(chosen)
        each(lambda host: self._engine(host).stop(doomed[host]), list(doomed))
        return chosen

    def remove_all(self) -> Containers:
        """Stop and remove all containers of the cluster; return what they were."""
        return self.stop()

    def logs(self, container: Container, tail: int | None = None) -> str:
        """Return what a container printed to either stream: the last lines, or all that is kept."""
        (host,) = self._by_host([container])
        return self._engine(host).logs(container, tail)

    def _by_host(self, containers: Iterable[Container]) -> dict[ClusterHost, Containers]:
        members = {member.machine.name: member for member in self.cluster.selected(None)}
        found: dict[ClusterHost, Containers] = {}
        for container in containers:
            if container.host not in members:
                raise RemoteError(container.host, f"no host of cluster {self.cluster.name}")
            found.setdefault(members[container.host], []).append(container)
        return found

    # -- Docker itself ------------------------------------------------------------------------

    def install(self, hosts: Sequence[ClusterHost] | None = None) -> None:
        """Install Docker on Debian and Ubuntu hosts (all by default) where it cannot be used.

        It takes a user who may use sudo without a password. The user is added to the group
        ``docker``, which counts from the next login: the connection to the host is closed, with
        all that goes through it.

        Raises
        ------
        RemoteError
            If it cannot be used after that: what is missing, and what to do.
        """
        each(lambda host: self._engine(host).install(), self.cluster.selected(hosts))


class _Engine:
    """The Docker of one host."""

    def __init__(self, host: ClusterHost, cluster: ClusterContext) -> None:
        self.host = host
        self.cluster = cluster

    def call(self, *words: str, **more: Any) -> Result:
        """Run a command of Docker, which must succeed."""
        return _hinted(self.ask(*words, **more))

    def ask(self, *words: str, **more: Any) -> Result:
        """Run a command of Docker, which may fail; but Docker must be there."""
        return self._there(self.host.run(["docker", *words], check=False, **more))

    def _there(self, result: Result) -> Result:
        if problem := _problem(result):
            raise DockerError(self.host.name, self._explained(problem, result.stderr))
        return result

    def _explained(self, problem: str, said: str) -> str:
        user = self.host.machine.user
        if problem == MISSING:
            return (
                "Docker is not installed: there is no program docker\n"
                "  = cluster.docker.install() installs it on Debian and Ubuntu; for others see "
                "https://docs.docker.com/engine/install/"
            )
        if problem == DENIED:
            return (
                f"the user {user} may not use Docker\n"
                f"  = sudo usermod -aG docker {user}   and log in anew; cluster.docker.install() "
                "does both"
            )
        return (
            f"Docker's daemon does not answer\n  | {said.strip()}\n  = sudo systemctl start docker"
        )

    def _tell(self, _: str, text: str) -> None:
        self.cluster.observer.host_line(self.host.machine.name, text)

    # -- what bears our labels ----------------------------------------------------------------

    @cached_property
    def home(self) -> str:
        """The home of the user there."""
        known = self.host.facts.get("home")
        return str(known or self.host.run(["sh", "-c", 'printf %s "$HOME"'], repeat=True).stdout)

    @property
    def labels(self) -> list[str]:
        """What all containers of the cluster bear there."""
        return [f"flambe.cluster={self.cluster.name}", f"flambe.home={self.home}"]

    def ours(self, name: str | None = None, *filters: str) -> Containers:
        """Return the containers of the cluster."""
        labels = [*self.labels, *([] if name is None else [f"flambe.name={name}"])]
        words = [f"--filter=label={label}" for label in labels]
        words += [f"--filter={one}" for one in filters]
        said = self.call("ps", "--all", "--no-trunc", *words, f"--format={_ROW}", repeat=True)
        return [self._container(row) for row in said.stdout.splitlines()]

    def _container(self, row: str) -> Container:
        identifier, names, image, state, status, name = row.split("\t")
        ended = re.match(r"Exited (\(\d+\))", status)
        return Container(
            self.host.machine.name,
            identifier,
            name or names.partition(",")[0],
            image,
            f"exited {ended[1]}" if ended else state,
        )

    def owned(self, containers: Containers) -> Containers:
        """Return those of some containers that are still there.

        Raises
        ------
        RemoteError
            If one of them is not the cluster's.
        """
        ours = {container.id for container in self.ours()}
        there = [container for container in containers if self._is_there(container)]
        for container in there:
            if container.id not in ours:
                raise RemoteError(
                    self.host.name,
                    f"the container {container.name} ({container.id[:12]}) was not started by "
                    f"cluster {self.cluster.name}: it is left alone",
                )
        return there

    def _is_there(self, container: Container) -> bool:
        words = ("container", "inspect", "--format={{.Id}}", container.id)
        return self.ask(*words, repeat=True).code == 0

    # -- the life of a container --------------------------------------------------------------

    def need(self, image: str) -> None:
        """Download an image, unless it is there."""
        if self.ask("image", "inspect", "--format={{.Id}}", image, repeat=True).code:
            self.call("pull", image, deadline=DEADLINE, take=self._tell, repeat=True)

    def mounts(self, volumes: Mapping[str, str]) -> list[str]:
        """Return the options that show folders of the host."""
        paths = ((posixpath.join(self.home, source), target) for source, target in volumes.items())
        return [f"--volume={source}:{target}" for source, target in paths]

    def create(
        self, words: Sequence[str], image: str, command: Sequence[str], env: str
    ) -> Container:
        """Make a container, and start it not yet."""
        # Ours come last, and count.
        labels = [f"--label={label}" for label in self.labels]
        words = [*words, *labels, image, *command]
        shown = shlex.join(["docker", "create", *words])
        script = ["sh", "-c", _CREATE, "sh", *words]
        done = self._there(self.host.run(script, content=env, check=False, shown=shown))
        identifier = _hinted(done).stdout.split()[-1]
        return self._look(Container(self.host.machine.name, identifier, identifier[:12], image, ""))

    def _look(self, container: Container) -> Container:
        """Return a container as it is now."""
        found = self.ours(None, f"id={container.id}")
        return found[0] if found else replace(container, status="removed")

    def start(self, container: Container) -> Container:
        """Start a container that was made."""
        self.call("start", container.id)
        return self._look(container)

    def wait(self, container: Container, command: Sequence[str], deadline: float) -> Container:
        """Start a container that was made, wait for its end, and remove it."""
        # Not call(): the exit code and the words are those of the container.
        result = self.host.run(
            ["docker", "start", "--attach", container.id],
            deadline=deadline,
            check=False,
            shown=shlex.join(["docker", "run", container.image, *command]),
        )
        output = _hinted(result).stdout
        self.discard(container)
        return replace(container, status="removed", output=output)

    def discard(self, container: Container) -> None:
        """Remove a container at once, if that can be done: it is over, or failed."""
        with contextlib.suppress(RemoteError):
            self.call("rm", "--force", "--volumes", container.id)

    def stop(self, containers: Containers) -> None:
        """Stop and remove containers; some may have gone meanwhile."""
        ids = [container.id for container in containers]
        self.ask("stop", *ids, deadline=STOP, repeat=True)
        removed = self.ask("rm", "--force", "--volumes", *ids, deadline=STOP, repeat=True)
        if removed.code and any(self._is_there(container) for container in containers):
            removed.checked()

    def logs(self, container: Container, tail: int | None) -> str:
        """Return what a container printed, to either stream."""
        words = ["logs", f"--tail={'all' if tail is None else tail}", container.id]
        script = ["sh", "-c", 'exec docker "$@" 2>&1', "sh", *words]
        shown = shlex.join(["docker", *words])
        result = self.host.run(script, check=False, repeat=True, shown=shown)
        failed = replace(result, stderr=result.stdout)  # what Docker says of it, too
        return self._there(failed if result.code else result).checked().stdout

    # -- installing ---------------------------------------------------------------------------

    def install(self) -> None:
        """Install Docker and let the user use it, unless that is so."""
        problem = self._ask()
        if problem:
            proxy.give(self.cluster, self.host)
        if problem == MISSING:
            self._apt_get()
        if problem in (MISSING, DENIED):
            self._sudo("usermod", "-aG", "docker", self.host.machine.user)
            # A login has the groups that its user had when it began.
            self.host.connection.close()
        if problem:
            self.call(*_VERSION)

    def _ask(self) -> str:
        return _problem(self.host.run(["docker", *_VERSION], check=False, repeat=True))

    def _apt_get(self) -> None:
        if self.host.run(["sh", "-c", "command -v apt-get"], check=False).code:
            raise DockerError(
                self.host.name,
                "Docker cannot be installed: there is no apt-get, as Debian and Ubuntu have\n"
                "  = see https://docs.docker.com/engine/install/",
            )
        self.cluster.observer.note(f"{self.host.name}: installing Docker")
        # A list that cannot be renewed (one of several) may do.
        self._sudo("apt-get", "update", check=False)
        self._sudo("apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "docker.io")

    def _sudo(self, *words: str, check: bool = True) -> None:
        """Run a command as root."""
        shown = shlex.join(["sudo", *words])
        through = proxy.line(self.cluster)
        kept = f" {_KEPT}" if through else ""
        result = self.host.run(
            ["sh", "-c", f'{through}{_SUDO}{kept} "$@"', "sh", *words],
            env={"LC_ALL": "C"},
            deadline=DEADLINE,
            take=self._tell,
            check=False,
            shown=shown,
        )
        if result.code and _NO_SUDO.search(result.stderr):
            raise DockerError(
                self.host.name,
                f"{self.host.machine.user} may not use sudo without a password\n"
                f"  | {result.stderr.strip()}\n"
                "  = let somebody who may run there:   sudo apt-get install docker.io && "
                f"sudo usermod -aG docker {self.host.machine.user}",
            )
        if check:
            result.checked()


def _problem(result: Result) -> str:
    """Return why Docker cannot be used, if that is why a command of it failed."""
    if result.code == 127:
        return MISSING
    if result.code and _DENIED.search(result.stderr):
        return DENIED
    return DEAD if result.code and _DEAD.search(result.stderr) else ""


def _hinted(result: Result) -> Result:
    """Return a result; raise with what to do, where that is known."""
    try:
        return result.checked()
    except CommandError as error:
        if _NO_GPU.search(error.stderr):
            error.message += "\n  = install nvidia-container-toolkit there, and restart Docker"
        raise


def _flags(name: str | None, ports: Mapping[int | str, int | str], gpus: bool) -> list[str]:
    words = [] if name is None else [f"--name={name}", f"--label=flambe.name={name}"]
    words += [f"--publish={outer}:{inner}" for outer, inner in ports.items()]
    return [*words, *(["--gpus=all"] if gpus else [])]


def _env_file(env: Mapping[str, str]) -> str:
    """Return variables as Docker reads them: a line each, nothing is quoted."""
    for key, value in env.items():
        if not re.fullmatch(r"[^\s=#][^\s=]*", key):
            raise ConfigError(f"{key!r} is no name of an environment variable")
        if re.search(r"[\n\r\0]", value):
            raise ConfigError(
                f"env {key}: the value has more than one line, which Docker cannot read: write it "
                "to a file (host.put, mode=0o600), and give that by volumes"
            )
    return "".join(f"{key}={value}\n" for key, value in env.items())

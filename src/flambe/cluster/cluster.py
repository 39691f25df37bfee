"""Cluster: the base of all kinds, and what they have in common."""

from __future__ import annotations

import abc
import getpass
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from flambe._grammar import NAME_HINT, as_list, wrong_ascii_name
from flambe.cluster import layout
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.environment import spec
from flambe.cluster.environment.spec import Finding
from flambe.cluster.instance_status import InstanceStatus
from flambe.cluster.local_state import ClusterFiles, files_of
from flambe.cluster.machine import Machine
from flambe.cluster.observer import ClusterObserver, LogClusterObserver
from flambe.cluster.services import site_address
from flambe.cluster.services.docker import Docker
from flambe.cluster.services.files import Files
from flambe.cluster.services.ray_service import RayNodes
from flambe.cluster.services.report_site import ReportSite
from flambe.compile import Schema
from flambe.remote import Result, each, shell
from flambe.runnable import RemoteEnvironment, Runnable

SILENCE = 3600.0


class Cluster(Runnable):
    """Machines that work together: one orchestrator and any number of factories.

    A kind of cluster overrides :meth:`find_machines`, :meth:`create_machines` and
    :meth:`remove_machines`; everything else is the same for all of them.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``. A cluster is found again by it.
    setup_cmds
        Commands for bash, run on every host as the cluster's user, one after another; again when
        the list changes, or a host was started anew.
    environment
        How hosts are given their Python packages: ``index_url``, ``find_links``, ``offline``
        (wheels are uploaded, the hosts reach no index), ``proxy`` (that leads to the index),
        ``system`` (what the hosts' own Python has is used), ``python`` and ``python_mirror`` (one
        that is brought to them), ``extras`` (of flambe).
    remote_dir
        flambe's folder on the hosts, from the home of the user, or absolute: on another disk. Hosts
        may share it.
    gpus
        ``all``, or ``free``: those that somebody else uses when the cluster is made ready are left
        to them.
    site
        Where the Report Site listens, if not on the loopback of the orchestrator: ``host``, and
        ``certificate`` and ``key``, files of this machine, for TLS.
    user_provider
        See :class:`~flambe.runnable.Runnable`.
    orchestrator_works
        Whether the orchestrator runs variants too, with all of its CPUs and GPUs: a cluster may be
        one machine then.
    """

    #: The keywords whose tags are constructed: none, for ``flambe status FILE`` only looks.
    _flambe_tagged: ClassVar[tuple[str, ...]] = ()
    #: Whether machines go on when they leave the file: they are cleaned then.
    lasting: ClassVar[bool] = False
    #: Hours of low use after which a host, or what runs there, ends; -1 never.
    orchestrator_timeout: float = -1
    factories_timeout: float = -1

    def __init__(
        self,
        name: str,
        setup_cmds: Sequence[str] | None = None,
        environment: Mapping[str, Any] | None = None,
        remote_dir: str = ".flambe",
        gpus: Literal["all", "free"] = "all",
        site: Mapping[str, Any] | None = None,
        user_provider: Any = None,
        orchestrator_works: bool = False,
    ) -> None:
        super().__init__(user_provider)
        self.name = name
        self.setup_cmds = as_list(setup_cmds or (), "setup_cmds takes a list of commands")
        self.environment = spec.read(environment)
        self.remote_dir = remote_dir
        self.gpus = gpus
        self.site = site
        self.orchestrator_works = orchestrator_works
        self.observer: ClusterObserver = LogClusterObserver()
        self.members: list[ClusterHost] = []
        #: The environment of the hosts, as soon as the cluster is ready.
        self.installed = ""
        #: Environment variables of what is run on the orchestrator.
        self.variables: dict[str, str] = {}
        #: Commands that are run on the orchestrator when a run has ended, however that was.
        self.after: list[list[str]] = []
        #: Whether hosts that were created, and are no longer in the file, are removed.
        self.prune = False
        #: What was brought to every host for the run: name → path.
        self.resources: dict[str, str] = {}

    # -- what a kind of cluster overrides -----------------------------------------------------

    @abc.abstractmethod
    def find_machines(self) -> list[Machine]:
        """Return the machines that exist already, the orchestrator first; there may be none."""

    def create_machines(self, found: Sequence[Machine]) -> list[Machine]:
        """Create what is missing, and return all machines, the orchestrator first.

        If it fails, it undoes what it created itself before it raises.
        """
        return list(found)

    def missing_machines(self) -> list[str]:
        """Return what :meth:`create_machines` would create, for people; for ``--dry-run``."""
        return []

    def planned(self) -> list[tuple[str, str]]:
        """Return what ``flambe plan`` says of the machines besides: titles, and texts.

        It is called after :meth:`find_machines`.
        """
        return []

    def discard_machines(self, machines: Sequence[Machine]) -> None:
        """Take down machines that were created just now: the cluster could not be made ready."""

    def trust(self, members: Sequence[ClusterHost]) -> None:
        """Do what is to be done as soon as all hosts are connected, before anything else."""

    def settle(self, members: Sequence[ClusterHost]) -> None:
        """Do what is to be done when the cluster is ready."""

    def former_machines(self) -> list[Machine]:
        """Return the machines that the file has no more, and that run all the same.

        Where machines are :attr:`lasting`, those that are remembered are.
        """
        return []

    def release_machine(self, machine: Machine) -> None:
        """Do what is to be done with a machine that left the file, and was cleaned just now."""

    def remove_machines(self) -> None:
        """Take down the machines that :meth:`create_machines` created."""

    def instance_statuses(self) -> dict[str, InstanceStatus]:
        """Return how the hosts stand that were created, as whoever bills them sees it."""
        return {}

    @property
    def ephemeral(self) -> bool:
        """Whether :meth:`remove_machines` takes along what is on them: results are fetched before.

        By default, wherever a kind of cluster overrides that method.
        """
        return type(self).remove_machines is not Cluster.remove_machines

    @property
    def is_reaped(self) -> bool:
        """Whether its hosts, or what runs there, end by themselves when nobody needs them."""
        return max(self.orchestrator_timeout, self.factories_timeout) >= 0

    @property
    def silence(self) -> float:
        """For how many seconds a run may say nothing: its timeouts, and an hour at least."""
        return max(SILENCE, 3600 * max(self.orchestrator_timeout, self.factories_timeout))

    # -- checking -----------------------------------------------------------------------------

    @classmethod
    def check_schema(cls, schema: Schema) -> Iterator[Finding]:
        """Yield what is wrong with a configuration that keywords and types do not tell."""
        yield from findings(schema.kwargs, folder=written_in(schema))

    # -- running ------------------------------------------------------------------------------

    def run(self, force: bool = False, **kwargs: Any) -> None:
        """Make the cluster ready.

        Parameters
        ----------
        force
            Whether the setup commands are run again.
        kwargs
            ``observer``: who is told how it goes, a :class:`ClusterObserver`. ``prune``: whether
            hosts that were created, and are no longer in the file, are removed. ``setup``: as
            ``force``.
        """
        from flambe.cluster.provisioning.provision import make_ready

        self.prune = bool(kwargs.get("prune"))
        self.observer = kwargs.get("observer") or self.observer
        make_ready(self, setup_again=force or bool(kwargs.get("setup")))
        # Hosts that came later join what runs.
        self.ray.join()

    @cached_property
    def local(self) -> ClusterFiles:
        """What this machine keeps of the cluster."""
        return files_of(self.name, self.scope, type(self).__name__, self.file)

    @property
    def scope(self) -> dict[str, str]:
        """Within what its name is its own: a region, whose it is. Nothing where it always is."""
        return {}

    @property
    def file(self) -> str:
        """The file that describes it; empty for one that was made in Python."""
        origin: Any = vars(self).get("_flambe_origin")
        place = origin.schema.place if origin is not None else None
        return os.path.abspath(place.file) if place is not None and place.folder else ""

    @property
    def orchestrator(self) -> ClusterHost:
        """The host that runs what is run on the cluster."""
        return self._ready()[0]

    @property
    def factories(self) -> list[ClusterHost]:
        """The hosts that do the heavy work."""
        return self._ready()[1:]

    @property
    def workers(self) -> list[ClusterHost]:
        """The hosts that run variants: the factories, and the orchestrator if it works too."""
        return self._ready()[0 if self.orchestrator_works else 1 :]

    @property
    def has_workers(self) -> bool:
        """Whether the file describes a host that runs variants; true where only the hosts tell."""
        return self.orchestrator_works or self._factories_written() != 0

    def _factories_written(self) -> int | None:
        """Return how many factories the file describes; None where only the hosts tell."""
        count = getattr(self, "factories_num", None)
        return count if isinstance(count, int) else None

    def _ready(self) -> list[ClusterHost]:
        if not self.members:
            raise RuntimeError(f"cluster {self.name} is not ready: run it first")
        return self.members

    def chosen(self, hosts: Sequence[ClusterHost] | None) -> list[ClusterHost]:
        """Return hosts that were chosen, or all where none were."""
        if hosts is None:
            return list(self._ready())
        example = "hosts=[cluster.orchestrator]"
        return as_list(hosts, "hosts takes a list of the cluster's hosts", example)

    @property
    def folder(self) -> str:
        """The folder of the cluster on its hosts."""
        return layout.of(self.remote_dir, self.name)

    @property
    def work(self) -> str:
        """The folder on the orchestrator that runs work in: results are below it."""
        return self.orchestrator.path(f"{self.folder}/work")

    def python(self, host: ClusterHost) -> str:
        """Return the path of the interpreter that has flambe and the extensions on a host."""
        self._ready()
        return host.path(f"{self.remote_dir}/envs/{self.installed}/bin/python")

    def remote_environment(self) -> RemoteEnvironment:
        """Return the cluster as a run on it sees it."""
        from flambe.cluster.provisioning.cluster_keys import key_path

        machines = [member.machine for member in self._ready()]
        return RemoteEnvironment(
            key=key_path(self),
            orchestrator_ip=str(machines[0].private),
            factories_ips=[str(machine.private) for machine in machines[1:]],
            user=machines[0].user,
            local_user=getpass.getuser(),
            public_orchestrator_ip=str(machines[0].address),
            public_factories_ips=[str(machine.address) for machine in machines[1:]],
            resources=self.resources,
            factories_names=[machine.name for machine in machines[1:]],
        )

    # -- for those who write a ClusterRunnable ------------------------------------------------

    @cached_property
    def files(self) -> Files:
        """Folders and files on the hosts."""
        return Files(self)

    @cached_property
    def docker(self) -> Docker:
        """Containers on the hosts."""
        return Docker(self)

    @cached_property
    def ray(self) -> RayNodes:
        """Ray on the hosts."""
        return RayNodes(self)

    @cached_property
    def report(self) -> ReportSite:
        """The Report Site on the orchestrator."""
        return ReportSite(self)

    def run_cmds(
        self, commands: Sequence[str], hosts: Sequence[ClusterHost] | None = None
    ) -> list[Result]:
        """Run commands for bash on hosts (all by default): one after another, hosts in parallel.

        Returns
        -------
        list of Result
            Of the last command, for each host.

        Raises
        ------
        RemoteError
            If one fails: with the host, the command, its exit code and what it said last.
        """
        commands = as_list(commands, "run_cmds() takes a list of commands")

        def on(host: ClusterHost) -> Result:
            done = Result(host.name, "", 0, "", "")
            for command in commands:
                done = host.run(shell.login(command), deadline=3600, shown=command)
            return done

        return each(on, self.chosen(hosts))

    def create_dirs(self, folders: Sequence[str | os.PathLike[str]]) -> None:
        """Make folders on all hosts; relative ones start at the home of the user."""
        self.files.make(as_list(folders, "create_dirs() takes a list of folders"))

    def send(self, source: str | Path, target: str, *, delete: bool = False) -> None:
        """Bring a local file or folder to the same path on all hosts."""
        self.files.send(Path(source), target, delete=delete)

    def send_content(self, content: str | bytes, target: str) -> None:
        """Write a file on all hosts."""
        self.files.write(content, target)


def written_in(schema: Schema) -> Path:
    """Return the folder that paths of a file start from."""
    return Path(schema.place.folder) if schema.place and schema.place.folder else Path.cwd()


def findings(
    values: Mapping[str, Any], *, absolute: bool = True, folder: Path | None = None
) -> Iterator[Finding]:
    """Yield what is wrong with the keywords that all clusters have.

    Parameters
    ----------
    values
        The keywords.
    absolute
        Whether ``remote_dir`` may be an absolute path.
    folder
        What paths start from; by default the current folder.
    """
    name = values.get("name")
    if isinstance(name, str) and (what := wrong_ascii_name(name)):
        yield ("name",), what, NAME_HINT
    yield from spec.findings(values.get("environment") or {})
    yield from site_address.findings(values.get("site"), folder or Path.cwd())
    remote = values.get("remote_dir")
    if isinstance(remote, str) and (what := layout.wrong(remote, absolute=absolute)):
        yield ("remote_dir",), what, "such as .flambe" + (" or /data/flambe" if absolute else "")

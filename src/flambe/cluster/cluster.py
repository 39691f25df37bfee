"""Cluster: the base of all kinds, and what they have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from flambe._grammar import NAME_HINT, as_list, wrong_ascii_name
from flambe.cluster import layout
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import STALL_SECONDS, ClusterContext
from flambe.cluster.environment import spec
from flambe.cluster.local_state import ClusterFiles, ClusterOrigin, files_for
from flambe.cluster.machine_provider import MachineProvider
from flambe.cluster.observer import ClusterObserver, LogClusterObserver
from flambe.cluster.options import EnvironmentOptions, Finding
from flambe.cluster.provisioning.provision import provision
from flambe.cluster.services import site_address
from flambe.cluster.services.docker import Docker
from flambe.cluster.services.files import Files
from flambe.cluster.services.ray_service import RayNodes
from flambe.cluster.services.report_site import ReportSite
from flambe.cluster.services.site_address import SiteOptions
from flambe.compile import Schema
from flambe.compile.build import folder_of
from flambe.remote import Result, each, shell
from flambe.runnable import Runnable


class Cluster(MachineProvider, Runnable):
    """Machines that work together: one orchestrator and any number of factories.

    A kind of cluster overrides :meth:`find_machines`, :meth:`create_machines` and
    :meth:`remove_machines`; everything else is the same for all of them.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``. A cluster is found again by it.
    setup_cmds
        Commands for bash, run on every host as the cluster's user, one after another; again when
        the list changes, or a host was restarted.
    environment
        How hosts get their Python packages: ``index_url``, ``find_links``, ``offline`` (wheels are
        uploaded, the hosts reach no index), ``proxy`` (the one that leads to the index), ``system``
        (the packages of the hosts' own Python), ``python`` and ``python_mirror`` (a Python that is
        installed on them), ``extras`` (of flambe).
    remote_dir
        flambe's folder on the hosts: relative to the home of the user, or absolute, on another
        disk. Hosts may share it.
    gpus
        ``all``, or ``free``: GPUs that others use when the cluster is provisioned are left to them.
    site
        Where the Report Site listens, if not on the loopback of the orchestrator: ``host``, and
        ``certificate`` and ``key``, files of this machine, for TLS.
    user_provider
        See :class:`~flambe.runnable.Runnable`.
    orchestrator_works
        Whether the orchestrator runs variants too, with all of its CPUs and GPUs: a cluster may be
        one machine then.
    """

    #: The keywords whose tags are constructed: none, because ``flambe status FILE`` only reads.
    _flambe_tagged: ClassVar[tuple[str, ...]] = ()
    #: Hours of low use after which a host, or the services on it, end; -1 for never.
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
        self.environment = EnvironmentOptions.of(environment)
        self.remote_dir = remote_dir
        self.gpus = gpus
        self.site = site
        self.orchestrator_works = orchestrator_works
        self.observer: ClusterObserver = LogClusterObserver()
        #: The hosts, the orchestrator first, and their environment, once it was provisioned.
        self.hosts: tuple[ClusterHost, ...] = ()
        self.environment_name = ""
        #: Whether hosts that were created, and are no longer in the file, are removed.
        self.prune = False

    # -- checking -----------------------------------------------------------------------------

    @classmethod
    def check_schema(cls, schema: Schema) -> Iterator[Finding]:
        """Yield the problems of a configuration that its keywords and types do not show."""
        yield from findings(schema.kwargs, folder=written_in(schema))

    # -- running ------------------------------------------------------------------------------

    def run(self, force: bool = False, **kwargs: Any) -> None:
        """Provision the cluster.

        Parameters
        ----------
        force
            Whether the setup commands run again.
        kwargs
            ``observer``: a :class:`ClusterObserver`, which is notified of what happens. ``prune``:
            whether hosts that were created, and are no longer in the file, are removed. ``setup``:
            as ``force``.
        """
        self.prune = bool(kwargs.get("prune"))
        self.observer = kwargs.get("observer") or self.observer
        self.provision(setup_again=force or bool(kwargs.get("setup")))
        # Hosts that were added join the Ray that runs.
        self.ray.join()

    def provision(
        self,
        distributions: Sequence[str] = (),
        *,
        setup_again: bool = False,
        repair: bool = False,
    ) -> ClusterContext:
        """Create, connect and set up what is missing; return the cluster as it is then.

        Parameters
        ----------
        distributions
            What its hosts get beside flambe: extensions, by the names of their distributions, and
            extras of flambe, ``flambe[learn]``.
        setup_again
            Whether the setup commands run again on hosts where they have run.
        repair
            Whether an environment that was altered on a host is made again, in place of an error.
        """
        ready = provision(self, self.context, distributions, setup_again=setup_again, repair=repair)
        self.hosts, self.environment_name = ready.hosts, ready.environment_name
        return ready

    @cached_property
    def local(self) -> ClusterFiles:
        """What this machine keeps of the cluster."""
        return files_for(self.name, _origin_of(self))

    @property
    def context(self) -> ClusterContext:
        """What its steps and services need of it, as it is now."""
        timeout = max(self.orchestrator_timeout, self.factories_timeout)
        return ClusterContext(
            name=self.name,
            local=self.local,
            observer=self.observer,
            origin=_origin_of(self),
            hosts=tuple(self.hosts),
            remote_dir=self.remote_dir,
            environment=self.environment,
            environment_name=self.environment_name,
            setup_cmds=tuple(self.setup_cmds),
            gpus=self.gpus,
            orchestrator_works=self.orchestrator_works,
            is_reaped=timeout >= 0,
            stall_timeout=max(STALL_SECONDS, 3600 * timeout),
        )

    @property
    def orchestrator(self) -> ClusterHost:
        """The host that runs jobs and keeps their results."""
        return self.context.orchestrator

    @property
    def factories(self) -> list[ClusterHost]:
        """The hosts that do the heavy work."""
        return self.context.factories

    # -- for those who write a ClusterRunnable ------------------------------------------------

    @property
    def files(self) -> Files:
        """Folders and files on the hosts."""
        return Files(self.context)

    @property
    def docker(self) -> Docker:
        """Containers on the hosts."""
        return Docker(self.context)

    @property
    def ray(self) -> RayNodes:
        """Ray on the hosts."""
        return RayNodes(self.context)

    @property
    def report(self) -> ReportSite:
        """The Report Site on the orchestrator."""
        options = SiteOptions.of(self.site, folder_of(self)) if self.site else None
        return ReportSite(self.context, options)

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
            If one fails: with the host, the command, its exit code and the end of its output.
        """
        commands = as_list(commands, "run_cmds() takes a list of commands")

        def run_on(host: ClusterHost) -> Result:
            result = Result(host.name, "", 0, "", "")
            for command in commands:
                result = host.run(shell.login(command), deadline=3600, shown=command)
            return result

        return each(run_on, self.context.selected(hosts))

    def create_dirs(self, folders: Sequence[str | os.PathLike[str]]) -> None:
        """Create folders on all hosts; relative ones start at the home of the user."""
        self.files.make(as_list(folders, "create_dirs() takes a list of folders"))

    def send(self, source: str | Path, target: str, *, delete: bool = False) -> None:
        """Copy a local file or folder to the same path on all hosts."""
        self.files.send(Path(source), target, delete=delete)

    def send_content(self, content: str | bytes, target: str) -> None:
        """Write a file on all hosts."""
        self.files.write(content, target)


def _origin_of(cluster: Cluster) -> ClusterOrigin:
    """Return where a cluster is described."""
    origin: Any = vars(cluster).get("_flambe_origin")
    source = origin.schema.place if origin is not None else None
    secrets = cluster.config.origin
    return ClusterOrigin(
        file=os.path.abspath(source.file) if source is not None and source.folder else "",
        kind=type(cluster).__name__,
        scope=cluster.scope,
        secrets=os.path.abspath(secrets) if secrets else "",
    )


def written_in(schema: Schema) -> Path:
    """Return the folder that the paths in a file are relative to."""
    return Path(schema.place.folder) if schema.place and schema.place.folder else Path.cwd()


def findings(
    values: Mapping[str, Any], *, absolute: bool = True, folder: Path | None = None
) -> Iterator[Finding]:
    """Yield the problems of the keywords that all clusters have.

    Parameters
    ----------
    values
        The keywords.
    absolute
        Whether ``remote_dir`` may be an absolute path.
    folder
        The folder that paths are relative to; by default the current one.
    """
    name = values.get("name")
    if isinstance(name, str) and (problem := wrong_ascii_name(name)):
        yield ("name",), problem, NAME_HINT
    yield from spec.findings(values.get("environment") or {})
    yield from site_address.findings(values.get("site"), folder or Path.cwd())
    remote = values.get("remote_dir")
    if isinstance(remote, str) and (problem := layout.wrong(remote, absolute=absolute)):
        yield ("remote_dir",), problem, "such as .flambe" + (" or /data/flambe" if absolute else "")

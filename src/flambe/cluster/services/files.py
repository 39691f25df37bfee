"""Folders and files on the hosts of a cluster."""

from __future__ import annotations

import os
import posixpath
import shlex
from collections.abc import Sequence
from pathlib import Path

from flambe._grammar import as_list
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.errors import RemoteError
from flambe.remote import each, resumable_copy, transfer

# Seconds that one host may take to copy to another.
DEADLINE = 6 * 3600


class Files:
    """Makes folders and copies files. Relative paths start at the home of the user.

    Parameters
    ----------
    cluster
        The cluster, provisioned.
    """

    def __init__(self, cluster: ClusterContext) -> None:
        self.cluster = cluster

    def make(
        self, folders: Sequence[str | os.PathLike[str]], hosts: Sequence[ClusterHost] | None = None
    ) -> None:
        """Make folders on hosts, on all by default."""
        command = ["mkdir", "-p", "--", *as_list(folders, "make() takes a list of folders")]
        each(lambda host: host.run(command, repeat=True), self.cluster.selected(hosts))

    def write(
        self, content: str | bytes, target: str, *, mode: int = 0o644,
        hosts: Sequence[ClusterHost] | None = None,
    ) -> None:  # fmt: skip
        """Write a file on hosts, on all by default."""
        each(lambda host: host.put(content, target, mode=mode), self.cluster.selected(hosts))

    def send(self, source: Path, target: str, *, delete: bool = False) -> None:
        """Copy a file or folder to the same path on all hosts.

        It leaves this machine once: the orchestrator copies it to the factories, all at the same
        time.
        """
        self.cluster.orchestrator.send(source, target, delete=delete)
        self.spread(f"{target}/" if source.is_dir() else target, target, delete=delete)

    def spread(self, source: str, target: str, *, delete: bool = False) -> None:
        """Copy a file or folder of the orchestrator to the factories."""
        each(
            lambda factory: self.give([source], target, factory, delete=delete),
            self.cluster.factories,
        )

    def give(
        self, sources: Sequence[str], target: str, factory: ClusterHost, *, delete: bool = False
    ) -> None:
        """Copy files and folders of the orchestrator to one factory, with one rsync between them.

        Of a source with ``/./`` in it, the path after that is kept below the target.
        """
        sources = as_list(sources, "give() takes a list of files and folders")
        is_folder = len(sources) > 1 or sources[0].endswith("/")
        parent = target if is_folder else target.rpartition("/")[0] or "."
        begun = factory.begin(parent, is_folder=is_folder)
        config = self.cluster.ssh_config
        orchestrator = self.cluster.orchestrator
        command = ["rsync", *transfer.options(orchestrator.rsync, factory.rsync)]
        command += ["--delete"] if delete else []
        command += ["--relative"] if any("/./" in source for source in sources) else []
        command += ["-e", f"ssh -o BatchMode=yes -F {shlex.quote(config)}", "--", *sources]
        host = self.cluster.ssh_alias(factory)
        path = transfer.written_to(target, "" if is_folder else posixpath.basename(sources[0]))
        title = f"copying {' '.join(sources)} to {factory.name}"

        def copy() -> None:
            argv = [*command, f"{host}:{path}"]
            orchestrator.run(argv, deadline=DEADLINE, shown=title)

        try:
            orchestrator.connection.resume(copy, title)
        except RemoteError as error:
            raise self._attribute(error, factory) from None
        if begun:
            factory.finish(parent, is_folder=is_folder)

    def _attribute(self, error: RemoteError, factory: ClusterHost) -> RemoteError:
        """Return the error of a copy between two hosts, with the host that lacks rsync, if one."""
        if resumable_copy.NOT_INSTALLED in error.message:
            result = self.cluster.orchestrator.run(["rsync", "--version"], check=False)
            return resumable_copy.missing(factory.name) if result.code == 0 else error
        return error

    def fetch(self, source: str, target: Path) -> None:
        """Copy a file or folder of the orchestrator here; a copy that was cut off is continued."""
        self.cluster.orchestrator.fetch(source, target)

"""SSHCluster: existing machines, reached over SSH."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from flambe._grammar import as_list
from flambe.cluster.cluster import Cluster, findings, written_in
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.machine import ORCHESTRATOR, Machine
from flambe.cluster.options import Finding
from flambe.cluster.providers import login_options
from flambe.cluster.provisioning import factory_names
from flambe.cluster.services import idle_shutdown
from flambe.compile import Schema
from flambe.compile.build import folder_of
from flambe.remote import Address, ssh_config

AddressPath = tuple[str | int, ...]


class SSHCluster(Cluster):
    """Existing machines.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``.
    orchestrator_ip
        The address of the orchestrator, or ``[public, private]``. An address may have a port:
        ``10.0.0.1:2222``. It may be an alias of your ``~/.ssh/config``.
    factories_ips
        The same for each factory.
    key
        The path of your private key, relative to the folder of the file; by default your SSH agent
        and your ``~/.ssh/config`` decide. It never leaves this machine.
    username
        The user to log in as; by default the one in your ``~/.ssh/config``, else your local name.
    use_public
        Whether this machine connects to the public addresses of the hosts, or the private ones.
    setup_cmds, environment, remote_dir, gpus, site, orchestrator_works
        See :class:`Cluster`.
    orchestrator_timeout, factories_timeout
        Hours after which flambe stops what it runs on an idle host: Ray, the Report Site,
        TensorBoard; 0 for at once, -1 for never. The machines themselves keep running.
    """

    lasting = True

    def __init__(
        self,
        name: str,
        orchestrator_ip: str | Sequence[str],
        factories_ips: Sequence[str | Sequence[str]] = (),
        key: str | None = None,
        username: str | None = None,
        use_public: bool = True,
        setup_cmds: Sequence[str] | None = None,
        environment: Mapping[str, object] | None = None,
        remote_dir: str = ".flambe",
        gpus: Literal["all", "free"] = "all",
        site: Mapping[str, object] | None = None,
        orchestrator_timeout: float = -1,
        factories_timeout: float = -1,
        orchestrator_works: bool = False,
    ) -> None:
        super().__init__(name, setup_cmds, environment, remote_dir, gpus, site)
        self.orchestrator_works = orchestrator_works
        self.orchestrator_ip = orchestrator_ip
        self.factories_ips = as_list(factories_ips, "factories_ips takes a list of addresses")
        self.key = key
        self.username = username
        self.use_public = use_public
        self.orchestrator_timeout = orchestrator_timeout
        self.factories_timeout = factories_timeout

    @classmethod
    def check_schema(cls, schema: Schema) -> Iterator[Finding]:
        """Yield what is wrong; see :class:`Cluster`."""
        values, folder = schema.kwargs, written_in(schema)
        yield from findings(values, folder=folder)
        yield from login_options.findings(values, folder)
        yield from idle_shutdown.findings(values)
        yield from _address_findings(values)

    def _factories_written(self) -> int:
        return len(self.factories_ips)

    def find_machines(self) -> list[Machine]:
        """Return the machines of the file, as your configuration of ssh completes them."""
        folder = folder_of(self)
        key = None if self.key is None else login_options.key_path(self.key, folder)
        machines = []
        for number, keyword in enumerate([self.orchestrator_ip, *self.factories_ips]):
            texts = [keyword] if isinstance(keyword, str) else list(keyword)
            public, private = Address.parse(texts[0]), Address.parse(texts[-1])
            name = f"factory_{number}" if number else ORCHESTRATOR  # until the host is asked
            outside = public if self.use_public else private
            resolved = ssh_config.resolve(outside, self.username)
            # Connections from here use the alias, whose other settings count; the other hosts,
            # which do not know it, use the address that it stands for.
            address = Address(outside.host, resolved.address.port)
            inside = resolved.address if private == outside else ssh_config.resolve(private).address
            user = resolved.user or getpass.getuser()
            machines.append(Machine(name, address, inside, user, key))
        return factory_names.recalled(machines, self.local.recall())

    def settle(self, hosts: Sequence[ClusterHost]) -> None:
        """Arm or disarm the idle shutdown of what flambe runs on the hosts."""
        hours = {True: self.orchestrator_timeout, False: self.factories_timeout}
        idle_shutdown.arm(replace(self.context, hosts=tuple(hosts)), hosts, hours)


def _address_findings(values: Mapping[str, object]) -> Iterator[Finding]:
    owners: dict[Address, str] = {}
    for path, text in _addresses(values):
        try:
            address = Address.parse(text)
        except ValueError as error:
            yield path, str(error), "expected   10.0.0.1   or   10.0.0.1:2222"
            continue
        if address in owners:
            yield path, f"{text} is already the address of {owners[address]}", ""
        owners[address] = "the orchestrator" if path[0] == "orchestrator_ip" else "a factory"


def _addresses(values: Mapping[str, object]) -> Iterator[tuple[AddressPath, str]]:
    """Yield each address with its path; both of a pair."""
    keywords: list[tuple[AddressPath, object]] = []
    if "orchestrator_ip" in values:
        keywords.append((("orchestrator_ip",), values["orchestrator_ip"]))
    if isinstance(factories := values.get("factories_ips"), Sequence):
        keywords += ((("factories_ips", number), each) for number, each in enumerate(factories))
    for path, keyword in keywords:
        if isinstance(keyword, str):
            yield path, keyword
        elif isinstance(keyword, Sequence):
            yield from (((*path, number), str(text)) for number, text in enumerate(keyword))

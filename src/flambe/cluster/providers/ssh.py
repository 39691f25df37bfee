"""SSHCluster: machines that exist, reached by SSH."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from flambe._grammar import as_list, wrong_path, wrong_user
from flambe.cluster.cluster import Cluster, findings, written_in
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.machine import ORCHESTRATOR, Machine
from flambe.cluster.options import Finding
from flambe.cluster.provisioning import factory_names
from flambe.cluster.services import idle_shutdown
from flambe.compile import Schema
from flambe.compile.build import folder_of
from flambe.remote import Address, ssh_config


class SSHCluster(Cluster):
    """Machines that exist.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``.
    orchestrator_ip
        Its address, or ``[public, private]``. An address may carry a port: ``10.0.0.1:2222``. It
        may be a name of your ``~/.ssh/config``.
    factories_ips
        The same of each factory.
    key
        The path of your private key, from the folder of the configuration; by default your agent
        and your ``~/.ssh/config`` decide. It never leaves this machine.
    username
        Who logs in; by default whom your ``~/.ssh/config`` says, else you, as you are called here.
    use_public
        Whether the hosts are reached at their public addresses from here; else at the private ones.
    setup_cmds, environment, remote_dir, gpus, site, orchestrator_works
        See :class:`Cluster`.
    orchestrator_timeout, factories_timeout
        Hours after which what flambe runs on a host that has nothing to do is stopped: Ray, the
        Report Site, TensorBoard; 0 at once, -1 never. The machines themselves are let be.
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
        environment: Mapping[str, Any] | None = None,
        remote_dir: str = ".flambe",
        gpus: Literal["all", "free"] = "all",
        site: Mapping[str, Any] | None = None,
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
        values = schema.kwargs
        base = written_in(schema)
        yield from findings(values, folder=base)
        yield from user_findings(values)
        yield from idle_shutdown.findings(values)
        seen: dict[Address, str] = {}
        for path, text in _written(values):
            try:
                address = Address.parse(text)
            except ValueError as error:
                yield path, str(error), "expected   10.0.0.1   or   10.0.0.1:2222"
                continue
            if address in seen:
                yield path, f"{text} is the address of {seen[address]} already", ""
            seen[address] = "the orchestrator" if path[0] == "orchestrator_ip" else "a factory"
        if isinstance(values.get("key"), str):
            yield from key_findings(key_of(values["key"], base))

    def _factories_written(self) -> int:
        return len(self.factories_ips)

    def find_machines(self) -> list[Machine]:
        """Return the machines of the configuration; your configuration of ssh has its say."""
        key = key_of(self.key, folder_of(self)) if self.key is not None else None
        machines = []
        for number, written in enumerate([self.orchestrator_ip, *self.factories_ips]):
            both = [written] if isinstance(written, str) else list(written)
            public, private = Address.parse(both[0]), Address.parse(both[-1])
            name = f"factory_{number}" if number else ORCHESTRATOR  # until it is known
            outside = public if self.use_public else private
            told = ssh_config.ask(outside, self.username)
            # An alias stays one from here, where its other settings count; hosts do not know it.
            address = Address(outside.host, told.address.port)
            inside = told.address if private == outside else ssh_config.ask(private).address
            user = told.user or getpass.getuser()
            machines.append(Machine(name, address, inside, user, key))
        return factory_names.recalled(machines, self.local.recall())

    def settle(self, hosts: Sequence[ClusterHost]) -> None:
        """See that what flambe runs on the hosts ends when nobody needs it."""
        hours = {True: self.orchestrator_timeout, False: self.factories_timeout}
        idle_shutdown.arm(replace(self.context, hosts=tuple(hosts)), hosts, hours)


def _written(values: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield each address with its path; of a pair, both."""
    hosts: list[tuple[tuple[str | int, ...], Any]] = []
    if "orchestrator_ip" in values:
        hosts.append((("orchestrator_ip",), values["orchestrator_ip"]))
    for index, written in enumerate(values.get("factories_ips") or ()):
        hosts.append((("factories_ips", index), written))
    for path, written in hosts:
        if isinstance(written, str):
            yield path, written
        else:
            for index, text in enumerate(written):
                yield (*path, index), str(text)


def user_findings(values: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what is wrong with ``username``."""
    user = values.get("username")
    if isinstance(user, str) and (what := wrong_user(user)):
        yield ("username",), f"username: {what}", "letters, digits, '-', '_', '.' and '@'"


def key_of(written: str, base: Path) -> Path:
    """Return the path of a key that stands in a file of this folder."""
    return base / os.path.expanduser(written)


def key_findings(path: Path) -> Iterator[Finding]:
    """Yield what is wrong with a private key."""
    if what := wrong_path(str(path)):
        yield ("key",), f"key: {what}", "the path of a private key"
        return
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield ("key",), f"cannot read the key {path}: {error.strerror}", "the path of a private key"
        return
    if not stat.S_ISREG(mode):
        yield ("key",), f"the key {path} is not a file", "the path of a private key"
    elif _is_public(path):
        hint = str(path).removesuffix(".pub") if path.suffix == ".pub" else "the private one of it"
        yield ("key",), f"{path} is a public key", hint
    elif mode & 0o077:
        hint = f"chmod 600 {shlex.quote(str(path))}"
        yield ("key",), f"others can read the private key {path}", hint


def _is_public(path: Path) -> bool:
    with contextlib.suppress(OSError):
        head = path.read_bytes()[:200]
        return head.startswith((b"ssh-", b"ecdsa-", b"sk-", b"---- BEGIN SSH2 PUBLIC"))
    return False

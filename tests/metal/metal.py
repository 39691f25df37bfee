"""Several hosts, on a network of their own, for as long as they are wanted."""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.metal.host import Host, make_key
from tests.metal.machine import Claim, MetalError, claim

FIRST = 11  # the last number of the first host's address, and what its name ends in
MOST = 200


class Metal:
    """Hosts that exist inside ``with``, or from ``up()`` to ``down()``.

    Parameters
    ----------
    count : int
        How many.
    user : str
        The user of each, who may use sudo without a password.
    base : str | Path
        The folder that their root folders start as: this machine's own, less what is this
        machine's alone, or a tree such as debootstrap makes.
    layer : Path, optional
        The environments that they have from the beginning: see :mod:`tests.metal.layer`.
    """

    def __init__(
        self,
        count: int = 1,
        user: str = "ubuntu",
        base: str | Path = "/",
        layer: Path | None = None,
    ) -> None:
        self.count = count
        self.user = user
        self.base = base
        self.layer = layer
        self.hosts: list[Host] = []
        self._added = 0
        self._claim: Claim | None = None
        self._undo = contextlib.ExitStack()
        self._last_resort: weakref.finalize[..., Metal] | None = None

    def __enter__(self) -> Metal:
        self.up()
        return self

    def __exit__(self, *error: object) -> None:
        self.down()

    def up(self) -> None:
        """Make the network and the hosts, and wait until each answers; all of it, or nothing."""
        if self._claim is not None:
            raise MetalError("it is up already")
        if not 0 < self.count <= MOST:
            raise MetalError(f"from 1 to {MOST} hosts, not {self.count}")
        self._claim = claim()
        # Also when this object is forgotten, and when Python ends.
        self._last_resort = weakref.finalize(self, _give_back, self._claim, os.getpid())
        self._undo.callback(self._last_resort)
        try:
            self._claim.build()
            make_key(self.key, f"{self._claim.bridge} client")
            hosts = [self._new() for _ in range(self.count)]
            with ThreadPoolExecutor(self.count) as pool:
                for done in [pool.submit(host.install) for host in hosts]:
                    done.result()
        except BaseException:
            self.down()
            raise
        self.hosts.extend(hosts)

    def down(self) -> None:
        """Remove all of it."""
        self._undo.close()
        self._claim = self._last_resort = None
        self._added = 0
        self.hosts.clear()

    def add(self, user: str | None = None, base: str | Path | None = None) -> Host:
        """Add one more host, and wait until it answers."""
        host = self._new(user, base)
        try:
            host.install()
        except BaseException:
            host.power_off()
            raise
        self.hosts.append(host)
        return host

    def keep(self) -> None:
        """Let the hosts outlive this process, until ``python -m tests.metal down``."""
        self.claim.keep()
        if self._last_resort is not None:
            self._last_resort.detach()
        self._undo.pop_all()

    @property
    def claim(self) -> Claim:
        if self._claim is None:
            raise MetalError("it is not up")
        return self._claim

    @property
    def key(self) -> Path:
        """Return the private key that the user of each host is known by."""
        return self.claim.folder / "key"

    @property
    def gateway(self) -> str:
        """Return the address of this machine on their network."""
        return self.claim.address(1)

    def cluster_yaml(self, name: str = "metal", **more: Any) -> str:
        """Return a file that describes them: an ``!SSHCluster`` whose first host is the orchestrator.

        ``more`` are further entries, or others in place of these.
        """
        first, *others = [host.address for host in self.hosts]
        entries = {"name": name, "orchestrator_ip": first, "factories_ips": others}
        entries |= {"key": str(self.key), "username": self.user, **more}
        # JSON is YAML too.
        return "!SSHCluster\n" + "".join(f"{k}: {json.dumps(v)}\n" for k, v in entries.items())

    def _new(self, user: str | None = None, base: str | Path | None = None) -> Host:
        number = FIRST + self._added
        self._added += 1
        host = Host(
            self.claim,
            number,
            user=user or self.user,
            base=base or self.base,
            layer=self.layer,
            key=self.key,
            undo=self._undo,
        )
        self._undo.callback(host.power_off)
        return host


def _give_back(mine: Claim, owner: int) -> None:
    """Give everything back, unless this is only a fork of the process that took it."""
    if os.getpid() == owner:
        mine.give_back()

"""What a host is and has: its hardware, its keys, its Python packages."""

from __future__ import annotations

from dataclasses import dataclass

from flambe.remote.agent.message import (
    Message,
    by_name,
    flag,
    integer,
    number,
    read_text,
    several,
    text,
)


@dataclass
class GpuProcess(Message):
    """A process that computes on a GPU.

    ``user`` runs it, and ``run`` is the supervised process that started it: empty where it is not
    one of flambe, or another user's. ``memory`` is in bytes.
    """

    pid: int = integer()
    memory: int = integer()
    user: str = text()
    run: str = text()


@dataclass
class Gpu(Message):
    """A GPU: ``memory`` and ``used`` are in bytes, ``busy`` is a percentage."""

    index: int = integer()
    uuid: str = text()
    name: str = text()
    memory: int = integer()
    used: int = integer()
    busy: int = integer()
    processes: list[GpuProcess] = several(GpuProcess.from_json)


@dataclass
class Facts(Message):
    """What a host is. Sizes are in bytes; ``docker``, ``pip`` and ``python_path`` are paths.

    ``boot`` changes with each start of the host, ``rsync`` is the first line of its version.
    """

    hostname: str = text()
    user: str = text()
    home: str = text()
    boot: str = text()
    cpus: int = integer()
    memory: int = integer()
    disk: int = integer()
    disk_free: int = integer()
    gpus: list[Gpu] = several(Gpu.from_json)
    python: str = text()
    python_path: str = text()
    platform: str = text()
    libc: str = text()
    system: str = text()
    docker: str = text()
    pip: str = text()
    rsync: str = text()
    load: float = number()


@dataclass
class ClusterKeys(Message):
    """The key pair of a cluster on a host, as hashes.

    ``pair`` is of the key pair, ``peers`` of what it takes to reach the other hosts;
    ``authorized`` is whether the pair may log in, ``host_keys`` are the host's public keys.
    """

    pair: str = text()
    authorized: bool = flag()
    peers: str = text()
    host_keys: list[str] = several(read_text)


@dataclass
class OwnDistribution(Message):
    """A wheel of ours as it is installed: the hash of its files, and those that were altered."""

    hash: str = text()
    wrong: list[str] = several(read_text)


@dataclass
class EnvironmentContents(Message):
    """What an environment holds, recomputed from its files.

    ``distributions`` maps names to versions; ``ours`` are those of flambe and its extensions.
    """

    distributions: dict[str, str] = by_name(read_text)
    ours: dict[str, OwnDistribution] = by_name(OwnDistribution.from_json)
    python: str = text()


@dataclass
class SystemDistribution(Message):
    """A distribution of the host's own Python, and what it requires."""

    version: str = text()
    requires: list[str] = several(read_text)

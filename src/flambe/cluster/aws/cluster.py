"""AWSCluster: instances of Amazon EC2, created for a cluster and taken down with it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Literal

from flambe.cluster.aws import checks, hosts, preflight, userdata
from flambe.cluster.aws.ec2 import NO_CAPACITY, Ec2, code_of, explained
from flambe.cluster.aws.journal import Journal
from flambe.cluster.aws.request import Requests
from flambe.cluster.cluster import Cluster, findings, written_in
from flambe.cluster.machine import ORCHESTRATOR, Machine
from flambe.cluster.member import Member
from flambe.cluster.options import Finding
from flambe.cluster.ssh import key_findings, key_of
from flambe.compile import Schema
from flambe.compile.build import folder_of
from flambe.remote import Address

BOOT_SECONDS = 600.0  # that instances may be pending
NUMBER = "flambe-number"  # a tag: which factory it is


class AWSCluster(Cluster):
    """A cluster of EC2 instances; a cluster is found again by its name and creator.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``.
    factories_num
        How many factories.
    factories_type, orchestrator_type
        Types of instances: ``g5.xlarge``, ``t3.large``.
    key_name, key
        The name of a key pair of EC2, and the path of its private key here.
    creator
        Who the cluster belongs to: an address of e-mail, for example.
    security_group
        The id of a security group that lets in SSH, and all traffic from itself.
    subnet_id
        The id of a subnet, or several: the next one is tried where a zone has no capacity.
    orchestrator_timeout, factories_timeout
        Hours of low use after which they are terminated; 0 at once, -1 never. Fractions count.
    tags
        Further tags of all instances.
    volume_size, volume_type
        The root volume: its size in GB, and its type.
    orchestrator_ami, factory_ami
        Images; the current Ubuntu LTS, and for GPUs the AWS Deep Learning base image by default.
    username
        The user that the images let in.
    region_name, profile
        The region, and the profile of the AWS configuration; by default as boto3 finds them.
    dedicated
        Whether the instances run on hardware of their own.
    spot
        Whether the factories are spot instances: cheaper, and taken away when AWS needs them.
    use_public
        Whether hosts are reached at public addresses from here.
    provisioning_timeout
        Hours after which an instance that was never ready terminates itself.
    setup_cmds, environment, remote_dir, gpus, site
        See :class:`Cluster`.
    """

    def __init__(
        self,
        name: str,
        factories_num: int,
        factories_type: str,
        orchestrator_type: str,
        key_name: str,
        key: str,
        creator: str,
        security_group: str,
        subnet_id: str | Sequence[str],
        orchestrator_timeout: float = -1,
        factories_timeout: float = -1,
        tags: Mapping[str, str] | None = None,
        volume_size: float = 100,
        volume_type: str = "gp3",
        orchestrator_ami: str | None = None,
        factory_ami: str | None = None,
        username: str = "ubuntu",
        region_name: str | None = None,
        profile: str | None = None,
        dedicated: bool = False,
        spot: bool = False,
        use_public: bool = True,
        provisioning_timeout: float = 1,
        setup_cmds: Sequence[str] | None = None,
        environment: Mapping[str, Any] | None = None,
        remote_dir: str = ".flambe",
        gpus: Literal["all", "free"] = "all",
        site: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(name, setup_cmds, environment, remote_dir, gpus, site)
        self.factories_num = factories_num
        self.factories_type = factories_type
        self.orchestrator_type = orchestrator_type
        self.key_name = key_name
        self.key = key
        self.creator = creator
        self.security_group = security_group
        self.subnets = [subnet_id] if isinstance(subnet_id, str) else list(subnet_id)
        self.orchestrator_timeout = orchestrator_timeout
        self.factories_timeout = factories_timeout
        self.tags = dict(tags or {})
        self.volume_size = volume_size
        self.volume_type = volume_type
        self.orchestrator_ami = orchestrator_ami
        self.factory_ami = factory_ami
        self.username = username
        self.region_name = region_name
        self.profile = profile
        self.dedicated = dedicated
        self.spot = spot
        self.use_public = use_public
        self.provisioning_timeout = provisioning_timeout

    @classmethod
    def check_schema(cls, schema: Schema) -> Iterator[Finding]:
        """Yield what is wrong; see :class:`Cluster`."""
        base = written_in(schema)
        yield from findings(schema.kwargs, folder=base)
        yield from checks.findings(schema.kwargs)
        if isinstance(schema.kwargs.get("key"), str):
            yield from key_findings(key_of(schema.kwargs["key"], base))

    @cached_property
    def ec2(self) -> Ec2:
        """EC2 in the region of the cluster."""
        return Ec2(self.region_name, self.profile)

    @cached_property
    def requests(self) -> Requests:
        """What EC2 is asked for."""
        return Requests(self)

    @cached_property
    def journal(self) -> Journal:
        """What was asked of AWS from this machine."""
        return Journal(self.local.folder / "aws.jsonl")

    # -- its machines -------------------------------------------------------------------------

    def _instances(self) -> list[dict[str, Any]]:
        return self.ec2.instances({"Cluster-Name": self.name, "creator": self.creator})

    def find_machines(self) -> list[Machine]:
        """Return the instances that run."""
        running = [one for one in self._instances() if one["State"]["Name"] == "running"]
        return self._machines({_name(one): one for one in running if _name(one)})

    def missing_machines(self) -> list[str]:
        """Return the names of the instances that would be created or started."""
        found = {machine.name for machine in self.find_machines()}
        return [name for name in self._names() if name not in found]

    def create_machines(self, found: Sequence[Machine]) -> list[Machine]:
        """Start what was stopped, and create what is missing: all of it, or nothing.

        Raises
        ------
        RunError
            If AWS refuses: what this call created is terminated again.
        """
        known = self._named(self._instances())
        lacking = [name for name in self._names() if name not in known]
        if not lacking and all(one["State"]["Name"] == "running" for one in known.values()):
            return self._machines(known)
        off = [one["InstanceId"] for one in known.values() if _is_off(one)]
        created: list[str] = []
        try:
            if off:
                self.observer.note(f"AWS: starting {len(off)} instances that were stopped")
                self.journal.write("start", ids=off)
                self.ec2.start(off)
            launched = self._create(lacking, list(known.values()), created) if lacking else []
            awaited = [*launched, *(one["InstanceId"] for one in known.values())]
            running = self._named(self.ec2.await_running(awaited, BOOT_SECONDS))
        except BaseException:
            self._undo(created)
            raise
        return self._machines(running, new={*launched, *off})

    def _named(self, instances: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Return instances by their names; those that have none yet are given one, by their order.

        Whoever does it, from whatever laptop, gives the same names.
        """
        named = {name: one for one in instances if (name := _name(one))}
        unnamed = [one for one in instances if not _name(one)]
        unnamed.sort(key=lambda one: (one.get("AmiLaunchIndex", 0), one["InstanceId"]))
        free = (name for number in itertools.count(1) if (name := f"factory_{number}") not in named)
        new = {next(free): one for one in unnamed}

        def tag(name: str) -> None:
            tags = {"Name": f"{self.name}_{name}", NUMBER: name}
            self.ec2.tag(new[name]["InstanceId"], tags)

        with ThreadPoolExecutor() as pool:
            list(pool.map(tag, new))
        for one in named.values():
            if "Name" not in _tags(one):
                self.ec2.tag(one["InstanceId"], {"Name": f"{self.name}_{_name(one)}"})
        return {**named, **new}

    def discard_machines(self, machines: Sequence[Machine]) -> None:
        """Terminate instances that were created just now."""
        names = {machine.name for machine in machines}
        self._undo([one["InstanceId"] for one in self._instances() if _name(one) in names])

    def remove_machines(self) -> None:
        """Terminate all instances of the cluster."""
        ids = [one["InstanceId"] for one in self._instances()]
        if ids:
            self.observer.note(f"AWS: terminating {len(ids)} instances")
            self.journal.write("terminate", ids=ids)
            self.ec2.terminate(ids)

    def _names(self) -> list[str]:
        return [ORCHESTRATOR, *(f"factory_{n + 1}" for n in range(self.factories_num))]

    def _machines(
        self, instances: Mapping[str, Mapping[str, Any]], new: Collection[str] = ()
    ) -> list[Machine]:
        """Return instances as machines, the orchestrator first."""
        names = sorted(instances, key=_order)
        return [
            self._machine(name, instances[name], new=instances[name]["InstanceId"] in new)
            for name in names
        ]

    def _machine(self, name: str, one: Mapping[str, Any], *, new: bool = False) -> Machine:
        private = Address.parse(one["PrivateIpAddress"])
        public = one.get("PublicIpAddress")
        address = Address.parse(public) if self.use_public and public else private
        told = _tags(one).get(userdata.HOST_KEY, "")
        key = key_of(self.key, folder_of(self))
        return Machine(name, address, private, self.username, key, new, (told,) if told else ())

    def ids(self) -> dict[str, str]:
        """Return the ids of the instances, by the names of the hosts."""
        return {_name(one): one["InstanceId"] for one in self._instances()}

    def trust(self, members: Sequence[Member]) -> None:
        """Give new instances host keys of their own."""
        hosts.renew_host_keys(self, members)

    def settle(self, members: Sequence[Member]) -> None:
        """Tell the reapers of the instances that they are ready."""
        hosts.settle(self, members)

    # -- creating -----------------------------------------------------------------------------

    def _create(
        self, names: Sequence[str], known: Sequence[Mapping[str, Any]], created: list[str]
    ) -> list[str]:
        """Launch instances for those names, both roles at the same time; return their ids.

        Those that this call launched itself are noted in ``created``.
        """
        wanted = {"Orchestrator": names.count(ORCHESTRATOR)}
        wanted["Factory"] = len(names) - wanted["Orchestrator"]
        wanted = {role: count for role, count in wanted.items() if count}
        for role, count in wanted.items():
            kind = self.requests.kind(role)
            hours = self._timeout(role)
            ends = "never ends by itself" if hours < 0 else f"ends after {hours:g} idle hours"
            told = f"AWS: {count} x {kind} as {role.lower()} in {self.ec2.region}; {ends}"
            self.observer.note(told)
        preflight.check_group(self.ec2, self.security_group, self.observer.note)
        key = userdata.HostKey.new()
        for role, count in wanted.items():
            request = self.requests.launch(role, count, key, self.subnets[0], "preflight")
            preflight.check_launch(self.ec2, request, f"{count} x {role.lower()}")
        with ThreadPoolExecutor() as pool:
            jobs = [pool.submit(self._launch, role, n, known) for role, n in wanted.items()]
        launched, errors = [], []
        for job in jobs:
            if error := job.exception():
                errors.append(error)
                continue
            ids, is_mine = job.result()
            launched += ids
            created += ids if is_mine else []
        if errors:
            raise errors[0]
        return launched

    def _launch(
        self, role: str, count: int, known: Sequence[Mapping[str, Any]]
    ) -> tuple[list[str], bool]:
        """Launch the instances of one role, in the first zone that has them."""
        key = userdata.HostKey.new()
        error: Exception | None = None
        for subnet in self.subnets:
            token = self._token(role, count, subnet, known)
            request = self.requests.launch(role, count, key, subnet, token)
            self.journal.write("launch", role=role, count=count, subnet=subnet, token=token)
            try:
                ids, is_mine = self.ec2.launch(request, token)
            except Exception as failed:
                if code_of(failed) not in NO_CAPACITY:
                    raise explained(f"launch {count} x {role.lower()}", failed) from failed
                self.observer.note(f"AWS: no capacity in the zone of {subnet}")
                error = failed
                continue
            self.journal.write("launched", role=role, ids=ids)
            return ids, is_mine
        assert error is not None
        raise explained(f"launch {count} x {role.lower()} in any of the subnets", error)

    @property
    def silence(self) -> float:
        """For how many seconds a run may say nothing: its timeouts, and an hour at least."""
        hours = max(self.orchestrator_timeout, self.factories_timeout)
        return max(super().silence, hours * 3600)

    def reaping(self, role: str) -> dict[str, Any]:
        """Return the settings of the reapers of one role."""
        return userdata.settings(
            self._timeout(role), self.provisioning_timeout, self.username, self.remote_dir
        )

    def _timeout(self, role: str) -> float:
        return self.factories_timeout if role == "Factory" else self.orchestrator_timeout

    def _token(self, role: str, count: int, subnet: str, known: Sequence[Mapping[str, Any]]) -> str:
        """Return what makes two launches the same one: whoever asks, from whatever laptop."""
        there = sorted(one["InstanceId"] for one in known if _tags(one).get("Role") == role)
        value = [self.name, self.creator, role, count, subnet, there]
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]

    def _undo(self, ids: Sequence[str]) -> None:
        if ids:
            self.observer.note(f"AWS: terminating the {len(ids)} instances that were just created")
            self.journal.write("terminate", ids=list(ids))
            self.ec2.terminate(ids)


def _tags(one: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in one.get("Tags", ())}


def _name(one: Mapping[str, Any]) -> str:
    """Return the name of an instance in its cluster; nothing, where a factory has none yet."""
    tags = _tags(one)
    return ORCHESTRATOR if tags.get("Role") == "Orchestrator" else tags.get(NUMBER, "")


def _is_off(one: Mapping[str, Any]) -> bool:
    return one["State"]["Name"] in ("stopped", "stopping")


def _order(name: str) -> tuple[int, int, str]:
    number = name.rpartition("_")[2]
    return (name != ORCHESTRATOR, int(number) if number.isdigit() else 0, name)

"""AWSCluster: instances of Amazon EC2, created for a cluster and taken down with it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from flambe.cluster.cluster import Cluster, findings, written_in
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.instance_status import InstanceStatus
from flambe.cluster.machine import ORCHESTRATOR, Machine
from flambe.cluster.options import Finding
from flambe.cluster.providers.aws import aws_validation, instance_setup, user_data
from flambe.cluster.providers.aws import drift as differences
from flambe.cluster.providers.aws.alarms import Alarms
from flambe.cluster.providers.aws.audit_log import Journal
from flambe.cluster.providers.aws.ec2 import Ec2
from flambe.cluster.providers.aws.instance import (
    HOST_KEY,
    OFF,
    RUNNING,
    age,
    is_settled,
    name_of,
    state,
    tags_of,
)
from flambe.cluster.providers.aws.launch import launch, summary
from flambe.cluster.providers.aws.request import FACTORY
from flambe.cluster.providers.aws.request import ORCHESTRATOR as ORCHESTRATOR_ROLE
from flambe.cluster.providers.aws.rollback import Changes, undo
from flambe.cluster.providers.ssh import key_findings, key_of, user_findings
from flambe.compile import Schema
from flambe.compile.build import folder_of
from flambe.errors import FlambeError, RunError, counted
from flambe.remote import Address

BOOT_SECONDS = 600.0  # that instances may be pending


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
    factories_alarm
        Whether an alarm of CloudWatch terminates factories too whose CPUs were idle for
        ``factories_timeout``: should a host hang, and its reaper with it. At most 168 hours.
    instance_profile
        The name of an instance profile, whose role is that of what runs on the hosts; by default
        there is none.
    setup_cmds, environment, remote_dir, gpus, site, orchestrator_works
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
        factories_alarm: bool = False,
        instance_profile: str | None = None,
        setup_cmds: Sequence[str] | None = None,
        environment: Mapping[str, Any] | None = None,
        remote_dir: str = ".flambe",
        gpus: Literal["all", "free"] = "all",
        site: Mapping[str, Any] | None = None,
        orchestrator_works: bool = False,
    ) -> None:
        super().__init__(name, setup_cmds, environment, remote_dir, gpus, site)
        self.orchestrator_works = orchestrator_works
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
        self.factories_alarm = factories_alarm
        self.instance_profile = instance_profile
        #: By the names of the hosts, as they were found last.
        self.instances: dict[str, dict[str, Any]] = {}
        self._changes = Changes()

    @classmethod
    def check_schema(cls, schema: Schema) -> Iterator[Finding]:
        """Yield what is wrong; see :class:`Cluster`."""
        base = written_in(schema)
        yield from findings(schema.kwargs, folder=base)
        yield from user_findings(schema.kwargs)
        yield from aws_validation.findings(schema.kwargs)
        if isinstance(schema.kwargs.get("key"), str):
            yield from key_findings(key_of(schema.kwargs["key"], base))

    @property
    def scope(self) -> dict[str, str]:
        """Within what its name is its own: a region and a creator."""
        return {"region": self.ec2.region, "creator": self.creator}

    @cached_property
    def ec2(self) -> Ec2:
        """EC2 in the region of the cluster."""
        return Ec2(self.region_name, self.profile)

    @cached_property
    def alarms(self) -> Alarms:
        """The alarms of its factories."""
        return Alarms(self)

    @cached_property
    def journal(self) -> Journal:
        """What was asked of AWS from this machine."""
        return Journal(self.local.folder / "aws.jsonl")

    # -- its machines -------------------------------------------------------------------------

    def found(self) -> dict[str, dict[str, Any]]:
        """Return the instances of the cluster by the names of its hosts, whatever their state.

        Factories that were never ready have no name yet, and are given one by their order: whoever
        asks, from whatever laptop, gives the same.
        """
        wanted = {"Cluster-Name": self.name, "creator": self.creator}
        return self._named(self.ec2.instances(wanted))

    def _named(self, instances: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        named = {name: one for one in instances if (name := name_of(one))}
        others = [one for one in instances if not name_of(one)]
        others.sort(key=lambda one: (one.get("AmiLaunchIndex", 0), one["InstanceId"]))
        numbers = (f"factory_{number}" for number in itertools.count(1))
        free = (name for name in numbers if name not in named)
        return {**named, **{next(free): one for one in others}}

    def find_machines(self) -> list[Machine]:
        """Return the instances that run."""
        self.instances = self.found()
        running = {n: one for n, one in self.instances.items() if state(one) == RUNNING}
        return self._machines(running)

    def missing_machines(self) -> list[str]:
        """Return the names of the instances that would be created or started."""
        found = self.found()
        return [n for n in self.names() if n not in found or state(found[n]) != RUNNING]

    def planned(self) -> list[tuple[str, str]]:
        """Return what the file asks for, and what runs otherwise."""
        counts = {ORCHESTRATOR_ROLE: 1, FACTORY: self.factories_num}
        lines = [("on AWS", summary(self, role, n)) for role, n in counts.items() if n]
        lines.append(
            ("", f"new hosts end unless they are ready within {self.provisioning_timeout:g} h")
        )
        surplus = [name for name in self.instances if name not in self.names()]
        if surplus:
            lines.append(("too many", self._too_many(self.instances, surplus)))
        drift = differences.told(self, self.instances)
        return [*lines, *(("differs", text.removeprefix("AWS: ")) for text in drift)]

    def create_machines(self, found: Sequence[Machine]) -> list[Machine]:
        """Start what was stopped, and create what is missing: all of it, or nothing.

        Raises
        ------
        RunError
            If AWS refuses: what this call created is terminated, what it started is stopped.
        """
        known = self._pruned(self.found())
        for text in differences.told(self, known):
            self.observer.note(text)
        lacking = [name for name in self.names() if name not in known]
        off = [one["InstanceId"] for one in known.values() if state(one) in OFF]
        if lacking or any(state(one) != RUNNING for one in known.values()):
            try:
                self._start(off)
                launched = launch(self, lacking, list(known.values()), self._changes)
                awaited = [*launched, *(one["InstanceId"] for one in known.values())]
                running = self.ec2.await_running(awaited, BOOT_SECONDS, off, self.observer.note)
                told = counted(len(awaited), "instance")
                self.observer.note(f"AWS: {told} run; waiting until they let us in")
            except BaseException as error:
                self._undo(error)
                raise
            known = self._named(running)
        self.instances = known
        return self._machines(known, new=off)

    def _start(self, ids: Sequence[str]) -> None:
        if ids:
            self.observer.note(f"AWS: starting {counted(len(ids), 'instance')} that were stopped")
            self.journal.write("start", ids=list(ids))
            self.ec2.await_stopped(ids, BOOT_SECONDS)
            self._changes.started += ids
            self.ec2.start(ids)

    def _pruned(self, found: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Terminate the factories that the file has no more, if that is asked for."""
        surplus = {n: one for n, one in found.items() if n not in self.names()}
        if surplus and not self.prune:
            self.observer.note(f"AWS: {self._too_many(found, list(surplus))}")
        elif surplus:
            self.observer.note(f"AWS: terminating {', '.join(surplus)}: no longer in the file")
            self.terminate([one["InstanceId"] for one in surplus.values()])
            return {n: one for n, one in found.items() if n not in surplus}
        return dict(found)

    def _too_many(self, found: Collection[str], surplus: Sequence[str]) -> str:
        run = counted(len(found) - (ORCHESTRATOR in found), "factory", "factories")
        names = ", ".join(surplus)
        return f"{run} run, and the file says {self.factories_num}: --prune removes {names}"

    def discard_machines(self, machines: Sequence[Machine]) -> None:
        """Terminate the instances that this call created, and stop those that it started."""
        try:
            undo(self, self._changes)
        except RunError as error:
            self.observer.note(f"error: {error}")  # why it is undone is raised

    def _undo(self, cause: BaseException) -> None:
        """Undo what this call did; what is left is named beside the cause."""
        try:
            undo(self, self._changes)
        except RunError as error:
            if not isinstance(cause, FlambeError):
                self.observer.note(f"error: {error}")
                return
            raise RunError(f"{cause}\n{error}") from cause

    def remove_machines(self) -> None:
        """Terminate all instances of the cluster."""
        ids = [one["InstanceId"] for one in self.found().values()]
        if ids:
            self.observer.note(f"AWS: terminating {counted(len(ids), 'instance')}")
            self.terminate(ids)

    def terminate(self, ids: Sequence[str]) -> None:
        """Terminate instances of the cluster, and remove their alarms."""
        self.journal.write("terminate", ids=list(ids))
        self.ec2.terminate(ids)
        self.alarms.remove(ids)

    def names(self) -> list[str]:
        """Return the names of the hosts that the file describes."""
        return [ORCHESTRATOR, *(f"factory_{n + 1}" for n in range(self.factories_num))]

    def _machines(
        self, instances: Mapping[str, Mapping[str, Any]], new: Collection[str] = ()
    ) -> list[Machine]:
        """Return instances as machines, the orchestrator first."""
        made = []
        for name in sorted(instances, key=_order):
            one = instances[name]
            fresh = one["InstanceId"] in new or not is_settled(one)
            made.append(self._machine(name, one, new=fresh))
        return made

    def _machine(self, name: str, one: Mapping[str, Any], *, new: bool) -> Machine:
        private = Address.parse(one["PrivateIpAddress"])
        public = one.get("PublicIpAddress")
        address = Address.parse(public) if self.use_public and public else private
        planted = tags_of(one).get(HOST_KEY, "")
        key = key_of(self.key, folder_of(self))
        keys = (planted,) if planted else ()
        return Machine(name, address, private, self.username, key, new, keys, one["InstanceId"])

    def trust(self, hosts: Sequence[ClusterHost]) -> None:
        """Give new instances host keys of their own, and their names."""
        instance_setup.settle_in(self, hosts)

    def settle(self, hosts: Sequence[ClusterHost]) -> None:
        """Tell the reapers of the instances that they are ready."""
        instance_setup.tell_reapers(self, hosts)
        self.alarms.arm(hosts)
        self._changes.clear()

    def instance_statuses(self) -> dict[str, InstanceStatus]:
        """Return how each instance stands, as it was found last, and for how long it has run."""
        found = self.instances or self.found()
        return {
            name: InstanceStatus(one["InstanceId"], state(one), age(one))
            for name, one in sorted(found.items(), key=lambda item: _order(item[0]))
        }

    # -- automatic shutdown -------------------------------------------------------------------

    def reaping(self, role: str) -> dict[str, Any]:
        """Return the settings of the reapers of one role."""
        return user_data.settings(
            self.timeout(role), self.provisioning_timeout, self.username, self.remote_dir
        )

    # -- what the two roles have each for itself ----------------------------------------------

    def timeout(self, role: str) -> float:
        """Return the hours that instances of a role may be idle."""
        return self.factories_timeout if role == FACTORY else self.orchestrator_timeout

    def kind(self, role: str) -> str:
        """Return the type of the instances of a role."""
        return self.factories_type if role == FACTORY else self.orchestrator_type

    def ami(self, role: str) -> str | None:
        """Return the image of the instances of a role, if one is given."""
        return self.factory_ami if role == FACTORY else self.orchestrator_ami


def _order(name: str) -> tuple[int, int, str]:
    number = name.rpartition("_")[2]
    return (name != ORCHESTRATOR, int(number) if number.isdigit() else 0, name)

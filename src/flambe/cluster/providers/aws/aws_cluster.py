"""AWSCluster: instances of Amazon EC2, created for a cluster and terminated with it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal

from flambe.cluster.cluster import Cluster, findings, written_in
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.instance_status import InstanceStatus
from flambe.cluster.machine import ORCHESTRATOR, Machine
from flambe.cluster.options import Finding
from flambe.cluster.providers import login_options
from flambe.cluster.providers.aws import aws_validation, instance_setup
from flambe.cluster.providers.aws.api.aws_session import AwsSession
from flambe.cluster.providers.aws.api.aws_tags import FACTORY, HOST_KEY
from flambe.cluster.providers.aws.api.aws_tags import ORCHESTRATOR as ORCHESTRATOR_ROLE
from flambe.cluster.providers.aws.api.instance import Instance
from flambe.cluster.providers.aws.audit_log import AuditLog
from flambe.cluster.providers.aws.aws_config import AwsConfig, RoleConfig
from flambe.cluster.providers.aws.drift import format_drift
from flambe.cluster.providers.aws.fleet import Fleet, by_host
from flambe.cluster.providers.aws.launch import launch
from flambe.cluster.providers.aws.request import describe_launch
from flambe.cluster.providers.aws.rollback import Changes, undo
from flambe.compile import Schema
from flambe.compile.build import folder_of
from flambe.errors import FlambeError, RunError, counted
from flambe.remote import Address

BOOT_SECONDS = 600.0  # within which instances must run


class AWSCluster(Cluster):
    """A cluster of EC2 instances, which is found again by its name and creator.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``.
    factories_num
        The number of factories.
    factories_type, orchestrator_type
        Instance types: ``g5.xlarge``, ``t3.large``.
    key_name, key
        The name of an EC2 key pair, and the path of its private key on this machine.
    creator
        The owner of the cluster: an email address, for example.
    security_group
        The id of a security group that allows SSH, and all traffic from itself.
    subnet_id
        The id of a subnet, or several: the next one is tried if a zone has no capacity.
    orchestrator_timeout, factories_timeout
        Hours of low use after which they are terminated; 0 is at once, -1 never. Fractions are
        allowed.
    tags
        Additional tags of all instances.
    volume_size, volume_type
        The root volume: its size in GB, and its type.
    orchestrator_ami, factory_ami
        Images; the current Ubuntu LTS, and for GPUs the AWS Deep Learning base image by default.
    username
        The user to log in as.
    region_name, profile
        The region, and the profile of the AWS configuration; by default those that boto3 finds.
    dedicated
        Whether the instances run on dedicated hardware.
    spot
        Whether the factories are spot instances: cheaper, until AWS needs them back.
    use_public
        Whether hosts get public addresses, and this machine connects to those.
    provisioning_timeout
        Hours within which a new instance must be ready; otherwise it terminates itself.
    factories_alarm
        Whether a CloudWatch alarm, too, terminates factories whose CPUs were idle for
        ``factories_timeout``, in case a host hangs, and its reaper with it. At most 168 hours.
    instance_profile
        The name of an instance profile, whose role the processes on the hosts have; by default
        there is none.
    setup_cmds, environment, remote_dir, gpus, site, orchestrator_works
        See :class:`Cluster`.
    prices
        Instance type → what it costs per hour, in the currency of your choice: ``flambe plan`` then
        estimates what a run costs.
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
        environment: Mapping[str, object] | None = None,
        remote_dir: str = ".flambe",
        gpus: Literal["all", "free"] = "all",
        site: Mapping[str, object] | None = None,
        orchestrator_works: bool = False,
        prices: Mapping[str, float] | None = None,
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
        self.prices = dict(prices or {})
        #: By the names of the hosts, as they were last found.
        self.instances: dict[str, Instance] = {}
        self._changes = Changes()

    @classmethod
    def check_schema(cls, schema: Schema) -> Iterator[Finding]:
        """Yield what is wrong; see :class:`Cluster`."""
        values, folder = schema.kwargs, written_in(schema)
        yield from findings(values, folder=folder)
        yield from login_options.findings(values, folder)
        yield from aws_validation.findings(values)

    @cached_property
    def session(self) -> AwsSession:
        """The region of the cluster, and the user."""
        return AwsSession(self.region_name, self.profile)

    @cached_property
    def fleet(self) -> Fleet:
        """The instances of the cluster."""
        audit_log = AuditLog(self.local.folder / "aws.jsonl")
        return Fleet(self._aws_config(), self.session, audit_log, self._notify)

    def _notify(self, text: str) -> None:
        self.observer.note(text)

    def _aws_config(self) -> AwsConfig:
        return AwsConfig(
            name=self.name,
            creator=self.creator,
            orchestrator=RoleConfig(
                ORCHESTRATOR_ROLE,
                self.orchestrator_type,
                self.orchestrator_ami,
                self.orchestrator_timeout,
            ),
            factory=RoleConfig(
                FACTORY, self.factories_type, self.factory_ami, self.factories_timeout, self.spot
            ),
            factories_num=self.factories_num,
            key_name=self.key_name,
            key=login_options.key_path(self.key, folder_of(self)),
            security_group=self.security_group,
            subnets=tuple(self.subnets),
            tags=self.tags,
            volume_size=self.volume_size,
            volume_type=self.volume_type,
            username=self.username,
            remote_dir=self.remote_dir,
            region_name=self.region_name,
            profile=self.profile,
            dedicated=self.dedicated,
            use_public=self.use_public,
            provisioning_timeout=self.provisioning_timeout,
            factories_alarm=self.factories_alarm,
            instance_profile=self.instance_profile,
        )

    @property
    def scope(self) -> dict[str, str]:
        """What its name is unique within: a region and a creator."""
        return {"region": self.session.region, "creator": self.creator}

    # -- its machines -------------------------------------------------------------------------

    def find_machines(self) -> list[Machine]:
        """Return the running instances."""
        self.instances = self.fleet.find()
        running = {n: instance for n, instance in self.instances.items() if instance.is_running}
        return self._machines(running)

    def missing_machines(self) -> list[str]:
        """Return the names of the instances that would be created or started."""
        instances = self.fleet.find()
        running = [name for name, instance in instances.items() if instance.is_running]
        return [name for name in self.fleet.config.host_names if name not in running]

    def hourly_price(self) -> float | None:
        """Return what all hosts cost per hour, if the file has the prices of their types."""
        types = [self.orchestrator_type, *([self.factories_type] * self.factories_num)]
        if not all(instance_type in self.prices for instance_type in types):
            return None
        return sum(self.prices[instance_type] for instance_type in types)

    def planned(self) -> list[tuple[str, str]]:
        """Return what the file asks for, and where running instances differ from it."""
        config, region = self.fleet.config, self.session.region
        lines = [
            ("on AWS", describe_launch(config, region, role, count))
            for role, count in config.role_counts(config.host_names)
        ]
        within = f"{config.provisioning_timeout:g} h"
        lines.append(("", f"new hosts terminate themselves unless they are ready within {within}"))
        surplus = [name for name in self.instances if name not in config.host_names]
        if surplus:
            lines.append(("too many", self._too_many(self.instances, surplus)))
        drift = format_drift(config, self.instances)
        return [*lines, *(("differs", text) for text in drift)]

    def create_machines(self, existing: Sequence[Machine]) -> list[Machine]:
        """Start what was stopped, and create what is missing: all of it, or nothing.

        Raises
        ------
        RunError
            If AWS refuses: what this call created is terminated, what it started is stopped.
        """
        instances = self._prune_surplus(self.fleet.find())
        for text in format_drift(self.fleet.config, instances):
            self._notify(f"AWS: {text}")
        missing = [name for name in self.fleet.config.host_names if name not in instances]
        stopped = [instance.id for instance in instances.values() if instance.is_off]
        if missing or not all(instance.is_running for instance in instances.values()):
            try:
                self._start(stopped)
                launched = launch(self.fleet, missing, list(instances.values()), self._changes)
                running = self._await_running(
                    [*launched, *(instance.id for instance in instances.values())], stopped
                )
            except BaseException as error:
                self._undo(error)
                raise
            instances = by_host(running)
        self.instances = instances
        return self._machines(instances, new=stopped)

    def _start(self, ids: Sequence[str]) -> None:
        if ids:
            self._notify(f"AWS: starting {counted(len(ids), 'stopped instance')}")
            self.fleet.audit_log.write("start", ids=list(ids))
            self.fleet.instances.await_stopped(ids, BOOT_SECONDS)
            self._changes.started += ids
            self.fleet.instances.start(ids)

    def _await_running(self, ids: Sequence[str], started: Collection[str]) -> list[Instance]:
        instances = self.fleet.instances
        running = instances.await_running(ids, BOOT_SECONDS, started, self._notify)
        count = counted(len(ids), "instance is", "instances are")
        self._notify(f"AWS: {count} running; waiting for SSH")
        return running

    def _prune_surplus(self, instances: Mapping[str, Instance]) -> dict[str, Instance]:
        """Terminate the factories that the file no longer asks for, with ``--prune``."""
        names = self.fleet.config.host_names
        surplus = {name: instances[name] for name in instances if name not in names}
        if surplus and not self.prune:
            self._notify(f"AWS: {self._too_many(instances, list(surplus))}")
        elif surplus:
            self._notify(f"AWS: terminating {', '.join(surplus)}: no longer in the file")
            self.fleet.terminate([instance.id for instance in surplus.values()])
            return {name: instances[name] for name in instances if name not in surplus}
        return dict(instances)

    def _too_many(self, host_names: Collection[str], surplus: Sequence[str]) -> str:
        count = len(host_names) - (ORCHESTRATOR in host_names)
        running = counted(count, "factory is", "factories are")
        return (
            f"{running} running, but the file says {self.factories_num}: "
            f"--prune removes {', '.join(surplus)}"
        )

    def discard_machines(self, machines: Sequence[Machine]) -> None:
        """Terminate the instances that this call created, and stop those that it started."""
        try:
            undo(self.fleet, self._changes)
        except RunError as error:
            self._notify(f"error: {error}")  # the cause is being raised already

    def _undo(self, cause: BaseException) -> None:
        """Undo what this call did; what is left is named beside the cause."""
        try:
            undo(self.fleet, self._changes)
        except RunError as error:
            if not isinstance(cause, FlambeError):
                self._notify(f"error: {error}")
                return
            raise RunError(f"{cause}\n{error}") from cause

    def remove_machines(self) -> None:
        """Terminate all instances of the cluster."""
        ids = [instance.id for instance in self.fleet.find().values()]
        if ids:
            self._notify(f"AWS: terminating {counted(len(ids), 'instance')}")
            self.fleet.terminate(ids)

    def _machines(
        self, instances: Mapping[str, Instance], new: Collection[str] = ()
    ) -> list[Machine]:
        """Return instances as machines, the orchestrator first."""
        return [
            self._machine(name, instances[name], new=instances[name].id in new)
            for name in sorted(instances, key=_order)
        ]

    def _machine(self, name: str, instance: Instance, *, new: bool) -> Machine:
        private = Address.parse(instance.private_ip)
        public = instance.public_ip
        host_key = instance.tags.get(HOST_KEY)
        return Machine(
            name,
            address=Address.parse(public) if self.use_public and public else private,
            private=private,
            user=self.username,
            key=self.fleet.config.key,
            new=new or not instance.is_settled,
            host_keys=(host_key,) if host_key else (),
            identity=instance.id,
        )

    def trust(self, hosts: Sequence[ClusterHost]) -> None:
        """Give new instances host keys of their own, and their names."""
        instance_setup.settle_in(self.fleet, self.instances, hosts)

    def settle(self, hosts: Sequence[ClusterHost]) -> None:
        """Tell the reapers of the instances that they are ready."""
        instance_setup.update_reapers(self.fleet, hosts)
        instance_setup.arm_alarms(self.fleet, hosts)
        self._changes.clear()

    def instance_statuses(self) -> dict[str, InstanceStatus]:
        """Return the state of each instance when it was last found, and how long it has run."""
        instances = self.instances or self.fleet.find()
        return {
            name: InstanceStatus(instances[name].id, instances[name].state, instances[name].age)
            for name in sorted(instances, key=_order)
        }


def _order(name: str) -> tuple[int, int, str]:
    number = name.rpartition("_")[2]
    return (name != ORCHESTRATOR, int(number) if number.isdigit() else 0, name)

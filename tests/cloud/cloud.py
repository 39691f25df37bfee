"""A cloud to test against: moto behind faults, and a real host for each instance, where root makes them."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.cloud import alarms, firewall, images, models, userdata
from tests.cloud.calls import Call, Calls, Reply, answer
from tests.cloud.faults import Faults
from tests.cloud.front import Forward, Front, Rule
from tests.cloud.guest import Guest, Rack
from tests.cloud.launch import Launcher
from tests.cloud.machine import Machine
from tests.cloud.metadata import Metadata
from tests.cloud.power import Power
from tests.cloud.prepared import Prepared, prepare

SESSION = functools.cache(boto3.Session)  # one reads the models of services once
ONE = threading.Lock()  # moto keeps what it knows in this process, once
NOTICE = 120.0  # the seconds, of the cloud's clock, that a spot instance has from its notice on


GROUPING = (
    "AuthorizeSecurityGroupIngress",
    "RevokeSecurityGroupIngress",
    "ModifyNetworkInterfaceAttribute",
)


class CloudError(Exception):
    """The cloud that is tested against cannot do what is asked of it."""


class Cloud:
    """A cloud that exists inside ``with``.

    Parameters
    ----------
    hosts : bool
        Whether each instance is a real host, which needs root; or else only an entry that changes
        its state as a real one would.
    region : str
        Where the network, the key pair and the images are.
    seed : int
        Of what is left to chance: how long instances are pending.
    pace : float
        How many seconds of CloudWatch's clock, and of spot notices, go by in one.
    base : str | Path
        The folder that the disks of instances start as, as for tests.metal.
    """

    def __init__(
        self,
        *,
        hosts: bool = True,
        region: str = "us-east-1",
        seed: int = 0,
        pace: float = 1.0,
        base: str | Path = "/",
        port: int = 0,
    ) -> None:
        self.hosts = hosts
        self.region = region
        self.faults = Faults(seed)
        self.calls = Calls()
        self.clock = alarms.Clock(pace)
        self.machines: dict[str, Machine] = {}
        self._base = base
        self._port = port
        self._lock = threading.RLock()
        self._undo = contextlib.ExitStack()
        self._addresses = itertools.count(2)
        self._rack: Rack | None = None
        self._metadata: Metadata | None = None
        self._prepared: Prepared | None = None
        self._front: Front | None = None

    def __enter__(self) -> Cloud:
        self.up()
        return self

    def __exit__(self, *error: object) -> None:
        self.down()

    def up(self) -> None:
        """Make the cloud, and all that an account has before anything is launched."""
        if not ONE.acquire(blocking=False):
            raise CloudError("there is a cloud in this process already")
        self._undo.callback(ONE.release)
        try:
            self._up()
        except BaseException:
            self.down()
            raise

    def _up(self) -> None:
        self._undo.enter_context(models.without_old_images())
        models.forget()
        self._undo.callback(models.forget)
        if self.hosts:
            self._rack = Rack()
            self._undo.callback(self._rack.down)
            network = self._rack.claim.network
            # With the hosts, so that it goes with them if this process is killed.
            folder = self._rack.claim.folder / "account"
            folder.mkdir(mode=0o700)
            self._metadata = Metadata(self._rack.claim.address(1), self._at)
            self._undo.callback(self._metadata.close)
        else:
            network, folder = "10.213.0.0/24", Path(tempfile.mkdtemp(prefix="cloud-"))
            self._undo.callback(shutil.rmtree, folder, ignore_errors=True)
        self._prepared = prepare(self.region, network, folder)
        self._undo.callback(self._end_machines)
        self.monitor = alarms.Monitor(self.clock, self.machines, self._lock)
        self._undo.callback(self.monitor.close)
        self._front = Front(
            faults=self.faults,
            calls=self.calls,
            lock=self._lock,
            rules=self._rules(),
            hiding=self._hiding,
            control=self._control,
            port=self._port,
        )
        self._undo.callback(self._front.close)

    def down(self) -> None:
        """Remove all of it: hosts, network, port, folder, and what moto remembers."""
        self._undo.close()

    # -- what tests use ---------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Return the address that stands for every service."""
        if self._front is None:
            raise CloudError("it is not up")
        return self._front.url

    @property
    def prepared(self) -> Prepared:
        """Return the ids of what there is: subnets, a security group, a key pair, images."""
        if self._prepared is None:
            raise CloudError("it is not up")
        return self._prepared

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables with which boto3, and what uses it, comes here and nowhere else."""
        return {
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def client(
        self, service: str, *, attempts: int = 1, read_timeout: float = 60, **options: Any
    ) -> Any:
        """Return a boto3 client that comes here; by default it tries each call once."""
        settings = self.environment
        retries = {"total_max_attempts": attempts, "mode": "standard"}
        return SESSION().client(
            service,
            endpoint_url=self.url,
            aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries=retries, read_timeout=read_timeout),
            **{"region_name": self.region, **options},
        )

    def instances(self, *states: str) -> list[Machine]:
        """Return the instances that there are, or those in some states; by default all but terminated."""
        wanted = states or tuple(set(models.CODES) - {"terminated"})
        return [machine for machine in self.machines.values() if machine.state in wanted]

    def machine(self, instance_id: str) -> Machine:
        """Return an instance."""
        if instance_id not in self.machines:
            raise CloudError(f"no instance {instance_id}; there are: {', '.join(self.machines)}")
        return self.machines[instance_id]

    def host(self, instance_id: str) -> Guest:
        """Return the host of an instance: what can be done to it is that of tests.metal.Host."""
        guest = self.machine(instance_id).guest
        if guest is None:
            raise CloudError(f"{instance_id} has no host: it is {self.machine(instance_id).state}")
        return guest

    def advance(self, seconds: float) -> None:
        """Let time go by on CloudWatch's clock, in which instances go on as they are."""
        self.clock.advance(seconds)

    def interrupt(self, instance_id: str) -> None:
        """Take back a spot instance: two minutes after the notice, of the cloud's clock."""
        when = datetime.fromtimestamp(self.clock.now() + NOTICE, timezone.utc)
        notice = when.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.machine(instance_id).interrupt(NOTICE / self.clock.pace, notice)

    # -- what it is made of -----------------------------------------------------------------------

    def _rules(self) -> Mapping[str, Rule]:
        network = (self.region, self.prepared.vpc) if self._rack else None
        launcher = Launcher(self.faults, self._adopt, network)
        power = Power(self.faults, self.machines)
        groups = {f"ec2:{action}": self._regroup(_plain) for action in GROUPING}
        return groups | {
            "ec2:RunInstances": self._regroup(launcher.run_instances),
            "ec2:StopInstances": power.stop,
            "ec2:StartInstances": power.start,
            "ec2:RebootInstances": power.reboot,
            "ec2:TerminateInstances": power.terminate,
            "ec2:ModifyInstanceAttribute": self._regroup(power.modify),
            "ec2:GetConsoleOutput": power.console,
            "cloudwatch:PutMetricAlarm": alarms.put_metric_alarm,
            "servicequotas:GetServiceQuota": self._quota,
        }

    def _quota(self, call: Call, _: Forward) -> Reply:
        """Tell how many vCPUs of a family may run at the same time.

        https://docs.aws.amazon.com/servicequotas/2019-06-24/apireference/API_GetServiceQuota.html
        """
        code = call.parameters["QuotaCode"]
        value = self.faults.quotas.get(code, 1000.0)
        quota = {"QuotaCode": code, "QuotaName": f"the instances of {code}", "Value": value}
        return answer(call, {"Quota": {**quota, "ServiceCode": "ec2", "Unit": "None"}})

    def _regroup(self, rule: Rule) -> Rule:
        """Return a rule after which every host lets in what the groups say by then."""

        def then(call: Call, forward: Forward) -> Reply:
            reply = rule(call, forward)
            for machine in self.machines.values():
                if machine.guest is not None:
                    machine.guest.let_in()
            return reply

        return then

    def _adopt(self, model: Any) -> None:
        """Let an instance that moto has just made live."""
        self.machines[model.id] = Machine(
            model,
            lock=self._lock,
            faults=self.faults,
            address=self._public_address,
            guest=self._guest if self._rack else None,
        )

    def _public_address(self) -> str:
        number = next(self._addresses)
        if number > 254:
            raise CloudError("every public address was used once")
        return self._rack.public(number) if self._rack else f"198.18.0.{number}"

    def _guest(self, machine: Machine) -> Guest:
        assert self._rack is not None and self._metadata is not None
        plan = userdata.read(models.user_data(machine.model))
        plan.login_delay = self.faults.login
        return Guest(
            self._rack,
            machine.private_address,
            public=lambda: machine.public_address,
            rules=lambda: firewall.rules(machine, list(self.machines.values())),
            user=images.USERS.get(machine.model.image_id, "ubuntu"),
            plan=plan,
            metadata_port=self._metadata.port,
            base=self._base,
        )

    def _at(self, address: str) -> Machine | None:
        """Return the instance that has a private address."""
        alive = [m for m in self.machines.values() if m.state not in ("terminated", "stopped")]
        return next((m for m in alive if m.private_address == address), None)

    @contextlib.contextmanager
    def _hiding(self, call: Call) -> Iterator[None]:
        """Keep from moto, for one call, the instances that are not seen yet."""
        hidden = {machine.id for machine in self.machines.values() if machine.hidden}
        if not hidden or call.action == "RunInstances":
            yield
            return
        reservations = models.ec2(self.region).reservations
        away = {
            name: one
            for name, one in reservations.items()
            if any(instance.id in hidden for instance in one.instances)
        }
        for name in away:
            del reservations[name]
        try:
            yield
        finally:
            reservations.update(away)

    def _end_machines(self) -> None:
        failures = [m.failure for m in self.machines.values() if m.failure is not None]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(Machine.end, self.machines.values()))
        self.machines.clear()
        if failures:
            raise CloudError(f"an instance failed: {failures[0]}") from failures[0]

    # -- the control address ----------------------------------------------------------------------

    def _control(self, path: str, body: bytes) -> Reply:
        """Do what the command line asks: a fault by its method, or a look."""
        what, _, name = path.partition("/")
        arguments = json.loads(body or b"{}")
        try:
            result = self._do(what, name, arguments)
        except (AttributeError, TypeError, ValueError, CloudError) as error:
            return _json({"error": str(error)}, 400)
        return _json(result, 200)

    def _do(self, what: str, name: str, arguments: dict[str, Any]) -> Any:
        if what == "faults":
            if not name or name.startswith("_"):
                raise ValueError(f"no fault {name!r}")
            getattr(self.faults, name)(**arguments)
            return dict(self.faults.counts)
        if what == "calls":
            return [_entry(call) for call in self.calls]
        if what == "instances":
            return [describe(machine) for machine in self.machines.values()]
        if what == "prepared":
            return {**asdict(self.prepared), "key": str(self.prepared.key)}
        if what == "environment":
            return self.environment
        if what in ("advance", "interrupt"):
            getattr(self, what)(**arguments)
            return {}
        raise ValueError(f"nothing is at {what!r}")


def _plain(call: Call, forward: Forward) -> Reply:
    return forward(call)


def describe(machine: Machine) -> dict[str, str]:
    """Return what a person wants to know of an instance."""
    return {
        "id": machine.id,
        "state": machine.state,
        "type": machine.model.instance_type,
        "private": machine.private_address,
        "public": machine.public_address,
        "host": machine.guest.name if machine.guest else "",
    }


def _entry(call: Call) -> dict[str, Any]:
    entry = {**asdict(call), "form": None}  # which is the parameters again, as they came
    return json.loads(json.dumps(entry, default=str))  # type: ignore[no-any-return]


def _json(value: Any, status: int) -> Reply:
    return Reply(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

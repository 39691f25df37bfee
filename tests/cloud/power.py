"""The calls that start, stop, reboot and terminate instances, and what they say on the console."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from tests.cloud import models
from tests.cloud.calls import Call, Refused, Reply, answer
from tests.cloud.launch import no_capacity

if TYPE_CHECKING:
    from tests.cloud.faults import Faults
    from tests.cloud.machine import Machine

Forward = Callable[[Call], Reply]
CONSOLE_BYTES = 64 * 1024


class Power:
    """What the calls on instances that are there do beyond moto."""

    def __init__(self, faults: Faults, machines: dict[str, Machine]) -> None:
        self._faults = faults
        self._machines = machines

    def stop(self, call: Call, forward: Forward) -> Reply:
        """Stop instances that run.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StopInstances.html
        """
        named = list(self._named(call))
        for machine in named:
            if machine.model.lifecycle == "spot":
                text = "You can't stop the Spot Instance: it is of a one-time request"
                raise Refused("UnsupportedOperation", text)
            _require(machine, "stopped", "running", "stopping", "stopped")
        before = {machine.id: machine.state for machine in named}
        reply = forward(call)
        if reply.status == 200:
            for machine in named:
                if before[machine.id] == "running":
                    models.become(machine.model, "stopping")
                    machine.ask("stop")
                else:
                    models.become(machine.model, before[machine.id])
        return reply

    def start(self, call: Call, forward: Forward) -> Reply:
        """Start instances that were stopped, where there is capacity.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StartInstances.html
        """
        named = list(self._named(call))
        for machine in named:
            _require(machine, "started", "stopped", "pending", "running")
        stopped = [machine for machine in named if machine.state == "stopped"]
        for machine in stopped:
            zone, kind = machine.model.availability_zone, machine.model.instance_type
            if self._faults.available(zone, kind, 1) < 1:
                self._faults.refused_capacity()
                raise no_capacity(kind, zone)
        before = {machine.id: machine.state for machine in named}
        reply = forward(call)
        if reply.status == 200:
            for machine in named:
                models.become(machine.model, before[machine.id])
            for machine in stopped:
                machine.restart()
        return reply

    def reboot(self, call: Call, forward: Forward) -> Reply:
        """Reboot instances, a moment later.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RebootInstances.html
        """
        named = list(self._named(call))
        for machine in named:
            _require(machine, "rebooted", "running")
        reply = forward(call)
        for machine in named:
            if reply.status == 200:
                machine.ask("reboot")
        return reply

    def terminate(self, call: Call, forward: Forward) -> Reply:
        """Terminate instances; those that are terminated already stay so.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_TerminateInstances.html
        """
        named = list(self._named(call))
        before = {machine.id: machine.state for machine in named}
        reply = forward(call)
        if reply.status == 200:
            for machine in named:
                models.let_go(machine.model)
                if before[machine.id] in ("shutting-down", "terminated"):
                    models.become(machine.model, before[machine.id])
                else:
                    models.become(machine.model, "shutting-down")
                    machine.ask("terminate")
        return reply

    def modify(self, call: Call, forward: Forward) -> Reply:
        """Change an attribute of an instance, the shutdown behaviour too, which moto leaves out.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceAttribute.html
        """
        value = call.form.pop("InstanceInitiatedShutdownBehavior.Value", "")
        if value:
            if value not in ("stop", "terminate"):
                text = f"Invalid value '{value}' for InstanceInitiatedShutdownBehavior."
                raise Refused("InvalidParameterValue", text)
            call.form |= {"Attribute": "instanceInitiatedShutdownBehavior", "Value": value}
        return forward(call)

    def console(self, call: Call, forward: Forward) -> Reply:
        """Return what the guest has written on its console, the last 64 KB of it.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html
        """
        reply = forward(call)
        machine = self._machines.get(call.parameters.get("InstanceId", ""))
        if reply.status != 200 or machine is None:
            return reply
        result: dict[str, object] = {
            "InstanceId": machine.id,
            "Timestamp": datetime.now(timezone.utc),
        }
        late = time.monotonic() < machine.running_at + self._faults.console
        if machine.running_at and not late:
            text = machine.console or (machine.guest.console() if machine.guest else "")
            result["Output"] = base64.b64encode(text.encode()[-CONSOLE_BYTES:]).decode()
        return answer(call, result)

    def _named(self, call: Call) -> Iterable[Machine]:
        """Return the instances that a call names; moto complains of those that there are not."""
        for name in call.parameters.get("InstanceIds") or []:
            machine = self._machines.get(name)
            if machine is not None and not machine.hidden:
                yield machine


def _require(machine: Machine, done: str, *states: str) -> None:
    if machine.state not in states:
        raise Refused(
            "IncorrectInstanceState",
            f"The instance '{machine.id}' is not in a state from which it can be {done}.",
        )

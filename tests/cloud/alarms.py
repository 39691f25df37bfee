"""CloudWatch: what alarms may be made, and when they act, on a clock that may run fast."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from tests.cloud import models
from tests.cloud.calls import Call, Refused, Reply

if TYPE_CHECKING:
    from tests.cloud.machine import Machine

Forward = Callable[[Call], Reply]
DAY, WEEK, HOUR = 86_400, 604_800, 3_600
CORES = os.cpu_count() or 1  # of each host, as of this machine
BASIC, DETAILED = 300.0, 60.0  # seconds between the figures of an instance
LEAST = 0.05  # real seconds, below which a figure would say nothing
REASON = ("Client.UserInitiatedShutdown", "User initiated shutdown")  # by an alarm
AUTOMATE = re.compile(
    r"arn:aws:automate:([a-z]{2}(?:-[a-z]+)+-\d):ec2:(stop|terminate|reboot|recover)"
)
SWF = re.compile(
    r"arn:aws:swf:([a-z]{2}(?:-[a-z]+)+-\d):\d{12}:action/actions/"
    r"AWS_EC2\.InstanceId\.(Stop|Terminate|Reboot|Recover)/1\.0"
)
COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "LessThanThreshold": lambda value, limit: value < limit,
    "LessThanOrEqualToThreshold": lambda value, limit: value <= limit,
    "GreaterThanThreshold": lambda value, limit: value > limit,
    "GreaterThanOrEqualToThreshold": lambda value, limit: value >= limit,
}
STATISTIC: Mapping[str, Callable[[Sequence[float]], float]] = {
    "Average": lambda values: sum(values) / len(values),
    "Minimum": min,
    "Maximum": max,
    "Sum": sum,
    "SampleCount": len,
}


class Clock:
    """Time as the cloud has it: an hour of it may last seconds."""

    def __init__(self, pace: float = 1.0) -> None:
        self.pace = pace
        self._start = time.time()
        self._begun = time.monotonic()
        self._skipped = 0.0

    def now(self) -> float:
        return self._start + (time.monotonic() - self._begun) * self.pace + self._skipped

    def advance(self, seconds: float) -> None:
        """Let so much time have passed, in which every instance did what it does now."""
        self._skipped += seconds


def action(arn: str, region: str) -> str:
    """Return what an action of an alarm does to an instance, or "" where it does something else.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
    """
    found = AUTOMATE.fullmatch(arn) or SWF.fullmatch(arn)
    if found is None:
        if re.match(r"arn:aws:(automate|swf):", arn) or not re.match(
            r"arn:aws:[a-z-]+:[^:]*:", arn
        ):
            raise Refused("ValidationError", f"Invalid arn syntax: {arn}")
        return ""
    if found[1] != region:
        text = f"Invalid region {found[1]} specified. Only {region} is supported."
        raise Refused("ValidationError", text)
    return found[2].lower()


def put_metric_alarm(call: Call, forward: Forward) -> Reply:
    """Make an alarm, unless it looks back too far, or acts on what cannot be.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
    """
    asked = call.parameters
    period, periods = int(asked.get("Period") or 0), int(asked.get("EvaluationPeriods") or 0)
    if period and not (period in (10, 20, 30) or period % 60 == 0):
        text = f"Invalid period {period}: valid values are 10, 20, 30, and any multiple of 60."
        raise Refused("InvalidParameterValue", text)
    most, name = (WEEK, "seven days") if period >= HOUR else (DAY, "a day")
    if period * periods > most:
        raise Refused(
            "ValidationError",
            f"Metrics cannot be checked across more than {name} "
            f"(EvaluationPeriods * Period must be <= {most}).",
        )
    needs_instance = False
    for name in ("AlarmActions", "OKActions", "InsufficientDataActions"):
        for arn in asked.get(name) or []:
            needs_instance |= bool(action(arn, call.region))
    if needs_instance and not any(
        each["Name"] == "InstanceId" for each in asked.get("Dimensions") or []
    ):
        raise Refused("ValidationError", "Dimension InstanceId is required for EC2 actions.")
    known = set(models.cloudwatch(call.region).alarms)
    reply = forward(call)
    for name, alarm in models.cloudwatch(call.region).alarms.items():
        if name not in known:
            alarm.state_value = "INSUFFICIENT_DATA"  # the state of each that is new
    return reply


def judge(points: Sequence[bool | None], need: int, most: int, missing: str) -> str:
    """Return the state that data gives, or "" where it stays as it was.

    ``points`` are whether each of the last periods breaches, the oldest first, and ``None`` where
    there is no data: more of them than the ``most`` that an alarm looks at, so that it may look
    further back for data. https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
    """
    real = [point for point in points if point is not None][-most:]
    gaps = min(points[-most:].count(None), most - len(real))
    breaching = sum(real)
    if breaching >= need:
        return "ALARM"
    if not real:
        empty = {"breaching": "ALARM", "notBreaching": "OK", "ignore": ""}
        return empty.get(missing, "INSUFFICIENT_DATA")
    if missing == "breaching":
        return "ALARM" if breaching + gaps >= need else "OK"
    if missing == "notBreaching" or not all(real):
        return "OK"
    # Only breaching data, and too little of it: it counts once the oldest is old enough.
    oldest = len(points) - next(i for i, point in enumerate(points) if point is not None)
    return "ALARM" if oldest >= need and missing != "ignore" else ""


@dataclass
class Figures:
    """What CloudWatch has of the CPU of one instance: (when, percent)."""

    points: list[tuple[float, float]] = field(default_factory=list)
    burnt: float = 0.0
    looked: float = 0.0  # of the real clock
    due: float = 0.0


class Monitor:
    """Publishes the figures of instances and lets alarms act, in a thread of its own."""

    def __init__(
        self,
        clock: Clock,
        machines: Mapping[str, Machine],
        lock: threading.RLock,
        cpu: Callable[[Machine], float] | None = None,
    ) -> None:
        self.clock = clock
        self.failure: BaseException | None = None
        self._machines = machines
        self._lock = lock
        self._cpu = cpu or _cpu
        self._figures: dict[str, Figures] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloudwatch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(10)

    def watches(self, machine: Machine) -> bool:
        """Tell whether it has begun to measure an instance."""
        return bool(self._figures.get(machine.id, Figures()).looked)

    def points(self, machine: Machine) -> list[tuple[float, float]]:
        """Return the figures of an instance: when, and how many percent."""
        return list(self._figures.get(machine.id, Figures()).points)

    def _run(self) -> None:
        while not self._over.wait(0.1):
            try:
                self.look()
            except BaseException as error:
                self.failure = error
                raise

    def look(self) -> None:
        """Publish what is due, and evaluate every alarm."""
        with self._lock:
            for machine in list(self._machines.values()):
                self._publish(machine)
            for region in {machine.region for machine in self._machines.values()}:
                for alarm in list(models.cloudwatch(region).alarms.values()):
                    self._evaluate(alarm, region)

    def _publish(self, machine: Machine) -> None:
        """Publish the CPU of an instance: every five minutes, or every minute where it is asked.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/manage-detailed-monitoring.html
        """
        figures = self._figures.setdefault(machine.id, Figures())
        if machine.state != "running":
            figures.looked = 0.0
            return
        now, real = self.clock.now(), time.monotonic()
        step = DETAILED if machine.model.monitored else BASIC
        if not figures.looked:
            figures.burnt, figures.looked, figures.due = self._cpu(machine), real, now + step
            return
        if now < figures.due or real - figures.looked < LEAST:
            return
        burnt = self._cpu(machine)
        percent = 100 * max(0.0, burnt - figures.burnt) / (real - figures.looked) / CORES
        percent = min(100.0, percent)
        while figures.due <= now:
            figures.points.append((figures.due, percent))
            self._store(machine, figures.due, percent)
            figures.due += step
        figures.burnt, figures.looked = burnt, real

    def _store(self, machine: Machine, when: float, percent: float) -> None:
        datum = {
            "MetricName": "CPUUtilization",
            "Dimensions": [{"Name": "InstanceId", "Value": machine.id}],
            # As moto has it: of no zone, and meant as UTC.
            "Timestamp": datetime.fromtimestamp(when, timezone.utc).replace(tzinfo=None),
            "Value": percent,
            "Unit": "Percent",
        }
        models.cloudwatch(machine.region).put_metric_data("AWS/EC2", [datum])

    def _evaluate(self, alarm: Any, region: str) -> None:
        names = {each.name: each.value for each in alarm.dimensions}
        name = names.get("InstanceId")
        if (alarm.namespace, alarm.metric_name) != ("AWS/EC2", "CPUUtilization") or not name:
            return
        figures = self._figures.get(name, Figures()).points
        most = int(alarm.evaluation_periods)
        points = self._breaches(alarm, figures, most + 2)
        need = int(alarm.datapoints_to_alarm or most)
        state = judge(points, need, most, alarm.treat_missing_data or "missing")
        if state and state != alarm.state_value:
            alarm.update_state(f"{points[-most:]} of {most}", "{}", state)
            self._act(alarm, state, region, self._machines.get(name))

    def _breaches(
        self, alarm: Any, figures: Sequence[tuple[float, float]], count: int
    ) -> list[bool | None]:
        """Return whether each of the last periods breaches, the oldest first."""
        period, now = float(alarm.period), self.clock.now()
        end = now - now % period
        compare, statistic = COMPARE[alarm.comparison_operator], STATISTIC[alarm.statistic]
        found: list[bool | None] = []
        for index in range(count, 0, -1):
            first = end - index * period
            values = [value for when, value in figures if first < when <= first + period]
            found.append(compare(statistic(values), alarm.threshold) if values else None)
        return found

    def _act(self, alarm: Any, state: str, region: str, machine: Machine | None) -> None:
        """Do what an alarm is to do where its state changes.

        https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/UsingAlarmActions.html
        """
        arns = {
            "ALARM": alarm.alarm_actions,
            "OK": alarm.ok_actions,
            "INSUFFICIENT_DATA": alarm.insufficient_data_actions,
        }[state]
        if machine is None or machine.state != "running" or not alarm.actions_enabled:
            return
        for arn in arns or []:
            what = action(arn, region)
            if what in ("stop", "terminate"):
                machine.leave(what, REASON)
            elif what == "reboot":
                machine.ask("reboot")


def _cpu(machine: Machine) -> float:
    return machine.guest.cpu_seconds() if machine.guest else 0.0

"""What is wrong with the file of an AWSCluster, known before AWS is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flambe.cluster import shutdown
from flambe.cluster.aws.alarms import MOST_HOURS
from flambe.cluster.options import Finding

TAKEN_TAGS = ("creator", "name", "purpose", "cluster-name", "role")
VOLUME_TYPES = ("gp3", "gp2", "standard")


def findings(values: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what is wrong with the keywords."""
    yield from shutdown.findings(values)
    value = values.get("provisioning_timeout", 1)
    if isinstance(value, int | float) and value <= 0:
        yield ("provisioning_timeout",), f"provisioning_timeout cannot be {value}", "hours above 0"
    for name in values.get("tags") or {}:
        if str(name).lower() in TAKEN_TAGS:
            yield ("tags", name), f"tags: {name!r} is set by flambe", "choose another name"
    for name, least in (("factories_num", 0), ("volume_size", 8)):
        value = values.get(name)
        if isinstance(value, int | float) and value < least:
            yield (name,), f"{name} cannot be {value}", f"{least} or more"
    kind = values.get("volume_type", "gp3")
    if kind not in VOLUME_TYPES:
        yield (
            ("volume_type",),
            f"volume_type cannot be {kind!r}",
            f"one of {', '.join(VOLUME_TYPES)}",
        )
    for name in ("factories_type", "orchestrator_type"):
        value = values.get(name)
        if isinstance(value, str) and "." not in value:
            yield (name,), f"{name}: {value!r} is no instance type", "such as t3.large"
    hours = values.get("factories_timeout", shutdown.FOREVER)
    if values.get("factories_alarm") and isinstance(hours, int | float):
        if hours > MOST_HOURS:
            text = f"an alarm of CloudWatch looks back {MOST_HOURS} hours at most"
            yield ("factories_alarm",), text, f"factories_timeout: {MOST_HOURS} or less"
        elif hours < 0:
            text = "factories_alarm has nothing to do: factories_timeout is -1"
            yield ("factories_alarm",), text, "give factories_timeout"

"""What is wrong with the file of an AWSCluster, known before AWS is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flambe.cluster.aws.images import OLD_GPUS, family
from flambe.cluster.options import Finding

FOREVER = -1
TAKEN_TAGS = ("creator", "name", "purpose", "cluster-name", "role")
VOLUME_TYPES = ("gp3", "gp2", "io1", "io2", "st1", "sc1", "standard")


def findings(values: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what is wrong with the keywords."""
    yield from _timeout_findings(values)
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
    old = values.get("factories_type")
    if isinstance(old, str) and family(old) in OLD_GPUS and not values.get("factory_ami"):
        yield (
            ("factories_type",),
            f"current NVIDIA drivers do not serve the GPUs of {old}",
            "choose a newer type, such as g5.xlarge, or give a factory_ami that serves them",
        )


def _timeout_findings(values: Mapping[str, Any]) -> Iterator[Finding]:
    hours = {}
    for name in ("orchestrator_timeout", "factories_timeout"):
        value = values.get(name, FOREVER)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        hours[name] = value
        if value < 0 and value != FOREVER:
            yield (name,), f"{name} cannot be {value}", "hours; 0 at once, -1 for ever"
    value = values.get("provisioning_timeout", 1)
    if isinstance(value, int | float) and value <= 0:
        yield ("provisioning_timeout",), f"provisioning_timeout cannot be {value}", "hours above 0"
    if len(hours) == 2 and hours["orchestrator_timeout"] >= 0:
        longest = hours["orchestrator_timeout"]
        if not 0 <= hours["factories_timeout"] <= longest:
            yield (
                ("factories_timeout",),
                "the factories could outlive the orchestrator",
                f"factories_timeout: {longest} or less, or orchestrator_timeout: -1",
            )

"""What is wrong with the file of an AWSCluster, known before AWS is asked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flambe._grammar import is_one_line
from flambe.cluster.options import Finding
from flambe.cluster.providers.aws.alarms import MOST_HOURS
from flambe.cluster.services import idle_shutdown

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions
LONGEST_TAG, LONGEST_TAG_VALUE, MOST_TAGS = 128, 256, 50
OUR_TAGS = 10  # which an instance has of flambe, once it is ready
TAKEN_PREFIXES = ("aws:", "flambe-")
# EC2 takes "*" and "?" in what it filters by for patterns: the hosts of others would be found.
_CREATOR = re.compile(r"[\w .:/=+@-]{1,256}\Z")
_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_TYPE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+\Z")
_ID = re.compile(r"[\w.:/+=,@ ()-]{1,255}\Z")
IDS = (
    "key_name", "security_group", "orchestrator_ami", "factory_ami", "instance_profile", "profile",
)  # fmt: skip
TAKEN_TAGS = ("creator", "name", "purpose", "cluster-name", "role")
VOLUME_TYPES = ("gp3", "gp2", "standard")


def findings(values: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what is wrong with the keywords."""
    yield from idle_shutdown.findings(values)
    yield from _number_findings(values)
    yield from _tag_findings(values.get("tags") or {})
    yield from _text_findings(values)
    kind = values.get("volume_type", "gp3")
    if kind not in VOLUME_TYPES:
        yield (
            ("volume_type",),
            f"volume_type cannot be {kind!r}",
            f"one of {', '.join(VOLUME_TYPES)}",
        )
    for name in ("factories_type", "orchestrator_type"):
        value = values.get(name)
        if isinstance(value, str) and not _TYPE.match(value):
            yield (name,), f"{name}: {value!r} is not an instance type", "such as t3.large"
    hours = values.get("factories_timeout", idle_shutdown.FOREVER)
    if values.get("factories_alarm") and isinstance(hours, int | float):
        if hours > MOST_HOURS:
            text = f"an alarm of CloudWatch looks back {MOST_HOURS} hours at most"
            yield ("factories_alarm",), text, f"factories_timeout: {MOST_HOURS} or less"
        elif hours < 0:
            text = "factories_alarm has nothing to do: factories_timeout is -1"
            yield ("factories_alarm",), text, "give factories_timeout"


def _number_findings(values: Mapping[str, Any]) -> Iterator[Finding]:
    value = values.get("provisioning_timeout", 1)
    if _is_number(value) and not 0 < value < math.inf:
        yield ("provisioning_timeout",), f"provisioning_timeout cannot be {value}", "hours above 0"
    for name, least in (("factories_num", 0), ("volume_size", 8)):
        value = values.get(name, least)
        if _is_number(value) and not least <= value < math.inf:
            yield (name,), f"{name} cannot be {value}", f"{least} or more"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tag_findings(tags: Mapping[Any, Any]) -> Iterator[Finding]:
    if len(tags) > MOST_TAGS - OUR_TAGS:
        text = f"tags: {len(tags)} are too many: an instance has {MOST_TAGS} at most"
        yield ("tags",), text, f"{MOST_TAGS - OUR_TAGS} or fewer; flambe sets {OUR_TAGS} itself"
    for name, value in tags.items():
        key = str(name).lower()
        if key in TAKEN_TAGS or key.startswith(TAKEN_PREFIXES):
            yield ("tags", name), f"tags: {name!r} is set by flambe or AWS", "choose another name"
        elif not 0 < len(key) <= LONGEST_TAG or not is_one_line(key):
            yield ("tags", name), f"tags: {name!r} is not a name", f"at most {LONGEST_TAG} letters"
        elif len(str(value)) > LONGEST_TAG_VALUE or not is_one_line(str(value)):
            hint = f"one line of at most {LONGEST_TAG_VALUE} letters"
            yield ("tags", name), f"tags: the value of {name!r} is not one of a tag", hint


def _text_findings(values: Mapping[str, Any]) -> Iterator[Finding]:
    creator, region = values.get("creator"), values.get("region_name")
    if isinstance(creator, str) and not _CREATOR.match(creator):
        hint = "letters, digits, spaces and . : / = + @ _ -"
        yield ("creator",), f"creator cannot be {creator!r}", hint
    if isinstance(region, str) and not _REGION.match(region):
        yield ("region_name",), f"{region!r} is not a region", "such as us-east-1"
    for name in IDS:
        if isinstance(values.get(name), str) and not _ID.match(values[name]):
            yield (name,), f"{name} cannot be {values[name]!r}", "as AWS names it, on one line"
    subnets = values.get("subnet_id")
    if subnets == []:
        yield ("subnet_id",), "subnet_id names no subnet", "such as subnet-0123456789abcdef0"
    for number, subnet in enumerate(subnets if isinstance(subnets, list) else [subnets]):
        if isinstance(subnet, str) and not _ID.match(subnet):
            path = ("subnet_id", number) if isinstance(subnets, list) else ("subnet_id",)
            yield path, f"{subnet!r} is not a subnet", "such as subnet-0123456789abcdef0"

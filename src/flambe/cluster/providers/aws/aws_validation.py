"""What can be wrong with the keywords of an AWSCluster, found without asking AWS."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TypeGuard

from flambe._grammar import is_one_line
from flambe.cluster.options import Finding
from flambe.cluster.providers.aws.api.alarms import MOST_HOURS
from flambe.cluster.services import idle_shutdown

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions
MAX_TAG_NAME, MAX_TAG_VALUE, MAX_TAGS = 128, 256, 50
OUR_TAGS = 10  # that flambe sets on an instance until it is ready
RESERVED_PREFIXES = ("aws:", "flambe-")
# Filters of EC2 read "*" and "?" as patterns, which would match the hosts of other creators.
_CREATOR = re.compile(r"[\w .:/=+@-]{1,256}\Z")
_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_TYPE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+\Z")
_ID = re.compile(r"[\w.:/+=,@ ()-]{1,255}\Z")
IDS = (
    "key_name", "security_group", "orchestrator_ami", "factory_ami", "instance_profile", "profile",
)  # fmt: skip
RESERVED_TAGS = ("creator", "name", "purpose", "cluster-name", "role")
VOLUME_TYPES = ("gp3", "gp2", "standard")


def findings(values: Mapping[str, object]) -> Iterator[Finding]:
    """Yield what is wrong with the keywords."""
    yield from idle_shutdown.findings(values)
    yield from _number_findings(values)
    if isinstance(tags := values.get("tags"), Mapping):
        yield from _tag_findings(tags)
    yield from _text_findings(values)
    yield from _subnet_findings(values.get("subnet_id"))
    volume_type = values.get("volume_type", "gp3")
    if volume_type not in VOLUME_TYPES:
        hint = f"one of {', '.join(VOLUME_TYPES)}"
        yield ("volume_type",), f"volume_type cannot be {volume_type!r}", hint
    yield from _alarm_findings(values)
    if isinstance(prices := values.get("prices"), Mapping):
        for instance_type, price in prices.items():
            if _is_number(price) and not 0 <= price < math.inf:
                yield ("prices", instance_type), f"prices: {price} is not a price", "0 or more"


def _alarm_findings(values: Mapping[str, object]) -> Iterator[Finding]:
    hours = values.get("factories_timeout", idle_shutdown.FOREVER)
    if not values.get("factories_alarm") or not _is_number(hours):
        return
    if hours > MOST_HOURS:
        text = f"a CloudWatch alarm looks back {MOST_HOURS} hours at most"
        yield ("factories_alarm",), text, f"factories_timeout: {MOST_HOURS} or less"
    elif hours < 0:
        text = "factories_alarm has nothing to do: factories_timeout is -1"
        yield ("factories_alarm",), text, "set factories_timeout"


def _number_findings(values: Mapping[str, object]) -> Iterator[Finding]:
    hours = values.get("provisioning_timeout", 1)
    if _is_number(hours) and not 0 < hours < math.inf:
        yield ("provisioning_timeout",), f"provisioning_timeout cannot be {hours}", "hours above 0"
    for name, least in (("factories_num", 0), ("volume_size", 8)):
        value = values.get(name, least)
        if _is_number(value) and not least <= value < math.inf:
            yield (name,), f"{name} cannot be {value}", f"{least} or more"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tag_findings(tags: Mapping[object, object]) -> Iterator[Finding]:
    if len(tags) > MAX_TAGS - OUR_TAGS:
        text = f"tags: {len(tags)} are too many: an instance has {MAX_TAGS} at most"
        yield ("tags",), text, f"{MAX_TAGS - OUR_TAGS} or fewer; flambe sets {OUR_TAGS} itself"
    for tag, value in tags.items():
        name = str(tag)
        path = ("tags", name)
        if name.lower() in RESERVED_TAGS or name.lower().startswith(RESERVED_PREFIXES):
            yield path, f"tags: {name!r} is set by flambe or AWS", "choose another name"
        elif not 0 < len(name) <= MAX_TAG_NAME or not is_one_line(name):
            hint = f"one line of at most {MAX_TAG_NAME} characters"
            yield path, f"tags: {name!r} is not a name", hint
        elif len(str(value)) > MAX_TAG_VALUE or not is_one_line(str(value)):
            hint = f"one line of at most {MAX_TAG_VALUE} characters"
            yield path, f"tags: the value of {name!r} is not valid", hint


def _text_findings(values: Mapping[str, object]) -> Iterator[Finding]:
    creator, region = values.get("creator"), values.get("region_name")
    if isinstance(creator, str) and not _CREATOR.match(creator):
        hint = "letters, digits, spaces and . : / = + @ _ -"
        yield ("creator",), f"creator cannot be {creator!r}", hint
    if isinstance(region, str) and not _REGION.match(region):
        yield ("region_name",), f"{region!r} is not a region", "such as us-east-1"
    for name in ("factories_type", "orchestrator_type"):
        value = values.get(name)
        if isinstance(value, str) and not _TYPE.match(value):
            yield (name,), f"{name}: {value!r} is not an instance type", "such as t3.large"
    for name in IDS:
        value = values.get(name)
        if isinstance(value, str) and not _ID.match(value):
            yield (name,), f"{name} cannot be {value!r}", "on one line, as AWS shows it"


def _subnet_findings(subnets: object) -> Iterator[Finding]:
    example = "such as subnet-0123456789abcdef0"
    if subnets == []:
        yield ("subnet_id",), "subnet_id names no subnet", example
    for number, subnet in enumerate(subnets if isinstance(subnets, list) else [subnets]):
        if isinstance(subnet, str) and not _ID.match(subnet):
            path = ("subnet_id", number) if isinstance(subnets, list) else ("subnet_id",)
            yield path, f"{subnet!r} is not a subnet", example

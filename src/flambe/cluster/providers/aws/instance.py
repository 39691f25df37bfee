"""An instance as EC2 describes it: what its tags and its state say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

PURPOSE = "flambe"
LAUNCH = "flambe-launch"  # a tag: the token that an instance was launched with
HOST_KEY = "flambe-host-key"  # a tag: the public host key of an instance
NUMBER = "flambe-number"  # a tag: which host of its cluster it is, once it was reached
READY_WITHIN = "flambe-ready-within"  # a tag: the hours within which it must be
RUNNING, OFF = "running", ("stopped", "stopping")
LIVE = ("pending", RUNNING, *OFF)


def tags_of(one: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of an instance."""
    return {tag["Key"]: tag["Value"] for tag in one.get("Tags", ())}


def state(one: Mapping[str, Any]) -> str:
    """Return the state of an instance."""
    return str(one["State"]["Name"])


def is_settled(one: Mapping[str, Any]) -> bool:
    """Whether an instance was reached once, and given its name."""
    return NUMBER in tags_of(one)


def literal(value: str) -> str:
    """Return a value as a filter of EC2 takes it, which else reads ``*`` and ``?`` as patterns.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
    """
    return re.sub(r"([*?\\])", r"\\\1", value)


def name_of(one: Mapping[str, Any]) -> str:
    """Return the name of an instance in its cluster; nothing, where a factory has none yet."""
    tags = tags_of(one)
    if tags.get("Role") == "Orchestrator":
        return "orchestrator"
    # Others may set tags too, and the name becomes a line of ssh's configuration on the hosts.
    number = tags.get(NUMBER, "")
    return number if re.fullmatch(r"factory_[0-9]{1,6}", number) else ""


def age(one: Mapping[str, Any]) -> float:
    """Return the seconds since an instance was launched, or started last."""
    return float((datetime.now(timezone.utc) - one["LaunchTime"]).total_seconds())

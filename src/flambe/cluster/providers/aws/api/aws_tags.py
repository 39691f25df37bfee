"""The tags by which flambe knows its instances and volumes."""

from __future__ import annotations

PURPOSE = "flambe"  # the value of the tag Purpose
ORCHESTRATOR, FACTORY = "Orchestrator", "Factory"  # the values of the tag Role
LAUNCH_TOKEN = "flambe-launch"  # the token that an instance was launched with
HOST_KEY = "flambe-host-key"  # the public host key of an instance
HOST_NAME = "flambe-number"  # the name of the host in its cluster, set when it was first reached
READY_WITHIN = "flambe-ready-within"  # the hours within which the host must be ready
VOLUME = "flambe-volume"  # the root volume, as the cluster file describes it

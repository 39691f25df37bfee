"""EBS volumes that belong to no instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flambe.cluster.providers.aws.api.aws_errors import translate_errors
from flambe.cluster.providers.aws.api.aws_session import AwsSession
from flambe.cluster.providers.aws.api.aws_tags import PURPOSE
from flambe.cluster.providers.aws.api.instance import parse_tags


@dataclass(frozen=True)
class Volume:
    """A volume: its id, its size in GB, and its tags."""

    id: str
    size: int
    tags: Mapping[str, str]

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Volume:
        """Read a volume of an answer."""
        return cls(answer["VolumeId"], answer["Size"], parse_tags(answer))


def list_detached_volumes(session: AwsSession) -> list[Volume]:
    """Return the volumes of flambe that are attached to no instance."""
    filters = [
        {"Name": "tag:Purpose", "Values": [PURPOSE]},
        {"Name": "status", "Values": ["available"]},
    ]
    with translate_errors("find volumes"):
        pages = session.ec2.get_paginator("describe_volumes").paginate(Filters=filters)
        return [Volume.parse(answer) for page in pages for answer in page["Volumes"]]


def delete_volume(session: AwsSession, volume_id: str) -> None:
    """Delete a volume."""
    with translate_errors(f"remove the volume {volume_id}"):
        session.ec2.delete_volume(VolumeId=volume_id)

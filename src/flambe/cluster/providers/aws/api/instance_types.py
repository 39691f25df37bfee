"""Instance types, as DescribeInstanceTypes answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flambe.cluster.providers.aws.api.aws_errors import translate_errors
from flambe.cluster.providers.aws.api.aws_session import AwsSession

# Types whose GPUs current drivers no longer support.
OLD_GPU_FAMILIES = ("p2", "p3", "p3dn", "g2", "g3", "g3s", "cg1")


def family(instance_type: str) -> str:
    """Return the family of a type: ``g5`` of ``g5.xlarge``."""
    return instance_type.partition(".")[0]


@dataclass(frozen=True)
class InstanceType:
    """An instance type.

    Attributes
    ----------
    name
        ``g5.xlarge``.
    vcpus
        How many vCPUs it has.
    is_arm
        Whether its processors are ARM.
    has_nvidia_gpu
        Whether it has GPUs of NVIDIA.
    """

    name: str
    vcpus: int
    is_arm: bool
    has_nvidia_gpu: bool

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> InstanceType:
        """Read a type of an answer."""
        gpus = answer.get("GpuInfo", {}).get("Gpus", ())
        return cls(
            name=answer["InstanceType"],
            vcpus=int(answer["VCpuInfo"]["DefaultVCpus"]),
            is_arm="arm64" in answer["ProcessorInfo"]["SupportedArchitectures"],
            has_nvidia_gpu="NVIDIA" in {gpu["Manufacturer"] for gpu in gpus},
        )


class InstanceTypes:
    """The instance types of one region; each is looked up once.

    Parameters
    ----------
    session
        The region and its user.
    """

    def __init__(self, session: AwsSession) -> None:
        self._session = session
        self._types: dict[str, InstanceType] = {}

    def get(self, name: str) -> InstanceType:
        """Return a type.

        Raises
        ------
        RunError
            If the region does not have it.
        """
        if name not in self._types:
            with translate_errors(f"find the type {name}"):
                answer = self._session.ec2.describe_instance_types(InstanceTypes=[name])
                self._types[name] = InstanceType.parse(answer["InstanceTypes"][0])
        return self._types[name]

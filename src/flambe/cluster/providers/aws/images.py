"""The images that instances start from, where the file of a cluster names none."""

from __future__ import annotations

from typing import Any

from flambe.cluster.providers.aws.aws_errors import translated
from flambe.cluster.providers.aws.ec2 import Ec2
from flambe.errors import ConfigError, Problem

# https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{arch}/hvm/ebs-gp3/ami-id"
# Of the same Ubuntu, as all hosts of a cluster have the same Python.
# https://docs.aws.amazon.com/dlami/latest/devguide/aws-deep-learning-base-gpu-ami-ubuntu-24-04.html
LEARNING = (
    "/aws/service/deeplearning/ami/{arch}/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
)
# Types whose GPUs the drivers of that image do not serve any more.
OLD_GPUS = ("p2", "p3", "p3dn", "g2", "g3", "g3s", "cg1")


def family(kind: str) -> str:
    """Return the family of an instance type: ``g5`` of ``g5.xlarge``."""
    return kind.partition(".")[0]


def find(ec2: Ec2, given: str | None, kind: str) -> dict[str, Any]:
    """Return the image for instances of a type: the given one, or the current one of its kind.

    Raises
    ------
    ConfigError
        If there is none.
    """
    identity = given or _current(ec2, kind)
    with translated(f"find the image {identity}"):
        found = ec2.ec2.describe_images(ImageIds=[identity])["Images"]
    if not found:
        raise ConfigError(
            Problem(
                f"AWS: there is no image {identity} in {ec2.region}", hint="images are of a region"
            )
        )
    image: dict[str, Any] = found[0]
    return image


def _current(ec2: Ec2, kind: str) -> str:
    known = ec2.type(kind)
    arm = "arm64" in known["ProcessorInfo"]["SupportedArchitectures"]
    makers = {gpu["Manufacturer"] for gpu in known.get("GpuInfo", {}).get("Gpus", ())}
    if "NVIDIA" in makers:
        name = LEARNING.format(arch="arm64" if arm else "x86_64")
    else:
        name = UBUNTU.format(arch="arm64" if arm else "amd64")
    with translated(f"find the current image ({name})"):
        return str(ec2.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])

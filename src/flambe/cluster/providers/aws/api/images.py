"""The images that instances start from: those of the cluster file, or the current default ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flambe.cluster.providers.aws.api.aws_errors import translate_errors
from flambe.cluster.providers.aws.api.aws_session import AwsSession
from flambe.cluster.providers.aws.api.instance_types import InstanceType
from flambe.errors import ConfigError, Problem

# https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{arch}/hvm/ebs-gp3/ami-id"
# Of the same Ubuntu, because all hosts of a cluster have the same Python.
# https://docs.aws.amazon.com/dlami/latest/devguide/aws-deep-learning-base-gpu-ami-ubuntu-24-04.html
DEEP_LEARNING = (
    "/aws/service/deeplearning/ami/{arch}/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
)


@dataclass(frozen=True)
class Image:
    """An image: its id, and the device of its root volume."""

    id: str
    root_device: str

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Image:
        """Read an image of an answer."""
        return cls(answer["ImageId"], answer.get("RootDeviceName") or "/dev/sda1")


def get_image(session: AwsSession, image_id: str) -> Image:
    """Return an image.

    Raises
    ------
    ConfigError
        If the region does not have it.
    """
    with translate_errors(f"find the image {image_id}"):
        answers = session.ec2.describe_images(ImageIds=[image_id])["Images"]
        images = [Image.parse(answer) for answer in answers]
    if not images:
        text = f"AWS: there is no image {image_id} in {session.region}"
        raise ConfigError(Problem(text, hint="each region has its own image ids"))
    return images[0]


def current_image_id(session: AwsSession, instance_type: InstanceType) -> str:
    """Return the current image for a type: with GPU drivers where it has GPUs, else Ubuntu."""
    if instance_type.has_nvidia_gpu:
        name = DEEP_LEARNING.format(arch="arm64" if instance_type.is_arm else "x86_64")
    else:
        name = UBUNTU.format(arch="arm64" if instance_type.is_arm else "amd64")
    with translate_errors(f"find the current image ({name})"):
        return str(session.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])

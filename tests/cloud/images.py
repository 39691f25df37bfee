"""The machine images that there are, and the public parameters that name the newest of a kind."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone

from moto.ec2.models.amis import Ami
from moto.ssm.models import Parameter

from tests.cloud import models

MADE = datetime(2026, 9, 1, tzinfo=timezone.utc)
CANONICAL, AMAZON = "099720109477", "137112412989"
DEEP_LEARNING = "898082745236"


@dataclass(frozen=True)
class Image:
    """A public machine image."""

    name: str
    owner: str
    parameter: str
    architecture: str = "x86_64"
    user: str = "ubuntu"  # the user that the key pair lets in

    @property
    def id(self) -> str:
        return f"ami-{hashlib.sha256(self.name.encode()).hexdigest()[:17]}"


def _ubuntu(release: str, code: str, disk: str, folder: str, kind: str) -> Image:
    architecture = {"amd64": "x86_64"}.get(kind, kind)
    return Image(
        f"ubuntu/images/{folder}/ubuntu-{code}-{release}-{kind}-server-20260901",
        CANONICAL,
        f"/aws/service/canonical/ubuntu/server/{release}/stable/current/{kind}/hvm/{disk}/ami-id",
        architecture,
    )


def _deep_learning(title: str, slug: str) -> Image:
    return Image(
        f"Deep Learning {title} 20260901",
        DEEP_LEARNING,
        f"/aws/service/deeplearning/ami/x86_64/{slug}/latest/ami-id",
    )


# https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/
# https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html
# https://docs.aws.amazon.com/linux/al2023/ug/ec2.html
IMAGES = [
    _ubuntu("22.04", "jammy", "ebs-gp2", "hvm-ssd", "amd64"),
    _ubuntu("22.04", "jammy", "ebs-gp2", "hvm-ssd", "arm64"),
    _ubuntu("24.04", "noble", "ebs-gp3", "hvm-ssd-gp3", "amd64"),
    _ubuntu("24.04", "noble", "ebs-gp3", "hvm-ssd-gp3", "arm64"),
    _deep_learning(
        "Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04)",
        "base-oss-nvidia-driver-gpu-ubuntu-22.04",
    ),
    _deep_learning(
        "Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04)",
        "base-oss-nvidia-driver-gpu-ubuntu-24.04",
    ),
    Image(
        "al2023-ami-2023.9.20260901.0-kernel-6.1-x86_64",
        AMAZON,
        "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64",
        user="ec2-user",
    ),
]
USERS = {image.id: image.user for image in IMAGES}


def publish(region: str) -> None:
    """Let a region have the images and the parameters.

    https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-public-parameters.html
    """
    cloud, parameters = models.ec2(region), models.ssm(region)._parameters
    parameters.latest_amis_loaded = True  # or moto would add those of its own, which nobody has
    for image in IMAGES:
        cloud.amis[image.id] = Ami(
            cloud,
            image.id,
            name=image.name,
            description=image.name,
            owner_id=image.owner,
            owner_alias="amazon",
            public=True,
            virtualization_type="hvm",
            architecture=image.architecture,
            creation_date=MADE,
            hypervisor="xen",
            root_device_type="ebs",
            root_device_name="/dev/sda1",
            region_name=f"{region}a",
        )
        parameters[image.parameter].append(_parameter(image))


def _parameter(image: Image) -> Parameter:
    return Parameter(
        account_id=models.ACCOUNT,
        name=image.parameter,
        value=image.id,
        parameter_type="String",
        description=None,
        allowed_pattern=None,
        keyid=None,
        last_modified_date=MADE,
        version=1,
        data_type="aws:ec2:image",
    )


def named(kind: str) -> str:
    """Return the id of the image whose parameter holds these words, such as ``ubuntu/server/22.04``."""
    return next(image.id for image in IMAGES if kind in image.parameter)

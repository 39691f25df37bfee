"""What EC2 looks at before it launches anything, in the order in which it complains.

The errors are those of https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html
"""

from __future__ import annotations

import base64
import re
from typing import Any

from tests.cloud import models
from tests.cloud.calls import Call, Refused

USER_DATA = 16 * 1024  # bytes


def launch(call: Call, quota: int | None) -> None:
    """Refuse a RunInstances that names what there is not, or what does not go together."""
    asked = call.parameters
    image = _image(call)
    kind = _instance_type(call, image)
    cloud = models.ec2(call.region)
    name = asked.get("KeyName")
    if name and name not in cloud.key_pairs:
        raise Refused("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
    subnet = _subnet(cloud, subnet_id(asked))
    _groups(cloud, asked, subnet)
    zone = zone_of(call)
    if not models.offered(kind, zone):
        raise Refused(
            "Unsupported",
            f"Your requested instance type ({kind}) is not supported in your requested "
            f"Availability Zone ({zone}). Please retry your request by not specifying an "
            "Availability Zone or choosing another one.",
        )
    _disks(asked, image)
    _user_data(asked)
    _quota(call, kind, quota)


def subnet_id(asked: dict[str, Any]) -> str | None:
    """Return the subnet of a launch, which is a parameter or that of its first network card."""
    cards = asked.get("NetworkInterfaces") or [{}]
    found: str | None = asked.get("SubnetId") or cards[0].get("SubnetId")
    return found


def zone_of(call: Call) -> str:
    """Return the zone that a launch goes to."""
    found = models.ec2(call.region)
    subnet = subnet_id(call.parameters)
    if subnet:
        return str(_subnet(found, subnet).availability_zone)
    placement = call.parameters.get("Placement") or {}
    return str(placement.get("AvailabilityZone") or f"{call.region}a")


def _image(call: Call) -> Any:
    name = call.parameters.get("ImageId")
    if not name:
        raise Refused("MissingParameter", "The request must contain the parameter ImageId")
    if not re.fullmatch(r"ami-[0-9a-f]{8}([0-9a-f]{9})?", name):
        raise Refused("InvalidAMIID.Malformed", f'Invalid id: "{name}"')
    image = models.ec2(call.region).amis.get(name)
    if image is None:
        raise Refused("InvalidAMIID.NotFound", f"The image id '[{name}]' does not exist")
    return image


def _instance_type(call: Call, image: Any) -> str:
    name = call.parameters.get("InstanceType") or "m1.small"
    kind = models.instance_type(name)
    if kind is None:
        raise Refused("InvalidParameterValue", f"Invalid value '{name}' for InstanceType.")
    architectures = kind["ProcessorInfo"]["SupportedArchitectures"]
    if image.architecture not in architectures:
        raise Refused(
            "InvalidParameterValue",
            f"The architecture '{','.join(architectures)}' of the specified instance type does not "
            f"match the architecture '{image.architecture}' of the specified AMI. Specify an "
            "instance type and an AMI that have matching architectures, and try again.",
        )
    return str(name)


def _subnet(cloud: Any, name: str | None) -> Any:
    if not name:
        return None
    found = [each for zone in cloud.subnets.values() for each in zone.values() if each.id == name]
    if not found:
        raise Refused("InvalidSubnetID.NotFound", f"The subnet ID '{name}' does not exist")
    return found[0]


def _groups(cloud: Any, asked: dict[str, Any], subnet: Any) -> None:
    cards = asked.get("NetworkInterfaces") or [{}]
    for name in [*(asked.get("SecurityGroupIds") or []), *(cards[0].get("Groups") or [])]:
        group = cloud.get_security_group_from_id(name)
        if group is None:
            text = f"The security group '{name}' does not exist"
            raise Refused("InvalidGroup.NotFound", text)
        if subnet is not None and group.vpc_id != subnet.vpc_id:
            text = f"Security group {name} and subnet {subnet.id} belong to different networks."
            raise Refused("InvalidParameter", text)


def _disks(asked: dict[str, Any], image: Any) -> None:
    [root] = image.block_device_mappings
    least = root["Ebs"]["VolumeSize"]
    for disk in asked.get("BlockDeviceMappings") or []:
        size = (disk.get("Ebs") or {}).get("VolumeSize")
        if disk.get("DeviceName") == root["DeviceName"] and size is not None and size < least:
            raise Refused(
                "InvalidBlockDeviceMapping",
                f"Volume of size {size}GB is smaller than snapshot "
                f"'{root['Ebs']['SnapshotId']}', expect size >= {least}GB",
            )


def _user_data(asked: dict[str, Any]) -> None:
    """Count the bytes of user data.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html
    """
    try:
        size = len(base64.b64decode(asked.get("UserData") or "", validate=True))
    except ValueError:
        raise Refused(
            "InvalidUserData.Malformed", "Invalid BASE64 encoding of user data."
        ) from None
    if size > USER_DATA:
        raise Refused("InvalidParameterValue", f"User data is limited to {USER_DATA} bytes")


def _quota(call: Call, kind: str, quota: int | None) -> None:
    """Count vCPUs, of all that runs.

    https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
    """
    if quota is None:
        return
    running = [i for i in models.instances(call.region) if i.state in ("pending", "running")]
    used = sum(models.vcpus(i.instance_type) for i in running)
    if used + models.vcpus(kind) * int(call.parameters["MinCount"]) > quota:
        raise Refused(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {quota} allows "
            "for the instance bucket that the specified instance type belongs to. Please visit "
            "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
        )

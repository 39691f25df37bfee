"""The parameters of RunInstances."""

from __future__ import annotations

from flambe.cluster.providers.aws import user_data
from flambe.cluster.providers.aws.api.aws_session import AwsSession
from flambe.cluster.providers.aws.api.aws_tags import (
    HOST_KEY,
    LAUNCH_TOKEN,
    PURPOSE,
    READY_WITHIN,
    VOLUME,
)
from flambe.cluster.providers.aws.api.images import Image, current_image_id, get_image
from flambe.cluster.providers.aws.api.instance_types import InstanceTypes
from flambe.cluster.providers.aws.aws_config import AwsConfig, RoleConfig

Parameters = dict[str, object]


class LaunchRequests:
    """Makes the requests for launches of one cluster; images and types are looked up once.

    Parameters
    ----------
    config
        What the cluster file says.
    session
        The region and its user.
    """

    def __init__(self, config: AwsConfig, session: AwsSession) -> None:
        self.config = config
        self.session = session
        self.types = InstanceTypes(session)
        self._images: dict[str, Image] = {}

    def image(self, role: RoleConfig) -> Image:
        """Return the image of a role: that of the cluster file, or the current default one."""
        if role.role not in self._images:
            image_id = role.ami
            if image_id is None:
                instance_type = self.types.get(role.instance_type)
                image_id = current_image_id(self.session, instance_type)
            self._images[role.role] = get_image(self.session, image_id)
        return self._images[role.role]

    def build(
        self, role: RoleConfig, count: int, key: user_data.HostKey, subnet: str, token: str
    ) -> Parameters:
        """Return the parameters that launch instances of a role.

        Parameters
        ----------
        role, count
            The role, and how many instances.
        key
            The host key for their first boot.
        subnet
            Where they are launched.
        token
            What identifies this launch.
        """
        config, image = self.config, self.image(role)
        tags = [{"Key": k, "Value": v} for k, v in self._tags(role, key, token).items()]
        request: Parameters = {
            "ImageId": image.id,
            "InstanceType": role.instance_type,
            "KeyName": config.key_name,
            "NetworkInterfaces": [self._network_interface(subnet)],
            "MinCount": count,
            "MaxCount": count,
            "UserData": user_data.user_data(key, config.reaper_settings(role)),
            "InstanceInitiatedShutdownBehavior": "terminate",
            "MetadataOptions": self._metadata_options(),
            "BlockDeviceMappings": [self._root_volume(image)],
            "TagSpecifications": [
                {"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")
            ],
        }
        if config.instance_profile:
            request["IamInstanceProfile"] = {"Name": config.instance_profile}
        if config.dedicated:
            request["Placement"] = {"Tenancy": "dedicated"}
        if role.spot:
            request["InstanceMarketOptions"] = {
                "MarketType": "spot",
                "SpotOptions": {
                    "SpotInstanceType": "one-time",
                    "InstanceInterruptionBehavior": "terminate",
                },
            }
        return request

    def _tags(self, role: RoleConfig, key: user_data.HostKey, token: str) -> dict[str, str]:
        config = self.config
        return {
            **{name: str(value) for name, value in config.tags.items()},
            "creator": config.creator,
            "Purpose": PURPOSE,
            "Cluster-Name": config.name,
            "Role": role.role,
            "Name": f"{config.name}_{role.label}",
            READY_WITHIN: config.ready_within,
            VOLUME: config.volume,
            HOST_KEY: key.public,
            LAUNCH_TOKEN: token,
        }

    def _metadata_options(self) -> Parameters:
        """Return how hosts get the credentials of their role: by IMDSv2, in containers too."""
        options: Parameters = {"HttpTokens": "required", "HttpEndpoint": "enabled"}
        if self.config.instance_profile:
            # The network of a container is one hop further away.
            options["HttpPutResponseHopLimit"] = 2
        return options

    def _network_interface(self, subnet: str) -> Parameters:
        return {
            "DeviceIndex": 0,
            "SubnetId": subnet,
            "Groups": [self.config.security_group],
            "AssociatePublicIpAddress": self.config.use_public,
        }

    def _root_volume(self, image: Image) -> Parameters:
        return {
            "DeviceName": image.root_device,
            "Ebs": {
                "VolumeSize": round(self.config.volume_size),
                "VolumeType": self.config.volume_type,
                "DeleteOnTermination": True,
            },
        }


def describe_launch(config: AwsConfig, region: str, role: RoleConfig, count: int) -> str:
    """Return what instances of a role are, and when they terminate themselves."""
    if role.timeout < 0:
        end = "until flambe down"
    elif role.timeout == 0:
        end = "ends as soon as it is idle"
    else:
        end = f"ends after {role.timeout:g} h of low use"
    market = ", spot" if role.spot else ""
    market += ", dedicated" if config.dedicated else ""
    return (
        f"{count} x {role.instance_type} as {role.label}{market}, in {region} "
        f"({', '.join(config.subnets)}), {config.volume_size:g} GB each; {end}"
    )

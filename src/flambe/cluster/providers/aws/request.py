"""What EC2 is asked for: the parameters of a launch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flambe.cluster import machine
from flambe.cluster.providers.aws import user_data
from flambe.cluster.providers.aws.images import find
from flambe.cluster.providers.aws.instance import HOST_KEY, LAUNCH, PURPOSE, READY_WITHIN

if TYPE_CHECKING:
    from flambe.cluster.providers.aws.aws_cluster import AWSCluster

ORCHESTRATOR, FACTORY = "Orchestrator", "Factory"
VOLUME = "flambe-volume"  # a tag: the root volume, as the file of the cluster says it


def role_of(name: str) -> str:
    """Return the role of a host, as its tag says it."""
    return ORCHESTRATOR if name == machine.ORCHESTRATOR else FACTORY


class Requests:
    """The launches of one cluster.

    Parameters
    ----------
    cluster
        The cluster.
    """

    def __init__(self, cluster: AWSCluster) -> None:
        self.cluster = cluster
        self._images: dict[str, dict[str, Any]] = {}

    def image(self, role: str) -> dict[str, Any]:
        """Return the image of the instances of a role; it is looked up once."""
        if role not in self._images:
            cluster = self.cluster
            self._images[role] = find(cluster.ec2, cluster.ami(role), cluster.kind(role))
        return self._images[role]

    def launch(
        self, role: str, count: int, key: user_data.HostKey, subnet: str, token: str
    ) -> dict[str, Any]:
        """Return the parameters that launch instances of a role.

        Parameters
        ----------
        role, count
            ``Orchestrator`` or ``Factory``, and how many.
        key
            The host key that they are given for their first boot.
        subnet
            Where.
        token
            What tells this launch from others.
        """
        cluster, image = self.cluster, self.image(role)
        tags = {
            **cluster.tags,
            "creator": cluster.creator,
            "Purpose": PURPOSE,
            "Cluster-Name": cluster.name,
            "Role": role,
            "Name": f"{cluster.name}_{role.lower()}",
            READY_WITHIN: f"{cluster.provisioning_timeout:g}",
            VOLUME: f"{cluster.volume_size:g} GB {cluster.volume_type}",
            HOST_KEY: key.public,
            LAUNCH: token,
        }
        given = [{"Key": name, "Value": str(value)} for name, value in tags.items()]
        request: dict[str, Any] = {
            "ImageId": image["ImageId"],
            "InstanceType": cluster.kind(role),
            "KeyName": cluster.key_name,
            "NetworkInterfaces": [self._network(subnet)],
            "MinCount": count,
            "MaxCount": count,
            "UserData": user_data.user_data(key, cluster.reaping(role)),
            "InstanceInitiatedShutdownBehavior": "terminate",
            "MetadataOptions": self._metadata(),
            "BlockDeviceMappings": [self._volume(image)],
            "TagSpecifications": [
                {"ResourceType": kind, "Tags": given} for kind in ("instance", "volume")
            ],
        }
        if cluster.instance_profile:
            request["IamInstanceProfile"] = {"Name": cluster.instance_profile}
        if cluster.dedicated:
            request["Placement"] = {"Tenancy": "dedicated"}
        if cluster.spot and role == FACTORY:
            request["InstanceMarketOptions"] = {
                "MarketType": "spot",
                "SpotOptions": {
                    "SpotInstanceType": "one-time",
                    "InstanceInterruptionBehavior": "terminate",
                },
            }
        return request

    def _metadata(self) -> dict[str, Any]:
        """Return how the role of a host is had: by IMDSv2, from within containers too."""
        options: dict[str, Any] = {"HttpTokens": "required", "HttpEndpoint": "enabled"}
        if self.cluster.instance_profile:
            # The network of a container is one hop more.
            options["HttpPutResponseHopLimit"] = 2
        return options

    def _network(self, subnet: str) -> dict[str, Any]:
        return {
            "DeviceIndex": 0,
            "SubnetId": subnet,
            "Groups": [self.cluster.security_group],
            "AssociatePublicIpAddress": self.cluster.use_public,
        }

    def _volume(self, image: dict[str, Any]) -> dict[str, Any]:
        return {
            "DeviceName": image.get("RootDeviceName") or "/dev/sda1",
            "Ebs": {
                "VolumeSize": round(self.cluster.volume_size),
                "VolumeType": self.cluster.volume_type,
                "DeleteOnTermination": True,
            },
        }

"""What an account has before anything is launched: a network, a security group, a key pair, images."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cloud import images, models
from tests.metal.host import make_key, public


@dataclass(frozen=True)
class Prepared:
    """The ids of what there is, for the file of a cluster."""

    region: str
    vpc: str
    subnets: dict[str, str]  # zone → id
    security_group: str
    key_name: str
    key: Path  # the private key
    images: dict[str, str]  # the words of its parameter that name it → id

    @property
    def subnet(self) -> str:
        """Return the subnet of the first zone."""
        return next(iter(self.subnets.values()))


def prepare(region: str, network: str, folder: Path) -> Prepared:
    """Make a default VPC of a network, with a subnet in each of two zones, and what goes with it.

    https://docs.aws.amazon.com/vpc/latest/userguide/default-vpc.html
    """
    cloud = models.ec2(region)
    images.publish(region)
    _remove_default_vpc(cloud)
    vpc = cloud.create_vpc(network, is_default=True)
    cloud.default_vpc = vpc
    gateway = cloud.create_internet_gateway()
    cloud.attach_internet_gateway(gateway.id, vpc.id)
    table = cloud.describe_route_tables(filters={"vpc-id": [vpc.id]})[0]
    cloud.create_route(table.id, "0.0.0.0/0", None, gateway_id=gateway.id)
    subnets = {}
    for letter, block in zip("ab", ipaddress.ip_network(network).subnets(1), strict=False):
        subnet = cloud.create_subnet(vpc.id, str(block), availability_zone=f"{region}{letter}")
        subnet.default_for_az, subnet.map_public_ip_on_launch = True, True
        subnets[subnet.availability_zone] = subnet.id
    group = cloud.create_security_group("tests", "ssh from anywhere", vpc_id=vpc.id)
    anywhere = [{"CidrIp": "0.0.0.0/0"}]
    cloud.authorize_security_group_ingress(group.id, "tcp", "22", "22", ip_ranges=anywhere)
    default = cloud.get_security_group_from_name("default", vpc_id=vpc.id)
    for one in (group, default):
        each_other = [{"GroupId": one.id}]
        cloud.authorize_security_group_ingress(
            one.id, "-1", None, None, ip_ranges=[], source_groups=each_other
        )
    key = folder / "tester.pem"
    make_key(key, "tester")
    cloud.import_key_pair("tester", public(key).encode(), {})
    kinds = ("ubuntu/server/22.04", "ubuntu/server/24.04", "deeplearning", "al2023")
    found = {kind: images.named(kind) for kind in kinds}
    return Prepared(region, vpc.id, subnets, group.id, "tester", key, found)


def _remove_default_vpc(cloud: Any) -> None:
    """Remove the network that moto makes, which no host can be in."""
    default = cloud.default_vpc
    for subnet in [one for one in cloud.describe_subnets() if one.vpc_id == default.id]:
        cloud.delete_subnet(subnet.id)
    cloud.delete_vpc(default.id)


def launched_by_ray(cloud: Any, name: str, start: str) -> dict[str, object]:
    """Return a cluster for ``ray up``: its head is made, logged in to, and runs a command as start."""
    prepared = cloud.prepared
    node = {
        "ImageId": prepared.images["ubuntu/server/22.04"],
        "InstanceType": "t3.large",
        "KeyName": prepared.key_name,
        "SubnetIds": [prepared.subnet],
        # With one of its own it would wait half a minute for it to be known everywhere.
        "IamInstanceProfile": {"Name": "head"},
    }
    cloud.client("iam").create_instance_profile(InstanceProfileName="head")
    return {
        "cluster_name": name,
        "max_workers": 0,
        "provider": {
            "type": "aws",
            "region": prepared.region,
            "use_internal_ips": True,
            "cache_stopped_nodes": False,
        },
        "auth": {"ssh_user": "ubuntu", "ssh_private_key": str(prepared.key)},
        "available_node_types": {
            "head": {"node_config": node, "resources": {"CPU": 2}, "max_workers": 0}
        },
        "head_node_type": "head",
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "head_start_ray_commands": [start],
        "worker_start_ray_commands": [],
    }

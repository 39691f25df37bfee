"""Containers on the hosts of a cluster, by the Docker that is installed on them."""

from flambe.cluster.services.docker.container import Container
from flambe.cluster.services.docker.docker import Docker
from flambe.cluster.services.docker.docker_client import DockerError

__all__ = ["Container", "Docker", "DockerError"]

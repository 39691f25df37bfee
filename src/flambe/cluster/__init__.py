"""Clusters: one orchestrator, and factories that do the heavy work."""

from flambe.cluster.cluster import Cluster
from flambe.cluster.machine import Machine
from flambe.cluster.providers.aws import AWSCluster
from flambe.cluster.providers.local.local_cluster import LocalCluster
from flambe.cluster.providers.local.loopback import LoopbackHost
from flambe.cluster.providers.ssh import SSHCluster

__all__ = ["AWSCluster", "Cluster", "LocalCluster", "LoopbackHost", "Machine", "SSHCluster"]

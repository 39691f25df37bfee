"""Clusters: one orchestrator, and factories that do the heavy work."""

from flambe.cluster.aws import AWSCluster
from flambe.cluster.cluster import Cluster
from flambe.cluster.local import LocalCluster
from flambe.cluster.loopback import LoopbackHost
from flambe.cluster.machine import Machine
from flambe.cluster.ssh import SSHCluster

__all__ = ["AWSCluster", "Cluster", "LocalCluster", "LoopbackHost", "Machine", "SSHCluster"]

"""Clusters on Amazon EC2."""

from flambe.cluster.aws.cluster import AWSCluster

__all__ = ["AWSCluster"]
